"""`POST /token`: HTTP in, OAuth's words out (RFC 6749, 5).

A plain ASGI endpoint: reading the body by hand is what keeps it bounded and unambiguous, and
nothing here needs more. Every answer is JSON with `error` where there is one, never a problem
document: OAuth clients read nothing else. `Broker-Operation` on a refusal names its record in
the audit trail.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from broker.api.body import CallerGone
from broker.api.oauth import Answer, UnreadableRequest, failed, refused, send_answer, unavailable
from broker.api.problems import report
from broker.api.request import Unreadable, read_head, read_parameters
from broker.errors import AuditUnavailable, StorageError, TokenRefused, UpstreamError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from broker.api.metrics import TokenMetrics
    from broker.api.request import Parameters
    from broker.exchange import Exchange, IssuedToken

_AUTH_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,30}")


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
            except UnreadableRequest as unreadable:
                await self._exchange.refuse(unreadable, source)
                raise
            answer = _issued(await self._exchange.token(parameters, source))
        except CallerGone:
            return  # nothing was asked, and nobody listens
        except TokenRefused as refusal:
            answer = refused(refusal)
        except (AuditUnavailable, StorageError, UpstreamError) as error:
            answer = unavailable(error, "no token is issued")
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            answer = failed(report(error, "POST /token"))
        grant_type = next(iter(parameters.get("grant_type", ())), None)
        result = str(answer.document.get("error", "issued"))
        self._metrics.count(grant_type, result, time.perf_counter() - started)
        await send_answer(answer, send)


async def _read(scope: Scope, receive: Receive) -> Parameters:
    """Return a request's parameters; raises `UnreadableRequest`, or `CallerGone`."""
    try:
        headers = read_head(scope)
        if b"authorization" in headers:
            raise _authenticated_by_header(headers[b"authorization"])
        return await read_parameters(headers, receive)
    except Unreadable as error:
        raise UnreadableRequest(
            error.status, str(error), cause=error.cause, headers=error.headers
        ) from None


def _authenticated_by_header(authorization: bytes) -> UnreadableRequest:
    # The challenge must be of the scheme that the client used (RFC 6749, 5.2).
    scheme = _AUTH_SCHEME.match(authorization)
    challenge = (scheme[0] if scheme else b"Bearer") + b' realm="token"'
    return UnreadableRequest(
        401,
        "this endpoint takes no Authorization header: send the proof of identity in the body",
        error="invalid_client",
        cause="authorization_header",
        headers=((b"www-authenticate", challenge),),
    )


def _issued(token: IssuedToken) -> Answer:
    document: dict[str, Any] = {
        "access_token": token.access_token,
        "token_type": "Bearer",
        "expires_in": token.expires_in,
        "scope": " ".join(token.scopes),
    }
    if token.issued_token_type:
        document["issued_token_type"] = token.issued_token_type
    return Answer(200, document)
