from __future__ import annotations

import string
from base64 import b64encode

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.authorize import Admission
from broker.gateway.base import Resource
from broker.gateway.inject import Credential, upstream_head, without_parameters
from broker.gateway.limits import GatewayLimits
from broker.gateway.request import Request, RequestReader
from broker.gateway.route import Route
from broker.gateway.slots import cookie_pairs
from broker.model import Allow, Grant
from providers.base import Injection, ProviderError, Secret
from tests.fakes.gateway import KEY, policy, policy_text

B = b"secret-of-b"
POLICY = policy(policy_text(), 8080)
ROUTES = {
    name: Route(POLICY, service, service.upstream)
    for name, service in POLICY.services.items()
    if service.upstream is not None
}
GRANT = Grant("jti", "tester", "local", "tester", (), 0, 0, POLICY.version, "tester")
INJECTIONS = {
    "api": Injection(headers=((b"Authorization", Secret(b"Bearer " + KEY.encode())),)),
    "keyed": Injection(headers=((b"X-Api-Key", Secret(KEY.encode())),)),
    "query": Injection(query=((b"api_key", Secret(KEY.encode())),)),
    "cookie": Injection(cookies=((b"session", Secret(KEY.encode())),)),
}


def sent(service: str, target: bytes, *lines: bytes, method: bytes = b"GET") -> list[bytes]:
    """The lines that go upstream for a request with these."""
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: g", *lines, b"", b""])
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    route = ROUTES[service]
    path = request.path[len(route.prefix) :]
    admission = Admission(request, route, GRANT, Allow("s", "r", "low"), path)
    out = upstream_head(admission, Credential(INJECTIONS[service], route.slots, 0.0, scrub=False))
    assert out.endswith(b"\r\n\r\n")
    return out[:-4].split(b"\r\n")


def test_the_path_goes_out_byte_for_byte() -> None:
    line, host, credential = sent("api", b"/api/v1/a%20b/'(x)*?q=%zz&&a")
    assert line == b"GET /v1/a%20b/'(x)*?q=%zz&&a HTTP/1.1"
    assert host == b"Host: 127.0.0.1:8080"
    assert credential == b"Authorization: Bearer " + KEY.encode()


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Basic mine",
        b"authorization: Bearer mine",
        b"Proxy-Authorization: Bearer mine",
        b"Connection: keep-alive",
        b"Keep-Alive: 5",
        b"Proxy-Connection: keep-alive",
        b"Proxy: http://evil.test:3128",
        b"TE: gzip",
        b"Trailer: X",
        b"Upgrade: websocket",
        b"HTTP2-Settings: AAMA",
        b"Expect: 100-continue",
        b"X-HTTP-Method-Override: DELETE",
        b"X-HTTP-Method: DELETE",
        b"X-Method-Override: DELETE",
        b"x_http_method_override: DELETE",
        b"X-Original-URL: /admin",
        b"X_Original_URL: /admin",
        b"X-Rewrite-URL: /admin",
        b"X-Original-Host: evil",
        b"X-Host: evil",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Host: evil",
        b"X-Forwarded-Whatever: evil",
        b"X_Forwarded_Proto: https",
        b"x-forwarded_prefix: /admin",
        b"Forwarded: for=127.0.0.1",
        b"X-Real-IP: 127.0.0.1",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
    ],
    ids=repr,
)
def test_what_is_never_sent_on(line: bytes) -> None:
    assert len(sent("api", b"/api/x", line)) == 3


def test_what_connection_names_is_removed_and_the_credential_stays() -> None:
    lines = sent(
        "keyed",
        b"/keyed/x",
        b"Connection: close, X-Api-Key, Authorization, X-Signature, Host",
        b"X-Signature: abc",
        b"X-Kept: yes",
    )
    assert lines[1:] == [b"Host: 127.0.0.1:8080", b"X-Kept: yes", b"X-Api-Key: " + KEY.encode()]


