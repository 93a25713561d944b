"""Speak to GitHub: as the App, or with one of its tokens; and say in words what it refuses.

Of what GitHub answers nothing is repeated but the status: its texts may quote the request.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import jwt

from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import Dependencies, Secret
    from providers.github_app.config import GithubAppService

API_VERSION: Final = "2022-11-28"
"""The version of GitHub's REST API that every call asks for."""

_BACKDATED: Final = 60
_JWT_LIFE: Final = 540
_JWT_USE: Final = 300.0
_PATIENCE: Final = 10.0
_LONGEST_ANSWER: Final = 8 << 20
_DEFAULT_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """What GitHub answers; `document` is {} where it is no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Proof:
    """A signed statement of who the App is; `made` is wall time."""

    key: Secret
    jwt: str = field(repr=False)
    made: float


class GithubApi:
    """Call GitHub. Each call is made once, and ends within seconds.

    Connections are not kept: there are few calls, and none is in anybody's way.
    """

    def __init__(self, config: GithubAppService, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._secrets: Final = dependencies.secrets
        self._http: Final = dependencies.http
        self._clock: Final = dependencies.clock
        self._limited_until = {True: 0.0, False: 0.0}  # for the App itself, and for its tokens
        self._proof: _Proof | None = None

    async def as_app(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Call as the App itself; a rate limit, a wrong key or an outage is a `ProviderError`.

        While GitHub limits the App nothing is sent: who goes on asking is locked out for longer.
        """
        answer = await self._ask(None, method, path, body)
        if answer.status == httpx.codes.UNAUTHORIZED:
            raise ProviderError(
                f"GitHub does not take the proof that this is App {self._config.app_id} (401): "
                "private_key is not one of its keys (any more), app_id is another App's, or "
                "this machine's clock is off by more than a minute",
                code="401",
            )
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise failed(answer, untouched=method == "GET")
        return answer

    async def as_token(self, method: str, path: str, token: str) -> Answer:
        """Call with an installation token, which has limits of its own; they, too, are kept to."""
        return await self._ask(token, method, path, None)

    async def _ask(self, token: str | None, method: str, path: str, body: bytes | None) -> Answer:
        """Call GitHub, as the App or with a token, unless it wants to be left alone just now."""
        of_app = token is None
        wait = self._limited_until[of_app] - self._clock()
        if wait > 0:
            raise _limited(wait, None)
        answer = await self._call(method, path, token or await self._app_jwt(), body)
        pause = _pause(answer, self._clock())
        if pause is not None:
            self._limited_until[of_app] = self._clock() + pause
            raise _limited(pause, answer.status)
        return answer

    async def _app_jwt(self) -> str:
        """Return the App's proof of who it is, good for minutes from now."""
        key, now = await self._secrets.read(self._config.private_key), self._clock()
        proof = self._proof
        # Reading a key in PEM takes far longer than signing with it.
        if proof is None or proof.key != key or not proof.made <= now < proof.made + _JWT_USE:
            proof = self._proof = _Proof(key, await self._sign(key, int(now)), now)
        return proof.jwt

    async def _sign(self, key: Secret, now: int) -> str:
        claims = {
            # Backdated, for a clock that is ahead of GitHub's would make a token of the future.
            "iat": now - _BACKDATED,
            "exp": now + _JWT_LIFE,
            "iss": str(self._config.app_id),
        }
        try:
            return await asyncio.to_thread(jwt.encode, claims, key.reveal(), "RS256")
        except (ValueError, TypeError, jwt.PyJWTError):
            raise ProviderError(
                f"the value of {self._config.private_key} is no RSA private key in PEM; store the "
                "file that GitHub made when the key was created, as it is"
            ) from None

    async def _call(self, method: str, path: str, bearer: str, body: bytes | None) -> Answer:
        config = self._config
        headers = {
            "Accept": "application/vnd.github+json",
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {bearer}",
            "X-GitHub-Api-Version": API_VERSION,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self._http(
                    ca_file=config.ca_file,
                    allow_private=config.allow_private,
                    allow_loopback_http=config.insecure_http,
                ) as client,
                client.stream(
                    method, f"{config.base_url}/{path}", headers=headers, content=body
                ) as response,
            ):
                content = await _read(response)
        except TimeoutError:
            raise ProviderError(
                f"GitHub did not answer within {_PATIENCE:.0f} s",
                retryable=True,
                untouched=method == "GET",
            ) from None
        except (httpx.HTTPError, ExceptionGroup) as error:
            # The class alone: its text may quote what the other side sent.
            raise ProviderError(
                f"GitHub cannot be reached at {config.base_url}: {type(error).__name__}",
                retryable=True,
                untouched=method == "GET" or isinstance(error, _NEVER_SENT),
            ) from None
        return Answer(response.status_code, response.headers, _document(content))


def failed(answer: Answer, *, untouched: bool = False) -> ProviderError:
    """Return the error for an answer that nothing better can be said of."""
    outage = answer.status >= httpx.codes.INTERNAL_SERVER_ERROR
    return ProviderError(
        f"GitHub answered {answer.status}",
        retryable=outage,
        code=str(answer.status),
        untouched=untouched or not outage,
    )


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > _LONGEST_ANSWER:
            raise ProviderError(f"GitHub sent more than {_LONGEST_ANSWER} bytes", untouched=False)
    return bytes(content)


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _pause(answer: Answer, now: float) -> float | None:
    """Return for how many seconds GitHub wants to be left alone, or None if it does not.

    https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if answer.status not in {httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS}:
        return None
    after = _seconds(answer.headers.get("retry-after"))
    reset = _seconds(answer.headers.get("x-ratelimit-reset"))
    told = f"{answer.document.get('message')} {answer.document.get('documentation_url')}".lower()
    if after is not None:
        pause = after
    elif answer.headers.get("x-ratelimit-remaining") == "0" and reset is not None:
        pause = reset - now
    elif answer.status == httpx.codes.TOO_MANY_REQUESTS or "rate limit" in told.replace("-", " "):
        pause = _DEFAULT_PAUSE
    else:
        return None
    return min(max(pause, 1.0), _LONGEST_PAUSE)


def _seconds(value: str | None) -> float | None:
    whole = value is not None and value.isascii() and value.isdecimal() and len(value) < 16  # noqa: PLR2004 - no time is longer
    return float(value) if value is not None and whole else None


def _limited(wait: float, status: int | None) -> ProviderError:
    return ProviderError(
        f"GitHub limits how often the App may ask; it will be asked again in {wait:.0f} s",
        retryable=True,
        code=None if status is None else str(status),
        untouched=True,
    )
