from __future__ import annotations

import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from broker.errors import ConfigurationError, UpstreamError
from providers.base import ProviderError
from tests.fakes.issuer import Answer, FakeIssuer, endless, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import httpx

    from tests.components.tls import TestAuthority

PATH = "/document"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with http.client(timeout=1.0, allow_loopback_http=True) as made:
        yield made


async def refusal(client: httpx.AsyncClient, url: str, **options: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await http.get_bytes(client, url, 1000, **options)
    return raised.value


async def test_a_document_is_fetched(client: httpx.AsyncClient, fake_issuer: FakeIssuer) -> None:
    fake_issuer.answers[PATH] = json_answer({"a": 1})
    assert await http.get_bytes(client, fake_issuer.url + PATH, 8) == b'{"a": 1}'


@pytest.mark.parametrize(
    "body",
    [b"x" * 1001, endless(), endless(b"x", pause=0.001)],
    ids=["a byte too long", "endless", "endless drops"],
)
async def test_a_long_body_is_cut_short(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer, body: Any
) -> None:
    fake_issuer.answers[PATH] = Answer(body)
    error = await refusal(client, fake_issuer.url + PATH)
    assert "more than 1000 bytes" in str(error)
    assert fake_issuer.requests[PATH] == 1


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "identity, gzip", "x"])
async def test_a_compressed_body_is_never_unpacked(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer, encoding: str
) -> None:
    bomb = gzip.compress(b" " * 500_000)
    fake_issuer.answers[PATH] = Answer(bomb, headers={"Content-Encoding": encoding})
    assert "compressed" in str(await refusal(client, fake_issuer.url + PATH))


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer, status: int
) -> None:
    fake_issuer.answers[PATH] = Answer(status=status, headers={"Location": "/target"})
    assert f"answered {status}" in str(await refusal(client, fake_issuer.url + PATH))
    assert fake_issuer.requests == {PATH: 1}


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 403, 404, 500])
async def test_other_answers_are_final(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer, status: int
) -> None:
    fake_issuer.answers[PATH] = Answer(b"secret detail", status=status)
    error = await refusal(client, fake_issuer.url + PATH)
    assert str(error) == f"{fake_issuer.url}{PATH} answered {status}"
    assert not error.retryable
    assert fake_issuer.requests[PATH] == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_pass_is_tried_three_times(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer, status: int
) -> None:
    fake_issuer.answers[PATH] = Answer(status=status)
    assert (await refusal(client, fake_issuer.url + PATH)).retryable
    assert fake_issuer.requests[PATH] == 3


async def test_a_server_that_is_down_is_named(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer
) -> None:
    fake_issuer.stop()
    error = await refusal(client, fake_issuer.url + PATH)
    assert str(error) == f"{fake_issuer.url}{PATH} could not be fetched: ConnectError"
    assert error.retryable


async def test_a_slow_server_is_given_up(
    client: httpx.AsyncClient, fake_issuer: FakeIssuer
) -> None:
    fake_issuer.answers[PATH] = Answer(endless(b" ", pause=0.05))
    error = await refusal(client, fake_issuer.url + PATH, deadline=0.3)
    assert "did not answer within 0.3 seconds" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "document",
        "//127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http://[::1/",
        "https://127.0.0.1:99999/",
        "https://\x00/",
        "http://127.0.0.1.example.com/",
        "http://0x7f000001/",
        "http://2130706433/",
    ],
)
async def test_a_url_that_is_none_or_not_https_connects_nowhere(
    client: httpx.AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was resolved"))
    await refusal(client, url)


async def test_plain_http_is_refused_outside_development(fake_issuer: FakeIssuer) -> None:
    async with http.client() as client:
        assert "not https" in str(await refusal(client, fake_issuer.url + PATH))
        with pytest.raises(ProviderError, match="not https") as refused:  # to a provider
            await client.get(fake_issuer.url + PATH)
    assert not refused.value.retryable
    assert not fake_issuer.requests


@pytest.fixture
def tls_server(tls_authority: TestAuthority) -> Iterator[tuple[int, list[bytes]]]:
    """An https server for `127.0.0.1`, and the requests that reach it."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.requestline.encode())
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """Clients that do not trust the certificate hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    context = tls_authority.certificate("127.0.0.1", "localhost").context()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1], seen
    server.shutdown()
    server.server_close()


async def test_tls_is_verified_against_the_named_authorities(
    tls_server: tuple[int, list[bytes]], tls_authority: TestAuthority
) -> None:
    port, seen = tls_server
    async with http.client(ca_file=str(tls_authority.ca_file), allow_private=True) as client:
        assert await http.get_bytes(client, f"https://127.0.0.1:{port}/", 10) == b"{}"
    seen.clear()
    async with http.client(allow_private=True) as client:
        error = await refusal(client, f"https://127.0.0.1:{port}/")
    assert "ConnectError" in str(error)
    assert not seen


async def test_a_private_peer_is_refused_before_it_sees_the_request(
    tls_server: tuple[int, list[bytes]], tls_authority: TestAuthority
) -> None:
    port, seen = tls_server
    async with http.client(ca_file=str(tls_authority.ca_file)) as client:
        error = await refusal(client, f"https://127.0.0.1:{port}/")
    assert str(error) == "127.0.0.1 is not a public address: it is loopback"
    assert not seen


async def test_a_name_is_judged_by_the_peer_it_leads_to(
    tls_server: tuple[int, list[bytes]], tls_authority: TestAuthority
) -> None:
    port, seen = tls_server
    async with (
        http.client(ca_file=str(tls_authority.ca_file), allow_private=True) as inside,
        http.client(ca_file=str(tls_authority.ca_file), allow_loopback_http=True) as outside,
    ):
        assert await http.get_bytes(inside, f"https://localhost:{port}/", 10) == b"{}"
        seen.clear()
        assert "loopback" in str(await refusal(outside, f"https://localhost:{port}/"))
    assert not seen


async def test_a_peer_is_judged_again_should_the_first_judge_not_be_called(
    fake_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_issuer.answers[PATH] = json_answer({})
    async with http.client(allow_loopback_http=True) as client:
        monkeypatch.setattr(http, "why_not_public", lambda *_, **__: "refused by the second judge")
        monkeypatch.setattr(
            client, "_event_hooks", {"request": [], "response": client.event_hooks["response"]}
        )
        error = await refusal(client, fake_issuer.url + PATH)
    assert str(error) == "refused by the second judge"


async def test_proxies_of_the_environment_are_ignored(
    fake_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake_issuer.answers[PATH] = json_answer({})
    async with http.client(allow_loopback_http=True) as client:
        assert await http.get_bytes(client, fake_issuer.url + PATH, 10) == b"{}"


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=str(path)):
        http.client(ca_file=str(path))
