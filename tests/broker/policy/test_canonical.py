from __future__ import annotations

import posixpath
import re
import unicodedata
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.canonical import canonical_problem

CANONICAL = [
    b"/",
    b"/v1",
    b"/v1/",
    b"/v1/charges/ch_1/refunds",
    b"/.well-known/openid-configuration",
    b"/a..b/...c",
    b"/users/@me",
    b"/users/jo%40example.com",
    b"/v1beta/models/gemini-2.5-flash:generateContent",
    b"/a!$&'()*+,=:@b",
    b"/search/a%20b",
    b"/x%5B0%5D/%7Bid%7D",
    b"/%3Cb%3E",
    b"/%C3%A9t%C3%A9",
    b"/docs/%e6%97%a5%e6%9c%ac.md",
    b"/%F0%9F%98%80",
]

REFUSED = {
    b"": "begin",
    b"*": "begin",
    b"v1": "begin",
    b"http://evil.example/": "begin",
    b"//": "//",
    b"//evil.example/x": "//",
    b"/v1//x": "//",
    b"/v1/.": "dot segment",
    b"/./v1": "dot segment",
    b"/v1/..": "dot segment",
    b"/v1/../x": "dot segment",
    b"/v1/.../x": "ends in a dot",
    b"/v1./x": "ends in a dot",
    b"/v1/x.": "ends in a dot",
    b"/v1/x%20": "ends in a dot or space",
    b"/v1/..%20/x": "ends in a dot or space",
    b"/v1/%2e%2e/x": "written as itself",
    b"/v1/.%2E/x": "written as itself",
    b"/v1/%41": "written as itself",
    b"/v1/%7euser": "written as itself",
    b"/v1/a%2fb": "encoded '/'",
    b"/v1/a%2Fb": "encoded '/'",
    b"/v1/a%5cb": "encoded '/' or '\\'",
    b"/v1/a%252fb": "encoded '%'",
    b"/v1/a%25b": "encoded '%'",
    b"/v1/a%00": "encoded control",
    b"/v1/a%0d%0aX:1": "encoded control",
    b"/v1/a%7F": "encoded control",
    b"/v1/a%3bb": "encoded ';'",
    b"/v1/a%23": "encoded ';', '#'",
    b"/v1/a%3F": "encoded ';', '#' or '?'",
    b"/v1/a;b=c/d": "';'",
    b"/v1/..;/x": "';'",
    b"/v1/a\\b": "'\\'",
    b"/v1/a#b": "'#'",
    b"/v1/a?b": "'?'",
    b"/v1/a b": "space",
    b"/v1/a\tb": "space or control",
    b"/v1/a\x00": "space or control",
    b"/v1/a\n": "space or control",
    b"/v1/a\x7f": "space or control",
    b"/v1/\xc3\xa9": "non-ASCII",
    b"/v1/\xc0\xae": "non-ASCII",
    b"/v1/%": "two hexadecimal digits",
    b"/v1/%4": "two hexadecimal digits",
    b"/v1/%zz": "two hexadecimal digits",
    b"/v1/%u002f": "two hexadecimal digits",
    b"/v1/<b>": "percent-encode it",
    b"/v1/{id}": "percent-encode it",
    b'/v1/"x"': "percent-encode it",
    b"/v1/%c0%ae": "not UTF-8",
    b"/v1/%c0%af": "not UTF-8",
    b"/v1/%e0%80%af": "not UTF-8",
    b"/v1/%f0%80%80%af": "not UTF-8",
    b"/v1/%80": "not UTF-8",
    b"/v1/%c3": "not UTF-8",
    b"/v1/%c3/%a9": "not UTF-8",
    b"/v1/%ed%a0%80": "not UTF-8",
    b"/v1/%f4%90%80%80": "not UTF-8",
    b"/v1/%ff": "not UTF-8",
    b"/v1/%ef%bc%8fx": "drop or read as an ASCII",  # FULLWIDTH SOLIDUS
    b"/v1/%ef%bc%8e%ef%bc%8e": "drop or read as an ASCII",  # FULLWIDTH FULL STOP
    b"/v1/%ef%bc%85": "drop or read as an ASCII",  # FULLWIDTH PERCENT SIGN
    b"/v1/%ef%bd%81": "drop or read as an ASCII",  # FULLWIDTH LATIN SMALL LETTER A
    b"/v1/%e2%88%95": "drop or read as an ASCII",  # DIVISION SLASH
    b"/v1/%e2%80%a6": "drop or read as an ASCII",  # HORIZONTAL ELLIPSIS
    b"/v1/%c5%bf": "drop or read as an ASCII",  # LATIN SMALL LETTER LONG S
    b"/v1/%c4%b0": "drop or read as an ASCII",  # CAPITAL I WITH DOT ABOVE
    b"/v1/%e2%80%8b": "drop or read as an ASCII",  # ZERO WIDTH SPACE
    b"/v1/%c2%ad": "drop or read as an ASCII",  # SOFT HYPHEN
    b"/v1/%c2%a0": "drop or read as an ASCII",  # NO-BREAK SPACE
    b"/v1/%e2%80%ae": "drop or read as an ASCII",  # RIGHT-TO-LEFT OVERRIDE
    b"/v1/%cd%8f": "drop or read as an ASCII",  # COMBINING GRAPHEME JOINER
    b"/v1/%ef%b8%8f": "drop or read as an ASCII",  # VARIATION SELECTOR-16
    b"/v1/%ee%80%80": "drop or read as an ASCII",  # private use
    b"/v1/e%cc%81": "form C",  # e and a combining acute accent
    b"/v1/%e2%84%aa": "form C",  # KELVIN SIGN
}


