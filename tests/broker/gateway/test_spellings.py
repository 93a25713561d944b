from __future__ import annotations

import base64
import html
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.spellings import ESCAPE, ESCAPE_MARKS, LONGEST_ESCAPE, Spelling, Walk, texts

SECRET = b"sk_live/7f3+9c=="
secrets = st.binary(min_size=8, max_size=40)


def stands(secret: bytes, text: bytes) -> bool:
    """Tell whether a spelling stands somewhere in a text."""
    return any(
        one.walk(text, start).end > 0
        for one in map(Spelling, texts(secret))
        for start in range(len(text))
    )


def escaped(text: bytes, form: str) -> bytes:
    return "".join(form.format(byte) for byte in text).encode()


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        quote(SECRET).encode(),
        quote(SECRET, safe="").encode(),
        quote(SECRET, safe="").lower().encode(),
        quote_plus(SECRET).encode(),
        escaped(SECRET, "%{:02x}"),
        escaped(SECRET, "%{:02X}"),
        escaped(SECRET, "\\u{:04x}"),
        escaped(SECRET, "\\u{:04X}"),
        escaped(SECRET, "&#{};"),
        escaped(SECRET, "&#x{:x};"),
        SECRET.replace(b"/", b"\\/"),
        SECRET.replace(b"s", b"\\u0073"),
        SECRET[:-1] + b"%3d",
        b"%73" + SECRET[1:],
        SECRET.hex().encode(),
        SECRET.hex().upper().encode(),
        base64.b64encode(b"user:" + SECRET),
        base64.b64encode(b"user:" + SECRET + b"\n"),
        base64.urlsafe_b64encode(b"account:" + SECRET).rstrip(b"="),
        base64.b64encode(SECRET).replace(b"/", b"\\/"),
        quote(base64.b64encode(SECRET), safe="").encode(),
    ],
)
def test_a_secret_is_known_again_as_it_is_commonly_written(text: bytes) -> None:
    assert stands(SECRET, b"<" + text + b">")


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (b'quo"ted\\secret', json.dumps('quo"ted\\secret').encode()),
        (b"a<b>&c'd\"efgh", html.escape("a<b>&c'd\"efgh").encode()),
        (b"a<b>&c'd\"efgh", b"a&lt;b&gt;&amp;c&apos;d&quot;efgh"),
        (b"a<b>&c'd\"efgh", b"a&lt;b&gt;&amp;c&#039;d&#034;efgh"),
        (b"two words of it", b"two+words+of+it"),
        (b"two words of it", b"two%20words%20of%20it"),
        ("schlüssel".encode(), quote("schlüssel").encode()),
        ("schlüssel".encode(), "schlüssel".encode("latin-1")),
        ("schlüssel".encode(), "schlüssel".encode().decode("latin-1").encode()),
        ("schlüssel".encode(), json.dumps("schlüssel").encode()),
        ("schlüssel".encode(), b"schl\\u00FCssel"),
        ("schlüssel".encode(), b"schl&#252;ssel"),
        ("schl/\U0001f511/ssel".encode(), json.dumps("schl/\U0001f511/ssel").encode()),
        ("schl/\U0001f511/ssel".encode(), b"schl\\/\\uD83D\\uDD11\\/ssel"),
        ("schlüssel".encode("latin-1"), b"schl\\u00fcssel"),
        ("schlüssel".encode("latin-1"), "schlüssel".encode()),
    ],
)
def test_characters_with_escapes_of_their_own_are_known_again(secret: bytes, text: bytes) -> None:
    assert stands(secret, text)


@pytest.mark.parametrize("text", [SECRET[:-1], SECRET[1:], SECRET.upper(), SECRET[::-1], b""])
def test_nothing_else_is(text: bytes) -> None:
    assert not stands(SECRET, text)


@given(secrets, st.binary(max_size=8), st.binary(max_size=8))
def test_base64_is_found_whatever_stands_around(secret: bytes, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert stands(secret, encode(before + secret + after))


def test_a_walk_says_where_a_spelling_ends_or_that_it_is_cut_short() -> None:
    raw = Spelling(b"secret%key")
    assert raw.walk(b"a secret%key", 2) == Walk(12, is_open=False)
    assert raw.walk(b"a secret%25key!", 2) == Walk(14, is_open=False)
    assert raw.walk(b"a secret%2", 2) == Walk(-1, is_open=True)
    assert raw.walk(b"a secr", 2) == Walk(-1, is_open=True)
    assert raw.walk(b"a secr", 6) == Walk(-1, is_open=True)
    assert raw.walk(b"a second", 2) == Walk(-1, is_open=False)


@given(secrets, st.data())
def test_what_is_promised_of_a_spelling_holds_for_each_way_to_write_it(
    secret: bytes, data: st.DataObject
) -> None:
    spelling = Spelling(data.draw(st.sampled_from(sorted(texts(secret)))))
    pieces = [data.draw(st.sampled_from(ways)) for ways in spelling._characters]
    written = b"".join(pieces)
    assert spelling.walk(written, 0).end == len(written)
    assert written[0] in spelling.first
    assert set(written) <= spelling.alphabet
    assert len(written) <= spelling.longest
    assert max(map(len, pieces)) <= LONGEST_ESCAPE
    escapes = dict[bytes, set[int]]()
    for escape, following in spelling.escapes():
        escapes.setdefault(escape, set()).update(following)
    seen = [
        one
        for one, other in pairwise(pieces)
        if len(one) > 1 and other[0] in escapes[one[1:]] and ESCAPE.match(one)
    ]
    assert written.startswith(spelling.text[:-1]) or seen
    assert all(one[0] in ESCAPE_MARKS for one in seen)


def test_a_spelling_does_not_show_the_secret() -> None:
    assert SECRET.decode() not in repr(Spelling(SECRET))
