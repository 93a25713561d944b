"""Answer in OAuth's words (RFC 6749, 5.2): what its clients read, where they read no problems.

`Broker-Operation` on a refusal names its record in the audit trail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from broker.errors import AuditUnavailable, LimitsUnavailable, StorageError, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import Send

_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"pragma", b"no-cache"),
)
_NOT_IN_A_DESCRIPTION: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749, 5.2


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its JSON document, and headers beside the usual ones."""

    status: int
    document: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()


class UnreadableRequest(TokenRefused):
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


def refused(refusal: TokenRefused, status: int = 400) -> Answer:
    """Tell the caller what it must change; `status` is for a request that could be read."""
    headers = [(b"broker-operation", (refusal.operation or "").encode())]
    if isinstance(refusal, UnreadableRequest):
        status = refusal.status
        headers += refusal.headers
    if refusal.retry_after is not None:
        status = 429
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    return _error(status, refusal.error, str(refusal), headers)


def unavailable(error: Exception, consequence: str) -> Answer:
    """Ask the caller to come again; `consequence` is what an audit failure means here."""
    if isinstance(error, AuditUnavailable):
        message = f"the audit trail cannot record, so {consequence}"
    elif isinstance(error, LimitsUnavailable):
        message = "requests cannot be counted now"
    elif isinstance(error, StorageError):
        message = "the broker's storage does not work"
    else:
        message = "the keys of the proof's issuer cannot be had now"
    retry = ((b"retry-after", b"5"),)
    return _error(503, "temporarily_unavailable", f"{message}; try again later", retry)


def failed(identifier: str) -> Answer:
    """Say where the log has more on a defect."""
    message = f"the broker failed; its log has more under {identifier}"
    return _error(500, "server_error", message)


async def send_answer(answer: Answer, send: Send) -> None:
    """Send a response that nobody may keep."""
    body = orjson.dumps(answer.document)
    length = (b"content-length", b"%d" % len(body))
    headers = [*_HEADERS, *answer.headers, length]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error(
    status: int, error: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> Answer:
    description = _NOT_IN_A_DESCRIPTION.sub("?", message.replace('"', "'"))
    return Answer(
        status,
        {"error": error, "error_description": description},
        (*headers, (b"broker-error", error.encode())),
    )
