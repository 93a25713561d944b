"""Mint installation tokens that can do what a scope says and no more, and end them in time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from providers.base import Injection, Minted, ProviderError, Secret
from providers.github_app.api import GithubApi, failed
from providers.github_app.config import RANK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import CredentialRequest, Dependencies
    from providers.github_app.api import Answer
    from providers.github_app.config import GithubAppScope, GithubAppService

TOKEN_LIFE: Final = 3600
"""Seconds that GitHub lets an installation token live, whatever is asked for."""

_IMPLIED: Final = {"metadata": "read"}
_LOOKUP_FOR: Final = 600.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class _Installation:
    """Where an App is installed and what it was granted there; `until` when to look again."""

    id: int
    account: str
    permissions: Mapping[str, Any]
    until: float


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a token is asked for: always both. Names are without their owner."""

    field: str
    repositories: tuple[str | int, ...]
    permissions: Mapping[str, str]

    def body(self) -> bytes:
        """Return what GitHub is sent; raise `ProviderError` rather than leave one of them out."""
        if not self.repositories or not self.permissions:
            raise ProviderError(
                "no token is asked for without repositories and permissions: GitHub would give all"
            )
        body = {self.field: self.repositories, "permissions": dict(self.permissions)}
        return json.dumps(body).encode()


