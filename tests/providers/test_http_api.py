from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.gateway.inject import Credential
from providers.base import (
    CredentialRequest,
    Dependencies,
    Injection,
    ProviderError,
    Secret,
    TokenSlot,
    Upstream,
)
from providers.http_api import FRESH_FOR, PLUGIN, HttpApiScope, HttpApiService

BEARER = {"type": "bearer", "secret": "vault:kv/stripe#key"}
REQUEST = CredentialRequest("api", "agent", "jti", "api.read", None, 60, None)


@dataclass
class Values:
    """The secrets there are."""

    values: dict[str, bytes]
    reads: list[str] = field(default_factory=list)

    async def read(self, reference: str) -> Secret:
        self.reads.append(reference)
        return Secret(self.values[reference])


def service(credential: dict[str, Any] | None = None, **fields: Any) -> HttpApiService:
    own = BEARER if credential is None else credential
    given = {"base_url": "https://api.example", "credential": own}
    return HttpApiService.model_validate(given | fields)


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as error:
        service(**fields)
    return str(error.value)


async def injected(credential: dict[str, Any], **values: bytes) -> Injection:
    """What a credential becomes; secrets are named by their references' ends."""
    secrets = Values({f"env:{name}": value for name, value in values.items()})
    provider = PLUGIN.build(service(credential), Dependencies(secrets, lambda: None, lambda: 0.0))
    return await provider.injection(REQUEST)  # type: ignore[union-attr]


def headers(injection: Injection) -> list[tuple[bytes, bytes]]:
    assert injection.query == injection.cookies == ()
    return [(name, secret.reveal()) for name, secret in injection.headers]


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("https://api.stripe.com", Upstream("https", "api.stripe.com", 443)),
        ("https://api.stripe.com/", Upstream("https", "api.stripe.com", 443)),
        ("https://api.stripe.com:8443/v1/", Upstream("https", "api.stripe.com", 8443, b"/v1")),
        ("https://a.example/x/y-z~1", Upstream("https", "a.example", 443, b"/x/y-z~1")),
        ("https://[2606:4700::1111]:444", Upstream("https", "2606:4700::1111", 444)),
        ("https://192.0.2.1", Upstream("https", "192.0.2.1", 443)),
    ],
)
def test_where_requests_go(url: str, upstream: Upstream) -> None:
    assert PLUGIN.upstream(service(base_url=url)) == upstream


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.stripe.com",
        "//api.stripe.com",
        "ftp://api.stripe.com",
        "https://",
        "https://API.stripe.com",
        "https://user@api.stripe.com",
        "https://user:pass@api.stripe.com",
        "https://api.stripe.com@evil.example",
        "https://api.stripe.com?x=1",
        "https://api.stripe.com#f",
        "https://api.stripe.com/a/../b",
        "https://api.stripe.com/./b",
        "https://api.stripe.com//b",
        "https://api.stripe.com/%2e%2e/b",
        "https://api.stripe.com/a;b",
        "https://api.stripe.com\\@evil.example",
        "https://api.stripe.com/a b",
        "https://api.stripe.com\r\nX: y",
        "https://api.stripe.com\n",
        "https://api.stripe.com:0",
        "https://api.stripe.com:65536",
        "https://api.stripe.com:443:443",
        "https://bücher.example",
        "https://.example",
        "https://[::1",
        "https://{agent}.example",
    ],
)
def test_urls_that_could_lead_elsewhere_are_refused(url: str) -> None:
    assert "base_url" in refusal(base_url=url)


def test_plain_http_must_be_asked_for() -> None:
    assert "insecure_http: true" in refusal(base_url="http://api.example")
    upstream = PLUGIN.upstream(service(base_url="http://api.example", insecure_http=True))
    assert upstream == Upstream("http", "api.example", 80, insecure_http=True)
    assert "ca_file" in refusal(base_url="http://a.example", insecure_http=True, ca_file="/ca.pem")


@pytest.mark.parametrize(
    ("written", "scrub"), [("on", True), ("off", False), (True, True), (False, False)]
)
def test_scrubbing_is_on_unless_it_is_off(written: object, scrub: bool) -> None:  # noqa: FBT001
    def upstream(**fields: Any) -> Upstream:
        return PLUGIN.upstream(service(base_url="https://api.example", **fields))  # type: ignore[return-value]

    assert upstream().scrub is True
    assert upstream(scrub=written).scrub is scrub
    for wrong in ("no", "OFF", 2, None):
        assert "scrub" in refusal(base_url="https://api.example", scrub=wrong)


@pytest.mark.parametrize(
    "field",
    [
        {"base_ur": "https://x"},
        {"credential": BEARER | {"prefix": "x"}},
        {"credential": {"type": "hmac"}},
        {"credential": {}},
        {"ca_file": "relative.pem"},
    ],
)
def test_unknown_fields_and_kinds_are_refused(field: dict[str, Any]) -> None:
    assert refusal(**field)


