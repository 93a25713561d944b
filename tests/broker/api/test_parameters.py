from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api.parameters import FORM, JSON, Unparsable, media_type, parse

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
def test_a_form_comes_back(fields: list[tuple[str, str]]) -> None:
    expected: dict[str, list[str]] = {}
    for name, value in fields:
        expected.setdefault(name, []).append(value)
    assert parse(FORM, urlencode(fields).encode()) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    for media in (FORM, JSON):
        try:
            parameters = parse(media, body)
        except Unparsable:
            continue
        for name, values in parameters.items():
            "".join([name, *values]).encode()  # nothing that cannot be written down again


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        (b"", {}),
        (b"&&", {}),
        (b"a=1&a=2&b", {"a": ["1", "2"], "b": [""]}),
        (b"a=b=c", {"a": ["b=c"]}),
        (b"a+b=c+d%2B", {"a b": ["c d+"]}),
        (b"sc%6Fpe=x", {"scope": ["x"]}),
        (b"a=%C3%A9", {"a": ["é"]}),
        (b"a;b=c", {"a;b": ["c"]}),
    ],
)
def test_forms(body: bytes, parameters: dict[str, list[str]]) -> None:
    assert parse(FORM, body) == parameters


@pytest.mark.parametrize(
    "body",
    [
        b"a=%",
        b"a=%2",
        b"a=%zz",
        b"a=%C3",
        b"a=%ED%A0%80",  # half a surrogate pair
        b"a=%C0%AF",  # overlong
        b"a=\xc3\xa9",
        b"a= b",
        b"a=\x00",
        b"a=1\r\n",
        b"&".join(b"a%d=1" % n for n in range(101)),
    ],
)
def test_forms_with_more_than_one_reading_are_refused(body: bytes) -> None:
    with pytest.raises(Unparsable):
        parse(FORM, body)


@pytest.mark.parametrize(
    ("document", "parameters"),
    [
        ({}, {}),
        ({"scope": "a b", "ttl": 60}, {"scope": ["a b"], "ttl": ["60"]}),
        ({"scope": None}, {"scope": []}),
        ({"resource": ["https://a", "https://b"]}, {"resource": ["https://a", "https://b"]}),
        ({"options": {"a": [1, {"b": None}]}, "flag": True}, {"options": [], "flag": []}),
    ],
)
def test_json(document: dict[str, Any], parameters: dict[str, list[str]]) -> None:
    assert parse(JSON, json.dumps(document).encode()) == parameters


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"a"',
        b"null",
        b"{",
        b'{"a": 1,}',
        b'{"scope": "a", "scope": "b"}',
        b'{"scope": "a", "sc\\u006fpe": "b"}',
        b'{"scope": {"a": 1}}',
        b'{"scope": true}',
        b'{"scope": 1.5}',
        b'{"scope": ["a", 1]}',
        b'{"ttl": NaN}',
        b'{"ttl": 1e400}',
        b'{"ttl": ' + b"9" * 5000 + b"}",
        b'{"reason": "\\ud800"}',
        b'{"a": "\xff"}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"a":' * 12 + b"1" + b"}" * 12,
        json.dumps({f"a{n}": 1 for n in range(101)}).encode(),
    ],
)
def test_t2_json_with_more_than_one_reading_is_refused(body: bytes) -> None:
    with pytest.raises(Unparsable):
        parse(JSON, body)


def test_what_cannot_be_parsed_is_not_quoted() -> None:
    for media, body in ((FORM, b"assertion=hunter2%"), (JSON, b'{"assertion": "hunter2"')):
        with pytest.raises(Unparsable) as refusal:
            parse(media, body)
        assert "hunter2" not in str(refusal.value)


def test_anthropics_sdk_names_scopes_and_agent_in_its_own_fields() -> None:
    sent = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": "eyJ",
        "federation_rule_id": "claude.messages",
        "organization_id": "00000000-0000-0000-0000-000000000000",
        "service_account_id": "release-bot",
    }
    parameters = parse(JSON, json.dumps(sent).encode())
    assert parameters["scope"] == ["claude.messages"]
    assert parameters["client_id"] == ["release-bot"]


def test_openais_sdk_names_scopes_and_agent_in_its_own_fields() -> None:
    sent = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "eyJ",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "identity_provider_id": "openai.chat openai.models",
        "service_account_id": "release-bot",
    }
    parameters = parse(JSON, json.dumps(sent).encode())
    assert parameters["scope"] == ["openai.chat openai.models"]
    assert parameters["client_id"] == ["release-bot"]


def test_the_proper_names_come_before_an_sdks() -> None:
    sent = {"scope": "a", "federation_rule_id": "b", "client_id": "c", "service_account_id": "d"}
    parameters = parse(JSON, json.dumps(sent).encode())
    assert (parameters["scope"], parameters["client_id"]) == (["a"], ["c"])


def test_an_sdks_names_mean_nothing_in_a_form() -> None:
    assert "scope" not in parse(FORM, b"federation_rule_id=a")


@pytest.mark.parametrize(
    ("content_type", "media"),
    [
        (b"application/x-www-form-urlencoded", FORM),
        (b"Application/X-WWW-Form-Urlencoded; charset=UTF-8", FORM),
        (b'application/json;charset="utf-8"', JSON),
        (b"application/json; charset=utf-16", None),
        (b"application/json; charset=utf-7", None),
        (b"application/json, text/plain", None),
        (b"multipart/form-data; boundary=x", None),
        (b"text/plain", None),
        (b"", None),
    ],
)
def test_content_types(content_type: bytes, media: str | None) -> None:
    assert media_type(content_type) == media
