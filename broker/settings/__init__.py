"""Settings: the environment over `broker.toml` over defaults, read once, frozen.

A key `port` in the table `[gateway]` of broker.toml is `BROKER_GATEWAY_PORT` in the environment.
Settings hold no secrets: where one is needed, a setting names the file or keyring that has it.
"""

from broker.settings.load import home_directory, load_settings
from broker.settings.model import (
    AuditSettings,
    ControlSettings,
    GatewaySettings,
    LimitsSettings,
    Settings,
    VaultSettings,
)

__all__ = [
    "AuditSettings",
    "ControlSettings",
    "GatewaySettings",
    "LimitsSettings",
    "Settings",
    "VaultSettings",
    "home_directory",
    "load_settings",
]
