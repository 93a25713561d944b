"""P1: whatever is allowed means the same to all who normalise it, or is refused with 400.

The gateway sends on the very bytes that were judged; what is shown here is that an upstream
which normalises them cannot come to another path than the one that policy judged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import Allow
from broker.policy.matching import Authorizer, ScopeRules, canonical_problem
from broker.policy.rules import parse_rule
from tests.fakes.rule_model import is_meant

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE: Final = [
    b".", b"..", b"...", b"%2e", b"%2E%2e", b".%2e", b"%2f", b"%2F", b"%5c", b"%5C", b"%252f",
    b"%252e%252e", b"%25%32%66", b"", b";x", b"..;", b";", b"\\", b"..\\", b"%00", b"a%00", b"\x00",
    b"%c0%ae", b"%c0%af", b"%e0%80%af", b"%ef%bc%8f", b"%EF%BC%8E", b"%u002f", b"\t", b"%09", b"#",
    b"%23", b"?", b"%3f", b"a.", b"a%20", b"a ", b"%zz", b"%", b"%2", b"\xff", b"\xc3\xa9",
    b"%E2%81%84", b"%E2%88%95", b"%ff", b"%0d%0a", b"\r\n", b"\x7f", b"%7f", b"%3B",
]  # fmt: skip


@pytest.mark.parametrize("segment", HOSTILE, ids=repr)
@pytest.mark.parametrize(
    "path", [b"/X", b"/v1/X", b"/X/v1", b"/v1/X/charges", b"/v1/aX/b", b"/v1/charges/X/"]
)
def test_p1_in_every_segment(path: bytes, segment: bytes) -> None:
    hostile = path.replace(b"X", segment)
    may_stand_there = hostile in {b"/", b"/v1/", b"/v1/a/b"}
    assert (canonical_problem(hostile) is None) is may_stand_there


def decoded(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/")[1:]]


def without_dots(segments: list[str]) -> list[str]:
    """RFC 3986, 5.2.4."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return kept


