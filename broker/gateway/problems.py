"""What the gateway says when it refuses: problem details (RFC 9457) and challenges (RFC 6750).

A header `Broker-Error` is on every refusal of the broker's own and on nothing else, so that
nobody takes it for the upstream's.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import orjson

from providers.base import ProviderError
from providers.signing import Unsignable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.gateway.base import Resource
    from broker.limits.quota import Exceeded

_log: Final = logging.getLogger(__name__)


class _Kind(NamedTuple):
    status: int
    title: str


KINDS: Final = {
    "malformed_request": _Kind(400, "The request is not well-formed HTTP/1.1"),
    "path_not_canonical": _Kind(400, "The path could be read in more than one way"),
    "token_misplaced": _Kind(400, "The task token is where it would be sent on"),
    "unsignable": _Kind(400, "The request could be signed in more than one way"),
    "token_missing": _Kind(401, "A task token is required"),
    "token_invalid": _Kind(401, "The task token is not valid"),
    "policy_denied": _Kind(403, "Policy does not allow this request"),
    "upgrade_refused": _Kind(403, "The connection cannot change its protocol"),
    "service_unknown": _Kind(404, "There is no such service"),
    "request_timeout": _Kind(408, "The request did not arrive in time"),
    "body_too_large": _Kind(413, "The request body is too large"),
    "target_too_long": _Kind(414, "The request target is too long"),
    "expectation_failed": _Kind(417, "The expectation is not known"),
    "websocket_version_refused": _Kind(426, "That version of the protocol is not spoken here"),
    "limit_exceeded": _Kind(429, "A limit of the scope or of the agent is reached"),
    "head_too_large": _Kind(431, "The request head is too large"),
    "internal_error": _Kind(500, "The gateway failed"),
    "method_refused": _Kind(501, "The method is not let through"),
    "credential_refused": _Kind(502, "The service's credential cannot be used"),
    "upstream_forbidden": _Kind(502, "The service's address is one the broker must not call"),
    "upstream_unreachable": _Kind(502, "The service cannot be reached"),
    "upstream_malformed": _Kind(502, "The service's answer is not well-formed HTTP"),
    "response_unsearchable": _Kind(
        502, "The service's answer cannot be searched for its credential"
    ),
    "response_too_large": _Kind(502, "The service's answer is larger than policy lets it be"),
    "upstream_closed": _Kind(502, "The service closed the connection without an answer"),
    "audit_unavailable": _Kind(503, "The audit trail cannot record, so nothing is sent"),
    "credential_unavailable": _Kind(503, "The service's credential cannot be had at present"),
    "limits_unavailable": _Kind(503, "Requests cannot be counted at present, so none is sent"),
    "overloaded": _Kind(503, "The gateway is at its limit"),
    "revocations_unknown": _Kind(503, "Which task tokens are revoked cannot be known at present"),
    "upstream_timeout": _Kind(504, "The service did not answer in time"),
    "loop_detected": _Kind(508, "The request has come from this gateway itself"),
    "version_refused": _Kind(505, "Only HTTP/1.1 is spoken here"),
}
"""Every way to be refused, by the word in `Broker-Error`."""

_SERVER_ERROR: Final = 500
_NOT_SPOKEN: Final = frozenset({"method_refused", "version_refused"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further.

    `detail` is a sentence for the person who reads it and quotes nothing secret. `rule`,
    `allowed` and `scopes` are those of a `Deny`; `remedy` says what to do next; `note` is for
    the audit trail alone. `final` is true where what follows on the connection cannot be
    trusted to be a request. `limit` names the limit that is reached, and `retry_after` says in
    how many seconds there is room again.
    """

    code: str
    detail: str
    rule: str | None = None
    allowed: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    remedy: str | None = None
    note: str | None = None
    final: bool = False
    limit: str | None = None
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status to answer with."""
        return KINDS[self.code].status

    @property
    def decision(self) -> Literal["deny", "error"]:
        """What the audit trail calls it: a denial is the caller's doing, an error is not."""
        return "deny" if self.status < _SERVER_ERROR or self.code in _NOT_SPOKEN else "error"


UNRECORDED: Final = Refusal("audit_unavailable", "the request could not be put on record")
"""The refusal of everything while the trail cannot record."""


REVOKED: Final = Refusal(
    "token_invalid",
    "the task token was revoked while the request was under way, which may have had its effect",
    note="revoked while the request was under way",
)
"""The end of a request whose grant is revoked before the response is complete."""


def report(error: BaseException, doing: str) -> None:
    """Log a defect: the exception's type and place; its text could hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{PurePath(one.filename).name}:{one.lineno}" for one in reversed(frames))
    _log.error("%s failed with %s at %s", doing, type(error).__name__, places)


LOOP: Final = Refusal(
    "loop_detected",
    "the request has passed through this gateway already: a service leads back to it",
    final=True,
)
"""The refusal of what this gateway has sent itself, on whatever way it came back."""


def malformed(detail: str) -> Refusal:
    """Return the refusal of bytes that are not one clear request."""
    return Refusal("malformed_request", detail, final=True)


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body of more than `limit` bytes."""
    return Refusal("body_too_large", f"at most {limit} bytes are let through", final=True)


