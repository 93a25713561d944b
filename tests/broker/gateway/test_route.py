from __future__ import annotations

import pytest

from broker.gateway.problems import Refusal
from broker.gateway.route import Route
from broker.model import Allow, Deny
from providers.base import Upstream
from tests.fakes.gateway import policy, policy_text

POLICY = policy(policy_text(), 8080)


def route(**fields: object) -> Route:
    service = POLICY.services["api"]
    given = {"scheme": "https", "host": "api.test", "port": 443} | fields
    return Route(POLICY, service, Upstream(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "host", "origins"),
    [
        ({}, b"api.test", (b"https://api.test", b"https://api.test:443")),
        ({"port": 8443}, b"api.test:8443", (b"https://api.test:8443",) * 2),
        (
            {"scheme": "http", "port": 80},
            *(b"api.test", (b"http://api.test", b"http://api.test:80")),
        ),
        ({"host": "::1", "port": 1}, b"[::1]:1", (b"https://[::1]:1",) * 2),
    ],
)
def test_how_the_upstream_is_named(
    fields: dict[str, object], host: bytes, origins: tuple[bytes, ...]
) -> None:
    found = route(**fields)
    assert found.host_line == b"Host: %b\r\n" % host
    assert found.origins == origins
    assert found.prefix == b"/api"


def test_connections_are_shared_only_where_they_are_the_same() -> None:
    keys = {
        route(**fields).pool_key
        for fields in (
            {},
            {"host": "b.test"},
            {"port": 444},
            {"scheme": "http"},
            {"ca_file": "/ca.pem"},
            {"allow_private": True},
        )
    }
    assert len(keys) == 6
    assert route(base_path=b"/x", first_byte_timeout=1.0).pool_key == route().pool_key


def test_plain_http_gets_no_credential() -> None:
    refusal = route(scheme="http", port=80).refusal
    assert refusal is not None
    assert refusal.code == "credential_refused"
    assert route(scheme="http", port=80, insecure_http=True).refusal is None
    assert route().refusal is None


def test_a_request_is_judged_by_policy_and_alike_each_time() -> None:
    way = route()
    for _ in range(2):
        assert way.judge(("api.read",), b"GET", b"/v1/x", None) == Allow(
            "api.read", "GET /v1/**", "low"
        )
        assert isinstance(way.judge(("api.read",), b"POST", b"/v1/x", None), Deny)
        assert isinstance(way.judge(("api.read",), b"GET", b"/v2/x", None), Deny)
        assert isinstance(way.judge(("keyed.all",), b"GET", b"/v1/x", None), Deny)
        assert isinstance(way.judge((), b"GET", b"/v1/x", None), Deny)
        unclear = way.judge(("api.read",), b"GET", b"/v1/%2e%2e/x", None)
        assert isinstance(unclear, Refusal)
        assert unclear.code == "path_not_canonical"


def test_what_is_remembered_is_bounded() -> None:
    way = route()
    for number in range(5000):
        assert isinstance(way.judge(("api.read",), b"GET", b"/v1/%d" % number, None), Allow)
    assert len(way._allowed) <= 4096


def test_what_is_remembered_is_short() -> None:
    way = route()
    for query in (b"q" * 8000, None):
        path = b"/v1/" + b"p" * (1100 if query is None else 1)
        assert isinstance(way.judge(("api.read",), b"GET", path, query), Allow)
    assert not way._allowed
