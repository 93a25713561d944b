from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import TokenRefused
from broker.token_request import (
    ACCESS,
    CLIENT_CREDENTIALS,
    EXCHANGE,
    GRANT_TYPES,
    JWT_BEARER,
    PARAMETERS,
    TokenQuestion,
    TokenRequest,
    read,
    read_question,
)

JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
BY_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
BY_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

EXCHANGED = {"grant_type": [EXCHANGE], "subject_token": ["st"], "subject_token_type": [JWT]}
DELEGATED = {**EXCHANGED, "subject_token_type": [ACCESS]}
BEARER = {"grant_type": [JWT_BEARER], "assertion": ["as"]}
CLIENT = {
    "grant_type": [CLIENT_CREDENTIALS],
    "client_assertion": ["ca"],
    "client_assertion_type": [BY_JWT],
}


def _refused(parameters: dict[str, list[str]]) -> tuple[str, str]:
    with pytest.raises(TokenRefused) as refusal:
        read(parameters)
    return refusal.value.error, str(refusal.value)


def test_a_token_exchange() -> None:
    request = read(
        {
            **EXCHANGED,
            "requested_token_type": [ACCESS],
            "client_id": ["release-bot"],
            "scope": ["a b"],
            "resource": ["https://gw.example", "https://gw.example/x"],
            "audience": ["https://broker.example"],
            "task": ["release 1.2"],
            "reason": ["because\nof this"],
            "ttl": ["60"],
        }
    )
    assert request == TokenRequest(
        grant_type=EXCHANGE,
        proof="st",
        delegated=False,
        actor=None,
        client_id="release-bot",
        scopes=("a", "b"),
        targets=("https://gw.example", "https://gw.example/x", "https://broker.example"),
        task="release 1.2",
        reason="because\nof this",
        ttl=60,
    )


@pytest.mark.parametrize("subject_type", [JWT, ID_TOKEN])
def test_a_workload_identity_is_a_jwt_or_an_id_token(subject_type: str) -> None:
    assert not read({**EXCHANGED, "subject_token_type": [subject_type]}).delegated


def test_a_task_token_is_an_access_token() -> None:
    request = read({**DELEGATED, "actor_token": ["at"], "actor_token_type": [ID_TOKEN]})
    assert request.delegated
    assert request.actor == "at"


def test_a_jwt_bearer_grant() -> None:
    request = read(BEARER)
    assert (request.grant_type, request.proof, request.scopes) == (JWT_BEARER, "as", ())
    assert not request.vouches_for_itself


@pytest.mark.parametrize("assertion_type", [BY_JWT, BY_SPIFFE])
def test_client_credentials(assertion_type: str) -> None:
    request = read({**CLIENT, "client_assertion_type": [assertion_type]})
    assert request.proof == "ca"
    assert request.vouches_for_itself


@pytest.mark.parametrize(
    ("parameters", "error"),
    [(EXCHANGED, "invalid_request"), (BEARER, "invalid_grant"), (CLIENT, "invalid_client")],
)
def test_standard_5_and_6_the_error_of_a_refused_proof(
    parameters: dict[str, list[str]], error: str
) -> None:
    assert read(parameters).refused_proof == error


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, "grant_type"),
        ({"grant_type": [""]}, "grant_type"),
        ({"grant_type": [EXCHANGE]}, "subject_token"),
        ({**EXCHANGED, "subject_token": [""]}, "subject_token"),
        ({"grant_type": [EXCHANGE], "subject_token": ["st"]}, "subject_token_type"),
        ({"grant_type": [JWT_BEARER]}, "assertion"),
        ({**BEARER, "assertion": [""]}, "assertion"),
        ({"grant_type": [CLIENT_CREDENTIALS]}, "client_assertion_type"),
        (
            {"grant_type": [CLIENT_CREDENTIALS], "client_assertion_type": [BY_JWT]},
            "client_assertion",
        ),
    ],
)
def test_standard_4_a_missing_parameter_is_named(
    parameters: dict[str, list[str]], name: str
) -> None:
    assert _refused(parameters) == ("invalid_request", f"parameter {name} is missing")


