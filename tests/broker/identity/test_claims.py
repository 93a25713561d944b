from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity import claims
from broker.identity.jws import SignedClaims

NOW = 1_800_000_000.0
EXPECTED = claims.Expectations(
    issuer="https://issuer.test",
    audiences=frozenset({"https://broker.test", "https://broker.test/token"}),
    max_token_age=900.0,
    max_lifetime=86_400.0,
    leeway=30.0,
)
GOOD: dict[str, Any] = {
    "iss": "https://issuer.test",
    "sub": "repo:acme/app",
    "aud": "https://broker.test",
    "exp": NOW + 300,
    "iat": NOW - 5,
    "nbf": NOW - 5,
    "jti": "id-1",
    "repository_id": "123456",
}


def check(
    changes: dict[str, Any], *, without: str = "", expected: claims.Expectations = EXPECTED
) -> claims.CheckedClaims:
    presented = {name: value for name, value in (GOOD | changes).items() if name != without}
    return claims.check(SignedClaims(presented), expected, NOW)


def code_of(changes: dict[str, Any], **options: Any) -> str:
    with pytest.raises(InvalidToken) as refusal:
        check(changes, **options)
    return refusal.value.code


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat"])
def test_a_required_claim_is_missing(name: str) -> None:
    assert code_of({}, without=name) == "missing_claim"


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"])
@pytest.mark.parametrize("value", [None, True, {}, {"a": 1}, "", [[]], [None]])
def test_a_claim_of_the_wrong_type(name: str, value: Any) -> None:
    expected_code = "wrong_issuer" if name == "iss" else "malformed_claim"
    assert code_of({name: value}) == expected_code


@pytest.mark.parametrize(
    "issuer",
    [
        "https://issuer.test/",
        "https://issuer.tes",
        "https://issuer.test.evil.test",
        "https://issuer.test:443",
        "https://user@issuer.test",
        "https://ISSUER.test",
        "HTTPS://issuer.test",
        "http://issuer.test",
        "https://issuer.test\0",
        " https://issuer.test",
        "https://\u0456ssuer.test",
        "https://issuer.test?",
        "https://issuer.test#",
        "https:/issuer.test",
        ["https://issuer.test"],
    ],
)
def test_an_issuer_that_is_not_byte_for_byte_the_sources(issuer: Any) -> None:
    assert code_of({"iss": issuer}) == "wrong_issuer"


@pytest.mark.parametrize(
    ("audience", "code"),
    [
        ([], "malformed_claim"),
        (["https://broker.test", 1], "malformed_claim"),
        (["https://broker.test", ["x"]], "malformed_claim"),
        ({"https://broker.test": 1}, "malformed_claim"),
        ("https://broker.test\0", "malformed_claim"),
        ("https://broker.test\n", "malformed_claim"),
        ("https://broker.test/", "wrong_audience"),
        ("https://broker.tes", "wrong_audience"),
        ("https://BROKER.test", "wrong_audience"),
        ("https://broker.test https://broker.test/token", "wrong_audience"),
        ("*", "wrong_audience"),
        (["https://other.test"], "wrong_audience"),
        (["https://broker.test", "https://other.test"], "extra_audience"),
        (["https://other.test", "https://broker.test"], "extra_audience"),
        (["https://broker.test", "https://broker.test"], "extra_audience"),
    ],
)
def test_an_audience_that_is_not_ours_alone(audience: Any, code: str) -> None:
    assert code_of({"aud": audience}) == code


@pytest.mark.parametrize(
    "audience",
    [
        "https://broker.test/token",
        ["https://broker.test"],
        ["https://broker.test/token", "https://broker.test"],
    ],
)
def test_an_audience_that_is_ours(audience: Any) -> None:
    assert check({"aud": audience}).subject == "repo:acme/app"


