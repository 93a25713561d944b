"""P1: whatever is allowed means the same to all who normalise it, or is refused with 400.

The gateway sends on the very bytes that were judged; what is shown here is that the matcher judges
them as a plain model does, and that an upstream which normalises them cannot come to another path
than the one that was judged. What "the same" is where letter case is ignored: an allow rule names
exact bytes, so the path as such an upstream sees it is one that the rule, read by it, allows; and
no deny rule forbids it, for those ignore case themselves.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

import pytest
from ada_url import URL
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import Allow
from broker.policy.matching import Authorizer, ScopeRules, canonical_problem
from broker.policy.rules import parse_rule
from tests.differential.readers import nginx_reader
from tests.fakes import rule_model
from tests.fakes.rule_model import Scope, is_meant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.components.gate import Gate

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
    """The URL standard, as Ada (of Node and Cloudflare's workers) implements it."""
    return [unquote(one) for one in URL(f"http://host{path}").pathname.split("/")[1:]]


def nginx(path: str) -> list[str]:
    """Decoding first, then merge_slashes and dots."""
    return without_dots(re.sub("/+", "/", unquote(path.split("#", maxsplit=1)[0])).split("/")[1:])


def python(path: str) -> list[str]:
    """urllib and posixpath: parsed, decoded, put in order and encoded anew, as proxies do."""
    seen = unquote(urlsplit(f"http://host{path}").path)
    ordered = posixpath.normpath(seen) + ("/" if seen.endswith("/") and seen != "/" else "")
    return [unquote(one) for one in quote(ordered).split("/")[1:]]


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


PIECES: Final = [*WORDS, *(one.decode("latin-1") for one in HOSTILE), "/", "%", "%2", "\u00e9", "*"]
raw_paths = (
    targets().map(lambda path: path.encode("latin-1"))
    | st.lists(st.sampled_from(PIECES), max_size=8).map(lambda all_: "".join(all_).encode())
    | st.lists(st.sampled_from(PIECES), max_size=8).map(
        lambda all_: b"/" + "/".join(all_).encode("latin-1")
    )
    | st.text(max_size=6).map(lambda text: b"/v1/" + quote(text, safe="@:").encode())
    | st.binary(max_size=12).map(lambda noise: b"/v1/" + noise)
    | st.lists(
        st.binary(min_size=1, max_size=1).map(lambda one: b"%%%02x" % one[0]), max_size=6
    ).map(lambda escapes: b"/" + b"".join(escapes))
)
methods = st.sampled_from(["GET", "POST", "DELETE"])
written_rules = st.builds("{} /{}".format, methods | st.just("*"), rule_paths)
policies = st.lists(
    st.builds(
        Scope,
        st.lists(st.sampled_from(["* /**", "GET /v1/**"]) | written_rules, min_size=1, max_size=3),
        st.lists(written_rules, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def as_implemented(scopes: list[Scope], method: str, path: bytes) -> str:
    if canonical_problem(path) is not None:
        return "400"
    rules = [
        ScopeRules(
            f"s{index}", tuple(map(parse_rule, scope.allow)), tuple(map(parse_rule, scope.deny))
        )
        for index, scope in enumerate(scopes)
    ]
    decision = Authorizer("service", rules).judge(method.encode(), path, b"")
    return "allow" if isinstance(decision, Allow) else "deny"


@settings(max_examples=800)
@given(policies, methods, raw_paths)
def test_p1_the_matcher_is_what_a_plain_model_says(
    scopes: list[Scope], method: str, path: bytes
) -> None:
    assert as_implemented(scopes, method, path) == rule_model.judged(scopes, method, path)


def allows_as_seen(scope: Scope, method: str, seen: list[str], name: str) -> bool:
    """Tell whether a scope allows what an upstream sees, if rules are read as it reads paths."""

    def meant(rule: str, tail: list[str]) -> bool:
        pattern = pattern_of(rule.split(" /")[1])
        pattern = [one.casefold() for one in pattern] if name == "folding" else pattern
        return rule.split(" ", maxsplit=1)[0] in {"*", method} and is_meant(pattern, seen + tail)

    tails = [[], [""]] if name == "trimming" else [[]]
    allowed = any(meant(rule, tail) for rule in scope.allow for tail in tails)
    return allowed and not any(meant(rule, []) for rule in scope.deny)


@settings(max_examples=400)
@given(policies, methods, raw_paths)
def test_p1_what_is_allowed_means_the_same_after_normalising(
    scopes: list[Scope], method: str, path: bytes
) -> None:
    if as_implemented(scopes, method, path) != "allow":
        return
    for name, normalised in NORMALISERS.items():
        seen = normalised(path.decode())
        assert any(allows_as_seen(scope, method, seen, name) for scope in scopes), name


def test_p1_the_model_is_plain() -> None:
    source = Path(rule_model.__file__).read_text()
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 100
    assert "broker" not in source


@pytest.mark.parametrize("segment", HOSTILE, ids=repr)
def test_p1_the_model_refuses_what_is_hostile(segment: bytes) -> None:
    everything = [Scope(["* /**"])]
    for path in (b"/X", b"/v1/X", b"/X/v1", b"/v1/X/charges", b"/v1/aX/b"):
        hostile = path.replace(b"X", segment)
        assert as_implemented(everything, "GET", hostile) == rule_model.judged(
            everything, "GET", hostile
        )


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


def test_p1_nginx_reads_what_the_model_of_it_reads(component: Gate, tmp_path: Path) -> None:
    """The real nginx, merge_slashes and all, for each hostile segment and for ordinary paths."""
    program = component.program("nginx", "apt-get install nginx-light")
    spellings = [
        path.replace(b"X", segment)
        for segment in [*HOSTILE, *(word.encode() for word in WORDS)]
        for path in (b"/X", b"/v1/X", b"/X/v1", b"/v1/aX/b", b"/v1//X/")
        if not re.search(rb"[\x00-\x20\x7f?#]", segment)  # there the line, or the path, ends
    ]
    requests = [b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path for path in spellings]
    with nginx_reader(program, tmp_path) as reader:
        logs = asyncio.run(reader.read([(one, True) for one in requests]))
    read = 0
    for path, log in zip(spellings, logs, strict=True):
        if log[0].status != 204:  # it refuses some itself
            assert canonical_problem(path) is not None
            continue
        read += 1
        seen = log[0].path.decode("utf-8", "surrogateescape")
        # What it does not decode twice, and what is no UTF-8, the model need not know.
        expected = nginx(path.decode("latin-1"))
        if canonical_problem(path) is None:
            assert seen.split("/")[1:] == expected == decoded(path.decode())
        elif path.isascii() and not re.search(rb"%[89a-fA-F]", path):
            assert seen.split("/")[1:] == expected, path
    assert read > 100
