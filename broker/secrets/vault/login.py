"""How the broker proves to Vault what it is, by the auth methods that Vault offers."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.errors import ConfigurationError, SecretUnavailable
from broker.secrets.vault.client import VaultRefused
from broker.secrets.vault.proof import private_proof, projected_proof
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.secrets.vault.client import VaultConnection
    from broker.settings import VaultSettings

POD_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_MOUNT: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_ROLE: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token and how long it lives, in seconds; 0 is for ever.

    `ours` says that the broker got it by logging in, and may end it.
    """

    secret: Secret
    ttl: int
    renewable: bool
    ours: bool = True


class Login(Protocol):
    """A way to get a token. What fails raises `SecretUnavailable`, saying what to mend."""

    async def token(self, connection: VaultConnection) -> VaultToken:
        """Return a token that is valid now."""
        ...


class TokenFileLogin:
    """Use the token that a file holds."""

    def __init__(self, settings: VaultSettings) -> None:
        self._file: Final = _needed(settings, "token_file")

    async def token(self, connection: VaultConnection) -> VaultToken:
        """Return the token in the file, which is renewed and never revoked."""
        token = private_proof(self._file)
        client = connection.client(token)
        try:
            found = await connection.call(
                "the look-up of its token", lambda: client.auth.token.lookup_self()["data"]
            )
        except VaultRefused as error:
            raise _again(error, f"write a valid token to {self._file}") from None
        return VaultToken(
            Secret(token.encode()),
            int(found.get("ttl", 0)),
            renewable=bool(found.get("renewable")),
            ours=False,
        )


class AppRoleLogin:
    """Log in by AppRole; the secret_id may come wrapped, good for one unwrapping."""

    def __init__(self, settings: VaultSettings) -> None:
        self._mount: Final = _mount(settings, "approle")
        self._role_id_file: Final = _needed(settings, "role_id_file")
        self._secret_id_file: Final = _needed(settings, "secret_id_file")
        self._wrapped: Final = settings.secret_id_wrapped
        self._role: Final = _role(settings.role) if settings.role else None
        self._unwrapped: tuple[bytes, Secret] | None = None

    async def token(self, connection: VaultConnection) -> VaultToken:
        """Return a new token."""
        role_id = private_proof(self._role_id_file)
        secret_id = await self._secret_id(connection)
        client = connection.client()
        try:
            return await connection.call(
                "the AppRole login",
                lambda: _issued(
                    client.auth.approle.login(
                        role_id,
                        secret_id.reveal().decode(),
                        use_token=False,
                        mount_point=self._mount,
                    )
                ),
            )
        except VaultRefused as error:
            raise _again(
                error,
                f"the secret_id has been used up, has expired or is another role's: write a new "
                f"{'wrapping token' if self._wrapped else 'one'} to {self._secret_id_file}",
            ) from None

    async def _secret_id(self, connection: VaultConnection) -> Secret:
        content = private_proof(self._secret_id_file)
        if not self._wrapped:
            return Secret(content.encode())
        digest = hashlib.sha256(content.encode()).digest()
        if self._unwrapped is None or not hmac.compare_digest(self._unwrapped[0], digest):
            self._unwrapped = digest, await self._unwrap(connection, content)
        return self._unwrapped[1]

    async def _unwrap(self, connection: VaultConnection, wrapping: str) -> Secret:
        client = connection.client(wrapping)
        lost = (
            f"the wrapping token in {self._secret_id_file} has expired or has been used. If this "
            "broker did not use it, somebody else has the secret_id: destroy it. Write a new "
            "wrapping token to the file"
        )
        try:
            origin = await connection.call(
                "the look-up of the wrapping token",
                lambda: str(
                    client.adapter.post("/v1/sys/wrapping/lookup", json={"token": wrapping})[
                        "data"
                    ]["creation_path"]
                ),
            )
            self._check_origin(origin)
            return await connection.call(
                "the unwrapping of the secret_id",
                lambda: Secret(client.sys.unwrap()["data"]["secret_id"].encode()),
            )
        except VaultRefused as error:
            raise _again(error, lost) from None

    def _check_origin(self, path: str) -> None:
        """Refuse what was not wrapped by AppRole itself: an intruder may wrap a secret_id too."""
        role = re.escape(self._role) if self._role else r"[^/]+"
        expected = rf"auth/{re.escape(self._mount)}/role/{role}/(?:custom-)?secret-id"
        if re.fullmatch(expected, path) is None:
            raise SecretUnavailable(
                f"the wrapping token in {self._secret_id_file} was not made for this AppRole: "
                f"Vault says it wraps an answer of {path!r}. It may have been swapped: find out "
                "by whom, and write a new wrapping token to the file"
            )


class JwtLogin:
    """Log in with a workload's JWT, by the auth methods `jwt` and `kubernetes`."""

    def __init__(self, settings: VaultSettings) -> None:
        self._method: Final = settings.login
        self._mount: Final = _mount(settings, settings.login)
        if settings.role is None:
            raise _not_set(settings, "role")
        self._role: Final = _role(settings.role)
        if settings.token_file is None and settings.login == "kubernetes":
            self._file = POD_TOKEN
        else:
            self._file = _needed(settings, "token_file")

    async def token(self, connection: VaultConnection) -> VaultToken:
        """Return a new token."""
        jwt = projected_proof(self._file)
        try:
            return await connection.call(
                f"the {self._method} login", self._request(connection, jwt)
            )
        except VaultRefused as error:
            raise _again(
                error,
                f"see that role {self._role!r} exists at auth/{self._mount} and that its bound "
                f"claims and audiences match the token in {self._file}",
            ) from None

    def _request(self, connection: VaultConnection, jwt: str) -> Callable[[], VaultToken]:
        auth = connection.client().auth
        if self._method == "kubernetes":
            return lambda: _issued(
                auth.kubernetes.login(self._role, jwt, use_token=False, mount_point=self._mount)
            )
        return lambda: _issued(
            auth.jwt.jwt_login(self._role, jwt, use_token=False, path=self._mount)
        )


def login_from(settings: VaultSettings) -> Login:
    """Return the way of logging in that the settings choose.

    Raises:
        ConfigurationError: a setting that it needs is missing or malformed; names it.
    """
    if settings.login == "token":
        return TokenFileLogin(settings)
    if settings.login == "approle":
        return AppRoleLogin(settings)
    return JwtLogin(settings)


def _issued(answer: Mapping[str, Any]) -> VaultToken:
    auth = answer["auth"]
    return VaultToken(
        Secret(auth["client_token"].encode()),
        int(auth["lease_duration"]),
        renewable=bool(auth["renewable"]),
    )


def _again(error: VaultRefused, remedy: str) -> SecretUnavailable:
    return VaultRefused(f"{error}: {remedy}", error.status)


def _needed(settings: VaultSettings, name: str) -> Path:
    value: Path | None = getattr(settings, name)
    if value is None:
        raise _not_set(settings, name)
    return value


def _not_set(settings: VaultSettings, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"vault.{name} is not set in broker.toml, and vault.login = {settings.login!r} needs it"
    )


def _mount(settings: VaultSettings, default: str) -> str:
    mount = (settings.mount or default).strip("/")
    if _MOUNT.fullmatch(mount) is None or {".", ".."} & {*mount.split("/")}:
        raise ConfigurationError(
            f"vault.mount is {settings.mount!r}; expected where the auth method is mounted, as "
            f"in {default!r}, without 'auth/'"
        )
    return mount


def _role(role: str) -> str:
    if _ROLE.fullmatch(role) is None:
        raise ConfigurationError(f"vault.role is {role!r}; expected the name of a role")
    return role
