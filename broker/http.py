"""The only place where an httpx client is made, and how a document is fetched with it.

Every client verifies TLS, ignores proxies and credentials of the environment, follows no
redirect, and talks to public addresses alone unless it is told otherwise. What an address is
gets judged on the connected socket, before a byte of the request is sent.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx
import tenacity

from broker.addresses import is_loopback_host, why_not_public
from broker.errors import ConfigurationError, UpstreamError
from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_ATTEMPTS: Final = 3
_PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})


class NotReached(UpstreamError, ProviderError):
    """A peer or scheme that a client may not talk to; a provider's call that fails so, too."""


def client(
    *,
    ca_file: str | None = None,
    timeout: float = 5.0,
    allow_private: bool = False,
    allow_loopback_http: bool = False,
) -> httpx.AsyncClient:
    """Return a client that the caller closes.

    `ca_file` names the PEM file of the only authorities to trust, instead of the public ones;
    `timeout`, in seconds, bounds each connect, read and write. `allow_private` admits private
    and loopback peers. Plain http is refused, but for `allow_loopback_http` to hosts that are
    loopback by name (development). A refused peer or scheme raises `NotReached`. Raise
    `ConfigurationError` for a `ca_file` that cannot be read.
    """
    guard = _Guard(allow_private=allow_private, allow_loopback_http=allow_loopback_http)
    return httpx.AsyncClient(
        verify=_public_authorities() if ca_file is None else authorities(ca_file),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(timeout),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=4),
        headers={"User-Agent": "agent-token-broker"},
        event_hooks={"request": [guard.before_request], "response": [guard.after_response]},
    )


async def get_bytes(
    client: httpx.AsyncClient, url: str, max_bytes: int, *, deadline: float = 10.0
) -> bytes:
    """Return the body of a 200 answer to GET, at most `max_bytes` long.

    Tries three times where the failure may pass, and ends within `deadline` seconds. A
    compressed answer is refused, for a small one may unpack to any size. Raise `UpstreamError`
    otherwise, naming the URL and the failure and nothing of the answer's text.
    """
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1.0),
        retry=tenacity.retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        async with asyncio.timeout(deadline):
            return await retrying(_get_once, client, url, max_bytes)
    except TimeoutError:
        raise UpstreamError(
            f"{url} did not answer within {deadline:g} seconds", retryable=True
        ) from None


async def _get_once(client: httpx.AsyncClient, url: str, max_bytes: int) -> bytes:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        async with client.stream("GET", url, headers=headers) as response:
            _require_plain_success(url, response)
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise UpstreamError(f"{url} sent more than {max_bytes} bytes")
            return bytes(body)
    except httpx.TransportError as error:
        # The class alone: its text may quote what the other side sent.
        raise UpstreamError(
            f"{url} could not be fetched: {type(error).__name__}", retryable=True
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ExceptionGroup) as error:
        # The last two: addresses that httpx takes and the sockets below do not.
        raise UpstreamError(f"{url} could not be fetched: {type(error).__name__}") from None


def _require_plain_success(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if 300 <= status < 400:  # noqa: PLR2004 - the redirect class of RFC 9110, 15.4
        raise UpstreamError(f"{url} answered {status}; redirects are not followed")
    if status != httpx.codes.OK:
        raise UpstreamError(f"{url} answered {status}", retryable=status in _PASSING_STATUSES)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UpstreamError(f"{url} sent a compressed answer, which was not asked for")


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.retryable


@functools.cache
def _public_authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def authorities(ca_file: str) -> ssl.SSLContext:
    """Return what trusts the authorities in a PEM file; raise `ConfigurationError` without any."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"the CA file {ca_file} holds no certificates that can be read ({error.strerror}); "
            "name a PEM file"
        ) from None


class _Guard:
    """Judge each request's scheme and each connection's peer."""

    def __init__(self, *, allow_private: bool, allow_loopback_http: bool) -> None:
        self._allow_private = allow_private
        self._allow_loopback_http = allow_loopback_http

    async def before_request(self, request: httpx.Request) -> None:
        if request.url.scheme != "https" and not self._is_local(request.url):
            raise NotReached(
                f"{request.url} is not https; plain http is for loopback hosts in development"
            )
        # httpcore calls this for each connection that it opens for the request.
        request.extensions["trace"] = _peer_judge(allow_private=self._admits_private(request.url))

    async def after_response(self, response: httpx.Response) -> None:
        """Judge once more, so that nothing passes if `trace` should ever not be called."""
        stream = response.extensions["network_stream"]
        try:
            _require_peer(stream, allow_private=self._admits_private(response.request.url))
        except UpstreamError:
            await response.aclose()
            raise

    def _is_local(self, url: httpx.URL) -> bool:
        return self._allow_loopback_http and url.scheme == "http" and is_loopback_host(url.host)

    def _admits_private(self, url: httpx.URL) -> bool:
        return self._allow_private or self._is_local(url)


def _peer_judge(*, allow_private: bool) -> Callable[[str, Any], Awaitable[None]]:
    async def judge(event: str, info: Any) -> None:
        if event == "connection.connect_tcp.complete":
            stream = info["return_value"]
            try:
                _require_peer(stream, allow_private=allow_private)
            except UpstreamError:
                await stream.aclose()
                raise

    return judge


def _require_peer(stream: Any, *, allow_private: bool) -> None:
    peer = stream.get_extra_info("server_addr") or ("unknown",)
    refusal = why_not_public(str(peer[0]), allow_private=allow_private)
    if refusal is not None:
        raise NotReached(refusal)
