"""The provider itself: how it is told where the admin API is, and with which token."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tf.iface import Provider
from tf.schema import Attribute, Schema
from tf.types import String

from broker.errors import ConfigurationError
from broker.terraform.client import AdminClient, ApiError, Target
from broker.terraform.main import ADDRESS
from broker.terraform.planned import Planned
from broker.terraform.resources import DATA_SOURCES, RESOURCES
from broker.terraform.values import is_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tf.iface import DataSource, Resource
    from tf.utils import Diagnostics

    Config = dict[str, Any]

_SOON: Final = 86_400
_LONGEST_TOKEN: Final = 1024


class BrokerProvider(Provider):
    """Set a broker's policy with Terraform; `environment` is the process's unless given."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment: Final = os.environ if environment is None else environment
        self.client: AdminClient | None = None
        self.planned: Final = Planned()

    def full_name(self) -> str:
        """Return the provider's source address (`tf.iface.Provider`)."""
        return ADDRESS

    def get_model_prefix(self) -> str:
        """Return what the names of all types begin with (`tf.iface.Provider`)."""
        return "broker_"

    def get_provider_schema(self, diags: Diagnostics) -> Schema:
        """Return the provider's own attributes (`tf.iface.Provider`)."""
        del diags
        return Schema(
            [
                Attribute("url", String(), "Of the admin API; or BROKER_ADMIN_URL.", optional=True),
                Attribute(
                    "token",
                    String(),
                    "An administrator's. Better in BROKER_ADMIN_TOKEN or a file: Terraform writes "
                    "the values of variables into plans.",
                    optional=True,
                    sensitive=True,
                ),
                Attribute(
                    "token_file",
                    String(),
                    "A file with the token; or BROKER_ADMIN_TOKEN_FILE.",
                    optional=True,
                ),
                Attribute(
                    "ca_file",
                    String(),
                    "PEM file of the authorities to trust; or BROKER_ADMIN_CA_FILE.",
                    optional=True,
                ),
                Attribute("comment", String(), "Why, for the policy's history.", optional=True),
            ]
        )

    def validate_config(self, diags: Diagnostics, config: Config) -> None:
        """Refuse two tokens at once (`tf.iface.Provider`)."""
        if config.get("token") is not None and config.get("token_file") is not None:
            diags.add_error("Two tokens", "set token or token_file, not both", path=["token_file"])

    def configure_provider(self, diags: Diagnostics, config: Config) -> None:
        """Find out where the API is and whether it takes the token (`tf.iface.Provider`)."""
        if any(map(is_unknown, config.values())):
            return  # known by the time of the apply; until then nothing can be judged
        try:
            self.client = AdminClient(self._target(config), config.get("comment"))
            who = self.client.who()
        except (ApiError, ConfigurationError) as error:
            self.client = None
            diags.add_error("The broker's admin API cannot be used", str(error))
            return
        left = int(who["expires_at"] - time.time())
        if left < _SOON:
            told = f"token {who['name']} ({who['token']}) expires in {left // 3600} hours"
            diags.add_warning("The token expires soon", told)

    def get_data_sources(self) -> list[type[DataSource]]:
        """Return the data sources (`tf.iface.Provider`)."""
        return list(DATA_SOURCES)

    def get_resources(self) -> list[type[Resource]]:
        """Return the resources (`tf.iface.Provider`)."""
        return list(RESOURCES)

    def _target(self, config: Config) -> Target:
        url = config.get("url") or self._environment.get("BROKER_ADMIN_URL")
        if not url:
            raise ConfigurationError("say where it is: url, or BROKER_ADMIN_URL")
        ca_file = config.get("ca_file") or self._environment.get("BROKER_ADMIN_CA_FILE")
        return Target(url, self._token(config), ca_file)

    def _token(self, config: Config) -> str:
        if config.get("token"):
            return str(config["token"])
        file = config.get("token_file")
        if not file:
            token = self._environment.get("BROKER_ADMIN_TOKEN")
            if token:
                return token
            file = self._environment.get("BROKER_ADMIN_TOKEN_FILE")
        if not file:
            raise ConfigurationError(
                "it needs an administrator's token: BROKER_ADMIN_TOKEN, or token_file; `broker "
                "admin token create NAME --expires 30d --can policy:read,policy:write` makes one"
            )
        try:
            with Path(file).expanduser().open(encoding="utf-8") as opened:
                return opened.read(_LONGEST_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"token_file {file}: cannot be read: {reason}") from None
