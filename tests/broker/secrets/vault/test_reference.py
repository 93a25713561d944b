from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError
from broker.secrets.vault.reference import KvReference, parse


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("kv/stripe#key", KvReference("kv/stripe", "key")),
        ("kv/stripe@3#key", KvReference("kv/stripe", "key", 3)),
        ("team/kv/a/b.c-d_e#api_key", KvReference("team/kv/a/b.c-d_e", "api_key")),
        ("kv/...#key", KvReference("kv/...", "key")),
    ],
)
def test_references(rest: str, expected: KvReference) -> None:
    assert parse(rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "kv#key",
        "kv/stripe",
        "kv/stripe#",
        "/kv/stripe#key",
        "kv//stripe#key",
        "kv/stripe/#key",
        "kv/../sys/seal#key",
        "kv/./stripe#key",
        "kv/%2e%2e/stripe#key",
        "kv/stri pe#key",
        "kv/stripe?list=true#key",
        "kv/stripe#a#b",
        "kv/stripe#key\n",
        "kv/stripe@0#key",
        "kv/stripe@-1#key",
        "kv/stripe@01#key",
        "kv/stripe@latest#key",
        "kv/stripe@1@2#key",
        "kv/stripe@٣#key",
        "kv/ключ#key",
        "kv/" + "x" * 600 + "#key",
    ],
)
def test_other_forms_are_refused_and_not_quoted(rest: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected vault:<mount>/<path>#<field>") as e:
        parse(rest)
    assert not rest or rest not in str(e.value)


@given(st.text(max_size=60) | st.from_regex(r"\A[a-z./@#0-9%]{1,40}\Z"))
def test_what_parses_needs_no_encoding_and_goes_nowhere_else(rest: str) -> None:
    try:
        reference = parse(rest)
    except ConfigurationError:
        return
    version = f"@{reference.version}" if reference.version else ""
    assert f"{reference.path}{version}#{reference.field}" == rest
    assert all(part not in {"", ".", ".."} for part in reference.path.split("/"))
    assert reference.path.isascii()
    assert not set(reference.path) & set("%?#\\;: ")
