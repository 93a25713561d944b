from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.body import NO_BODY, BodyRule, Content, parse_body

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
REFUND: dict[str, Any] = {
    "json": {
        "charge": {"glob": "ch_*"},
        "amount": {"max": 5000},
        "currency": ["eur", "usd"],
        "live": True,
        "version": 2,
        "note": {"any": True},
        "metadata": {"fields": {"order": {"glob": "o_*"}, "tag": {"any": True}}},
    }
}
GOOD: dict[str, Any] = {
    "charge": "ch_1",
    "amount": 5000,
    "currency": "eur",
    "live": True,
    "version": 2,
    "metadata": {"order": "o_1"},
}


def rule(value: object = None) -> BodyRule:
    return parse_body(value or REFUND)


def problem(body: object, written: object = None, kind: str = JSON) -> str | None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return rule(written).problem(Content(data, kind))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amount": 0},
        {"amount": 4999.99},
        {"currency": "usd"},
        {"note": None},
        {"note": {"a": [1, {"b": 2}]}},
        {"metadata": {"order": "o_2", "tag": []}},
    ],
)
def test_allows_what_it_lists(changes: dict[str, Any]) -> None:
    assert problem(GOOD | changes) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"charge": "pi_1"}, "'charge' has a value"),
        ({"charge": "ch_/../x"}, "'charge' has a value"),
        ({"charge": ["ch_1"]}, "'charge' has a value"),
        ({"charge": None}, "'charge' has a value"),
        ({"amount": 5001}, "'amount' has a value"),
        ({"amount": -1}, "'amount' has a value"),
        ({"amount": "5"}, "'amount' has a value"),
        ({"amount": True}, "'amount' has a value"),
        ({"amount": [5]}, "'amount' has a value"),
        ({"currency": "EUR"}, "'currency' has a value"),
        ({"live": 1}, "'live' has a value"),
        ({"live": "true"}, "'live' has a value"),
        ({"version": "2"}, "'version' has a value"),
        ({"version": 2.0}, "'version' has a value"),
        ({"version": True}, "'version' has a value"),
        ({"extra": 1}, "may hold"),
        ({"Amount": 9}, "may hold"),
        ({"metadata": []}, "'metadata' is not a JSON object"),
        ({"metadata": {}}, "'metadata.order' is missing"),
        ({"metadata": {"order": "x"}}, "'metadata.order' has a value"),
        ({"metadata": {"order": "o_1", "x": 1}}, "'metadata' may hold 'order', 'tag' alone"),
    ],
)
def test_refuses_all_else_and_names_the_field(changes: dict[str, Any], expected: str) -> None:
    assert expected in (problem(GOOD | changes) or "")


@pytest.mark.parametrize("name", [*GOOD])
def test_what_is_listed_must_be_there(name: str) -> None:
    assert "is missing" in (problem({key: GOOD[key] for key in GOOD if key != name}) or "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"5",
        b"{",
        b"{}{}",
        b'{"a": 1}\x00',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 1}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e400}',
        b'{"a": 1, "b": 1%b}' % (b"0" * 100),
        b'{"a": 1, "b": 1.%b}' % (b"0" * 100),
        b'{"a": 1, "b": %b}' % (b"[" * 50 + b"]" * 50),
        b'{"a": 1, "b": %b}' % (b"[" * 50_000),
        b'{"a": 1, "b": "\\ud800"}',
        b'{"a": 1, "b": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": 1,}',
        b'{/**/"a": 1}',
        b'{"a": 1, "b": "\n"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_json_that_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    assert problem(body, {"json": {"a": 1, "*": {"any": True}}})


@pytest.mark.parametrize(
    "number",
    ["5000.0000000000000001", "50000e-1", "5.0001e3", "1e4", "5001"],
)
def test_a_maximum_is_kept_exactly(number: str) -> None:
    allowed = problem(b'{"amount": %b}' % number.encode(), {"json": {"amount": {"max": 5000}}})
    assert (allowed is None) is (number == "50000e-1")


@pytest.mark.parametrize(
    "name",
    [
        "Amount",
        "AMOUNT",
        "amount ",
        "\uff41mount",
        "amo\u1d64nt",
        " amount",
        "a_mount",
        "a-mount",
        "amount.",
        "amo\u00adunt",
        "amount\u0000",
    ],
)
def test_what_passes_for_a_listed_name_is_never_another(name: str) -> None:
    opened = {"json": {"amount": {"max": 5}, "*": {"any": True}}}
    assert problem({"amount": 1, "other": 7}, opened) is None
    found = problem({"amount": 1, name: 7}, opened)
    assert found == "the body may hold nothing that passes for 'amount'"


