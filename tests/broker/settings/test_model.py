from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from broker.settings import ControlSettings, GatewaySettings, Settings

HOME = Path("/srv/broker")


def test_defaults_are_loopback() -> None:
    settings = Settings(HOME)
    assert (settings.control.host, settings.control.port) == ("127.0.0.1", 8700)
    assert (settings.gateway.host, settings.gateway.port) == ("127.0.0.1", 8701)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings(HOME).issuer = "https://other.example.com"  # type: ignore[misc]


def test_addresses() -> None:
    settings = Settings(HOME, issuer="https://broker.example.com")
    assert settings.token_endpoint == "https://broker.example.com/token"
    assert settings.control_url == "http://127.0.0.1:8700"
    assert settings.gateway_url == "http://127.0.0.1:8701"
    assert settings.policies == HOME / "policies"


def test_the_gateways_public_url_goes_before_its_address() -> None:
    settings = Settings(HOME, gateway=GatewaySettings(url="https://gateway.example.com"))
    assert settings.gateway_url == "https://gateway.example.com"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:8700"),  # noqa: S104 - never bound
        ("::", "http://[::1]:8700"),
        ("::1", "http://[::1]:8700"),
    ],
)
def test_callers_on_this_machine_reach_a_listener_on_every_address(
    host: str, expected: str
) -> None:
    assert Settings(HOME, control=ControlSettings(host=host)).control_url == expected


def test_each_setting_says_how_it_is_read() -> None:
    tables = {"home", "control", "gateway", "admin", "audit", "vault", "limits"}
    for item in fields(Settings):
        assert callable(item.metadata.get("read")) is (item.name not in tables)