@pytest.mark.parametrize("path", CANONICAL)
def test_passes_what_has_one_reading(path: bytes) -> None:
    assert canonical_problem(path) is None


@pytest.mark.parametrize(("path", "problem"), REFUSED.items())
def test_refuses_what_has_two_and_says_why(path: bytes, problem: str) -> None:
    found = canonical_problem(path)
    assert found is not None
    assert problem in found


NASTY = [
    b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%5c", b"%252f", b"%25", b";", b";x=1",
    b"\\", b"%00", b"%c0%ae", b"%ef%bc%8f", b"\t", b"#", b"?", b"%zz", b"%", b"%20", b" ", b"+",
    b"a", b"B", b"v1", b"%41", b"%C3%A9", b"%c3%a9", b"e%CC%81", b"%40", b"@", b":", b"~", b"*",
    b"%7E", b"%3B", b"\xff", b"%E2%80%8B", b"%C5%BF", b"x.json", b"%0A", b"\x00", b"=", b"&",
]  # fmt: skip
paths = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=8).map(lambda parts: b"/" + b"".join(parts)),
    st.binary(max_size=24).map(lambda data: b"/" + data),
    st.text(max_size=12).map(lambda text: b"/" + quote(text).encode()),
)


def segments_of(path: bytes) -> list[str]:
    """What a path means: its segments, percent-decoded."""
    return [unquote(segment.decode("ascii"), errors="strict") for segment in path.split(b"/")[1:]]


@given(paths)
def test_what_passes_means_the_same_to_whoever_normalises(path: bytes) -> None:
    if canonical_problem(path) is not None:
        return
    text = path.decode("ascii")
    meaning = segments_of(path)
    # RFC 3986, 6.2.2: case of hex digits, decoding of unreserved characters, dot segments.
    assert not re.search(r"%(?:2[DE]|3\d|[46][1-9A-F]|[57][\dA]|5F|7E)", text.upper())
    assert "." not in meaning
    assert ".." not in meaning
    # nginx merge_slashes, and posixpath as frameworks use it on decoded paths.
    assert "//" not in text
    trailing = "/" if text.endswith("/") and text != "/" else ""
    assert posixpath.normpath(unquote(text)) + trailing == unquote(text)
    # WHATWG URL: backslashes, tabs and line breaks; encoded dots.
    assert not re.search(r"[\\\t\r\n]", unquote(text))
    # Servlet containers: path parameters.
    assert ";" not in unquote(text)
    # Decoding twice, or encoding anew, changes nothing.
    assert unquote(unquote(text)) == unquote(text)
    assert segments_of(quote(unquote(text)).encode()) == meaning
    # Unicode: no normalisation form brings a character of the syntax, or merges two paths.
    for form in ("NFC", "NFKC"):
        folded = unicodedata.normalize(form, unquote(text))
        assert [one for one in folded if one.isascii()] == [
            one for one in unquote(text) if one.isascii()
        ]
    assert unquote_to_bytes(path).decode().casefold().count("/") == text.count("/")


@given(paths)
def test_what_is_refused_is_named_without_being_repeated(path: bytes) -> None:
    problem = canonical_problem(path)
    if problem is not None:
        assert problem.isascii()
        assert problem.isprintable()
        assert len(problem) < 120


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "path",
    [
        b"/" + b"a" * 65_536 + b"\n",
        b"/a" * 32_768 + b".",
        b"/%20" * 16_384,
        b"/" + b"%c3%a9" * 10_000 + b"%c3",
        b"/" + b"%25" * 20_000,
        b"/" + b"." * 65_536,
    ],
    ids=lambda path: path[:12].decode(),
)
def test_takes_time_in_proportion_to_the_path(path: bytes) -> None:
    for _ in range(20):
        assert canonical_problem(path) is not None
