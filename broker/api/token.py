"""`POST /token`: HTTP in, OAuth's words out (RFC 6749, 5).

A plain ASGI endpoint: reading the body by hand is what keeps it bounded and unambiguous, and
nothing here needs more. Every answer is JSON with `error` where there is one, never a problem
document: OAuth clients read nothing else. `Broker-Operation` on a refusal names its record in
the audit trail.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from broker.api.body import CallerGone
from broker.api.problems import report
from broker.api.request import Unreadable, read_head, read_parameters
from broker.errors import AuditUnavailable, StorageError, TokenRefused, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from broker.api.metrics import TokenMetrics
    from broker.api.request import Parameters
    from broker.exchange import Exchange, IssuedToken

_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"pragma", b"no-cache"),
)
_NOT_IN_A_DESCRIPTION: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749, 5.2
_AUTH_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response: its JSON document, and headers beside the usual ones."""

    status: int
    document: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def result(self) -> str:
        """What to count this answer as."""
        return str(self.document.get("error", "issued"))


class _Unreadable(TokenRefused):
    """A request that cannot be read; it is answered with `status` and `headers`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        cause: str,
        error: str = "invalid_request",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(error, message, cause=cause)
        self.status = status
        self.headers = headers


class TokenEndpoint:
    """Serve the token endpoint with an exchange (ASGI)."""

    def __init__(self, exchange: Exchange, metrics: TokenMetrics) -> None:
        self._exchange: Final = exchange
        self._metrics: Final = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        parameters: Parameters = {}
        source = scope["client"][0] if scope.get("client") else None
        try:
            try:
                parameters = await _read(scope, receive)
            except _Unreadable as unreadable:
                await self._exchange.refuse(unreadable, source)
                raise
            answer = _issued(await self._exchange.token(parameters, source))
        except CallerGone:
            return  # nothing was asked, and nobody listens
        except TokenRefused as refusal:
            answer = _refused(refusal)
        except (AuditUnavailable, StorageError, UpstreamError) as error:
            answer = _unavailable(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            answer = _failed(report(error, "POST /token"))
        grant_type = next(iter(parameters.get("grant_type", ())), None)
        self._metrics.count(grant_type, answer.result, time.perf_counter() - started)
        await _send(answer, send)


async def _read(scope: Scope, receive: Receive) -> Parameters:
    """Return a request's parameters; raises `_Unreadable`, or `CallerGone`."""
    try:
        headers = read_head(scope)
        if b"authorization" in headers:
            raise _authenticated_by_header(headers[b"authorization"])
        return await read_parameters(headers, receive)
    except Unreadable as error:
        raise _Unreadable(
            error.status, str(error), cause=error.cause, headers=error.headers
        ) from None


def _authenticated_by_header(authorization: bytes) -> _Unreadable:
    # The challenge must be of the scheme that the client used (RFC 6749, 5.2).
    scheme = _AUTH_SCHEME.match(authorization)
    challenge = (scheme[0] if scheme else b"Bearer") + b' realm="token"'
    return _Unreadable(
        401,
        "this endpoint takes no Authorization header: send the proof of identity in the body",
        error="invalid_client",
        cause="authorization_header",
        headers=((b"www-authenticate", challenge),),
    )


def _issued(token: IssuedToken) -> _Answer:
    document: dict[str, Any] = {
        "access_token": token.access_token,
        "token_type": "Bearer",
        "expires_in": token.expires_in,
        "scope": " ".join(token.scopes),
    }
    if token.issued_token_type:
        document["issued_token_type"] = token.issued_token_type
    return _Answer(200, document)


def _refused(refusal: TokenRefused) -> _Answer:
    status, headers = 400, [(b"broker-operation", (refusal.operation or "").encode())]
    if isinstance(refusal, _Unreadable):
        status = refusal.status
        headers += refusal.headers
    return _error(status, refusal.error, str(refusal), headers)


def _unavailable(error: Exception) -> _Answer:
    if isinstance(error, AuditUnavailable):
        message = "the audit trail cannot record, so no token is issued"
    elif isinstance(error, StorageError):
        message = "the broker's storage does not work"
    else:
        message = "the keys of the proof's issuer cannot be had now"
    retry = ((b"retry-after", b"5"),)
    return _error(503, "temporarily_unavailable", f"{message}; try again later", retry)


def _failed(identifier: str) -> _Answer:
    message = f"the broker failed; its log has more under {identifier}"
    return _error(500, "server_error", message)


def _error(
    status: int, error: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> _Answer:
    description = _NOT_IN_A_DESCRIPTION.sub("?", message.replace('"', "'"))
    return _Answer(
        status,
        {"error": error, "error_description": description},
        (*headers, (b"broker-error", error.encode())),
    )


async def _send(answer: _Answer, send: Send) -> None:
    body = orjson.dumps(answer.document)
    length = (b"content-length", b"%d" % len(body))
    headers = [*_HEADERS, *answer.headers, length]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