@pytest.mark.parametrize(
    "kind",
    [
        JSON,
        "Application/JSON",
        f"{JSON}; charset=utf-8",
        f'{JSON};charset="UTF-8"',
        f"{JSON} ; Charset=utf-8",
    ],
)
def test_the_content_type_is_the_declared_kind(kind: str) -> None:
    assert problem(GOOD, kind=kind) is None


@pytest.mark.parametrize(
    "kind",
    [
        *("", "text/plain", "text/json", FORM, f"{JSON}; charset=utf-16", f"{JSON}; charset=utf-7"),
        *(
            f"{JSON};",
            f"{JSON}; charset=utf-8; charset=utf-7",
            f"{JSON}, {FORM}",
            f"{JSON}x",
            f" {JSON}",
        ),
        *(
            f"{JSON}; boundary=x",
            "application/vnd.api+json",
            f"{JSON}\x00",
            f"{JSON}; charset=utf-8x",
        ),
    ],
)
def test_another_content_type_is_refused(kind: str) -> None:
    assert problem(GOOD, kind=kind) == f"the body's Content-Type is not {JSON}"


def test_what_the_gateway_could_not_tell_is_refused() -> None:
    assert rule().problem(Content(b"{}", JSON, "it has two")) == "it has two"
    assert rule().problem(NO_BODY) == "the request has no body"


def test_a_body_has_its_cap() -> None:
    small = {"json": {"*": {"any": True}}, "max_bytes": 10}
    assert rule().max_bytes == 64 << 10
    assert problem(b'{"a": 123}', small) is None
    assert problem(b'{"a": 1234}', small) == "the body has more than 10 bytes"


@pytest.mark.parametrize(
    ("value", "data", "kind"),
    [
        ({"json": {"*": {"any": True}}}, b'{"a": [' + b"{}," * 20_000 + b"{}]}", JSON),
        ({"json": {"*": {"any": True}}}, b'{"a": [' + b"1," * 20_000 + b"1]}", JSON),
        ({"form": {"*": {"any": True}}}, b"a=1&" * 20_001, FORM),
    ],
    ids=["objects", "numbers", "form"],
)
def test_what_would_take_long_to_judge_is_refused(
    value: dict[str, Any], data: bytes, kind: str
) -> None:
    found = problem(data, value | {"max_bytes": "1MiB"}, kind)
    assert found == "the body has more than 20000 parts"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "names",
    ["\ufdfa" * 340_000, '": 1, "'.join(f"{n}{8 * chr(0xFDFA)}" for n in range(19_000))],
    ids=["one", "many"],
)
def test_no_names_take_long_to_judge(names: str) -> None:
    opened = {"json": {"amount": {"any": True}, "*": {"any": True}}, "max_bytes": "1MiB"}
    judge, content = rule(opened), Content(f'{{"{names}": 1}}'.encode(), JSON)
    found = {judge.problem(content) for _ in range(50)}
    assert found == {"the body has names of more than 4096 characters that are not all ASCII"}
    formed = {"form": {"amount": {"any": True}, "*": {"any": True}}}
    assert problem(quote("\ufdfa" * 5000).encode() + b"=1", formed, FORM) in found


@pytest.mark.parametrize("name", ["größe", "\u540d\u524d", "naïve" * 500])
def test_names_beyond_ascii_may_be_there(name: str) -> None:
    opened = {"json": {"amount": {"max": 5}, "*": {"any": True}}}
    assert problem({"amount": 1, name: 7}, opened) is None
    formed = {"form": {"amount": {"max": 5}, "*": {"any": True}}}
    assert problem(f"amount=1&{quote(name)}=7".encode(), formed, FORM) is None


