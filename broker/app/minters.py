"""The providers that mint: of the policy in force, and of leases that outlive their policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.model import Lease, Service
    from providers.base import Dependencies, Plugin, Provider

_MOST: Final = 256


class Minters:
    """Build providers (`broker.leases.base.Providers`) once for each configuration."""

    def __init__(self, plugins: Mapping[str, Plugin], dependencies: Dependencies) -> None:
        self._plugins: Final = plugins
        self._dependencies: Final = dependencies
        self._built: Final[dict[tuple[str, str], Provider]] = {}

    def of_service(self, service: Service) -> Provider:
        """Return the provider of a service of the policy in force."""
        return self._provider(service.provider, service.config.model_dump_json())

    def of_lease(self, lease: Lease) -> Provider:
        """Return the provider of a lease's service as it was when the lease was opened.

        Raises:
            ConfigurationError: its plugin is gone, or takes that configuration no longer.
        """
        return self._provider(lease.provider, lease.config)

    def _provider(self, kind: str, config: str) -> Provider:
        provider = self._built.get((kind, config))
        if provider is None:
            if len(self._built) >= _MOST:
                self._built.clear()
            provider = self._built[kind, config] = self._build(kind, config)
        return provider

    def _build(self, kind: str, config: str) -> Provider:
        try:
            plugin = self._plugins[kind]
            return plugin.build(
                plugin.service_model.model_validate_json(config), self._dependencies
            )
        except KeyError:
            raise ConfigurationError(
                f"provider {kind!r} is not installed, and credentials of it are; install the "
                "package that has it again"
            ) from None
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
            raise ConfigurationError(
                f"provider {kind!r} no longer takes the service as it was when credentials of it "
                f"were minted ({fields or 'as a whole'}); run the broker of that time"
            ) from None
