"""K: keys and discovery."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from broker.errors import InvalidToken, IssuerUnavailable
from broker.identity import jws
from broker.identity.base import Audiences, UnverifiedToken
from broker.identity.oidc import OidcSettings, OidcSource
from broker.identity.resolver import IdentityResolver
from tests.fakes.issuer import (
    BROKER,
    DISCOVERY,
    JWKS,
    NOW,
    Answer,
    Bench,
    FakeIssuer,
    endless,
    json_answer,
    verified,
)
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.components.tls import TestAuthority


async def code_of(source: OidcSource, token: str) -> str:
    with pytest.raises(InvalidToken) as refusal:
        await verified(source, token)
    return refusal.value.code


@pytest.mark.parametrize(
    "issuer",
    ["https://evil.test", "http://127.0.0.1:9", "http://169.254.169.254", "https://[::1]", "x"],
)
async def test_k1_an_issuer_not_configured_causes_no_dns_and_no_connection(
    identity_bench: Bench, network_trap: list[str], issuer: str
) -> None:
    # CVE-2025-52477: octo-sts fetched the discovery document of whatever issuer a token named.
    resolver = IdentityResolver([identity_bench.source()])
    token = UnverifiedToken(identity_bench.issuer.token(iss=issuer, jku=f"{issuer}/keys"))
    with pytest.raises(InvalidToken) as refusal:
        await resolver.verify(token)
    assert refusal.value.code == "unknown_issuer"
    assert network_trap == []


async def test_k1_the_trap_would_have_closed(
    identity_bench: Bench, network_trap: list[str]
) -> None:
    with pytest.raises(IssuerUnavailable):
        await verified(identity_bench.source(), identity_bench.issuer.token())
    assert network_trap


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_k2_redirects_are_not_followed(identity_bench: Bench, path: str, status: int) -> None:
    issuer = identity_bench.issuer
    issuer.answers[path] = Answer(status=status, headers={"Location": f"{issuer.url}/elsewhere"})
    with pytest.raises(IssuerUnavailable, match="redirects are not followed"):
        await verified(identity_bench.source(), issuer.token())
    assert issuer.requests["/elsewhere"] == 0


@pytest.mark.parametrize(
    "change", [lambda url: f"{url}/", lambda url: url.upper(), lambda _: "https://evil.test"]
)
async def test_k2_discovery_must_name_the_configured_issuer(
    identity_bench: Bench, change: Any
) -> None:
    issuer = identity_bench.issuer
    document = {"issuer": change(issuer.url), "jwks_uri": issuer.url + JWKS}
    issuer.answers[DISCOVERY] = json_answer(document)
    with pytest.raises(IssuerUnavailable, match="byte for byte"):
        await verified(identity_bench.source(), issuer.token())
    assert issuer.requests[JWKS] == 0


@pytest.mark.parametrize(
    "uri",
    [
        "http://issuer.test/jwks",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//issuer.test/jwks",
        "/jwks",
        "gopher://127.0.0.1:11211/_",
        "https://user:password@issuer.test/jwks",
        "",
        None,
        ["https://issuer.test/jwks"],
    ],
)
async def test_k2_the_keys_must_be_at_an_https_address(identity_bench: Bench, uri: Any) -> None:
    # CVE-2026-49478
    issuer = identity_bench.issuer
    issuer.answers[DISCOVERY] = json_answer({"issuer": issuer.url, "jwks_uri": uri})
    with pytest.raises(IssuerUnavailable, match="jwks_uri"):
        await verified(identity_bench.source(), issuer.token())
    assert set(issuer.requests) == {DISCOVERY}


async def test_k2_an_https_issuer_cannot_point_to_plain_http_on_this_machine(
    fake_issuer: FakeIssuer,
) -> None:
    fetched: list[str] = []

    async def fetch(url: str, _: int) -> bytes:
        fetched.append(url)
        return json.dumps({"issuer": "https://issuer.test", "jwks_uri": fake_issuer.url}).encode()

    source = OidcSource(
        "ci", OidcSettings(issuer="https://issuer.test"), Audiences(BROKER, BROKER), fetch
    )
    with pytest.raises(IssuerUnavailable, match="scheme is not the issuer's"):
        await source.probe()
    assert fetched == [f"https://issuer.test{DISCOVERY}"]


async def test_k3_100_000_random_kids_cause_one_fetch_in_30_seconds(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    good = issuer.token()
    forged = jws.parse(UnverifiedToken(good))
    issuer.answers[DISCOVERY] = Answer(
        json.dumps({"issuer": issuer.url, "jwks_uri": issuer.url + JWKS}).encode(), delay=0.05
    )

    async def flood(first: int, count: int) -> None:
        for number in range(first, first + count):
            with pytest.raises(InvalidToken, match="publishes no key"):
                await source.verify(replace(forged, kid=f"random-{number}"))

    await asyncio.gather(*(flood(worker * 1000, 1000) for worker in range(100)))
    assert issuer.requests == {DISCOVERY: 1, JWKS: 1}
    assert (await verified(source, good)).issuer == issuer.url

    for seconds, fetches in [(29.9, 1), (0.2, 2), (29.9, 2), (0.2, 3)]:
        identity_bench.monotonic.now += seconds
        await flood(0, 100)
        assert issuer.requests == {DISCOVERY: fetches, JWKS: fetches}


async def test_k3_an_issuer_that_is_down_is_not_asked_more_often(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    issuer.answers[DISCOVERY] = Answer(status=500)
    for seconds, fetches in [(0, 1), (29.9, 1), (0.2, 2)]:
        identity_bench.monotonic.now += seconds
        for _ in range(50):
            with pytest.raises(IssuerUnavailable):
                await verified(source, issuer.token())
        assert issuer.requests == {DISCOVERY: fetches}


async def test_k4_the_same_kid_of_two_issuers_never_mixes(identity_bench: Bench) -> None:
    # CVE-2026-49998
    ours, theirs = identity_bench.issuer, FakeIssuer()
    try:
        ours.keys, theirs.keys = [strangers_key("ES256")], [strangers_key("ES256", number=1)]
        assert ours.keys[0].kid == theirs.keys[0].kid
        resolver = IdentityResolver(
            [identity_bench.source(), identity_bench.source(issuer=theirs.url)]
        )
        for issuer in (ours, theirs):
            identity = await resolver.verify(UnverifiedToken(issuer.token()))
            assert identity.issuer == issuer.url
        for issuer, key in [(ours, theirs.keys[0]), (theirs, ours.keys[0])]:
            with pytest.raises(InvalidToken) as refusal:
                await resolver.verify(UnverifiedToken(issuer.token(key)))
            assert refusal.value.code == "bad_signature"
    finally:
        theirs.stop()


def many_keys(count: int) -> bytes:
    key = strangers_key("ES256").jwk()
    return json.dumps(
        {"keys": [key | {"kid": f"key-{number}"} for number in range(count)]}
    ).encode()


BOMBS = {
    "endless": Answer(endless()),
    "endless, in drops": Answer(endless(b" ", pause=0.01)),
    "gzip bomb": Answer(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    "nested gzip bomb": Answer(
        gzip.compress(gzip.compress(b" " * 1_000_000)), headers={"Content-Encoding": "gzip, gzip"}
    ),
    "said to be huge": Answer(b"{", headers={"Content-Length": str(10**12)}),
    "100,000 keys": Answer(many_keys(100_000)),
    "101 keys": Answer(many_keys(101)),
    "deep": Answer(b'{"keys":' + b"[" * 100_000),
    "a number of 200,000 digits": Answer(b'{"keys": [], "n": ' + b"9" * 200_000 + b"}"),
    "never answers": Answer(b"{}", delay=60),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_k5_a_key_set_without_measure_is_cut_short(
    identity_bench: Bench, bomb: Answer
) -> None:
    issuer = identity_bench.issuer
    issuer.answers[JWKS] = bomb
    async with asyncio.timeout(30):
        with pytest.raises(IssuerUnavailable):
            await verified(identity_bench.source(), issuer.token())


@pytest.mark.parametrize("bomb", ["endless", "gzip bomb", "deep", "never answers"])
async def test_k5_a_discovery_document_without_measure_is_cut_short(
    identity_bench: Bench, bomb: str
) -> None:
    issuer = identity_bench.issuer
    issuer.answers[DISCOVERY] = BOMBS[bomb]
    async with asyncio.timeout(30):
        with pytest.raises(IssuerUnavailable):
            await verified(identity_bench.source(), issuer.token())
    assert issuer.requests[JWKS] == 0


async def test_k5_a_hundred_keys_are_not_too_many(identity_bench: Bench) -> None:
    issuer = identity_bench.issuer
    issuer.answers[JWKS] = Answer(many_keys(100))
    token = strangers_key("ES256").token(issuer.claims(), kid="key-99")
    assert (await verified(identity_bench.source(), token)).issuer == issuer.url


@asynccontextmanager
async def tls_issuer(authority: TestAuthority) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve TLS for `issuer.test` on IPv4 loopback; collects what clients send over it."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))
        writer.close()

    context = authority.certificate("issuer.test").context()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], received


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server that answers what the test says."""
    real = socket.getaddrinfo
    names: dict[str, list[str]] = {}

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        answers: list[Any] = []
        for address in names.get(name, [name]):
            answers += real(address, port, type=socket.SOCK_STREAM)
        return answers or real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["192.0.2.1", "127.0.0.1"],
        ["2001:db8::1", "127.0.0.1"],
        ["127.0.0.1", "2001:db8::1"],
    ],
)
async def test_k6_an_issuer_is_judged_by_the_peer_that_answers(
    tls_authority: TestAuthority, resolving: dict[str, list[str]], addresses: list[str]
) -> None:
    # CVE-2026-44430: the address that was checked was not the one that was used.
    resolving["issuer.test"] = addresses
    async with (
        tls_issuer(tls_authority) as (port, received),
        http.client(ca_file=str(tls_authority.ca_file), timeout=1.0) as client,
    ):
        source = OidcSource(
            "ci",
            OidcSettings(issuer=f"https://issuer.test:{port}"),
            Audiences(BROKER, BROKER),
            partial(http.get_bytes, client),
        )
        with pytest.raises(IssuerUnavailable, match="it is loopback"):
            await source.probe()
    assert received == []


