"""The settings themselves: what each is, its default, and how its value is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.settings import values

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where the control plane listens."""

    host: str = field(default="127.0.0.1", metadata={"read": values.text})
    port: int = field(default=8700, metadata={"read": values.port})


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where the gateway listens, how agents reach it, and what it bears.

    `url` is for agents that do not reach it by `host` and `port`. `body_size` is the most bytes
    of one request's body; `connections` and `upstream_connections` are the most there may be at
    once; `idle_timeout` is how long, in seconds, an agent may keep one open between requests.
    """

    host: str = field(default="127.0.0.1", metadata={"read": values.text})
    port: int = field(default=8701, metadata={"read": values.port})
    url: str | None = field(default=None, metadata={"read": values.url})
    body_size: int = field(default=16 << 30, metadata={"read": values.size})
    connections: int = field(default=8192, metadata={"read": values.count})
    upstream_connections: int = field(default=4096, metadata={"read": values.count})
    idle_timeout: int = field(default=75, metadata={"read": values.duration})


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where the admin API listens; without `port` it is off.

    It has a listener of its own, so that a firewall can keep agents from it. `url` is how
    administrators reach it, where that is not by `host` and `port`: requests must name its host.
    """

    host: str = field(default="127.0.0.1", metadata={"read": values.text})
    port: int | None = field(default=None, metadata={"read": values.port})
    url: str | None = field(default=None, metadata={"read": values.url})


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """When the trail begins a new segment: `rotate_size` in bytes, `rotate_age` in seconds."""

    rotate_size: int = field(default=64 << 20, metadata={"read": values.size})
    rotate_age: int = field(default=86400, metadata={"read": values.duration})


@dataclass(frozen=True, slots=True)
class LimitsSettings:
    """Where what policy limits is counted; without `url`, among the processes of this machine.

    `url` is that of a Redis or Valkey which all brokers share: `redis://host:port/database`,
    `rediss://` for TLS, verified with the certificates in `ca_file` where it is set, or
    `unix:///path`. The password, and with `username` that user's, is what `password_file` holds.
    """

    url: str | None = field(default=None, metadata={"read": values.redis_url})
    username: str | None = field(default=None, metadata={"read": values.text})
    password_file: Path | None = field(default=None, metadata={"read": values.path})
    ca_file: Path | None = field(default=None, metadata={"read": values.path})


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """How to reach and log in to Vault or OpenBao; without `address` none is used.

    `login` says how: by `token` (from `token_file`), `approle` (`role_id_file` and
    `secret_id_file`; with `secret_id_wrapped` the latter holds a wrapping token), `jwt` (`role`
    and a workload's token in `token_file`) or `kubernetes` (`role`; `token_file` if it is not
    the pod's). `mount` is where the auth method is mounted, if not under its own name. `role`
    is also the AppRole's name, which a wrapped secret_id must then be for. Times are in
    seconds: `timeout` of a request, and `stale_for`, how long since it was read a value stands
    in while Vault is down or sealed.
    """

    address: str | None = field(default=None, metadata={"read": values.url})
    namespace: str | None = field(default=None, metadata={"read": values.text})
    ca_file: Path | None = field(default=None, metadata={"read": values.path})
    timeout: int = field(default=5, metadata={"read": values.duration})
    stale_for: int = field(default=300, metadata={"read": values.duration})
    login: str = field(
        default="token",
        metadata={"read": values.one_of("token", "approle", "jwt", "kubernetes")},
    )
    mount: str | None = field(default=None, metadata={"read": values.text})
    role: str | None = field(default=None, metadata={"read": values.text})
    token_file: Path | None = field(default=None, metadata={"read": values.path})
    role_id_file: Path | None = field(default=None, metadata={"read": values.path})
    secret_id_file: Path | None = field(default=None, metadata={"read": values.path})
    secret_id_wrapped: bool = field(default=False, metadata={"read": values.flag})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is decided before the broker starts; times are in seconds.

    `issuer` is the broker's public URL, byte for byte what its tokens carry as `iss`. `drain`
    is how long requests under way may go on once the broker is told to stop. `workers` is how
    many processes serve; what is said of one gateway's connections holds of each of them.
    """

    home: Path
    issuer: str = field(default="", metadata={"read": values.url})
    master_key_source: str = field(
        default="file", metadata={"read": values.one_of("file", "keyring", "environment")}
    )
    log_level: str = field(
        default="info", metadata={"read": values.one_of("debug", "info", "warning", "error")}
    )
    drain: int = field(default=10, metadata={"read": values.duration})
    workers: int = field(default=1, metadata={"read": values.processes})
    control: ControlSettings = field(default_factory=ControlSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    vault: VaultSettings = field(default_factory=VaultSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)

    @property
    def control_url(self) -> str:
        """Where the control plane listens, for callers on this machine."""
        return f"http://{values.authority(_reachable(self.control.host), self.control.port)}"

    @property
    def gateway_url(self) -> str:
        """How agents reach the gateway."""
        local = values.authority(_reachable(self.gateway.host), self.gateway.port)
        return self.gateway.url or f"http://{local}"

    @property
    def admin_url(self) -> str | None:
        """How administrators reach the admin API, or None where it is off."""
        if self.admin.port is None:
            return None
        local = values.authority(_reachable(self.admin.host), self.admin.port)
        return self.admin.url or f"http://{local}"

    @property
    def token_endpoint(self) -> str:
        """The public URL of `POST /token`."""
        return f"{self.issuer}/token"

    @property
    def policies(self) -> Path:
        """The directory of the policy documents."""
        return self.home / "policies"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
