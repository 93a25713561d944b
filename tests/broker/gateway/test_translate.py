from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.base import Resource
from broker.gateway.grammar import Field
from broker.gateway.inject import Credential
from broker.gateway.route import Route
from broker.gateway.translate import translate
from providers.base import Injection, Secret
from tests.fakes.gateway import KEY, policy, policy_text

WHERE = "base_url: https://api.test/base/v2"
POLICY = policy(policy_text(WHERE), 443)


def route(name: str, gateway: str = "https://gateway.test") -> Route:
    service = POLICY.services[name]
    assert service.upstream is not None
    return Route(POLICY, service, service.upstream, Resource(gateway, "https://broker.test"))


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


LINKS = [
    (b"", b""),
    (b"<>", b"<>"),
    (b'<x?page=2>; rel="next"', b'<x?page=2>; rel="next"'),
    (b'</base/v2/x?page=2>; rel="next"', b'</api/x?page=2>; rel="next"'),
    (b"<https://api.test/base/v2/x?y#z>", b"<https://gateway.test/api/x?y#z>"),
    (b"<HTTPS://api.test:443/base/v2>", b"<https://gateway.test/api/>"),
    (
        b'<https://api.test/base/v2/x?page=2>; rel="next", <https://api.test/base/v2/x>; rel=first',
        b'<https://gateway.test/api/x?page=2>; rel="next", <https://gateway.test/api/x>; rel=first',
    ),
    (b"<https://api.test/login>", b"<https://api.test/login>"),
    (b"<https://api.test.evil.test/base/v2/x>", b"<https://api.test.evil.test/base/v2/x>"),
    (b"<//api.test/base/v2/x>", b"<//api.test/base/v2/x>"),
    (b"<https://cdn.test/x>; rel=preload", b"<https://cdn.test/x>; rel=preload"),
    (
        b'</base/v2/a>; title="see \\"</base/v2/b>\\""; rel=next, </base/v2/c>',
        b'</api/a>; title="see \\"</base/v2/b>\\""; rel=next, </api/c>',
    ),
    (b'"unclosed </base/v2/x>', b'"unclosed </base/v2/x>'),
    (b'"\\', b'"\\'),
    (b"</base/v2/x", b"</base/v2/x"),
    (b"</base</base/v2/x>", b"</base</api/x>"),
]


@pytest.mark.parametrize(("link", "seen"), LINKS)
def test_the_next_page_is_had_through_the_gateway(link: bytes, seen: bytes) -> None:
    assert translated(b"Link: " + link) == b"Link: %b\r\n" % seen


TARGETS = {
    b"/base/v2/x": b"/api/x",
    b"https://api.test/base/v2?y": b"https://gateway.test/api/?y",
    b"https://cdn.test/base/v2/x": b"https://cdn.test/base/v2/x",
    b"?page=2": b"?page=2",
}
TITLE = st.lists(st.sampled_from([b"</base/v2/x>", b'\\"', b"\\\\", b"x", b", ", b"; rel=next"]))


@given(st.lists(st.tuples(st.sampled_from(sorted(TARGETS)), TITLE)))
def test_what_is_no_target_of_a_link_stays_as_it_is(links: list[tuple[bytes, list[bytes]]]) -> None:
    def written(targets: dict[bytes, bytes]) -> bytes:
        return b", ".join(
            b'<%b>; title="%b"' % (targets[target], b"".join(title)) for target, title in links
        )

    told = written({target: target for target in TARGETS})
    assert translated(b"Link: " + told) == b"Link: %b\r\n" % written(TARGETS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [b'"', b'\\"', b"<", b"<x", b'<"', b"</base/v2/x>", b"\\"])
@pytest.mark.parametrize("before", [b"", b'"', b"<"])
def test_hostile_links_are_read_in_linear_time(before: bytes, piece: bytes) -> None:
    assert translated(b"Link: " + before + piece * 100_000)


@pytest.mark.parametrize(
    "name",
    [
        b"Azure-AsyncOperation",
        b"Operation-Location",
        b"X-Goog-Upload-URL",
        b"x-goog-upload-control-url",
    ],
)
def test_where_a_client_goes_on_it_goes_through_the_gateway(name: bytes) -> None:
    there = translated(name + b": https://api.test/base/v2/x?y")
    assert there == name + b": https://gateway.test/api/x?y\r\n"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (b"Location: https://api.test/base/v2/x", b"Location: /deep/gw/api/x\r\n"),
        (b"Link: <https://api.test/base/v2/x>", b"Link: <https://gw.test/deep/gw/api/x>\r\n"),
        (b"Set-Cookie: a=b; Path=/base/v2/x", b"Set-Cookie: a=b; Path=/deep/gw/api/x\r\n"),
    ],
)
def test_a_gateway_may_be_a_part_of_a_site(line: bytes, seen: bytes) -> None:
    key, _, value = line.partition(b": ")
    way = route("api", "https://gw.test/deep/gw")
    lines = translate((Field(key.lower(), key, value),), way, Credential(BEARER, way.slots, 0.0))
    assert lines == seen


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
    assert translated(b"Link: <%b>" % location, "query", QUERY) == b"Link: <%b>\r\n" % seen


@pytest.mark.parametrize(
    "line",
    [
        b"Location: https://cdn.test/%b/x" % KEY.encode(),
        b"Location: https://user:%b@cdn.test/" % KEY.encode(),
        b"Location: /x?token=" + KEY.encode(),
        b"Location: /x#" + KEY.encode(),
        b"Location: /x?t=" + b"".join(b"%%%02X" % byte for byte in KEY.encode()),
        b"Set-Cookie: a=" + KEY.encode(),
        b"Link: </base/v2/x>; title=" + KEY.encode(),
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
