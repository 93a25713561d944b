from __future__ import annotations

import select
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.app.listeners import bind, reserve
from broker.errors import ConfigurationError
from broker.settings import ControlSettings, GatewaySettings, Settings
from broker.settings.model import AdminSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = Settings(
    Path("/nowhere"),
    issuer="http://127.0.0.1:0",
    control=ControlSettings(port=0),
    gateway=GatewaySettings(port=0),
)


@pytest.fixture
def taken() -> Iterator[int]:
    """Give a port that something listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_port_0_becomes_a_free_one_and_the_issuer_follows() -> None:
    listeners = bind(ANY)
    try:
        settings = listeners.settings
        assert settings.control.port == listeners.control.getsockname()[1] != 0
        assert settings.gateway.port == listeners.gateway.getsockname()[1] != 0
        assert settings.issuer == settings.control_url
        assert settings.gateway_url.endswith(str(settings.gateway.port))
    finally:
        listeners.close()


def test_an_issuer_that_was_chosen_stays() -> None:
    listeners = bind(replace(ANY, issuer="https://broker.example.com"))
    listeners.close()
    assert listeners.settings.issuer == "https://broker.example.com"


def test_a_port_in_use_is_named_with_what_to_do(taken: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{taken} is in use.*--control-po"):
        bind(replace(ANY, control=ControlSettings(port=taken)))
    with pytest.raises(ConfigurationError, match="BROKER_GATEWAY_PORT"):
        bind(replace(ANY, gateway=GatewaySettings(port=taken)))


def test_the_first_is_released_when_the_second_cannot_be_bound(taken: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = replace(ANY, control=ControlSettings(port=port), gateway=GatewaySettings(port=taken))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="gateway"):
            bind(chosen)


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on 192"):
        bind(replace(ANY, control=ControlSettings(host="192.0.2.1", port=0)))
    with pytest.raises(ConfigurationError, match=r"control\.host is 'no such host'"):
        bind(replace(ANY, control=ControlSettings(host="no such host", port=0)))


def test_what_is_reserved_accepts_nothing_until_workers_listen_on_it() -> None:
    reserved = reserve(ANY)
    port = reserved.settings.gateway.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    workers = [bind(reserved.settings, shared=True) for _ in range(2)]
    assert {one.settings.gateway.port for one in workers} == {port}
    gateways = [listeners.gateway for listeners in workers]
    callers, accepted = [], [0, 0]
    for _ in range(64):
        callers.append(socket.create_connection(("127.0.0.1", port), 1))
        for ready in select.select(gateways, [], [], 20)[0]:
            ready.accept()[0].close()
            accepted[gateways.index(ready)] += 1
    assert sum(accepted) == 64
    assert all(accepted), "one of them got everything"
    for caller in callers:
        caller.close()
    for listeners in (reserved, *workers):
        listeners.close()


def test_nobody_else_shares_reserved_ports() -> None:
    reserved = reserve(ANY)
    worker = bind(reserved.settings, shared=True)
    for take in (bind, reserve):
        with pytest.raises(ConfigurationError, match="is in use"):
            take(reserved.settings)
    worker.close()
    reserved.close()


def test_the_admin_api_listens_only_if_it_is_given_a_port(taken: int) -> None:
    listeners = bind(ANY)
    listeners.close()
    assert listeners.admin is None
    assert listeners.settings.admin_url is None
    listeners = bind(replace(ANY, admin=AdminSettings(port=0)))
    try:
        assert listeners.admin is not None
        port = listeners.admin.getsockname()[1]
        assert listeners.settings.admin.port == port != 0
        assert listeners.settings.admin_url == f"http://127.0.0.1:{port}"
    finally:
        listeners.close()
    with pytest.raises(ConfigurationError, match="BROKER_ADMIN_PORT") as refusal:
        bind(replace(ANY, admin=AdminSettings(port=taken)))
    assert "--admin-port" not in str(refusal.value)
