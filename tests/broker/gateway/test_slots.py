from __future__ import annotations

import base64

import pytest

from broker.gateway.grammar import Field
from broker.gateway.request import RequestFields
from broker.gateway.slots import BEARER, Presented, cookie_pairs, find_token
from providers.base import TokenSlot

TOKEN = b"eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIn0.c2lnbmF0dXJl"
BASIC = (*BEARER, TokenSlot("basic", b"authorization"))
KEYED = (*BEARER, TokenSlot("header", b"x-api-key"))
PREFIXED = (*BEARER, TokenSlot("header", b"authorization", b"Token "))
COOKIE = (*BEARER, TokenSlot("cookie", b"sid"))


def fields(*lines: bytes) -> RequestFields:
    pairs = (line.partition(b": ") for line in (b"Host: a", *lines))
    return RequestFields(b"", tuple(Field(n.lower(), n, v) for n, _, v in pairs), 0)


def basic(user: bytes, password: bytes) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(user + b":" + password)


@pytest.mark.parametrize(
    ("line", "slots"),
    [
        (b"Authorization: Bearer " + TOKEN, BEARER),
        (b"AUTHORIZATION: bearer  " + TOKEN, BEARER),
        (basic(b"", TOKEN), BASIC),
        (basic(TOKEN, b""), BASIC),
        (basic(TOKEN, b"x-oauth-basic"), BASIC),
        (basic(b"x-access-token", TOKEN), BASIC),
        (b"authorization: basic " + base64.b64encode(TOKEN + b":"), BASIC),
        (b"Authorization: Bearer " + TOKEN, KEYED),
        (b"X-Api-Key: " + TOKEN, KEYED),
        (b"Authorization: Token " + TOKEN, PREFIXED),
        (b"Cookie: a=b; sid=" + TOKEN + b"; c=d", COOKIE),
        (b"Cookie: sid=" + TOKEN, COOKIE),
    ],
)
def test_the_token_is_found_in_its_slot(line: bytes, slots: tuple[TokenSlot, ...]) -> None:
    assert find_token(fields(line), slots) == Presented(TOKEN, misplaced=False)


@pytest.mark.parametrize(
    ("line", "slots"),
    [
        (b"X-Api-Key: " + TOKEN, BEARER),
        (b"X_Api_Key: " + TOKEN, KEYED),
        (basic(b"u", TOKEN), BEARER),
        (basic(b"u", TOKEN), KEYED),
        (b"Cookie: sid=" + TOKEN, BEARER),
        (b"Cookie: other=" + TOKEN, COOKIE),
        (b"Authorization: Bearer", BEARER),
        (b"Authorization: Bearer ", BEARER),
        (b"Authorization: " + TOKEN, BEARER),
        (b"Authorization: Digest " + TOKEN, BASIC),
        (b"Authorization: Basic !!!", BASIC),
        (b"Authorization: Basic ", BASIC),
        (b"Authorization: Basic Og==", BASIC),
        (b"Proxy-Authorization: Bearer " + TOKEN, BEARER),
        (b"X-Api-Key: ", KEYED),
    ],
)
def test_it_is_looked_for_nowhere_else(line: bytes, slots: tuple[TokenSlot, ...]) -> None:
    assert find_token(fields(line), slots) is None


def test_the_bearer_header_comes_first() -> None:
    both = fields(b"X-Api-Key: other", b"Authorization: Bearer " + TOKEN)
    found = find_token(both, KEYED)
    assert found is not None
    assert found.token == TOKEN


@pytest.mark.parametrize(
    ("line", "misplaced"),
    [
        (b"X-Trace: " + TOKEN, True),
        (b"X-Trace: id=" + TOKEN + b";", True),
        (b"X-Trace: " + TOKEN[:-1], False),
        (b"Cookie: a=" + TOKEN, True),
        (b"Cookie: sid=" + TOKEN, False),
        (b"Cookie: sid=1; a=" + TOKEN, True),
        (b"Cookie: " + TOKEN, True),
        (b"Cookie: sid=1; x" + TOKEN + b"=y", True),
        (TOKEN + b": x", True),
        (b"X-" + TOKEN + b": x", True),
        (b"Authorization: Bearer " + TOKEN, False),
    ],
)
def test_a_token_elsewhere_is_noticed(line: bytes, misplaced: bool) -> None:  # noqa: FBT001
    found = find_token(fields(b"Authorization: Bearer " + TOKEN, line), COOKIE)
    assert found == Presented(TOKEN, misplaced)


def test_cookie_pairs() -> None:
    assert cookie_pairs(b'a=b; c="d=e" ;f; =g') == [
        *((b"a", b"b"), (b"c", b'"d=e"'), (b"f", b""), (b"", b"g")),
    ]


def test_not_more_cookies_are_looked_at_than_anybody_has() -> None:
    value = b"a=1;" * 5_000 + b"b=2"
    pairs = cookie_pairs(value)
    assert len(pairs) == 256
    assert pairs[:2] == [(b"a", b"1"), (b"a", b"1")]
    assert pairs[-1][1].endswith(b"b=2")  # no byte is left out of sight
