"""Call the admin API. What it says of a refusal is for people; a token is never repeated."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from broker import http
from broker.errors import BrokerError, ConfigurationError, UpstreamError
from broker.settings.values import url as read_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT: Final = 30.0

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_FORM: Final = re.compile(r"atbadm_[0-9a-f]{12}_[0-9a-f]{64}")


class ApiError(BrokerError):
    """A request that the admin API did not grant, or that did not reach it.

    `code` is the API's word for it; `problems` is why a policy would not load.
    """

    def __init__(self, code: str, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the API is, and what to show there. Raises `ConfigurationError` for nonsense."""

    url: str
    token: str = field(repr=False)
    ca_file: str | None = None

    def __post_init__(self) -> None:
        try:
            read_url(self.url)
        except ValueError as error:
            raise ConfigurationError(f"the address of the admin API must be {error}") from None
        if not _FORM.fullmatch(self.token):
            raise ConfigurationError(
                "the token is none of an administrator: it begins with atbadm_ and is made by "
                "`broker admin token create`"
            )


class AdminClient:
    """Read and change the policy of the broker at `target`; every call raises `ApiError`."""

    def __init__(self, target: Target, comment: str | None) -> None:
        self._target: Final = target
        self._comment: Final = comment

    def who(self) -> Mapping[str, Any]:
        """Return the token's name, permissions and expiry."""
        return self._call("GET", "/self", holds=("name", "token", "expires_at"))

    def summary(self) -> Mapping[str, Any]:
        """Return which policy is in force."""
        return self._call("GET", "/policy", holds=("policy_version", "version"))

    def entry(self, section: str, name: str) -> Mapping[str, Any] | None:
        """Return an entry with what is known of it, or None."""
        if not _NAME.fullmatch(name):
            return None  # nothing is called so, and it must not become another path
        try:
            return self._call("GET", f"/policy/{section}/{name}", holds=("name", "origin", "body"))
        except ApiError as error:
            if error.code == "not_found":
                return None
            raise

    def check(
        self, edits: Sequence[Mapping[str, Any]], assume: Sequence[Mapping[str, str]]
    ) -> Sequence[Mapping[str, Any]]:
        """Return why the policy would not load with these edits."""
        asked = {"edits": edits, "assume": assume}
        answer = self._call("POST", "/policy/check", asked, holds=("problems",))
        problems: Sequence[Mapping[str, Any]] = answer["problems"]
        return problems

    def put(
        self, section: str, name: str, body: Mapping[str, Any], expected: str | None
    ) -> Mapping[str, Any]:
        """Set an entry that is as `expected` (an etag; None: not there); return it."""
        edit = {"section": section, "name": name, "body": body, "expected": expected}
        answer = self._call("POST", "/policy/changes", self._change(edit), holds=("entries",))
        entry: Mapping[str, Any] = answer["entries"][0]
        return entry

    def remove(self, section: str, name: str, expected: str) -> None:
        """Remove an entry that is as `expected`; one that is gone already is fine."""
        edit = {"section": section, "name": name, "body": None, "expected": expected}
        try:
            self._call("POST", "/policy/changes", self._change(edit))
        except ApiError as error:
            if error.code != "absent":
                raise

    def _change(self, edit: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"edits": [edit], "comment": self._comment}

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        holds: Sequence[str] = (),
    ) -> Mapping[str, Any]:
        """Return the answer, which holds these members at least."""
        return _read(asyncio.run(self._send(method, path, body)), self._target.url, holds)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        target = self._target
        try:
            async with http.client(
                ca_file=target.ca_file,
                timeout=TIMEOUT,
                allow_private=True,
                allow_loopback_http=True,
            ) as client:
                return await client.request(
                    method,
                    f"{target.url.rstrip('/')}/admin/v1{path}",
                    json=body,
                    headers={"Authorization": f"Bearer {target.token}"},
                )
        except (httpx.HTTPError, httpx.InvalidURL, UpstreamError, ConfigurationError) as error:
            told = str(error) if isinstance(error, BrokerError) else type(error).__name__
            raise ApiError(
                "unreachable",
                f"the admin API at {target.url} cannot be reached: {told}. It is off unless the "
                "broker's settings give it a port (`[admin] port`)",
            ) from None


def _read(answer: httpx.Response, url: str, holds: Sequence[str]) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except (ValueError, RecursionError):  # no JSON, or nested deeper than any answer
        document = None
    marked = answer.headers.get("Broker-Error") is not None
    if not isinstance(document, dict) or not (
        marked if answer.is_error else set(holds) <= document.keys()
    ):
        raise ApiError(
            "foreign",
            f"what answers at {url} with {answer.status_code} is no admin API of a broker",
        )
    if answer.is_error:
        raise ApiError(
            str(document.get("code")),
            str(document.get("detail")),
            document.get("problems", ()),
        )
    return document
