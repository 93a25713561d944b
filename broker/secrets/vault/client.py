"""The one place where a Vault client is made, and where its failures are put in our words."""

from __future__ import annotations

import asyncio
import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hvac
import requests
from hvac.adapters import JSONAdapter
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from broker.errors import ConfigurationError, SecretUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.settings import VaultSettings

    Answer = TypeVar("Answer")

THREADS: Final = 4
"""Calls that may be under way at once; each secret is asked for once at a time, so few do."""

ATTEMPTS: Final = 3
RETRY_FOR: Final = 8.0
"""How long, in seconds, new attempts are begun while a caller waits."""

_STALL_FACTOR: Final = 2
_NO_CLIENT_CERTIFICATE: Final[Any] = ()
_log: Final = logging.getLogger(__name__)


class VaultRefused(SecretUnavailable):
    """Vault answered and refused, so that asking again changes nothing.

    `status` is its HTTP status; `deleted` that the version asked for was there and is deleted.
    """

    def __init__(self, message: str, status: int, *, deleted: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.deleted = deleted


class VaultConnection:
    """Make calls to the Vault at `settings.address`, and to no other place.

    Raises `ConfigurationError` if there is no address, or the CA file is unusable.
    """

    def __init__(self, settings: VaultSettings) -> None:
        if settings.address is None:
            raise ConfigurationError(
                "vault.address is not set, and a policy has vault: references; set it in "
                'broker.toml, as in address = "https://vault.example.com:8200"'
            )
        self.address: Final = settings.address
        self._settings: Final = settings
        self._session: Final = _session(settings)
        self._pool: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")

    def client(self, token: str = "") -> hvac.Client:
        """Return a client that holds `token`; "" for none.

        Every argument is given: hvac's defaults take address, token and certificates from the
        environment and the user's home, and follow redirects, so that the token would go
        wherever one of these points.
        """
        return hvac.Client(
            url=self.address,
            token=token,
            cert=_NO_CLIENT_CERTIFICATE,  # None would mean $VAULT_CLIENT_CERT
            verify=self._session.verify,
            timeout=self._settings.timeout,
            proxies={},
            allow_redirects=False,
            session=self._session,
            adapter=_Adapter,
            namespace=self._settings.namespace,
        )

    async def call(self, what: str, ask: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
        """Return what `ask` returns, from a thread; try again while Vault cannot answer.

        `ask` also takes what it needs out of the answer: where that is not there, the answer
        was not Vault's. `what` names the call in errors and logs.

        Raises:
            VaultRefused: Vault answered with a 4xx other than 429.
            SecretUnavailable: it did not answer, or with 429 or 5xx, a few times in a row.
        """
        patiently = AsyncRetrying(
            stop=stop_after_attempt(attempts) | stop_after_delay(RETRY_FOR),
            wait=wait_exponential(multiplier=0.1, max=2) + wait_random(0, 0.1),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        answer: Answer = await patiently(self._once, what, ask)
        return answer

    async def close(self) -> None:
        """End the threads, each after the call it is in, and the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def _once(self, what: str, ask: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            # requests counts its time-out anew for each piece of an answer: this one is for all.
            async with asyncio.timeout(_STALL_FACTOR * self._settings.timeout):
                return await loop.run_in_executor(self._pool, ask)
        except _Refused as error:
            raise self._refusal(what, error) from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._not_vault(what, HTTPStatus.OK) from None
        except OSError as error:  # what requests raises, and TimeoutError
            raise self._no_answer(what, _reason(error)) from None

    def _refusal(self, what: str, error: _Refused) -> SecretUnavailable:
        if reason := _PASSING.get(error.status):
            return self._no_answer(what, f"{reason} ({error.status})")
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._no_answer(what, f"it failed ({error.status})")
        if error.status < HTTPStatus.BAD_REQUEST:
            return self._not_vault(what, error.status)
        message = f"Vault at {self.address} refused {what} ({error.status})"
        return VaultRefused(message, error.status, deleted=error.deleted)

    def _not_vault(self, what: str, status: int) -> VaultRefused:
        return VaultRefused(
            f"{self.address} did not answer {what} as Vault does ({status}); vault.address must "
            "be that of the server itself: redirects are not followed",
            status,
        )

    def _no_answer(self, what: str, reason: str) -> SecretUnavailable:
        _log.warning("Vault at %s cannot answer %s: %s", self.address, what, reason)
        return SecretUnavailable(
            f"Vault at {self.address} cannot answer {what}: {reason}", retryable=True
        )


_PASSING: Final[dict[int, str]] = {
    HTTPStatus.TOO_MANY_REQUESTS: "it limits the rate of requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "it is sealed, starting or without a leader",
}
"""Statuses that will pass, as 5xx do, and what they mean."""


class _Refused(Exception):
    """An answer that is not a success. The server's words stay here: they may quote a secret."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(response.status_code)
        self.status = response.status_code
        try:
            metadata = response.json()["data"]["metadata"]
            self.deleted = bool(metadata["deletion_time"] or metadata["destroyed"])
        except (ValueError, KeyError, TypeError):
            self.deleted = False


class _Adapter(JSONAdapter):
    """Return a body as JSON, or None where there is none; redirects and errors raise."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        answer: Any = super().request(*args, **{**kwargs, "raise_exception": False})
        if not isinstance(answer, requests.Response):
            return answer
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return None
        raise _Refused(answer)


def _session(settings: VaultSettings) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxies, CA bundles or .netrc from the environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if settings.ca_file is not None:
        try:
            ssl.create_default_context(cafile=str(settings.ca_file))
        except OSError as error:
            raise ConfigurationError(
                f"vault.ca_file {settings.ca_file}: holds no usable certificates "
                f"({error.strerror or 'not PEM'})"
            ) from None
        session.verify = str(settings.ca_file)
    return session


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SecretUnavailable) and error.retryable


def _reason(error: OSError) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted; set vault.ca_file to the CA that issued it"
    if isinstance(error, TimeoutError | requests.exceptions.Timeout):
        return "the answer did not come in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    return type(error).__name__