@pytest.mark.parametrize(
    "pasted", ["sk_live_51H8xyz", "ghp_abc", "Bearer x", "hunter2:", "env:a b"]
)
def test_a_pasted_secret_is_refused_and_not_repeated(pasted: str) -> None:
    text = refusal(credential={"type": "bearer", "secret": pasted})
    assert "a policy never holds the secret itself" in text
    assert pasted not in text


@pytest.mark.parametrize(
    "name",
    [
        *("", "X Y", "X:", "X\r\nY", "Ünicode"),
        *("Host", "content-length", "Transfer-Encoding", "Connection", "Proxy-Authorization"),
        *("Upgrade", "TE", "Trailer", "Expect", "Keep-Alive"),
    ],
)
def test_headers_that_cannot_carry_a_credential(name: str) -> None:
    assert refusal(credential={"type": "header", "name": name, "secret": "env:K"})
    assert refusal(
        credential={"type": "template", "header": name, "value": "{a}", "secrets": {"a": "env:K"}}
    )


@pytest.mark.parametrize(
    "credential",
    [
        {"type": "basic"},
        {"type": "basic", "username": "u"},
        {"type": "basic", "username": "u", "username_secret": "env:U"},
        {"type": "basic", "username": "u:v", "secret": "env:K"},
        {"type": "basic", "username": "u\n", "secret": "env:K"},
        {"type": "header"},
        {"type": "header", "name": "X-A"},
        {"type": "header", "secret": "env:K"},
        {"type": "header", "headers": []},
        {
            "type": "header",
            "name": "X",
            "secret": "env:K",
            "headers": [{"name": "Y", "secret": "env:K"}],
        },
        {"type": "header", "prefix": "x", "headers": [{"name": "Y", "secret": "env:K"}]},
        {"type": "header", "headers": [{"name": n, "secret": "env:K"} for n in ("X-A", "x-a")]},
        {"type": "header", "name": "X", "secret": "env:K", "prefix": "a\r\nb"},
        {"type": "query", "name": "a=b", "secret": "env:K"},
        {"type": "query", "name": "a&b", "secret": "env:K"},
        {"type": "query", "name": "", "secret": "env:K"},
        {"type": "cookie", "name": "a;b", "secret": "env:K"},
        {"type": "template", "header": "X", "value": "{a}", "secrets": {}},
        {"type": "template", "header": "X", "value": "{a}", "secrets": {"b": "env:K"}},
        {"type": "template", "header": "X", "value": "plain", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{a!r}", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{a:>9}", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{a.b}", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{}{a}", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{a", "secrets": {"a": "env:K"}},
        {"type": "template", "header": "X", "value": "{a}\n", "secrets": {"a": "env:K"}},
    ],
    ids=str,
)
def test_incomplete_credentials_are_refused(credential: dict[str, Any]) -> None:
    assert refusal(credential=credential)


def test_a_reference_as_user_name_gets_a_hint() -> None:
    credential = {"type": "basic", "username": "vault:kv/x#y", "secret": "env:K"}
    assert "goes into username_secret" in refusal(credential=credential)


def test_a_scope_has_no_fields_of_its_own() -> None:
    HttpApiScope.model_validate({})
    with pytest.raises(ValidationError):
        HttpApiScope.model_validate({"path": "/"})


async def test_bearer() -> None:
    injection = await injected({"type": "bearer", "secret": "env:K"}, K=b"sk_1")
    assert headers(injection) == [(b"Authorization", b"Bearer sk_1")]
    assert injection.fresh_for == FRESH_FOR


@pytest.mark.parametrize(
    ("fields", "pair"),
    [
        ({"username": "AC1", "secret": "env:K"}, b"AC1:pass word\xc3\xa9"),
        ({"secret": "env:K"}, b":pass word\xc3\xa9"),
        ({"username_secret": "env:U"}, b"user:"),
        ({"username_secret": "env:U", "secret": "env:K"}, b"user:pass word\xc3\xa9"),
    ],
)
async def test_basic(fields: dict[str, str], pair: bytes) -> None:
    injection = await injected({"type": "basic"} | fields, K="pass wordé".encode(), U=b"user")
    assert headers(injection) == [(b"Authorization", b"Basic " + base64.b64encode(pair))]


async def test_one_header_and_several() -> None:
    one = await injected(
        {"type": "header", "name": "Authorization", "secret": "env:K", "prefix": "Token "}, K=b"k"
    )
    assert headers(one) == [(b"Authorization", b"Token k")]
    several = [{"name": "DD-API-KEY", "secret": "env:A"}, {"name": "DD-APP", "secret": "env:B"}]
    injection = await injected({"type": "header", "headers": several}, A=b"a", B=b"b")
    assert headers(injection) == [(b"DD-API-KEY", b"a"), (b"DD-APP", b"b")]


async def test_template() -> None:
    credential = {
        "type": "template",
        "header": "Authorization",
        "value": "Key id={a}, key={b}; {{raw}}",
        "secrets": {"a": "env:A", "b": "env:B"},
    }
    injection = await injected(credential, A=b"1", B=b"{a}")
    assert headers(injection) == [(b"Authorization", b"Key id=1, key={a}; {raw}")]


@given(st.binary(min_size=1).filter(lambda value: all(31 < byte != 127 for byte in value)))
async def test_query_values_are_encoded_whole(value: bytes) -> None:
    injection = await injected({"type": "query", "name": "api_key", "secret": "env:K"}, K=value)
    ((name, secret),) = injection.query
    assert name == b"api_key"
    assert unquote_to_bytes(secret.reveal()) == value
    assert not set(secret.reveal()) & set(b"&=#+ ;?/")


async def test_cookie() -> None:
    injection = await injected({"type": "cookie", "name": "sid", "secret": "env:K"}, K=b"abc")
    assert [(name, secret.reveal()) for name, secret in injection.cookies] == [(b"sid", b"abc")]


KINDS: dict[str, dict[str, Any]] = {
    "bearer": {"type": "bearer", "secret": "env:K"},
    "basic": {"type": "basic", "secret": "env:K"},
    "basic user": {"type": "basic", "username_secret": "env:K"},
    "header": {"type": "header", "name": "X-A", "secret": "env:K"},
    "query": {"type": "query", "name": "k", "secret": "env:K"},
    "cookie": {"type": "cookie", "name": "k", "secret": "env:K"},
    "template": {"type": "template", "header": "X", "value": "{a}", "secrets": {"a": "env:K"}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [b"", b"a\r\nX: y", b"key\n", b"a\0b", b"a\x7fb", b"\ra"])
async def test_a_value_that_would_break_out_of_its_place_is_refused(
    kind: str, value: bytes
) -> None:
    with pytest.raises(ProviderError) as error:
        await injected(KINDS[kind], K=value)
    assert "env:K" in str(error.value)
    assert value.strip() == b"" or repr(value)[2:-1] not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("bearer", b" a"), ("bearer", b"a "), ("header", b"\xc3\xa9"), ("template", b"\t")),
        *(("cookie", b"a b"), ("cookie", b"a;b"), ("cookie", b"a,b"), ("cookie", b'"a"')),
        ("basic user", b"a:b"),
    ],
)
async def test_a_value_that_its_place_cannot_carry_is_refused(kind: str, value: bytes) -> None:
    with pytest.raises(ProviderError):
        await injected(KINDS[kind], K=value)


