from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from broker.policy.document import (
    AgentFields,
    LocalSourceConfig,
    OidcSourceConfig,
    ScopeFields,
    ServiceFields,
    SourceConfig,
    is_name,
)
from broker.policy.query import Parameter

ISSUER = "https://issuer.example.com"


def source(**fields: Any) -> OidcSourceConfig:
    return OidcSourceConfig.model_validate({"type": "oidc", "issuer": ISSUER, **fields})


def scope(**fields: Any) -> ScopeFields:
    return ScopeFields.model_validate({"service": "s", **fields})


def test_a_source_is_strict_unless_it_says_otherwise() -> None:
    strict = source()
    assert strict.replay == "single_use"
    assert strict.algorithms == ("RS256", "ES256")
    assert not strict.allow_extra_audiences
    assert not strict.allow_private
    assert (strict.leeway, strict.max_token_age) == (30, 3600)


def test_a_sources_type_says_which_it_is() -> None:
    sources: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)
    assert isinstance(sources.validate_python({"type": "local"}), LocalSourceConfig)
    assert isinstance(sources.validate_python({"type": "oidc", "issuer": ISSUER}), OidcSourceConfig)


@pytest.mark.parametrize(
    "issuer",
    ["http://issuer.example.com", "issuer.example.com", "https://", "https://user@issuer.example",
     "https://issuer.example/?a", "https://issuer.example/#a", "https://issuer.example/a b",
     "https://iss\u00fcer.example", "https://issuer.example:99999", "https://[::1", "ftp://a", "",
     "https://issuer.example\n", "file:///etc/passwd"],
)  # fmt: skip
def test_refuses_what_cannot_be_an_issuer(issuer: str) -> None:
    with pytest.raises(ValidationError):
        source(issuer=issuer)
    with pytest.raises(ValidationError):
        source(jwks_uri=issuer)


@pytest.mark.parametrize(
    "issuer",
    [ISSUER, ISSUER + "/", ISSUER + ":8443/a", "http://127.0.0.1:8080", "http://localhost/a"],
)
def test_takes_an_issuer_byte_for_byte(issuer: str) -> None:
    assert source(issuer=issuer).issuer == issuer


@pytest.mark.parametrize(
    "fields",
    [{"algorithms": []}, {"algorithms": ["none"]}, {"algorithms": ["HS256"]}, {"audiences": []},
     {"audiences": [""]}, {"audiences": ["a", "a"]}, {"replay": "always"}, {"leeway": "61s"},
     {"leeway": "0s"}, {"max_token_age": "-1s"}, {"max_token_age": True}, {"ca_file": "ca.pem"},
     {"allow_extra_audiences": "yes"}, {"allow_extra_audiences": 1}, {"unknown": 1}],
    ids=str,
)  # fmt: skip
def test_refuses_what_would_loosen_a_source(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source(**fields)


def test_durations_are_seconds() -> None:
    assert scope(max_ttl="90s").max_ttl == 90
    assert scope(max_ttl="15m").max_ttl == 900
    assert scope(max_ttl="24h").max_ttl == 86_400
    assert scope(max_ttl=60).max_ttl == 60


@pytest.mark.parametrize("ttl", ["0s", "0", 0, -1, "1.5h", "1w", "25h", "2d", "", True, ["1h"]])
def test_refuses_what_is_no_lifetime(ttl: object) -> None:
    with pytest.raises(ValidationError):
        scope(max_ttl=ttl)


def test_a_scope_says_little_by_default() -> None:
    plain = scope()
    assert plain.delivery == ("proxy",)
    assert plain.reason == "optional"
    assert plain.risk is None
    assert plain.allow is None


@pytest.mark.parametrize(
    "fields",
    [{"allow": []}, {"deny": []}, {"allow": ["GET /x", "GET /x"]}, {"delivery": []},
     {"delivery": ["proxy", "proxy"]}, {"delivery": ["email"]}, {"delivery": "proxy"},
     {"risk": "low"}, {"reason": True}, {"query": {}}, {"query": []}, {"query": {"a": []}},
     {"query": {"a": None}}, {"query": {"a": True}}, {"query": {"a": {"any": False}}},
     {"query": {"a": {"glob": "x"}}}, {"query": {"*": "x"}}, {"query": {"a": [["b"]]}},
     {"service": "No Name"}, {"description": ""}, {"description": "x" * 1001}, {"Allow": ["* /"]}],
    ids=str,
)  # fmt: skip
def test_refuses_what_is_empty_double_or_unknown(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        scope(**fields)


def test_query_parameters_are_texts_lists_globs_or_any() -> None:
    query = scope(query={"a": "x", "n": 100, "l": ["x", 2], "p": {"any": True}, "*": {"any": True}})
    assert query.query is not None
    assert query.query["a"] == Parameter(("x",))
    assert query.query["n"] == Parameter(("100",))
    assert query.query["l"] == Parameter(("x", "2"))
    assert not query.query["p"].required


@pytest.mark.parametrize(
    "fields",
    [{"trust": []}, {"scopes": []}, {"scopes": ["a", "a"]}, {"trust": [{"source": "i"}, {}]},
     {"trust": [{"source": "i", "claims": {}}]}, {"trust": [{"source": "i", "claims": {"a": 1.5}}]},
     {"trust": [{"source": "i", "subject": "x"}]}, {"trust": {"source": "i"}}, {"max_ttl": 0}],
    ids=str,
)  # fmt: skip
def test_an_agent_trusts_someone_with_something(fields: dict[str, Any]) -> None:
    right = {"trust": [{"source": "i", "claims": {"a": "b"}}], "scopes": ["a"]}
    AgentFields.model_validate(right)
    with pytest.raises(ValidationError):
        AgentFields.model_validate(right | fields)


def test_what_was_read_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        scope().service = "other"  # type: ignore[misc]


def test_no_message_holds_what_was_written() -> None:
    with pytest.raises(ValidationError) as refusal:
        ServiceFields.model_validate({"provider": ["sk_live_4242"], "description": ""})
    assert "4242" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a", "stripe.read", "a_b-c.d", "0", "a" * 64])
def test_is_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a..b", "-a", "a.", "a" * 65, "a\n", "a/b", "\u0430"]
)
def test_is_no_name(name: str) -> None:
    assert not is_name(name)
