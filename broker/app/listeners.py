"""Listening sockets, bound before anything else is started."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from broker.settings import Settings

BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Listeners:
    """Both listening sockets, and the settings with the ports that they have."""

    settings: Settings
    control: socket.socket
    gateway: socket.socket

    def close(self) -> None:
        """Close both."""
        self.control.close()
        self.gateway.close()


def bind(settings: Settings) -> Listeners:
    """Bind both listeners; a port of 0 becomes a free one, and a derived issuer follows it.

    Raises:
        ConfigurationError: an address cannot be bound; says why and what to do.
    """
    control = _bind("control", settings.control.host, settings.control.port)
    try:
        gateway = _bind("gateway", settings.gateway.host, settings.gateway.port)
    except BaseException:
        control.close()
        raise
    derived = settings.issuer == settings.control_url
    bound = replace(
        settings,
        control=replace(settings.control, port=control.getsockname()[1]),
        gateway=replace(settings.gateway, port=gateway.getsockname()[1]),
    )
    return Listeners(
        replace(bound, issuer=bound.control_url) if derived else bound, control, gateway
    )


def _bind(what: str, host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"{what}.host is {host!r}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(_problem(what, host, port, error)) from None
    listener.setblocking(False)
    return listener


def _problem(what: str, host: str, port: int, error: OSError) -> str:
    setting = f"{what}.port in broker.toml, BROKER_{what.upper()}_PORT or --{what}-port"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{host}:{port} is in use, perhaps by a broker that is running already; "
            f"stop that, or choose another port with {setting}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023 with {setting}"
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno or errno.EIO)}"