@pytest.mark.parametrize(
    ("kind", "slots"),
    [
        ("bearer", ()),
        ("basic", (TokenSlot("basic", b"authorization"),)),
        ("header", (TokenSlot("header", b"x-a"),)),
        ("query", ()),
        ("cookie", (TokenSlot("cookie", b"k"),)),
        ("template", ()),
    ],
)
def test_the_task_token_is_taken_where_the_credential_goes(
    kind: str, slots: tuple[TokenSlot, ...]
) -> None:
    bearer = TokenSlot("bearer", b"authorization", b"Bearer ")
    assert PLUGIN.token_slots(service(KINDS[kind])) == (bearer, *slots)


def test_every_reference_is_named() -> None:
    basic = {"type": "basic", "username_secret": "env:U", "secret": "env:P"}
    several = {"type": "header", "headers": [{"name": "A", "secret": "env:A"}]}
    assert PLUGIN.secret_references(service(BEARER)) == ("vault:kv/stripe#key",)
    assert PLUGIN.secret_references(service(basic)) == ("env:U", "env:P")
    assert PLUGIN.secret_references(service(several)) == ("env:A",)
    assert PLUGIN.secret_references(service(KINDS["template"])) == ("env:K",)
    assert PLUGIN.secret_references(service(KINDS["cookie"])) == ("env:K",)


def test_a_static_key_is_never_delivered() -> None:
    assert PLUGIN.deliveries == {"proxy"}


@pytest.mark.parametrize(
    "credential",
    [
        {"type": "bearer", "secret": "env:a"},
        {"type": "basic", "username": "u", "secret": "env:a"},
        {"type": "basic", "username_secret": "env:a"},
        {"type": "header", "name": "X-Key", "secret": "env:a", "prefix": "Token token="},
        {"type": "query", "name": "key", "secret": "env:a"},
        {"type": "cookie", "name": "key", "secret": "env:a"},
        {"type": "template", "header": "X", "value": "v={a}, u=1", "secrets": {"a": "env:a"}},
    ],
    ids=lambda credential: str(credential["type"]),
)
async def test_the_gateway_knows_the_secret_itself_again_in_a_response(
    credential: dict[str, Any],
) -> None:
    injection = await injected(credential, a=b"canary/4c1d")
    assert injection.secrets == (Secret(b"canary/4c1d"),)
    written = Credential(injection, (), 0.0)
    assert written.shows(b"https://elsewhere.example/?key=canary/4c1d&x=1")
    assert written.shows(b"https://elsewhere.example/?key=canary%2F4c1d")
    assert not written.shows(b"https://elsewhere.example/?key=")