def rfc_3986(path: str) -> list[str]:
    """6.2.2: case of escapes, escapes of unreserved characters, dot segments."""

    def plain(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if re.fullmatch(r"[\w.~-]", character, re.ASCII) else match[0].upper()

    return [
        unquote(one)
        for one in without_dots(re.sub("%([0-9A-Fa-f]{2})", plain, path).split("/")[1:])
    ]


def whatwg(path: str) -> list[str]:
    """The URL standard's path state: backslashes, tabs, dots in any spelling."""
    text = re.sub("[\t\r\n]", "", path).replace("\\", "/").split("#")[0].split("?")[0]
    dots = [re.sub("%2e", ".", one, flags=re.IGNORECASE) for one in text.split("/")[1:]]
    shown = [
        dot if dot in {".", ".."} else one
        for dot, one in zip(dots, text.split("/")[1:], strict=True)
    ]
    return [unquote(one) for one in without_dots(shown)]


def nginx(path: str) -> list[str]:
    """Decoding first, then merge_slashes and dots."""
    return without_dots(re.sub("/+", "/", unquote(path.split("#", maxsplit=1)[0])).split("/")[1:])


def python(path: str) -> list[str]:
    """urllib: decoded and encoded anew, as many proxies do."""
    return [unquote(one) for one in quote(unquote(path)).split("/")[1:]]


def servlet(path: str) -> list[str]:
    """Java's containers: parameters cut off each segment, decoding, then dots."""
    return without_dots([unquote(one.split(";")[0]) for one in path.split("/")[1:]])


def folding(path: str) -> list[str]:
    """Servers and file systems that do not tell letters by their case."""
    return [one.casefold() for one in decoded(path)]


def trimming(path: str) -> list[str]:
    """Frameworks that ignore a trailing slash, and systems that drop trailing dots and spaces."""
    segments = [one.rstrip(". ") or one for one in decoded(path)]
    return segments[:-1] if len(segments) > 1 and not segments[-1] else segments


NORMALISERS: Final[dict[str, Callable[[str], list[str]]]] = {
    one.__name__: one
    for one in (decoded, rfc_3986, whatwg, nginx, python, servlet, folding, trimming)
}

WORDS: Final = ["v1", "refunds", "Refunds", "re_1", "cancel", "CANCEL", "@me", "%40me", "a:run",
                "a%3Arun", "caf%C3%A9", "caf%C3%89", "a%20b"]  # fmt: skip


@st.composite
def targets(draw: st.DrawFn) -> str:
    """Paths of which most have nothing hostile in them, else none would pass."""
    segments = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
    if draw(st.integers(0, 3)) == 0:
        position = draw(st.integers(0, len(segments) - 1))
        hostile = draw(st.sampled_from(HOSTILE)).decode("latin-1")
        segments[position] = draw(st.sampled_from([hostile, segments[position] + hostile]))
    return "/" + "/".join(segments) + draw(st.sampled_from(["", "/"]))


rule_paths = st.lists(
    st.sampled_from([*WORDS, "*", "**", "*:run", "re_*"]), min_size=1, max_size=4
).map(lambda parts: re.sub(r"\*\*(/\*\*)+", "**", "/".join(parts)))


def pattern_of(rule_path: str) -> list[str]:
    return [unquote(segment) for segment in rule_path.split("/")]


def judged(path: str, allow: list[str], deny: list[str]) -> bool | None:
    """Tell whether a request passes; None if it is refused with 400."""
    raw = path.encode("latin-1")
    if canonical_problem(raw) is not None:
        return None
    scope = ScopeRules(
        "s",
        tuple(parse_rule(f"GET /{one}") for one in allow),
        tuple(parse_rule(f"* /{one}") for one in deny),
    )
    return isinstance(Authorizer("service", [scope]).judge(b"GET", raw, b""), Allow)


@settings(max_examples=300)
@given(
    targets(),
    st.lists(st.sampled_from(["**", "v1/**", "*/*"]) | rule_paths, min_size=1, max_size=2),
    st.lists(rule_paths, max_size=2),
)
def test_p1_what_is_allowed_means_the_same_after_normalising(
    path: str, allow: list[str], deny: list[str]
) -> None:
    if not judged(path, allow, deny):
        return
    for name, normalised in NORMALISERS.items():
        seen = normalised(path)

        def pattern(rule: str, folded: bool = name == "folding") -> list[str]:  # noqa: FBT001
            return [one.casefold() if folded else one for one in pattern_of(rule)]

        assert not any(is_meant(pattern(one), seen) for one in deny)
        tails = [[], [""]] if name == "trimming" else [[]]
        assert any(is_meant(pattern(one), seen + tail) for one in allow for tail in tails)


def assert_denied_by_what_is_seen(path: str) -> None:
    for name, normalised in NORMALISERS.items():
        seen = normalised(path)
        rule = "/".join(quote(one, safe="@:") for one in seen)
        if canonical_problem(f"/{rule}".encode()) is None:
            assert judged(path, ["**"], [rule]) in {None, False}, name


@settings(max_examples=300)
@given(targets())
def test_p1_a_deny_rule_for_what_an_upstream_sees_denies_it(path: str) -> None:
    assert_denied_by_what_is_seen(path)


@pytest.mark.parametrize("segment", HOSTILE, ids=repr)
def test_p1_no_hostile_segment_gets_round_a_deny_rule(segment: bytes) -> None:
    hostile = segment.decode("latin-1")
    for path in ("/v1/refunds/X", "/v1/X/refunds", "/v1/refundsX", "/v1/refundsX/re_1", "/X/v1",
                 "/v1/Xrefunds", "/v1/safe/X/refunds", "/v1/refunds/reX1"):  # fmt: skip
        assert_denied_by_what_is_seen(path.replace("X", hostile))