@pytest.mark.parametrize("name", [b"X-Api-Key", b"x-api-key", b"X_API_KEY", b"X-Api_Key"])
def test_the_agents_own_header_is_replaced(name: bytes) -> None:
    lines = sent("keyed", b"/keyed/x", name + b": mine", b"X-Other: a")
    assert lines[2:] == [b"X-Other: a", b"X-Api-Key: " + KEY.encode()]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"api_key=mine", b""),
        (b"a=1&api_key=mine&b=2", b"a=1&b=2&"),
        (b"api_key=1&api_key=2", b""),
        (b"api%5Fkey=mine&a", b"a&"),
        (b"API_KEY=mine", b""),
        (b"api.key=mine", b""),
        (b"api-key=mine", b""),
        (b"api_key[]=mine", b""),
        (b"api_key%5B0%5D=mine", b""),
        (b"api_key%00x=mine", b""),
        (b"a=1;api_key=mine", b""),
        (b"api_key", b""),
        (b"+api_key=mine", b""),
        (b"my_api_key=1", b"my_api_key=1&"),
        (b"q=api_key", b"q=api_key&"),
        (b"q=api_key=1", b"q=api_key=1&"),
        (b"", b""),
    ],
)
def test_the_agents_own_parameter_is_replaced(query: bytes, kept: bytes) -> None:
    line = sent("query", b"/query/x?" + query)[0]
    assert line == b"GET /x?%bapi_key=%b HTTP/1.1" % (kept, KEY.encode())


def test_a_parameter_is_added_where_there_is_no_query() -> None:
    assert sent("query", b"/query/x")[0] == b"GET /x?api_key=%b HTTP/1.1" % KEY.encode()


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        ([], b""),
        ([b"Cookie: session=mine"], b""),
        ([b"Cookie: a=1; session=mine; b=2"], b"a=1; b=2; "),
        ([b"Cookie: a=1", b"Cookie: session=mine; b=2"], b"a=1; b=2; "),
        ([b"Cookie: my_session=1"], b"my_session=1; "),
        ([b"Cookie: session=1; session=2"], b""),
        ([b'Cookie: a="x;session=1"'], b""),
        ([b'Cookie: a="x"; b=; c= d'], b'a="x"; b=; c=d; '),
    ],
)
def test_the_agents_own_cookie_is_replaced(lines: list[bytes], cookies: bytes) -> None:
    found = [line for line in sent("cookie", b"/cookie/x", *lines) if line.startswith(b"Cookie")]
    assert found == [b"Cookie: %bsession=%b" % (cookies, KEY.encode())]


def test_other_services_get_the_agents_cookies() -> None:
    assert b"Cookie: session=mine" in sent("api", b"/api/x", b"Cookie: session=mine")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 005", b"Content-Length: 5"),
        (b"Content-Length: 0", b"Content-Length: 0"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ],
)
def test_bodies_are_framed_anew(line: bytes, out: bytes) -> None:
    lines = sent("api", b"/api/x", line, b"Connection: Content-Length", method=b"POST")
    assert lines[2:] == [out, b"Authorization: Bearer " + KEY.encode()]


def secret(value: bytes) -> Secret:
    return Secret(value)


@pytest.mark.parametrize(
    "injection",
    [
        Injection(headers=((b"X-A", secret(b"a\r\nX-B: c")),)),
        Injection(headers=((b"X-A", secret(b"a\0")),)),
        Injection(headers=((b"X-A", secret(b" a")),)),
        Injection(headers=((b"X-A", secret(b"a ")),)),
        Injection(headers=((b"X A", secret(b"a")),)),
        Injection(headers=((b"X-A:", secret(b"a")),)),
        Injection(headers=((b"", secret(b"a")),)),
        Injection(headers=((b"Host", secret(b"evil")),)),
        Injection(headers=((b"Content-Length", secret(b"0")),)),
        Injection(headers=((b"Transfer_Encoding", secret(b"chunked")),)),
        Injection(headers=((b"Connection", secret(b"close")),)),
        Injection(query=((b"a&b", secret(b"c")),)),
        Injection(query=((b"a", secret(b"b&c=d")),)),
        Injection(query=((b"a", secret(b"b HTTP/1.1\r\n")),)),
        Injection(query=((b"a", secret(b"")),)),
        Injection(cookies=((b"a", secret(b"b; c=d")),)),
        Injection(cookies=((b"a=b", secret(b"c")),)),
        Injection(cookies=((b"a", secret(b"b\r\n")),)),
    ],
)
def test_an_injection_stays_in_its_place(injection: Injection) -> None:
    with pytest.raises(ProviderError) as error:
        Credential(injection, (), 0.0)
    assert "evil" not in str(error.value)


