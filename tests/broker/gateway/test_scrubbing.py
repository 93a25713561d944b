from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.scrub import Scrubber
from broker.gateway.scrubbing import Scrubbing
from broker.gateway.spellings import Spelling, texts
from tests.fakes.scrubbing import FILLER, KEY, LONG, MARKS, bodies, places, scrubbed_whole


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


@given(bodies(), st.sampled_from(MARKS), st.integers(0, 40))
def test_sown_with_escapes_pieces_make_no_difference(
    case: tuple[list[bytes], bytes], mark: bytes, before: int
) -> None:
    known, body = case
    body = mark * before + body + mark * (40 - before)
    _assert_scrubbed(known, body, [body[i : i + 50] for i in range(0, len(body), 50)])


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
