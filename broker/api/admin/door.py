"""Let administrators in, and nobody else: before a path is looked at or a byte of a body read.

A browser that is made to talk to this listener names a host or an origin that is not ours, and
is turned away (DNS rebinding, CVE-2025-66416). There are no cookies: a page could send nothing
that authenticates it.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from broker.api.problems import problem
from broker.api.request import BEARER, Unreadable, once
from broker.audit.redaction import redact_path
from broker.errors import AdminRefused, AuditUnavailable, StorageError
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from broker.administrators import Administrators
    from broker.audit.base import Trail

ACTION: Final = "admin.request"
ADMINISTRATOR: Final = "administrator"
"""Under which key of the ASGI scope the endpoints find who asks."""

_STATUSES: Final[Mapping[str, int]] = {
    "unauthorized": 401,
    "too_many_failures": 429,
    "forbidden": 403,
    "foreign_host": 403,
    "foreign_origin": 403,
}
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "unauthorized": {"WWW-Authenticate": 'Bearer realm="admin"'},
    "too_many_failures": {"Retry-After": "60"},
}
_OWN_SITE: Final = frozenset({b"same-origin", b"none"})


class Door:
    """Authenticate every request before `app` sees it; every refusal is on record.

    `hosts` are what the Host header may be, in lower case.
    """

    def __init__(
        self, app: ASGIApp, administrators: Administrators, trail: Trail, hosts: Collection[str]
    ) -> None:
        self._app: Final = app
        self._administrators: Final = administrators
        self._trail: Final = trail
        self._hosts: Final = frozenset(host.encode() for host in hosts)
        self._origins: Final = frozenset(
            f"{scheme}://{host}".encode() for host in hosts for scheme in ("http", "https")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            return
        try:
            headers = once(scope)
            self._require_own_site(headers)
            scope[ADMINISTRATOR] = await self._administrators.authenticate(_token(headers))
        except AdminRefused as refusal:
            answer = await self.refuse(scope, refusal)
        except Unreadable as error:
            answer = await self.noted(
                scope, error.cause, problem(error.status, "malformed", str(error))
            )
        except StorageError:
            answer = problem(503, "unavailable", "the broker's storage does not work; try again")
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    async def refuse(self, scope: Scope, refusal: AdminRefused) -> Response:
        """Put on record that somebody may not, and return the answer."""
        status, headers = _STATUSES[refusal.code], _HEADERS.get(refusal.code)
        answer = problem(status, refusal.code, str(refusal), headers=headers)
        return await self.noted(scope, f"{refusal.code}: {refusal.detail or refusal}", answer)

    async def noted(self, scope: Scope, detail: str, answer: Response) -> Response:
        """Put a refusal on record, and return `answer`; or that it cannot be recorded."""
        administrator = scope.get(ADMINISTRATOR)
        record = AuditRecord(
            time=time.time(),
            action=ACTION,
            phase="outcome",
            operation=secrets.token_hex(8),
            decision="deny",
            subject=administrator.subject if administrator else None,
            method=scope["method"],
            path=redact_path(scope["raw_path"]),
            status=answer.status_code,
            source_address=scope["client"][0] if scope.get("client") else None,
            detail=detail,
        )
        try:
            await self._trail.record(record)
        except AuditUnavailable:
            return problem(503, "unavailable", "the audit trail cannot record; try again later")
        return answer

    def _require_own_site(self, headers: Mapping[bytes, bytes]) -> None:
        if headers.get(b"host", b"").lower() not in self._hosts:
            raise AdminRefused(
                "foreign_host",
                "the Host header does not name the admin API; if this is the name by which it is "
                "reached, set url in the table [admin] of broker.toml",
                detail="foreign Host header",
            )
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site", b"none")
        if (origin is not None and origin.lower() not in self._origins) or site not in _OWN_SITE:
            raise AdminRefused(
                "foreign_origin",
                "pages of other sites may not use the admin API",
                detail="foreign Origin or Sec-Fetch-Site header",
            )


def _token(headers: Mapping[bytes, bytes]) -> bytes | None:
    authorization = headers.get(b"authorization")
    if authorization is None:
        return None
    match = BEARER.fullmatch(authorization)
    return match[1] if match else b""
