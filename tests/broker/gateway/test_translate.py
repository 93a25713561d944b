from __future__ import annotations

import pytest

from broker.gateway.grammar import Field
from broker.gateway.inject import Credential
from broker.gateway.route import Route
from broker.gateway.translate import translate
from providers.base import Injection, Secret
from tests.fakes.gateway import KEY, policy, policy_text

WHERE = "base_url: https://api.test/base/v2"
POLICY = policy(policy_text(WHERE), 443)


def route(name: str) -> Route:
    service = POLICY.services[name]
    assert service.upstream is not None
    return Route(POLICY, service, service.upstream)


BEARER = Injection(headers=((b"Authorization", Secret(b"Bearer " + KEY.encode())),))
QUERY = Injection(query=((b"api_key", Secret(KEY.encode())),))
COOKIE = Injection(cookies=((b"session", Secret(KEY.encode())),))


def translated(line: bytes, name: str = "api", injection: Injection = BEARER) -> bytes:
    key, _, value = line.partition(b": ")
    way = route(name)
    return translate((Field(key.lower(), key, value),), way, Credential(injection, way.slots, 0.0))


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"https://api.test/base/v2/x?y#z", b"/api/x?y#z"),
        (b"https://api.test:443/base/v2/x", b"/api/x"),
        (b"HTTPS://API.TEST/base/v2/x", b"/api/x"),
        (b"https://api.test/base/v2", b"/api/"),
        (b"/base/v2/x", b"/api/x"),
        (b"/base/v2", b"/api/"),
        (b"x/y", b"x/y"),
        (b"../y", b"../y"),
        (b"?page=2", b"?page=2"),
        (b"#top", b"#top"),
        (b"/base/v22/x", b"https://api.test/base/v22/x"),
        (b"/login", b"https://api.test/login"),
        (b"https://api.test/login", b"https://api.test/login"),
        (b"https://api.test", b"https://api.test/"),
        (b"http://api.test/base/v2/x", b"http://api.test/base/v2/x"),
        (b"https://api.test:8443/base/v2/x", b"https://api.test:8443/base/v2/x"),
        (b"https://api.test.evil.test/base/v2/x", b"https://api.test.evil.test/base/v2/x"),
        (b"https://api.test@evil.test/base/v2/x", b"https://api.test@evil.test/base/v2/x"),
        (b"//evil.test/base/v2/x", b"//evil.test/base/v2/x"),
        (b"https://elsewhere.test/", b"https://elsewhere.test/"),
    ],
)
def test_a_redirect_to_the_service_leads_through_the_gateway(location: bytes, seen: bytes) -> None:
    assert translated(b"Location: " + location) == b"Location: %b\r\n" % seen
    assert translated(b"Content-Location: " + location) == b"Content-Location: %b\r\n" % seen


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"/base/v2/x?api_key=%b&a=1" % KEY.encode(), b"/query/x?a=1"),
        (b"/base/v2/x?api_key=%b" % KEY.encode(), b"/query/x"),
        (b"https://cdn.test/x?API_KEY=%b&a" % KEY.encode(), b"https://cdn.test/x?a"),
    ],
)
def test_the_credential_is_taken_out_of_a_redirect(location: bytes, seen: bytes) -> None:
    assert translated(b"Location: " + location, "query", QUERY) == b"Location: %b\r\n" % seen


@pytest.mark.parametrize(
    "line",
    [
        b"Location: https://cdn.test/%b/x" % KEY.encode(),
        b"Location: https://user:%b@cdn.test/" % KEY.encode(),
        b"Location: /x?token=" + KEY.encode(),
        b"Location: /x#" + KEY.encode(),
        b"Location: /x?t=" + b"".join(b"%%%02X" % byte for byte in KEY.encode()),
        b"Set-Cookie: a=" + KEY.encode(),
    ],
)
def test_what_shows_the_credential_even_so_is_dropped(line: bytes) -> None:
    assert translated(line) == b""


@pytest.mark.parametrize(
    ("cookie", "seen"),
    [
        (b"a=b", b"a=b; Path=/api/"),
        (b"a=b; Path=/", b"a=b; Path=/api/"),
        (b"a=b; path=/base/v2/x; HttpOnly", b"a=b; HttpOnly; Path=/api/x"),
        (b"a=b; Path=/elsewhere", b"a=b; Path=/api/"),
        (b"a=b; Path=", b"a=b; Path=/api/"),
        (b"a=b; Domain=.api.test; Secure", b"a=b; Secure; Path=/api/"),
        (
            b"a=b;Domain=api.test;SameSite=Lax;Max-Age=5",
            b"a=b; SameSite=Lax; Max-Age=5; Path=/api/",
        ),
        (b"session=mine", b"session=mine; Path=/api/"),
    ],
)
def test_a_cookie_is_bound_to_its_service(cookie: bytes, seen: bytes) -> None:
    assert translated(b"Set-Cookie: " + cookie) == b"Set-Cookie: %b\r\n" % seen


@pytest.mark.parametrize(
    "cookie", [b"session=renewed", b" session =renewed; Path=/", b"%73ession=renewed"]
)
def test_the_services_own_session_is_not_handed_out(cookie: bytes) -> None:
    assert translated(b"Set-Cookie: " + cookie, "cookie", COOKIE) == b""