@pytest.mark.parametrize("name", sorted(PARAMETERS - {"resource", "audience"}))
def test_standard_1_a_repeated_parameter_is_refused(name: str) -> None:
    error, message = _refused({**EXCHANGED, name: ["a", "a"]})
    assert error == "invalid_request"
    assert f"{name} is given 2 times" in message


@pytest.mark.parametrize("name", ["resource", "audience"])
def test_standard_1_resource_and_audience_may_repeat(name: str) -> None:
    assert read({**BEARER, name: ["https://a", "", "https://b"]}).targets == (
        "https://a",
        "https://b",
    )


@pytest.mark.parametrize("name", sorted(PARAMETERS - {"grant_type", "assertion"}))
def test_standard_1_empty_equals_absent(name: str) -> None:
    assert read({**BEARER, name: [""]}) == read(BEARER)
    assert read({**BEARER, name: []}) == read(BEARER)


def test_standard_1_unknown_parameters_are_ignored() -> None:
    assert read({**BEARER, "unknown": ["1", "2"], "organization_id": ["x"]}) == read(BEARER)


@pytest.mark.parametrize("name", ["Scope", "SCOPE", "Assertion", "GRANT_TYPE", "tas\u212a"])
def test_t2_a_parameter_in_other_case_is_refused(name: str) -> None:
    error, message = _refused({**BEARER, name: ["x"]})
    assert error == "invalid_request"
    assert f"did you mean {name.lower()!r}?" in message


@pytest.mark.parametrize(
    "grant_type", ["password", "authorization_code", "refresh_token", "x" * 99]
)
def test_other_grants_are_not_supported(grant_type: str) -> None:
    error, message = _refused({"grant_type": [grant_type]})
    assert error == "unsupported_grant_type"
    assert EXCHANGE in message
    assert grant_type not in message.replace("client_credentials", "")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"subject_token_type": ["jwt"]}, "invalid_request", "subject_token_type must be"),
        ({"subject_token_type": [JWT.upper()]}, "invalid_request", "subject_token_type must be"),
        ({"requested_token_type": [JWT]}, "invalid_request", "requested_token_type must be"),
        ({"actor_token": ["x"]}, "invalid_request", "go together"),
        ({"actor_token_type": [JWT]}, "invalid_request", "go together"),
        (
            {"actor_token": ["x"], "actor_token_type": [JWT]},
            "invalid_request",
            "goes with a task token",
        ),
        (
            {
                "subject_token_type": [ACCESS],
                "actor_token": ["x"],
                "actor_token_type": [ACCESS],
            },
            "invalid_request",
            "actor_token_type must be",
        ),
        ({"client_secret": ["x"]}, "invalid_client", "no client secrets"),
        ({"client_assertion": ["x"]}, "invalid_request", "goes with"),
        ({"scope": ["a  b"]}, "invalid_scope", "one space"),
        ({"scope": [" a"]}, "invalid_scope", "one space"),
        ({"scope": ["a\tb"]}, "invalid_scope", "one space"),
        ({"scope": ['a"b']}, "invalid_scope", "one space"),
        ({"scope": ["é"]}, "invalid_scope", "one space"),
        ({"scope": [" ".join(map(str, range(101)))]}, "invalid_scope", "at most 100"),
        ({"scope": ["a" * 9000]}, "invalid_request", "at most 8192"),
        ({"resource": ["gateway"]}, "invalid_target", "absolute URI"),
        ({"resource": ["/path"]}, "invalid_target", "absolute URI"),
        ({"resource": ["https://a/#x"]}, "invalid_target", "fragment"),
        ({"resource": ["https://a/#"]}, "invalid_target", "fragment"),
        ({"resource": ["http://[bad"]}, "invalid_target", "absolute URI"),
        ({"client_id": ["a\nb"]}, "invalid_request", "printable ASCII"),
        ({"client_id": ["a" * 256]}, "invalid_request", "at most 255"),
        ({"task": ["a\nb"]}, "invalid_request", "control characters"),
        ({"task": ["a" * 201]}, "invalid_request", "at most 200"),
        ({"reason": ["a\x1b[31m"]}, "invalid_request", "control characters"),
        ({"reason": ["a\rb"]}, "invalid_request", "control characters"),
        ({"reason": ["\ud800"]}, "invalid_request", "control characters"),
        ({"reason": ["a" * 501]}, "invalid_request", "at most 500"),
        ({"ttl": ["0"]}, "invalid_request", "whole number of seconds"),
        ({"ttl": ["-1"]}, "invalid_request", "whole number of seconds"),
        ({"ttl": ["1.5"]}, "invalid_request", "whole number of seconds"),
        ({"ttl": ["15m"]}, "invalid_request", "whole number of seconds"),
        ({"ttl": ["٣"]}, "invalid_request", "whole number of seconds"),
        ({"ttl": ["9" * 5000]}, "invalid_request", "whole number of seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(
    change: dict[str, list[str]], error: str, said: str
) -> None:
    refused, message = _refused({**EXCHANGED, **change})
    assert refused == error
    assert said in message


