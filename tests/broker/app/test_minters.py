from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from broker.app.minters import Minters
from broker.errors import ConfigurationError
from broker.model import Service
from providers.base import Dependencies
from tests.contracts.leases import LEASE
from tests.fakes.vendor_mint import Config, Vendor, plugins

if TYPE_CHECKING:
    from providers.base import Plugin

DEPENDENCIES = Dependencies(None, None, lambda: 0.0)  # type: ignore[arg-type]
OF_LEASE = replace(LEASE, provider="reserving", config='{"account":"acme"}')


def _plugin() -> Plugin:
    return plugins(Vendor(lambda: 0.0))["reserving"]


def _service(plugin: Plugin, account: str = "acme") -> Service:
    config: Any = Config(account=account)
    return Service("db", "reserving", plugin, config, None, ())


def test_a_provider_is_built_once_for_each_configuration() -> None:
    plugin = _plugin()
    minters = Minters({"reserving": plugin}, DEPENDENCIES)
    first = minters.of_service(_service(plugin))
    assert minters.of_service(_service(plugin)) is first
    assert minters.of_lease(OF_LEASE) is first
    assert minters.of_service(_service(plugin, "other")) is not first


def test_a_plugin_that_is_gone() -> None:
    with pytest.raises(ConfigurationError, match="'reserving' is not installed"):
        Minters({}, DEPENDENCIES).of_lease(OF_LEASE)


def test_a_plugin_that_takes_the_configuration_no_longer() -> None:
    class Other(BaseModel):
        tenant: str

    minters = Minters({"reserving": replace(_plugin(), service_model=Other)}, DEPENDENCIES)
    with pytest.raises(ConfigurationError, match=r"no longer takes .* \(tenant\)"):
        minters.of_lease(OF_LEASE)


def test_only_so_many_are_kept() -> None:
    plugin = _plugin()
    minters = Minters({"reserving": plugin}, DEPENDENCIES)
    for number in range(600):
        minters.of_service(_service(plugin, f"a{number}"))
    assert len(minters._built) <= 256
