"""Find the provider plugins that are installed, and load each when a policy first names it.

The broker's own are the modules of `providers`; others are entry points of the group
`agent_token_broker.providers`, whose name is the policy's `provider:` value and whose object
is a `providers.base.Plugin`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import providers
from broker.errors import ConfigurationError
from providers.base import Plugin

GROUP: Final = "agent_token_broker.providers"

_CONTRACT: Final = frozenset({"base", "bearer", "denial", "signing", "state", "tokens"})


class InstalledPlugins(Mapping[str, Plugin]):
    """The installed plugins by kind; a plugin's module is imported when it is looked up.

    Looking one up raises `KeyError` for a kind that is not installed and
    `ConfigurationError` for a plugin that cannot be used, which names it and says why.
    """

    def __init__(self) -> None:
        self._own: Final = frozenset(
            module.name
            for module in pkgutil.iter_modules(providers.__path__)
            if module.name not in _CONTRACT and not module.name.startswith("_")
        )
        self._foreign: Final = {point.name: point for point in entry_points(group=GROUP)}
        self._loaded: Final[dict[str, Plugin]] = {}

    def __getitem__(self, kind: str) -> Plugin:
        if kind not in self._loaded:
            self._loaded[kind] = self._load(kind)
        return self._loaded[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._own | self._foreign.keys()))

    def __len__(self) -> int:
        return len(self._own | self._foreign.keys())

    def _load(self, kind: str) -> Plugin:
        point = self._foreign.get(kind)
        if kind in self._own and point is not None:
            raise ConfigurationError(
                f"provider {kind!r} is the broker's own, and {point.value} wants to take its "
                "place; uninstall that package or rename its entry point"
            )
        if kind not in self._own and point is None:
            raise KeyError(kind)
        plugin = _imported(kind, point)
        if not isinstance(plugin, Plugin) or plugin.kind != kind:
            raise ConfigurationError(
                f"provider {kind!r} is no providers.base.Plugin of that kind; "
                "its package is broken or of another version"
            )
        return plugin


def _imported(kind: str, point: EntryPoint | None) -> object:
    try:
        if point is not None:
            return point.load()
        return import_module(f"providers.{kind}").PLUGIN
    except Exception as error:
        raise ConfigurationError(
            f"provider {kind!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