def test_a_scope_asked_for_twice_is_asked_for_once() -> None:
    assert read({**BEARER, "scope": ["b a b"]}).scopes == ("b", "a")


def test_another_assertion_type_is_refused() -> None:
    error, message = _refused({**CLIENT, "client_assertion_type": ["saml2-bearer"]})
    assert error == "invalid_request"
    assert BY_JWT in message


@given(
    st.dictionaries(
        st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=5),
        st.lists(
            st.sampled_from([EXCHANGE, JWT_BEARER, JWT, ACCESS, BY_JWT]) | st.text(), max_size=3
        ),
    )
)
def test_any_parameters_are_read_or_refused(parameters: dict[str, list[str]]) -> None:
    errors = {
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "invalid_client",
        "unsupported_grant_type",
    }
    try:
        outcome = read(parameters).grant_type
    except TokenRefused as refusal:
        outcome = refusal.error
    assert outcome in {*GRANT_TYPES, *errors}


def test_standard_19_a_question_about_a_token() -> None:
    asked = {"token": ["t"], "token_type_hint": ["access_token"], "resource": ["x"]}
    assert read_question(asked) == TokenQuestion("t", None, None)
    by_agent = {
        **asked,
        "client_id": ["bot"],
        "client_assertion": ["ca"],
        "client_assertion_type": [BY_SPIFFE],
    }
    assert read_question(by_agent) == TokenQuestion("t", "ca", "bot")


@pytest.mark.parametrize(
    ("parameters", "error", "named"),
    [
        ({}, "invalid_request", "token is missing"),
        ({"token": [""]}, "invalid_request", "token is missing"),
        ({"token": ["a", "a"]}, "invalid_request", "2 times"),
        ({"Token": ["a"]}, "invalid_request", "did you mean 'token'"),
        ({"token": ["a"], "client_secret": ["s"]}, "invalid_client", "no client secrets"),
        ({"token": ["a"], "client_assertion": ["s"]}, "invalid_request", "client_assertion_type"),
        ({"token": ["a"], "client_assertion_type": [BY_JWT]}, "invalid_request", "is missing"),
        ({"token": ["a"], "client_id": ["é"]}, "invalid_request", "client_id"),
    ],
)
def test_standard_19_a_malformed_question(
    parameters: dict[str, list[str]], error: str, named: str
) -> None:
    with pytest.raises(TokenRefused, match=named) as refusal:
        read_question(parameters)
    assert refusal.value.error == error


@given(st.dictionaries(st.text(), st.lists(st.text(), max_size=2)), st.text(min_size=1))
def test_a_question_with_a_token_is_read_whatever_else_is_there(
    more: dict[str, list[str]], token: str
) -> None:
    unknown = {name: values for name, values in more.items() if not name.isascii()}
    assert read_question({**unknown, "token": [token]}) == TokenQuestion(token, None, None)
