"""Read fields of secrets in Vault's key-value engines."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from broker.errors import SecretUnavailable, did_you_mean
from broker.secrets.base import MAX_SECRET_BYTES, SecretValue
from broker.secrets.vault.calls import VaultApi
from broker.secrets.vault.client import VaultConnection, VaultRefused
from broker.secrets.vault.login import login_from
from broker.secrets.vault.reference import KvReference, parse
from broker.secrets.vault.session import VaultSession
from providers.base import Secret

if TYPE_CHECKING:
    import hvac

    from broker.settings import VaultSettings

_KV: Final = {"kv", "generic"}  # version 1 was called generic, and old mounts still are


@dataclass(frozen=True, slots=True)
class _Mount:
    """Where a secret's engine is mounted, and the engine's version: 1 or 2."""

    point: str
    version: int

    def path(self, reference: KvReference) -> str:
        """Return the path within the engine."""
        return reference.path.removeprefix(f"{self.point}/")


class VaultBackend:
    """Read `vault:<mount>/<path>#<field>` and `vault:<mount>/<path>@<version>#<field>`.

    Raises `ConfigurationError` if the settings do not say how to reach and log in to Vault.
    """

    def __init__(self, settings: VaultSettings) -> None:
        self.scheme = "vault"
        self._connection: Final = VaultConnection(settings)
        self._session: Final = VaultSession(self._connection, login_from(settings))
        self.calls: Final = VaultApi(VaultConnection(settings), self._session)
        self._mounts: Final[dict[str, _Mount]] = {}

    def check(self, rest: str) -> None:
        """Raise `ConfigurationError` unless `rest` is of the form above."""
        parse(rest)

    async def start(self) -> None:
        """Log in now, and see that Vault answers; raise `SecretUnavailable` if it does not.

        Reading does this by itself. A wrapped secret_id is best unwrapped before it expires.
        """
        client = await self._session.client()
        await self._connection.call("the look-up of its token", client.auth.token.lookup_self)

    async def read(self, rest: str) -> SecretValue:
        """Return the field's value; raise `SecretUnavailable` if it cannot be had."""
        reference = parse(rest)
        client = await self._session.client()
        try:
            return await self._read(client, reference)
        except VaultRefused as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            another = await self._session.client_after(client)
            if another is None:
                raise
        return await self._read(another, reference)

    async def close(self) -> None:
        """End the login and the connections."""
        await self._session.close()
        await self.calls.close()
        await self._connection.close()

    async def _read(self, client: hvac.Client, reference: KvReference) -> SecretValue:
        try:
            mount = await self._mount(client, reference)
            fields, version = await self._fields(client, reference, mount)
        except VaultRefused as error:
            known = self._mounts.pop(reference.path, None)  # by now it may be another engine
            raise _explained(error, reference, known) from None
        return SecretValue(_field(reference, fields), version)

    async def _fields(
        self, client: hvac.Client, reference: KvReference, mount: _Mount
    ) -> tuple[dict[str, Any], int]:
        kv = client.secrets.kv
        path = mount.path(reference)

        def read_v1() -> tuple[dict[str, Any], int]:
            return dict(kv.v1.read_secret(path, mount_point=mount.point)["data"]), 0

        def read_v2() -> tuple[dict[str, Any], int]:
            data = kv.v2.read_secret_version(
                path,
                version=reference.version,
                mount_point=mount.point,
                raise_on_deleted_version=True,
            )["data"]
            return dict(data["data"]), int(data["metadata"]["version"])

        if mount.version == 1 and reference.version is not None:
            raise SecretUnavailable(
                f"vault:{reference.path}@{reference.version} pins a version, and the engine at "
                f"{mount.point}/ keeps none (it is version 1); drop the @{reference.version}"
            )
        return await self._connection.call(
            f"the reading of {reference.path}", read_v1 if mount.version == 1 else read_v2
        )

    async def _mount(self, client: hvac.Client, reference: KvReference) -> _Mount:
        """Ask Vault where the engine of this path is: a mount point may have slashes in it."""
        if (known := self._mounts.get(reference.path)) is not None:
            return known

        def look_up() -> tuple[str, str, _Mount]:
            found = client.adapter.get(f"/v1/sys/internal/ui/mounts/{reference.path}")["data"]
            point = found["path"].strip("/")
            version = int((found["options"] or {}).get("version", 1))
            return point, found["type"], _Mount(point, version)

        what = f"the look-up of the engine of {reference.path}"
        point, kind, mount = await self._connection.call(what, look_up)
        if kind not in _KV:
            raise SecretUnavailable(
                f"vault:{reference.path} is in no key-value engine: {point}/ is of type {kind!r}"
            )
        self._mounts[reference.path] = mount
        return mount


def _explained(error: VaultRefused, reference: KvReference, mount: _Mount | None) -> VaultRefused:
    point = mount.point if mount else reference.path.partition("/")[0]
    path = reference.path.removeprefix(f"{point}/")
    text = str(error)
    if error.status == HTTPStatus.FORBIDDEN:
        rule = f"{point}/{path}" if mount and mount.version == 1 else f"{point}/data/{path}"
        text += (
            "; the broker's login has no right to it: give its Vault policy "
            f'path "{rule}" {{ capabilities = ["read"] }}'
        )
    elif error.deleted:
        which = f"version {reference.version}" if reference.version else "the current version"
        text = f"{which} of vault:{reference.path} has been deleted in Vault; write another"
    elif error.status == HTTPStatus.NOT_FOUND and reference.version is not None:
        text = (
            f"vault:{reference.path} has no version {reference.version}; see which it has: "
            f"bao kv metadata get -mount={point} {path}"
        )
    elif error.status == HTTPStatus.NOT_FOUND:
        text = (
            f"there is no secret at vault:{reference.path}; write it with: "
            f"bao kv put -mount={point} {path} {reference.field}=-"
        )
    return VaultRefused(text, error.status)


def _field(reference: KvReference, fields: dict[str, Any]) -> Secret:
    value = fields.get(reference.field)
    if value is None:
        raise SecretUnavailable(
            f"the secret at vault:{reference.path} has no field {reference.field!r}; it has "
            f"{', '.join(sorted(fields)) or 'none'}{did_you_mean(reference.field, fields)}"
        )
    if not isinstance(value, str) or not value:
        kind = "an empty text" if value == "" else f"a {type(value).__name__}"
        raise SecretUnavailable(
            f"vault:{reference.path}#{reference.field} is {kind}; expected a text"
        )
    secret = value.encode()
    if len(secret) > MAX_SECRET_BYTES:
        raise SecretUnavailable(
            f"vault:{reference.path}#{reference.field} has {len(secret)} bytes, and a secret has "
            f"at most {MAX_SECRET_BYTES}"
        )
    return Secret(secret)
