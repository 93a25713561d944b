"""The outermost layer of the control plane: no exception leaves it, and no careless header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.api.problems import problem, report

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DEFAULT_HEADERS: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Guard:
    """Answer an exception with a problem that names its log entry; add security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [item for item in _DEFAULT_HEADERS.items() if item[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            identifier = report(error, f"{scope['method']} {scope['path']!a:.200}")
            if started:
                return  # the server closes the connection on an answer that stays incomplete
            response = problem(
                500, "internal_error", f"the broker failed; its log has more under {identifier}"
            )
            await response(scope, receive, guarded)
