"""`POST /introspect` (RFC 7662) and `POST /revoke` (RFC 7009).

The caller authenticates as at the token endpoint, in the body, or by a task token in the
Authorization header. Answers are OAuth's, as at the token endpoint, except that a caller who is
not known gets 401 (RFC 7662, 2.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from broker.api.body import CallerGone
from broker.api.oauth import Answer, UnreadableRequest, failed, refused, send_answer, unavailable
from broker.api.problems import report
from broker.api.request import BEARER, Unreadable, read_head, read_parameters
from broker.errors import AuditUnavailable, StorageError, TokenRefused, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from broker.api.request import Parameters
    from broker.token_status import Action, TokenStatus

_UNAUTHORIZED: Final = 401
_CHALLENGES: Final[Mapping[str, bytes]] = {
    "invalid_client": b'Bearer realm="broker"',
    "invalid_token": b'Bearer realm="broker", error="invalid_token"',
}


class StatusEndpoint:
    """Serve one of the two endpoints (ASGI)."""

    def __init__(self, status: TokenStatus, does: Literal["introspect", "revoke"]) -> None:
        self._status: Final = status
        self._does: Final = does
        self._action: Final[Action] = "token.introspect" if does == "introspect" else "token.revoke"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        source = scope["client"][0] if scope.get("client") else None
        try:
            answer = await self._answer(scope, receive, source)
        except CallerGone:
            return  # nothing was asked, and nobody listens
        except TokenRefused as refusal:
            answer = _refused(refusal)
        except (AuditUnavailable, StorageError, UpstreamError) as error:
            answer = unavailable(error, "nothing is done")
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            answer = failed(report(error, f"POST /{self._does}"))
        await send_answer(answer, send)

    async def _answer(self, scope: Scope, receive: Receive, source: str | None) -> Answer:
        try:
            parameters, bearer = await _read(scope, receive)
        except Unreadable as error:
            unreadable = UnreadableRequest(
                error.status,
                str(error),
                cause=error.cause,
                error="invalid_client" if error.status == _UNAUTHORIZED else "invalid_request",
                headers=error.headers,
            )
            await self._status.refuse(self._action, unreadable, source)
            raise unreadable from None
        if self._does == "introspect":
            return Answer(200, await self._status.introspect(parameters, bearer, source))
        await self._status.revoke(parameters, bearer, source)
        return Answer(200, {})  # of which clients read the status alone (RFC 7009, 2.2)


async def _read(scope: Scope, receive: Receive) -> tuple[Parameters, bytes | None]:
    """Return a request's parameters and the task token in its header; raises `Unreadable`."""
    headers = read_head(scope)
    authorization, bearer = headers.get(b"authorization"), None
    if authorization is not None:
        match = BEARER.fullmatch(authorization)
        if match is None:
            raise Unreadable(
                _UNAUTHORIZED, "Authorization takes Bearer and a task token", "authorization"
            )
        bearer = match[1]
    return await read_parameters(headers, receive), bearer


def _refused(refusal: TokenRefused) -> Answer:
    challenge = _CHALLENGES.get(refusal.error)
    if challenge is None:
        return refused(refusal)
    answer = refused(refusal, _UNAUTHORIZED)
    return Answer(
        answer.status, answer.document, (*answer.headers, (b"www-authenticate", challenge))
    )
