"""The admin API as an ASGI application, put together from the parts it is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from broker.api.admin.door import ADMINISTRATOR, Door
from broker.api.body import CallerGone
from broker.api.guard import Guard
from broker.api.problems import on_http_exception, problem
from broker.api.request import Unreadable
from broker.errors import (
    AdminRefused,
    AuditUnavailable,
    InvalidRequest,
    PolicyConflict,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from broker.administrators import Administrator, Administrators
    from broker.api.admin.policy import PolicyPages
    from broker.audit.base import Trail
    from broker.model import Permission

    Page = Callable[[Request, Administrator], Awaitable[Response]]

PREFIX: Final = "/admin/v1"

_CONFLICTS: Final[Mapping[str, int]] = {
    "exists": 412,
    "changed": 412,
    "absent": 404,
    "in_file": 409,
    "busy": 409,
}


@dataclass(frozen=True, slots=True)
class AdminPlane:
    """What the admin API serves; `hosts` are what its Host header may be."""

    administrators: Administrators
    trail: Trail
    hosts: Collection[str]
    policy: PolicyPages


def create_admin_app(plane: AdminPlane) -> ASGIApp:
    """Return the application; nothing of it answers whoever is no administrator."""
    pages: tuple[tuple[str, str, Permission, Page], ...] = (
        ("GET", "/self", "policy:read", _self),
        ("GET", "/policy", "policy:read", plane.policy.summary),
        ("GET", "/policy/versions", "policy:read", plane.policy.versions),
        ("POST", "/policy/check", "policy:read", plane.policy.check),
        ("POST", "/policy/changes", "policy:write", plane.policy.change),
        ("POST", "/policy/rollback", "policy:write", plane.policy.rollback),
        ("GET", "/policy/{section}", "policy:read", plane.policy.section),
        ("GET", "/policy/{section}/{name}", "policy:read", plane.policy.entry),
    )
    app = Starlette(exception_handlers={HTTPException: on_http_exception})
    app.router.redirect_slashes = False
    door = Door(app, plane.administrators, plane.trail, plane.hosts)
    for method, path, permission, page in pages:
        endpoint = partial(_serve, door, permission, page)
        app.router.routes.append(Route(PREFIX + path, endpoint, methods=[method]))
    return Guard(door)


async def _serve(  # noqa: PLR0911 - one answer for each way to end
    door: Door, permission: Permission, page: Page, request: Request
) -> Response:
    administrator: Administrator = request.scope[ADMINISTRATOR]
    try:
        administrator.require(permission)
        return await page(request, administrator)
    except AdminRefused as refusal:
        return await door.refuse(request.scope, refusal)
    except Unreadable as error:
        answer = problem(error.status, error.cause, str(error))
        return await door.noted(request.scope, f"{error.cause}: {error}", answer)
    except InvalidRequest as error:
        answer = problem(400, "invalid_request", str(error), members={"field": error.field})
        return await door.noted(request.scope, f"invalid_request: {error}", answer)
    except PolicyConflict as error:
        return problem(_CONFLICTS[error.code], error.code, str(error))
    except CallerGone:
        return Response(status_code=400)  # nobody listens
    except (StorageError, AuditUnavailable) as error:
        told = "the audit trail cannot record, so nothing is done"
        if isinstance(error, StorageError):
            told = str(error)
        return problem(503, "unavailable", told, headers={"Retry-After": "5"})


async def _self(request: Request, who: Administrator) -> Response:
    del request
    document = {
        "name": who.name,
        "token": who.token,
        "permissions": who.permissions,
        "expires_at": who.expires_at,
    }
    return Response(orjson.dumps(document), media_type="application/json")
