from __future__ import annotations

import base64
import gc
import weakref
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.scrub import SHORTEST, Scrubber, scrubber
from broker.gateway.scrubbing import Scrubbing
from broker.gateway.spellings import Spelling, texts

KEY = b"sk_live_7f3a9c/+canary"
LONG = b"eyJhbGciOiJS" + b"aZ9kQ3mB" * 124
FILLER = b"*"
MARKS = [b"%73", b"\\u006b", b"&#107;", b"%", b"\\", b"\\u00", b"&#", b"&", b"%4", b"%3"]

secrets = st.one_of(
    st.binary(min_size=SHORTEST, max_size=24).filter(lambda one: FILLER not in one),
    st.text("ab%\\&u0", min_size=SHORTEST, max_size=12).map(str.encode),
    st.text("ab +/", min_size=SHORTEST, max_size=12).map(str.encode),
)


@st.composite
def written(draw: st.DrawFn, secret: bytes) -> bytes:
    """A way to write a secret, or the beginning of one."""
    spelling = Spelling(draw(st.sampled_from(sorted(texts(secret)))))
    escaped = draw(st.sampled_from([False, False, True]))
    pieces = [draw(st.sampled_from(ways)) if escaped else ways[0] for ways in spelling._characters]
    return b"".join(pieces[: draw(st.sampled_from([None, None, None, -1, 3]))])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Some secrets, and a body that holds much of them."""
    known = draw(st.lists(secrets, min_size=1, max_size=2))
    noise = st.one_of(st.binary(max_size=12), st.sampled_from(MARKS))
    pieces = st.one_of(noise, *(written(secret) for secret in known))
    return known, b"".join(draw(st.lists(pieces, max_size=8)))


def places(known: list[bytes], body: bytes) -> list[tuple[int, int]]:
    """Where to replace, found the slow way: from the left, the longest first."""
    found, start = [], 0
    ways = [one for secret in known for one in map(Spelling, texts(secret))]
    while start < len(body):
        end = max(one.walk(body, start).end for one in ways)
        if end > start:
            found.append((start, end))
        start = max(end, start + 1)
    return found


def scrubbed_whole(known: list[bytes], body: bytes) -> bytes:
    result = bytearray(body)
    for start, end in places(known, body):
        result[start:end] = FILLER * (end - start)
    return bytes(result)


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
    _assert_scrubbed(known, body, [body[i : i + 50] for i in range(0, len(body), 50)])


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "seed", [b"%4", b"%73", b"%73%6b", b"&#", b"\\u0073k", b"%73k_live_", b"sk_live_%37", KEY[:-2]]
)
def test_whatever_is_sown_a_mebibyte_is_scrubbed_in_bounded_time(seed: bytes) -> None:
    body = seed * ((1 << 20) // len(seed))
    assert Scrubber([KEY]).scrub(body) == body


@pytest.mark.timeout(10)
@pytest.mark.parametrize("seed", [b"%", b"%" * 12_000 + b"%65", b"\\" * 300 + b"\\u0065", b"&&#"])
def test_whatever_is_sown_a_long_secret_is_looked_for_in_bounded_time(seed: bytes) -> None:
    scrubbing = Scrubbing(Scrubber([LONG]))
    piece = (seed * (1 << 14))[: 1 << 14]
    passed = b"".join(scrubbing.content(piece, done=False) for _ in range(256))
    assert passed + scrubbing.content(b"", done=True) == piece * 256


@given(st.integers(0, 40), st.integers(0, 120), st.data())
def test_of_a_long_secret_nothing_passes_wherever_it_is_cut(
    before: int, after: int, data: st.DataObject
) -> None:
    spelling = Spelling(data.draw(st.sampled_from(sorted(texts(LONG[:80])))))
    escaped = data.draw(st.sampled_from([0, 1, 2, 7]))
    text = b"".join(
        ways[-1] if escaped and not number % escaped else ways[0]
        for number, ways in enumerate(spelling._characters)
    )
    body = b"%" * before + text + b"\\" * after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    chunks = [body[one:other] for one, other in pairwise([0, *cuts, len(body)])]
    _assert_scrubbed([LONG[:80]], body, chunks)


@given(bodies(), st.data())
def test_chunks_make_no_difference(case: tuple[list[bytes], bytes], data: st.DataObject) -> None:
    known, body = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    chunks = [body[one:other] for one, other in pairwise([0, *cuts, len(body)])]
    _assert_scrubbed(known, body, chunks)


@given(bodies())
def test_single_bytes_make_no_difference(case: tuple[list[bytes], bytes]) -> None:
    known, body = case
    _assert_scrubbed(known, body, [body[i : i + 1] for i in range(len(body))])


def _assert_scrubbed(known: list[bytes], body: bytes, chunks: list[bytes]) -> None:
    by = Scrubber(known)
    scrubbing = Scrubbing(by)
    came = gone = 0
    result = b""
    for chunk in chunks:
        passed = scrubbing.content(chunk, done=False)
        came, gone, result = came + len(chunk), gone + len(passed), result + passed
        assert 0 <= came - gone < by.longest
    result += scrubbing.content(b"", done=True)
    assert result == scrubbed_whole(known, body)
    assert scrubbing.found == bool(places(known, body))


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_secret_is_found_wherever_it_is_cut(cut: int) -> None:
    scrubbing = Scrubbing(Scrubber([KEY]))
    assert scrubbing.content(b"a " + KEY[:cut], done=False) == b"a "
    assert scrubbing.content(KEY[cut:] + b" b", done=False) == FILLER * len(KEY) + b" b"
    assert scrubbing.found


def test_an_event_is_passed_on_at_once() -> None:
    scrubbing = Scrubbing(Scrubber([KEY]))
    for event in (b"data: {}\n\n", b": s\n\n", b'data: "k"\r\n\r\n', b"data: sk_live\n\n"):
        assert scrubbing.content(event, done=False) == event
    assert not scrubbing.found


def test_only_what_may_be_the_beginning_of_a_secret_waits() -> None:
    scrubbing = Scrubbing(Scrubber([KEY]))
    assert scrubbing.content(b"data: see sk_li", done=False) == b"data: see "
    assert scrubbing.content(b"", done=False) == b""
    assert scrubbing.content(b"ng\n\n", done=False) == b"sk_ling\n\n"
    assert scrubbing.content(b"end s", done=False) == b"end "
    assert scrubbing.content(b"", done=True) == b"s"
    assert not scrubbing.found


def test_of_two_secrets_the_longer_is_replaced_whole() -> None:
    scrubbing = Scrubbing(Scrubber([b"password", b"password-of-root"]))
    assert scrubbing.content(b"it is password", done=False) == b"it is "
    assert scrubbing.content(b"-of-root.", done=False) == FILLER * 16 + b"."


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
