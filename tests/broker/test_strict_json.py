from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.strict_json import NotStrictJson, loads

REFUSED = {
    "duplicate member": b'{"iss": "a", "iss": "b"}',
    "duplicate member, once escaped": b'{"iss": "a", "\\u0069ss": "b"}',
    "duplicate member in depth": b'{"a": [{"b": 1, "b": 1}]}',
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "just too deep": b"[" * 17 + b"]" * 17,
    "integer of 5,000 digits": b"1" * 5000,
    "integer of 21 digits": b"[" + b"9" * 21 + b"]",
    "infinite float": b"1e400",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate": b'["\\udc00"]',
    "reversed pair": b'"\\udc00\\ud800"',
    "surrogate in a name": b'{"\\ud800": 1}',
    "raw surrogate": b'"\xed\xa0\x80"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "raw NUL": b'"\x00"',
    "raw newline in a string": b'"a\nb"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "trailing text": b"{} {}",
    "trailing comma": b'{"a": 1,}',
    "comment": b"/* */ {}",
    "single quotes": b"{'a': 1}",
    "leading zero": b"01",
    "plus sign": b"+1",
    "hex": b"0x10",
    "empty": b"",
    "white space": b"  ",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes) -> None:
    with pytest.raises(NotStrictJson):
        loads(data)


def test_the_reason_does_not_quote_the_input() -> None:
    with pytest.raises(NotStrictJson) as refusal:
        loads(b'{"password": "hunter2", "password": "hunter2", }')
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b" { } ", {}),
        (b'{"a": [1, -2, 3.5, true, null, "x"]}', {"a": [1, -2, 3.5, True, None, "x"]}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"[" * 16 + b"]" * 16, json.loads("[" * 16 + "]" * 16)),
        (b'{"\\u0000": "\\u0000"}', {"\0": "\0"}),
    ],
)
def test_accepted(data: bytes, value: object) -> None:
    assert loads(data) == value


def test_many_brackets_are_not_deep() -> None:
    assert loads(json.dumps([{"n": [i]} for i in range(1000)]).encode())[999] == {"n": [999]}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_reads_what_json_writes(value: object, ensure_ascii: bool) -> None:  # noqa: FBT001 - drawn
    assert loads(json.dumps(value, ensure_ascii=ensure_ascii).encode(), max_depth=64) == value


@given(st.binary(max_size=200))
def test_whatever_comes_in_only_one_error_comes_out(data: bytes) -> None:
    try:
        value = loads(data)
    except NotStrictJson:
        return
    assert json.loads(data) == value


def test_exact_numbers_are_the_decimals_that_are_written() -> None:
    assert loads(b"[5000.0000000000000001, 5e1, 7]", exact=True) == [
        Decimal("5000.0000000000000001"),
        Decimal(50),
        7,
    ]
    tiny = (b"1e-" + b"9" * 20, b"0e" + b"9" * 20)  # more than a Decimal's exponent can be
    for text in (b"1e400", b"-1e400", b"1." + b"0" * 50, b"NaN", b"1" * 21, *tiny):
        with pytest.raises(NotStrictJson):
            loads(text, exact=True)