FORMED = {
    "form": {
        "amount": {"max": 5000},
        "reason": ["fraud", "duplicate"],
        "metadata[order]": {"glob": "o_*"},
        "note": {"any": True},
    }
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"amount=5000&reason=fraud&metadata[order]=o_1", None),
        (b"amount=1.50&reason=fraud&metadata%5Border%5D=o_1&note=a%0Ab+c", None),
        (b"amount=5001&reason=fraud&metadata[order]=o_1", "body field 'amount' has a value"),
        (b"amount=1e1&reason=fraud&metadata[order]=o_1", "body field 'amount' has a value"),
        (b"amount=-1&reason=fraud&metadata[order]=o_1", "body field 'amount' has a value"),
        (b"amount=1&amount=1&reason=fraud&metadata[order]=o_1", "'amount' is there twice"),
        (b"amount=1&Amount=9999&reason=fraud&metadata[order]=o_1", "the body may hold"),
        (b"amount=1&amount[]=9999&reason=fraud&metadata[order]=o_1", "the body may hold"),
        (b"amount=1;amount=9999&reason=fraud&metadata[order]=o_1", "malformed"),
        (b"amount=1&reason=fraud&metadata[order]=o_1&_method=DELETE", "the body may hold"),
        (b"amount=1&reason=fraud", "'metadata[order]' is missing"),
        (b"amount=%EF%BC%91&reason=fraud&metadata[order]=o_1", "'amount' has a value"),
        (b"amount=1&reason=fraud&metadata[order]=o_1&note=%00", "malformed"),
        (b'{"amount": 1}', "the body may hold"),
    ],
)
def test_a_form_is_judged_like_a_query(body: bytes, expected: str | None) -> None:
    found = problem(body, FORMED, FORM)
    assert found is None if expected is None else expected in (found or "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, "expected json: or form:"),
        ([], "expected json: or form:"),
        ({}, "expected json: or form:"),
        ({"max_bytes": 5}, "expected json: or form:"),
        ({"json": {"a": 1}, "form": {"a": 1}}, "expected json: or form:"),
        ({"json": {"a": 1}, "xml": 1}, "xml is not known"),
        ({"json": {}}, "json: expected fields"),
        ({"json": None}, "json: expected fields"),
        ({"json": ["a"]}, "json: expected fields"),
        ({"form": {}}, "form: expected parameters"),
        ({"json": {"a": []}}, "json.a: an empty list matches nothing"),
        ({"json": {"a": None}}, "json.a: expected text"),
        ({"json": {"a": ""}}, "json.a: expected text"),
        ({"json": {"a": 1.5}}, "json.a: expected text"),
        ({"json": {"a": {"any": False}}}, "json.a: expected a value"),
        ({"json": {"a": {"max": 5, "any": True}}}, "json.a: expected a value"),
        ({"json": {"a": {"max": "5"}}}, "json.a: expected a whole number after 'max:'"),
        ({"json": {"a": {"max": 0}}}, "json.a: expected a whole number after 'max:'"),
        ({"json": {"a": {"glob": "x"}}}, "json.a: a glob without '*'"),
        ({"json": {"a": {"fields": {}}}}, "json.a: expected fields"),
        ({"json": {"a": {"fields": {"b": []}}}}, "json.a.b: an empty list"),
        ({"json": {"a": [1, 1]}}, "json.a: the list holds the same value twice"),
        ({"json": {"a": 1, "A": 2}}, "two fields have one name"),
        ({"json": {5: 1}}, "a field's name is text"),
        ({"json": {"*": 1}}, "takes {any: true} alone"),
        ({"form": {"*": 1}}, "takes {any: true} alone"),
        ({"json": {"a": 1}, "max_bytes": 0}, "max_bytes: expected a size"),
        ({"json": {"a": 1}, "max_bytes": "2MiB"}, "max_bytes: a body is held in memory"),
        ({"json": {"a": 1}, "max_bytes": True}, "max_bytes: expected a size"),
    ],
)
def test_a_rule_that_is_none_is_refused(written: object, expected: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        parse_body(written)
    assert expected in str(caught.value)


def test_a_rule_may_not_be_deeper_than_any_body() -> None:
    written: dict[str, Any] = {"a": 1}
    for _ in range(20):
        written = {"a": {"fields": written}}
    with pytest.raises(ValueError, match="to such a depth"):
        parse_body({"json": written})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["amount", "currency", "note", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON_VALUES, st.binary(max_size=30))
def test_what_is_allowed_is_what_a_plain_reader_reads(value: Any, noise: bytes) -> None:
    written = {"json": {"amount": {"max": 9}, "currency": ["eur"], "note": {"any": True}}}
    for data in (
        json.dumps(value).encode(),
        noise,
        b'{"amount": 1, "currency": "eur"' + noise + b"}",
    ):
        if rule(written).problem(Content(data, JSON)) is None:
            read = json.loads(data)
            assert 0 <= read["amount"] <= 9
            assert type(read["amount"]) in {int, float}
            assert read["currency"] == "eur"
            assert set(read) <= {"amount", "currency", "note"}


@pytest.mark.parametrize("name", ["_method", "_METHOD", ".method", "%5fmethod", "_method[]"])
def test_a_form_says_no_method_unless_that_is_listed(name: str) -> None:
    opened = {"form": {"amount": {"max": 5}, "*": {"any": True}}}
    assert "may hold" in (problem(f"amount=1&{name}=DELETE".encode(), opened, FORM) or "")
    listed = {"form": {"_method": "PUT"}}
    assert problem(b"_method=PUT", listed, FORM) is None
    assert problem(b"_method=DELETE", listed, FORM) is not None
