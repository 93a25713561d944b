"""Answer with problem details (RFC 9457): everywhere but at the token endpoint.

The header `Broker-Error` is on every refusal of the broker's own.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from http import HTTPStatus
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

_log: Final = logging.getLogger(__name__)

_CODES: Final[Mapping[int, str]] = {404: "not_found", 405: "method_not_allowed"}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Return a problem; `code` is one stable word, `detail` a sentence without secrets.

    `members` are more of the document (RFC 9457, 3.2).
    """
    document = {
        "type": f"urn:agent-token-broker:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **(members or {}),
    }
    return Response(
        orjson.dumps(document),
        status,
        {**(headers or {}), "Broker-Error": code},
        media_type="application/problem+json",
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown paths, wrong methods."""
    if not isinstance(error, HTTPException):
        raise TypeError("only registered for HTTPException")
    code = _CODES.get(error.status_code, "refused")
    detail = "there is no such page"
    if error.status_code != HTTPStatus.NOT_FOUND:
        detail = f"{request.method} is not served here"
    return problem(error.status_code, code, detail, headers=error.headers)


def report(error: BaseException, doing: str) -> str:
    """Log an unforeseen exception, and return the id under which it can be found.

    What is logged is its type and where it was raised. Its text and its local values may hold
    secrets and are left out.
    """
    identifier = secrets.token_hex(8)
    frames = " < ".join(
        f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
    )
    _log.error("%s failed with %s (%s) at %s", doing, type(error).__name__, identifier, frames)
    return identifier