def test_a_credential_does_not_show_itself() -> None:
    credential = Credential(INJECTIONS["api"], (), 0.0)
    assert KEY not in repr(credential)
    assert credential.shows(b"x?key=" + KEY.encode() + b"&y")
    assert credential.shows(b"".join(b"%%%02x" % byte for byte in KEY.encode()))
    assert not credential.shows(KEY[:-1].encode())


def test_parameters_are_removed_by_any_spelling() -> None:
    assert without_parameters(b"a=1&B=2&c", frozenset({b"b"})) == b"a=1&c"


AGENTS_KEY = b"agents-own-key"
NAMES = [b"Authorization", b"X-Api-Key", b"Cookie", b"Connection", b"Proxy-Authorization", b"TE"]
NAMES += [b"X-HTTP-Method-Override", b"X-Original-URL", b"X-Forwarded-For", b"Forwarded", b"X-Fine"]


@st.composite
def spelt(draw: st.DrawFn, name: bytes) -> bytes:
    """A name in some letter case, with some of its dashes as underscores."""
    letters = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    cased = [
        chr(byte).upper() if up else chr(byte).lower()
        for byte, up in zip(name, letters, strict=True)
    ]
    return "".join("_" if c == "-" and draw(st.booleans()) else c for c in cased).encode()


@given(
    service=st.sampled_from(sorted(INJECTIONS)),
    lines=st.lists(
        st.tuples(
            st.sampled_from(NAMES).flatmap(spelt),
            st.sampled_from(
                [AGENTS_KEY, b"session=" + AGENTS_KEY, b"api_key", b"x-api-key, x-fine"]
            )
            | st.text(string.printable[:95], max_size=20).map(lambda text: text.strip().encode()),
        ),
        max_size=6,
    ),
    query=st.sampled_from([b"", b"?api_key=" + AGENTS_KEY, b"?a=1&API.KEY=" + AGENTS_KEY]),
)
def test_upstream_gets_one_request_with_our_credential_alone(
    service: str, lines: list[tuple[bytes, bytes]], query: bytes
) -> None:
    """The credential is there once, and the agent's own stands nowhere it could count."""
    given_lines = [b"%b: %b" % line for line in lines]
    try:
        out = sent(service, b"/%b/v1/x%b" % (service.encode(), query), *given_lines)
    except AssertionError:
        return  # refused when it was read
    upstream = h11.Connection(h11.SERVER)
    upstream.receive_data(b"\r\n".join([*out, b"", b""]))
    request = upstream.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(upstream.next_event(), h11.EndOfMessage)
    assert upstream.trailing_data == (b"", False)
    assert request.method == b"GET"
    whole = b"\n".join(out)
    assert whole.count(KEY.encode()) == 1
    names = {name.replace(b"_", b"-") for name, _ in request.headers}
    assert not names & {b"connection", b"te", b"proxy-authorization", b"forwarded"}
    assert not names & {b"x-http-method-override", b"x-original-url", b"x-forwarded-for"}
    if service == "keyed":
        keys = [
            value for name, value in request.headers if name.replace(b"_", b"-") == b"x-api-key"
        ]
        assert keys == [KEY.encode()]
    if service == "query":
        assert AGENTS_KEY not in request.target
    if service == "cookie":
        cookies = [value for name, value in request.headers if name == b"cookie"]
        pairs = [pair for value in cookies for pair in cookie_pairs(value)]
        assert [value for name, value in pairs if name == b"session"] == [KEY.encode()]
    assert [value for name, value in request.headers if name == b"authorization"] == (
        [b"Bearer " + KEY.encode()] if service == "api" else []
    )


