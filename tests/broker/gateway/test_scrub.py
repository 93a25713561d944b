from __future__ import annotations

import base64
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.scrub import Scrubber, scrubber
from tests.fakes.scrubbing import FILLER, KEY, MARKS, bodies, places, scrubbed_whole


@given(bodies())
def test_a_body_is_scrubbed_as_the_slow_way_has_it(case: tuple[list[bytes], bytes]) -> None:
    known, body = case
    result = Scrubber(known).scrub(body)
    assert result == scrubbed_whole(known, body)
    assert not places(known, result)
    if not places(known, body):
        assert result is body


@given(bodies(), st.sampled_from(MARKS), st.integers(0, 40))
def test_sown_with_escapes_it_is_scrubbed_alike(
    case: tuple[list[bytes], bytes], mark: bytes, before: int
) -> None:
    known, body = case
    body = mark * before + body + mark * (40 - before)
    assert Scrubber(known).scrub(body) == scrubbed_whole(known, body)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "seed", [b"%4", b"%73", b"%73%6b", b"&#", b"\\u0073k", b"%73k_live_", b"sk_live_%37", KEY[:-2]]
)
def test_whatever_is_sown_a_mebibyte_is_scrubbed_in_bounded_time(seed: bytes) -> None:
    body = seed * ((1 << 20) // len(seed))
    assert Scrubber([KEY]).scrub(body) == body


def test_the_filler_is_no_part_of_a_secret() -> None:
    secret = b"********"
    assert Scrubber([secret]).scrub(b"a ******** b") == b"a ~~~~~~~~ b"


def test_there_is_a_filler_whatever_is_printable_in_a_secret() -> None:
    secret = bytes(range(0x20, 0x7F))
    assert Scrubber([secret]).scrub(b"<" + secret + b">") == b"<" + b"\xff" * 95 + b">"


@pytest.mark.parametrize("short", [b"", b"a", b"1234567"])
def test_a_short_secret_is_refused(short: bytes) -> None:
    with pytest.raises(ValueError, match="less than 8 bytes") as caught:
        Scrubber([KEY, short])
    assert KEY.decode() not in str(caught.value)


def test_a_head_keeps_its_lines_and_its_framing() -> None:
    head = (
        b"HTTP/1.1 418 I am " + KEY + b"\r\nX-Key: Bearer " + KEY + b"\r\n"
        b"X-" + KEY + b": 1\r\nX-Basic: " + base64.b64encode(b"u:" + KEY) + b"\r\n\r\n"
    )
    scrubbed = Scrubber([KEY]).scrub_head(head)
    stars = FILLER * len(KEY)
    first, key, name, basic, *rest = scrubbed.split(b"\r\n")
    assert first == b"HTTP/1.1 418 I am " + stars
    assert (key, name) == (b"X-Key: Bearer " + stars, b"X-" + stars + b": 1")
    assert basic.count(FILLER) >= len(KEY)
    assert rest == [b"", b""]
    for clean in (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: %73k\r\n\r\n"):
        assert Scrubber([KEY]).scrub_head(clean) is clean


def test_the_framing_of_a_head_is_the_gateways_own_word() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345678\r\nX-Number: 12345678\r\n\r\n"
    scrubbed = Scrubber([b"12345678"]).scrub_head(head)
    assert scrubbed == head.replace(b"X-Number: 12345678", b"X-Number: ********")


def test_a_scrubber_is_made_once_while_it_is_in_use_and_forgotten_afterwards() -> None:
    one = scrubber([KEY])
    assert scrubber([KEY, KEY]) is one
    assert scrubber([KEY + b"x"]) is not one
    known = weakref.ref(one)
    del one
    gc.collect()
    assert known() is None


def test_nothing_shows_the_secret() -> None:
    assert KEY.decode() not in repr(Scrubber([KEY]))
