from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.document import SECTIONS
from broker.policy.loader import load_policy
from broker.policy.merging import merge, version_of
from broker.policy.source import Document, read
from broker.policy.writing import entry_document, fields_by_place, policy_text

_UNFIT = "\u200b\u200f\u2028\u202e\u2060\ufeff"
_AWKWARD = (
    *("on", "off", "no", "~", "null", "0777", "12:30", "1e3", "2024-06-20", "", " a", "a ", "#"),
    *("- a", "a: b", "a #b", "*", "&a", "!x", "@", "`", "'", '"', "\\", "%41", "{x}", "[y]"),
    *("?", "|", ">", "=", "<<", "y", ".5", "+1", "0x1f", "true", "é", "😀", "?query", "a:"),
)
TEXTS = st.one_of(
    st.text(
        st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=_UNFIT), max_size=40
    ).filter(lambda text: not any("\u200b" <= c <= "\u206f" for c in text)),
    st.sampled_from(_AWKWARD),
)
BODIES = st.recursive(
    st.one_of(TEXTS, st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=12,
)


def loaded(document: Document) -> Any:
    """What a document says, which must be without mistakes."""
    problems: list[Any] = []
    (root,) = read(document, problems)
    assert not problems
    return root.plain()


@given(st.dictionaries(TEXTS, BODIES, max_size=4))
def test_an_entry_is_read_as_it_was_written(body: dict[str, Any]) -> None:
    document = entry_document("api", "scopes", "x.read", body)
    assert document.name == "api:scopes/x.read"
    assert loaded(document) == {"scopes": {"x.read": body}}


@given(
    st.dictionaries(
        st.sampled_from(SECTIONS),
        st.dictionaries(TEXTS, st.dictionaries(TEXTS, BODIES, min_size=1), min_size=1, max_size=3),
        min_size=1,
    ),
    st.text(max_size=30),
)
def test_exported_text_is_read_as_it_was_written(
    sections: dict[str, dict[str, Any]], remark: str
) -> None:
    remarks = {(section, name): remark for section in sections for name in sections[section]}
    assert loaded(Document("export", policy_text(sections, remarks))) == sections


def test_a_remark_is_a_comment_whatever_it_holds() -> None:
    text = policy_text({"scopes": {"a": {"b": 1}}}, {("scopes", "a"): "x\n  evil: {}\r\u2028y"})
    assert text == "scopes:\n  # x\\n  evil: {}\\r\\u2028y\n  a: {b: 1}\n"


def test_nothing_is_written_of_nothing() -> None:
    assert policy_text({}) == ""
    assert policy_text({"scopes": {}}) == ""


def test_an_export_is_the_same_policy() -> None:
    text = """
identity_sources:
  local: {type: local}
services:
  s:
    provider: http_api
    base_url: https://s.example
    scrub: off
    credential: {type: header, name: X-Key, prefix: "Token ", secret: "env:S"}
scopes:
  s.read:
    service: s
    allow: ["GET /a/*/**", "* /b"]
    query: {limit: [1, "2"], "*": {any: true}}
    max_ttl: 15m
agents:
  a:
    trust: [{source: local, claims: {sub: a, num: 1, "b": true, g: {glob: "x*"}}}]
    scopes: [s.read]
"""
    sections = merge([Document("p.yaml", text)], [])
    plain = {
        section: {name: entry.node.plain() for name, entry in entries.items()}
        for section, entries in sections.items()
    }
    again = Document("again.yaml", policy_text(plain))
    assert version_of(merge([again], [])) == version_of(sections)
    assert load_policy([again]).version == load_policy([Document("p.yaml", text)]).version


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (["credential", "secret"], ("credential", "secret")),
        (["list", 1, "x"], ("list", 1, "x")),
        (["credential"], ("credential",)),
        ([], ()),
    ],
)
def test_a_field_is_found_by_its_place(path: list[Any], expected: tuple[Any, ...]) -> None:
    body = {"credential": {"secret": "s"}, "list": [1, {"x": "s"}]}
    document = entry_document("api", "services", "s", body)
    entry = merge([document], [])["services"]["s"]
    place = entry.node.place_of(path)
    assert fields_by_place(document)[place.line, place.column] == expected


def test_a_key_is_found_by_its_place_and_nothing_elsewhere() -> None:
    document = entry_document("api", "services", "s", {"a": {"wrong": 1}})
    entry = merge([document], [])["services"]["s"]
    place = entry.node.place_of(["a", "wrong"], key=True)
    assert fields_by_place(document)[place.line, place.column] == ("a", "wrong")
    assert (99, 1) not in fields_by_place(document)
    assert json.loads(document.text) == {"services": {"s": {"a": {"wrong": 1}}}}
