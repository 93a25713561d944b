"""Call any path of Vault for providers, as the broker or with a token that was made for one use."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from broker.errors import SecretUnavailable
from broker.secrets.vault.client import ATTEMPTS, VaultRefused
from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import hvac

    from broker.secrets.vault.client import VaultConnection
    from broker.secrets.vault.session import VaultSession
    from providers.base import Secret

_PATH: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)


class VaultApi:
    """Make a provider's calls (`providers.base.VaultCalls`).

    They have a `connection` of their own: however slow engines are, secrets can still be read.
    """

    def __init__(self, connection: VaultConnection, session: VaultSession) -> None:
        self._connection: Final = connection
        self._session: Final = session

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: Secret | None = None,
        repeat: bool = True,
    ) -> Mapping[str, Any]:
        """Return the JSON answer of `/v1/<path>`; raise `ProviderError`."""
        if _PATH.fullmatch(path) is None or {".", ".."} & {*path.split("/")}:
            raise ProviderError("the path is not one of Vault's")
        attempts = ATTEMPTS if repeat else 1
        try:
            if token is not None:
                client = self._connection.client(token.reveal().decode())
                return await self._call(client, method, path, body, attempts)
            return await self._call_as_broker(method, path, body, attempts)
        except VaultRefused as error:
            hint = _HINTS.get(error.status, "")
            raise ProviderError(f"{error}{hint}", code=str(error.status)) from None
        except SecretUnavailable as error:
            raise ProviderError(str(error), retryable=error.retryable) from None

    async def close(self) -> None:
        """End the connections."""
        await self._connection.close()

    async def _call_as_broker(
        self, method: str, path: str, body: Mapping[str, Any] | None, attempts: int
    ) -> Mapping[str, Any]:
        login = await self._session.client()
        try:
            return await self._call(self._own(login), method, path, body, attempts)
        except VaultRefused as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            another = await self._session.client_after(login)
            if another is None:
                raise
        return await self._call(self._own(another), method, path, body, attempts)

    def _own(self, login: hvac.Client) -> hvac.Client:
        return self._connection.client(login.token)

    async def _call(
        self,
        client: hvac.Client,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        attempts: int,
    ) -> Mapping[str, Any]:
        def ask() -> Mapping[str, Any]:
            answer = client.adapter.request(method, f"/v1/{path}", json=body)
            return {} if answer is None else dict(answer)

        return await self._connection.call(f"{method} {path}", ask, attempts=attempts)


_HINTS: Final[dict[int, str]] = {
    HTTPStatus.FORBIDDEN: "; give the broker's Vault policy the right to it",
    HTTPStatus.NOT_FOUND: "; see that the engine is mounted there and has that role",
}
"""What to do about a refusal."""