async def test_k8_an_issuer_that_is_down_stale_within_the_bound_then_closed(
    identity_bench: Bench,
) -> None:
    source, issuer = identity_bench.source(stale_keys_for=3600.0), identity_bench.issuer
    token = issuer.token()
    await verified(source, token)
    issuer.stop()
    for seconds in (301, 30, 30, 3238):
        identity_bench.monotonic.now += seconds
        assert (await verified(source, token)).issuer == issuer.url
    identity_bench.monotonic.now += 2
    with pytest.raises(IssuerUnavailable, match="ConnectError") as refusal:
        await verified(source, token)
    assert refusal.value.retryable


async def test_k8_an_issuer_that_returns_is_believed_again(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(stale_keys_for=300.0), identity_bench.issuer
    token = issuer.token()
    await verified(source, token)
    issuer.stop()
    identity_bench.monotonic.now += 301
    with pytest.raises(IssuerUnavailable):
        await verified(source, token)
    issuer.keys = [strangers_key("ES256", "key-2")]
    issuer.start()
    identity_bench.monotonic.now += 30
    assert await code_of(source, token) == "unknown_key"
    assert (await verified(source, issuer.token())).issuer == issuer.url


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=503),
        Answer(b"<html>maintenance</html>"),
        json_answer({"keys": None}),
        Answer(endless()),
    ],
)
async def test_k8_an_issuer_that_answers_nonsense_is_as_good_as_down(
    identity_bench: Bench, answer: Answer
) -> None:
    source, issuer = identity_bench.source(stale_keys_for=600.0), identity_bench.issuer
    await verified(source, issuer.token())
    issuer.answers[JWKS] = answer
    identity_bench.monotonic.now += 301
    assert (await verified(source, issuer.token())).issuer == issuer.url
    identity_bench.monotonic.now += 300
    with pytest.raises(IssuerUnavailable):
        await verified(source, issuer.token())


async def test_k8_an_issuer_that_was_never_reached_is_closed_at_once(
    identity_bench: Bench,
) -> None:
    issuer = identity_bench.issuer
    token = issuer.token()
    issuer.stop()
    with pytest.raises(IssuerUnavailable, match="ConnectError"):
        await verified(identity_bench.source(stale_keys_for=86_400.0), token)


async def test_k8_stale_keys_do_not_make_stale_tokens_good(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    token = issuer.token()
    await verified(source, token)
    issuer.stop()
    identity_bench.monotonic.now += 331
    identity_bench.wall.now = NOW + 331
    assert await code_of(source, token) == "expired"