@pytest.mark.parametrize(
    "line",
    [
        b"Accept-Encoding: gzip, br",
        b"accept_encoding: gzip",
        b"Accept-Charset: utf-16",
        b"A-IM: gzip",
        b"Range: bytes=0-9",
        b"range: bytes=1-2",
        b"If-Range: x",
        b"x-ms-range: bytes=0-9",
    ],
)
@pytest.mark.parametrize("service", ["api", "query", "cookie"])
def test_where_echoes_are_scrubbed_responses_are_asked_for_as_they_are(
    service: str, line: bytes
) -> None:
    request = b"GET /api/x HTTP/1.1\r\nHost: g\r\nAccept: */*\r\n%b\r\n\r\n" % line
    read = RequestReader(GatewayLimits()).read(request)
    assert isinstance(read, Request)
    admission = Admission(read, ROUTES[service], GRANT, Allow("s", "r", "low"), b"/x")
    out = upstream_head(admission, Credential(INJECTIONS[service], (), 0.0))
    lines = out.split(b"\r\n")
    assert b"Accept: */*" in lines
    assert b"Accept-Encoding: identity" in lines
    assert line not in lines
    plain = upstream_head(admission, Credential(INJECTIONS[service], (), 0.0, scrub=False))
    assert line in plain.split(b"\r\n")


@pytest.mark.parametrize(
    "injection",
    [
        Injection(headers=((b"X-A", secret(b"Token 1234567")),)),
        Injection(query=((b"a", secret(b"%31234567")),)),
        Injection(cookies=((b"a", secret(b"b")),)),
        Injection(headers=((b"Authorization", secret(b"Basic " + b64encode(b"user:pass"))),)),
        Injection(headers=((b"Authorization", secret(b"Basic " + b64encode(b"user:"))),)),
        Injection(headers=((b"X-A", secret(b"id=1234567")),), secrets=(secret(b"1234567"),)),
    ],
)
def test_a_secret_that_cannot_be_told_from_chance_is_not_injected(injection: Injection) -> None:
    with pytest.raises(ProviderError, match=r"less than 8 bytes.*scrub: off") as error:
        Credential(injection, (), 0.0)
    assert "1234567" not in str(error.value)
    assert Credential(injection, (), 0.0, scrub=False).scrubber is None


@pytest.mark.parametrize(
    ("injection", "hidden", "shown"),
    [
        (INJECTIONS["api"], KEY.encode(), b"Bearer"),
        (INJECTIONS["query"], KEY.encode(), b"api_key"),
        (
            Injection(headers=((b"Authorization", secret(b"basic " + b64encode(b"a:" + B))),)),
            B,
            b"a:",
        ),
        (
            Injection(headers=((b"Authorization", secret(b"Basic " + b64encode(b"a:" + B))),)),
            b64encode(b"a:" + B),
            b"basic",
        ),
        (
            Injection(headers=((b"Authorization", secret(b"Basic " + b64encode(B + b":"))),)),
            B,
            b":",
        ),
        (Injection(headers=((b"X", secret(b"a=1 b=" + B)),), secrets=(secret(B),)), B, b"a=1 b="),
        (Injection(query=((b"a", secret(b"p%61ssword")),)), b"password", b"p%61"),
    ],
)
def test_what_is_injected_is_known_again(injection: Injection, hidden: bytes, shown: bytes) -> None:
    scrubber = Credential(injection, (), 0.0).scrubber
    assert scrubber is not None
    assert scrubber.scrub(b"<" + hidden + b">") == b"<" + b"*" * len(hidden) + b">"
    assert scrubber.scrub(b"<" + shown + b">") == b"<" + shown + b">"


def test_whether_trailers_are_taken_is_passed_on_for_the_next_hop() -> None:
    for te in (b"TE: trailers", b"TE: gzip;q=0.5, Trailers"):
        lines = sent("api", b"/api/x", te, b"Connection: TE")
        assert lines[2:4] == [b"TE: trailers", b"Connection: TE"]


def test_the_next_hop_learns_who_sent_it() -> None:
    service = POLICY.services["api"]
    assert service.upstream is not None
    gateway = Resource("https://gateway.test", "https://broker.test")
    route = Route(POLICY, service, service.upstream, gateway)
    head = b"GET /api/x HTTP/1.1\r\nHost: g\r\nVia: 1.0 fred\r\nConnection: Via2\r\n\r\n"
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    admission = Admission(request, route, GRANT, Allow("s", "r", "low"), b"/x")
    credential = Credential(INJECTIONS["api"], route.slots, 0.0)
    for _ in range(2):  # remembered, the second time
        lines = upstream_head(admission, credential).split(b"\r\n")
        assert lines[2:4] == [b"Via: 1.0 fred", b"Via: 1.1 " + gateway.pseudonym]