def test_other_audiences_pass_where_the_source_says_so() -> None:
    expected = replace(EXPECTED, allow_extra_audiences=True)
    shared = ["https://other.test", "https://broker.test"]
    assert check({"aud": shared}, expected=expected).subject == "repo:acme/app"
    assert code_of({"aud": ["https://other.test"]}, expected=expected) == "wrong_audience"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        "1800000300",
        [1_800_000_300],
        math.nan,
        math.inf,
        -math.inf,
        -1,
        0,
        -0.0,
        1_800_000_300_000,
        10**20,
        1e300,
    ],
)
def test_a_time_that_is_none(name: str, value: Any) -> None:
    assert code_of({name: value}) == "malformed_claim"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW - 31}, "expired"),
        ({"exp": NOW - 30}, "expired"),
        ({"exp": 1}, "expired"),
        ({"iat": NOW + 31}, "not_yet_valid"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"iat": NOW - 5, "exp": NOW - 5}, "malformed_claim"),
        ({"iat": NOW - 5, "exp": NOW - 6}, "malformed_claim"),
        ({"exp": NOW + 86_400}, "lifetime_too_long"),
        ({"iat": NOW - 930}, "too_old"),
    ],
)
def test_a_token_outside_its_time(changes: dict[str, Any], code: str) -> None:
    assert code_of(changes) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 29, "iat": NOW - 60},
        {"iat": NOW + 29},
        {"nbf": NOW + 30},
        {"iat": NOW - 929},
        {"exp": int(NOW) + 1, "iat": int(NOW)},
        {"nbf": NOW + 0.5},
        {"exp": NOW + 86_395, "iat": NOW - 5},
    ],
)
def test_a_token_within_its_time_and_the_leeway(changes: dict[str, Any]) -> None:
    assert check(changes).subject == "repo:acme/app"


def test_nbf_and_jti_may_be_absent() -> None:
    assert check({}, without="nbf").token_id == "id-1"
    assert check({}, without="jti").token_id.startswith("claims-sha256:")


def test_a_token_id_may_be_required() -> None:
    expected = replace(EXPECTED, token_id_required=True)
    assert code_of({}, without="jti", expected=expected) == "missing_claim"


def test_the_proof_ends_with_exp_or_with_its_greatest_age() -> None:
    assert check({"exp": NOW + 300}).expires_at == NOW + 300
    assert check({"exp": NOW + 3600}).expires_at == NOW - 5 + 900


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize(
    "value",
    [
        "\0",
        "admin\0",
        "a\nb",
        "a\rb",
        "a\tb",
        "a\x1b[2Jb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "a\u202eb",
        "a\u2066b",
        "a\u200fb",
        "a\u200bb",
        "a\ufeffb",
        "a\U000e0041b",
        "a\ue000b",
        "a\ud800b",
        "a\uffffb",
        "a" * 1025,
        7,
        ["a"],
    ],
)
def test_an_identifier_that_would_not_stand_on_one_line(name: str, value: Any) -> None:
    assert code_of({name: value}) == "malformed_claim"


@pytest.mark.parametrize("subject", ["a b", "repo:acme/\u00fcn\u00ef", "\u540d\u524d", "a" * 1024])
def test_an_identifier_in_any_script(subject: str) -> None:
    assert check({"sub": subject}).subject == subject


def test_a_token_bound_to_a_key_is_no_bearer_token() -> None:
    assert code_of({"cnf": {"jkt": "x"}}) == "bound_token"


@pytest.mark.parametrize("events", [{"https://schemas.test/logout": {}}, None])
def test_an_event_is_no_identity(events: Any) -> None:
    assert code_of({"events": events}) == "wrong_type"


def test_the_tables_are_disjoint_and_cover_the_registered_claims() -> None:
    assert not claims.KNOWN_UNCHECKED & claims.CHECKERS.keys()
    assert set(GOOD) - {"repository_id"} <= claims.CHECKERS.keys()


@pytest.mark.parametrize("name", sorted(claims.KNOWN_UNCHECKED))
def test_what_is_left_to_policy_is_passed_on_as_it_is(name: str) -> None:
    assert check({name: {"odd": [None]}}).claims[name] == {"odd": [None]}


def test_the_digest_is_over_the_meaning_not_the_order() -> None:
    turned = {name: GOOD[name] for name in reversed(GOOD) if name != "jti"}
    again = claims.check(SignedClaims(turned), EXPECTED, NOW)
    assert again.token_id == check({}, without="jti").token_id
    assert check({"sub": "other"}, without="jti").token_id != again.token_id


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(claims.CHECKERS)), json_values, max_size=5))
def test_whatever_is_claimed_it_is_checked_or_invalid(changes: dict[str, Any]) -> None:
    try:
        checked = check(changes)
    except InvalidToken:
        return
    assert json.dumps(checked.claims)
    assert checked.expires_at > NOW - EXPECTED.leeway


@given(st.integers(-400_000, 400_000), st.integers(-400_000, 400_000))
def test_no_token_is_accepted_outside_its_time(issued: int, expires: int) -> None:
    try:
        check({"iat": NOW + issued, "exp": NOW + expires}, without="nbf")
    except InvalidToken:
        return
    assert -930 < issued <= 30
    assert expires > -30
    assert 0 < expires - issued <= 86_400