class GithubApp:
    """Mint tokens (`Mints`, `Revocable`), and say how they go into requests (`Presents`)."""

    def __init__(self, config: GithubAppService, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._api: Final = GithubApi(config, dependencies)
        self._clock: Final = dependencies.clock
        self._installation: _Installation | None = None

    async def mint(self, request: CredentialRequest) -> Minted:
        """Mint a token for the scope's repositories and permissions, and see that it is one."""
        installation = await self._installed()
        wanted = self._wanted(request.constraints, installation)
        answer = await self._order(installation, wanted)
        if not httpx.codes.is_success(answer.status):
            # Installed anew, suspended, granted less by now: only another look can tell.
            self._installation = None
            installation, before = await self._installed(), installation
            if installation.id != before.id:
                answer = await self._order(installation, wanted)
        if not httpx.codes.is_success(answer.status):
            raise _refusal(answer, installation, wanted)
        return await self._accept(answer, installation, wanted)

    async def revoke(self, handle: Mapping[str, str]) -> None:
        """End a token, which it does itself."""
        answer = await self._api.as_token("DELETE", "installation/token", handle["token"])
        # 401: it has ended already.
        if answer.status not in {httpx.codes.NO_CONTENT, httpx.codes.UNAUTHORIZED}:
            raise failed(answer)

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:  # noqa: ARG002
        """Return the header that GitHub reads a token from."""
        token = minted.fields["token"]
        return Injection(
            headers=((b"Authorization", Secret(b"Bearer " + token.reveal())),), secrets=(token,)
        )

    async def _installed(self) -> _Installation:
        """Return where the App is installed, as GitHub said within the last minutes."""
        known = self._installation
        if known is None or known.until <= self._clock():
            known = self._installation = await self._look_up()
        return known

    async def _look_up(self) -> _Installation:
        place, answer = self._config.installation, None
        for path in _places(place):
            answer = await self._api.as_app("GET", path)
            if answer.status != httpx.codes.NOT_FOUND:
                break
        if answer is None or answer.status != httpx.codes.OK:
            raise self._not_installed(answer)
        try:
            number, account = answer.document["id"], answer.document["account"]["login"]
            permissions = dict(answer.document["permissions"])
        except (KeyError, TypeError, ValueError):
            raise ProviderError("GitHub's answer does not say where the App is installed") from None
        if not isinstance(number, int) or not isinstance(account, str):
            raise ProviderError("GitHub's answer does not say where the App is installed")
        owner = self._config.owner
        if owner is not None and account.lower() != owner.lower():
            raise ProviderError(f"GitHub's answer for {owner} is the installation of another")
        if answer.document.get("suspended_at") is not None:
            raise ProviderError(
                f"the App's installation on {account} is suspended; whoever suspended it can "
                "lift that in the account's settings, under GitHub Apps",
                code=str(answer.status),
            )
        return _Installation(number, account, permissions, self._clock() + _LOOKUP_FOR)

    def _not_installed(self, answer: Answer | None) -> ProviderError:
        if answer is None or answer.status != httpx.codes.NOT_FOUND:
            return failed(answer) if answer else ProviderError("GitHub was not asked")
        return ProviderError(
            f"App {self._config.app_id} is not installed on {self._config.installation} (404); "
            "install it there, or mend installation in the policy",
            code="404",
        )

    def _wanted(self, scope: GithubAppScope, installation: _Installation) -> _Wanted:
        if scope.repositories is None:
            return _Wanted("repository_ids", scope.repository_ids or (), scope.permissions)
        names = []
        for written in scope.repositories:
            owner, _, name = written.rpartition("/")
            if owner and owner.lower() != installation.account.lower():
                raise ProviderError(
                    f"the installation is that of {installation.account}, and can give no token "
                    f"for a repository of {owner}"
                )
            names.append(name)
        return _Wanted("repositories", tuple(dict.fromkeys(names)), scope.permissions)

    async def _order(self, installation: _Installation, wanted: _Wanted) -> Answer:
        path = f"app/installations/{installation.id}/access_tokens"
        return await self._api.as_app("POST", path, wanted.body())

    async def _accept(self, answer: Answer, installation: _Installation, wanted: _Wanted) -> Minted:
        """Return the token if it is as narrow as was asked for; end it if it is not."""
        token = answer.document.get("token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ProviderError("GitHub's answer holds no token", untouched=False)
        handle = {"token": token}
        problem = _excess(answer.document, installation, wanted)
        expires_at = _epoch(answer.document.get("expires_at"))
        if problem is None and expires_at is not None:
            return Minted({"token": Secret(token.encode())}, expires_at, handle)
        told = problem or "that does not say when it ends"
        try:
            await self.revoke(handle)
        except ProviderError as error:
            raise ProviderError(
                f"GitHub gave a token {told}; it was not used, and could not be revoked: {error}",
                untouched=False,
            ) from None
        raise ProviderError(f"GitHub gave a token {told}; it was revoked unused")


def _places(installation: int | str) -> tuple[str, ...]:
    if isinstance(installation, int):
        return (f"app/installations/{installation}",)
    if "/" in installation:
        return (f"repos/{installation}/installation",)
    return (f"orgs/{installation}/installation", f"users/{installation}/installation")


def _excess(
    document: Mapping[str, Any], installation: _Installation, wanted: _Wanted
) -> str | None:
    """Say what a token can do that was not asked for, or that its answer does not tell."""
    permissions, repositories = document.get("permissions"), document.get("repositories")
    if not isinstance(permissions, dict) or not permissions:
        return "without saying its permissions"
    allowed = {**_IMPLIED, **wanted.permissions}
    for name, level in permissions.items():
        if not isinstance(level, str) or RANK.get(level, 9) > RANK.get(allowed.get(name), 0):
            return f"with more permissions than were asked for: see {_word(name)}"
    if document.get("repository_selection") != "selected" or not isinstance(repositories, list):
        return "without saying its repositories, or for all of them"
    if not repositories or not all(_asked(one, installation, wanted) for one in repositories):
        return "for other repositories than were asked for"
    return None


def _asked(repository: Any, installation: _Installation, wanted: _Wanted) -> bool:
    if not isinstance(repository, dict):
        return False
    if wanted.field == "repository_ids":
        return repository.get("id") in wanted.repositories
    names = {f"{installation.account}/{name}".lower() for name in wanted.repositories}
    return str(repository.get("full_name")).lower() in names


def _refusal(answer: Answer, installation: _Installation, wanted: _Wanted) -> ProviderError:
    """Say why GitHub gave no token, as far as it can be known without its own words."""
    lacking = [
        f"{name}: {level}"
        for name, level in wanted.permissions.items()
        if RANK.get(installation.permissions.get(name), 0) < RANK[level]
    ]
    where = f"the App's installation on {installation.account}"
    if answer.status == httpx.codes.UNPROCESSABLE_ENTITY and lacking:
        text = (
            f"{where} has not been granted {', '.join(lacking)}; add that to the App's "
            "permissions and have the account's owner accept it, or ask for less in the scope"
        )
    elif answer.status == httpx.codes.UNPROCESSABLE_ENTITY:
        text = (
            f"{where} does not have all of {', '.join(map(str, wanted.repositories))}, or there is "
            "no such repository; select it where the App is installed"
        )
    elif answer.status == httpx.codes.FORBIDDEN:
        text = (
            f"{where} may not be used from here: see the account's list of allowed addresses, "
            "and whether the App is suspended"
        )
    elif answer.status == httpx.codes.NOT_FOUND:
        text = f"{where} is gone"
    else:
        return failed(answer)
    return ProviderError(f"{text} (GitHub answered {answer.status})", code=str(answer.status))


def _epoch(told: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return moment.timestamp() if moment.tzinfo else None


def _word(name: Any) -> str:
    return name if isinstance(name, str) and re.fullmatch(r"[a-z_]{1,60}", name) else "the answer"
