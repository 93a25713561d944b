"""`POST /credentials`: a task token in, a credential minted for its grant out.

The body (a form, or a JSON object) names the `scope`, and may name the `service`. Problems are
RFC 9457 documents, challenges RFC 6750's. A credential is the agent's once its bytes are
written; of a caller that has hung up by then it is revoked.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from broker.api.body import CallerGone
from broker.api.problems import problem
from broker.api.request import BEARER, Unreadable, read_head, read_parameters
from broker.errors import (
    AuditUnavailable,
    CredentialRefused,
    CredentialUnavailable,
    LimitsUnavailable,
    StorageError,
    TooManyCredentials,
    did_you_mean,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from broker.api.metrics import CredentialMetrics
    from broker.api.request import Parameters
    from broker.leases.minting import Issued, Leases

    Ask = Callable[[], Awaitable[Issued]]

_STATUS: Final = {
    "invalid_request": 400,
    "token_missing": 401,
    "invalid_token": 401,
    "insufficient_scope": 403,
    "delivery_refused": 403,
    "reason_required": 403,
    "too_many_credentials": 429,
    "limit_exceeded": 429,
}
_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"pragma", b"no-cache"),
)
_PARAMETERS: Final = ("scope", "service")
_LONGEST_NAME: Final = 64


class _Unreadable(CredentialRefused):
    """A request that cannot be read; it is answered with `status` and `headers`."""

    def __init__(self, error: Unreadable) -> None:
        super().__init__("invalid_request", str(error))
        self.status = error.status
        self.headers = error.headers


class CredentialEndpoint:
    """Hand out credentials (ASGI)."""

    def __init__(self, leases: Leases, metrics: CredentialMetrics) -> None:
        self.leases: Final = leases
        self._metrics: Final = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        source = scope["client"][0] if scope.get("client") else None
        try:
            ask = await self._read(scope, receive, source)
        except CallerGone:
            return  # nothing was asked, and nobody listens
        except (CredentialRefused, AuditUnavailable) as error:
            await self._refuse(error, scope, receive, send)
            return
        gone = asyncio.create_task(_hung_up(receive))
        try:
            issued = await ask()
        except (CredentialRefused, CredentialUnavailable, StorageError, AuditUnavailable) as error:
            await self._refuse(error, scope, receive, send)
        else:
            await self._deliver(issued, gone, send)
        finally:
            gone.cancel()

    async def asked(self, scope: Scope, receive: Receive, source: str | None) -> Ask:
        """Return what a request asks the leases for; raises `Unreadable`, `CredentialRefused`."""
        headers = read_head(scope)
        token = _token(headers)
        name, service = _names(await read_parameters(headers, receive))
        return partial(self.leases.mint, token, name, service, source)

    def document(self, issued: Issued) -> Mapping[str, Any]:
        """Return a credential as the caller reads it."""
        lease = issued.lease
        document: dict[str, Any] = {
            "lease": lease.id,
            "service": lease.service,
            "scope": lease.scope,
            "expires_at": usable_until(issued),
            "credential": parts(issued),
        }
        if issued.renewable:
            document["renewed_until"] = int(lease.grant_ends_at)
        return document

    async def _read(self, scope: Scope, receive: Receive, source: str | None) -> Ask:
        """Return what is asked for; what is refused is on record."""
        try:
            try:
                return await self.asked(scope, receive, source)
            except Unreadable as error:
                raise _Unreadable(error) from None
        except CredentialRefused as refusal:
            await self.leases.refuse(refusal, source)
            raise

    async def _deliver(self, issued: Issued, gone: asyncio.Task[None], send: Send) -> None:
        """Write the credential; revoke it unless all of it has been written."""
        try:
            body = orjson.dumps(self.document(issued))
            await _write(body, issued.operation, gone, send)
        except BaseException as error:
            await self.leases.abandon(issued, "the caller hung up before it was delivered")
            self._metrics.count("abandoned")
            if isinstance(error, OSError):
                return  # nobody listens
            raise
        await self.leases.delivered(issued)
        await send({"type": "http.response.body", "body": b""})
        self._metrics.count("issued")

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        response = _problem(error)
        self._metrics.count(response.headers["broker-error"])
        await response(scope, receive, send)


async def _hung_up(receive: Receive) -> None:
    """Return once the caller has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(body: bytes, operation: str, gone: asyncio.Task[None], send: Send) -> None:
    """Write an answer but for its end; raise `OSError` if nobody is there to read it.

    Of an answer that has been completed the server does not tell whether it went anywhere.
    """
    headers = [
        *_HEADERS,
        (b"broker-operation", operation.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if gone.done():
        raise ConnectionError
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _token(headers: Mapping[bytes, bytes]) -> bytes:
    authorization = headers.get(b"authorization")
    if authorization is None:
        raise token_missing()
    match = BEARER.fullmatch(authorization)
    if match is None:
        raise CredentialRefused(
            "invalid_token", "the Authorization header is not of the form Bearer <task token>"
        )
    return match[1]


def token_missing() -> CredentialRefused:
    """Return the refusal of a request without a task token."""
    return CredentialRefused(
        "token_missing", "send the task token as Authorization: Bearer <task token>"
    )


def _names(parameters: Parameters) -> tuple[str, str | None]:
    for name, values in parameters.items():
        if name not in _PARAMETERS:
            # A name of the caller's making is not repeated: it may be a secret out of place.
            hint = did_you_mean(name[:_LONGEST_NAME], _PARAMETERS)
            raise _malformed(f"a parameter is unknown; there are scope and service{hint}")
        if len(values) > 1:
            raise _malformed(f"{name} is given twice; collect one credential at a time")
    scope, service = (next(iter(parameters.get(name, ())), "") for name in _PARAMETERS)
    if not scope:
        raise _malformed("scope is missing: name the scope whose credential you want")
    if any(len(name) > _LONGEST_NAME or not name.isprintable() for name in (scope, service)):
        raise _malformed("scope and service are names, of up to 64 characters")
    return scope, service or None


def _malformed(message: str) -> CredentialRefused:
    return CredentialRefused("invalid_request", message)


def parts(issued: Issued) -> dict[str, str]:
    """Return a credential's parts in the clear, for the one who may have it."""
    return {name: one.reveal().decode() for name, one in issued.fields.items()}


def usable_until(issued: Issued) -> int:
    """Return when a credential ends, or its grant does, in seconds since the epoch."""
    return int(min(issued.expires_at, issued.lease.grant_ends_at))


def _problem(error: Exception) -> Response:
    if isinstance(error, CredentialRefused):
        return _refusal(error)
    if isinstance(error, AuditUnavailable):
        text = "the audit trail cannot record, so nothing is minted; try again later"
        return problem(503, "audit_unavailable", text, headers={"Retry-After": "5"})
    if isinstance(error, LimitsUnavailable):
        text = "requests cannot be counted now, so nothing is minted; try again later"
        return problem(503, "limits_unavailable", text, headers={"Retry-After": "5"})
    if isinstance(error, StorageError):
        text = "the broker's storage does not work; try again later"
        return problem(503, "storage_unavailable", text, headers={"Retry-After": "5"})
    if isinstance(error, CredentialUnavailable) and error.retryable:
        return problem(503, "credential_unavailable", str(error), headers={"Retry-After": "5"})
    return problem(502, "credential_refused", str(error))


def _refusal(refusal: CredentialRefused) -> Response:
    status = refusal.status if isinstance(refusal, _Unreadable) else _STATUS[refusal.code]
    headers = {"Broker-Operation": refusal.operation or ""}
    if isinstance(refusal, _Unreadable):
        headers |= {name.decode(): value.decode() for name, value in refusal.headers}
    if refusal.code == "token_missing":
        headers["WWW-Authenticate"] = 'Bearer realm="credentials"'
    elif refusal.code in {"invalid_token", "insufficient_scope"}:
        challenge = f'Bearer realm="credentials", error="{refusal.code}"'
        headers["WWW-Authenticate"] = challenge
    members: dict[str, Any] = {}
    if refusal.rule:
        members = {"rule": refusal.rule, "allowed": list(refusal.allowed)}
    if isinstance(refusal, TooManyCredentials):
        headers["Retry-After"] = str(refusal.retry_after)
        members["limit"] = refusal.limit
    return problem(status, refusal.code, str(refusal), headers=headers, members=members)
