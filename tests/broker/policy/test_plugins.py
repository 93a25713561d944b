from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError
from broker.policy import plugins
from broker.policy.plugins import GROUP, InstalledPlugins
from tests.fakes.policies import CLOUD

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Stand in for packages that declare an entry point `name` for an object."""
    points: list[EntryPoint] = []

    def add(name: str, target: object) -> None:
        module = ModuleType(f"third_party_{name}")
        module.plugin = target  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(EntryPoint(name, f"{module.__name__}:plugin", GROUP))

    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == GROUP else [])
    return add


def test_the_brokers_own_are_the_modules_of_providers() -> None:
    installed = InstalledPlugins()
    assert "http_api" in installed
    assert "base" not in installed
    assert installed["http_api"].kind == "http_api"
    assert installed["http_api"] is installed["http_api"]
    assert len(installed) == len(list(installed))


def test_those_of_other_packages_are_entry_points(install: Callable[[str, object], None]) -> None:
    install("cloud", CLOUD)
    installed = InstalledPlugins()
    assert {"cloud", "http_api"} <= set(installed)
    assert installed["cloud"] is CLOUD


def test_an_unknown_kind_is_a_key_error() -> None:
    installed = InstalledPlugins()
    for kind in ("nothing", "base", "__init__", "../x", "os"):
        assert kind not in installed
        with pytest.raises(KeyError):
            installed[kind]


def test_nobody_takes_the_place_of_an_own_one(install: Callable[[str, object], None]) -> None:
    install("http_api", CLOUD)
    with pytest.raises(ConfigurationError, match=r"'http_api'.*third_party_http_api"):
        InstalledPlugins()["http_api"]


@pytest.mark.parametrize("target", [None, "text", {"kind": "broken"}, CLOUD])
def test_what_is_no_plugin_of_its_name_is_refused(
    install: Callable[[str, object], None], target: object
) -> None:
    install("broken", target)
    with pytest.raises(ConfigurationError, match=r"no providers\.base\.Plugin of that kind"):
        InstalledPlugins()["broken"]


def test_one_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("missing", "no_such_package:plugin", GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == GROUP else [])
    with pytest.raises(ConfigurationError, match="'missing' cannot be loaded: ModuleNotFound"):
        InstalledPlugins()["missing"]


def test_finding_them_imports_none(install: Callable[[str, object], None]) -> None:
    install("cloud", CLOUD)
    del sys.modules["third_party_cloud"]
    assert "cloud" in list(InstalledPlugins())