def no_credential(error: Exception) -> Refusal:
    """Return the refusal of a request for whose credential the provider has failed."""
    if not isinstance(error, ProviderError):
        report(error, "supplying a credential")
        return Refusal("internal_error", "the gateway could not supply the credential")
    code = "credential_unavailable" if error.retryable else "credential_refused"
    detail = "the provider could not supply the service's credential"
    return Refusal(code, detail, note=str(error))


def unsignable(error: Unsignable) -> Refusal:
    """Return the refusal of a request that its credential cannot sign exactly."""
    return Refusal("unsignable", str(error), final=True)


def unsent(error: Exception) -> Refusal:
    """Return the refusal of a request that could not be written or sent."""
    if isinstance(error, Unsignable):
        return unsignable(error)
    report(error, "sending a request")
    return Refusal("internal_error", "the gateway could not send the request")


def unsearchable(reason: str) -> Refusal:
    """Return the refusal of an answer that could hold the service's credential unseen."""
    return Refusal(
        "response_unsearchable",
        f"the service's answer {reason}, so it cannot be searched for the service's credential; "
        "the request may have had its effect",
        remedy="whoever keeps the policy can say scrub: off for this service",
    )


def over_limit(exceeded: Exceeded) -> Refusal:
    """Return the refusal of a request for which a limit has no room now."""
    wait, remedy = exceeded.wait, f"try again in {exceeded.wait} s"
    if exceeded.kind == "total":
        remedy = "ask for another task token; of this one and of what descends from it no more pass"
    elif exceeded.kind == "concurrent":
        remedy = "try again once one of the requests under way has ended"
    return Refusal(
        "limit_exceeded",
        f"the limit is reached: {exceeded.name}",
        remedy=remedy,
        limit=exceeded.name,
        retry_after=wait,
    )


def over_size(code: Literal["body_too_large", "response_too_large"], limit: str) -> Refusal:
    """Return the refusal of a body that is larger than a limit of the policy."""
    if code == "body_too_large":
        return Refusal(code, f"the limit is {limit}", final=True, limit=limit)
    detail = f"the limit is {limit}; the request may have had its effect"
    return Refusal(code, detail, limit=limit)


def head_too_large(limit: int) -> Refusal:
    """Return the refusal of a head of more than `limit` bytes."""
    return Refusal("head_too_large", f"at most {limit} bytes are read", final=True)


def too_many_fields(limit: int) -> Refusal:
    """Return the refusal of a head of more than `limit` header fields (RFC 6585, 5)."""
    return Refusal("head_too_large", f"at most {limit} header fields are read", final=True)


def render(refusal: Refusal, resource: Resource, *, body: bool, close: bool) -> bytes:
    """Return the whole response; without its body for a HEAD request."""
    document = orjson.dumps(_document(refusal))
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(document)}",
        f"Date: {formatdate(usegmt=True)}",
        "Cache-Control: no-store",
        f"Broker-Error: {refusal.code}",
    ]
    challenge = _challenge(refusal, resource)
    if challenge:
        lines.append(f"WWW-Authenticate: {challenge}")
    options = ["close"] if close else []
    if refusal.status == HTTPStatus.UPGRADE_REQUIRED:  # RFC 6455, 4.4; RFC 9110, 15.5.22
        lines += ["Sec-WebSocket-Version: 13", "Upgrade: websocket"]
        options.append("upgrade")
    if refusal.retry_after is not None or refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {refusal.retry_after or 1}")
    if options:
        lines.append(f"Connection: {', '.join(options)}")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head + document if body else head


def _document(refusal: Refusal) -> dict[str, object]:
    document: dict[str, object] = {
        "type": f"urn:agent-token-broker:{refusal.code}",
        "title": KINDS[refusal.code].title,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    if refusal.code == "policy_denied":
        document |= {"rule": refusal.rule, "allowed": refusal.allowed, "scopes": refusal.scopes}
    if refusal.limit:
        document["limit"] = refusal.limit
    if refusal.remedy:
        document["remedy"] = refusal.remedy
    # Vendors' SDKs show `error.message` and drop all else: without it, a bare "403" is left.
    document["error"] = {
        "type": refusal.code,
        "code": refusal.code,
        "message": "; ".join(_sentences(refusal)),
    }
    return document


def _sentences(refusal: Refusal) -> Iterator[str]:
    yield f"refused by agent-token-broker, not by the service: {refusal.detail}"
    if refusal.allowed:
        yield f"allowed: {', '.join(refusal.allowed)}"
    if refusal.remedy:
        yield refusal.remedy


def _challenge(refusal: Refusal, resource: Resource) -> str | None:
    metadata = f'resource_metadata="{resource.metadata_url}"'
    if refusal.code == "token_missing":
        return f"Bearer {metadata}"
    if refusal.code == "token_invalid":
        return f'Bearer error="invalid_token", {metadata}'
    if refusal.code == "policy_denied":
        scopes = f', scope="{" ".join(refusal.scopes)}"' if refusal.scopes else ""
        return f'Bearer error="insufficient_scope"{scopes}, {metadata}'
    return None
