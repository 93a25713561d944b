"""On whose behalf a request may be. What the gateway makes of it is in tests/attacks/test_p.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.grammar import Field
from broker.gateway.trailers import declared
from broker.policy.behalf import NOBODY, Behalf, BehalfRule, names_another, parse_behalf

# fmt: off
OTHERS = [
    b"Impersonate-User", b"Impersonate-Group", b"Impersonate-Uid", b"Impersonate-Extra-scopes",
    b"X-Appwrite-Impersonate-User-Id", b"opendistro_security_impersonate_as",
    b"opensearch_security_impersonate_as", b"On-Behalf-Of", b"X-On-Behalf-Of", b"Sudo",
    b"es-security-runas-user", b"As-User", b"Assume-User", b"X-Redmine-Switch-User",
    b"Dropbox-API-Select-User", b"Dropbox-API-Select-Admin", b"X-DocuSign-Act-As-User",
    b"MSCRMCallerID", b"CallerObjectId", b"Stripe-Account", b"Stripe-Context",
    b"PayPal-Auth-Assertion", b"X-Vault-Namespace", b"X-Consul-Namespace", b"X-Consul-Partition",
    b"X-Scope-OrgID", b"X-Grafana-Org-Id",
]
OWN = [
    b"User-Agent", b"Accept", b"Stripe-Version", b"X-User", b"X-Vault-Request", b"Content-Type",
    b"Idempotency-Key", b"OpenAI-Organization", b"Host", b"X-Truncated-As", b"Basic-User",
    b"X-GitHub-Api-Version", b"X-Goog-User-Project", b"Pseudo", b"X-Dry-Run-Assets",
]
# fmt: on


@pytest.mark.parametrize("name", OTHERS)
def test_another_is_named_by_each_of_these(name: bytes) -> None:
    nobody = Behalf({"x": NOBODY})
    for spelling in (name, name.replace(b"-", b"_"), name.replace(b"-", b".")):
        assert names_another(spelling.lower())
        named = nobody.named([(spelling.lower(), b"root")])
        assert nobody.able(("x",), named) == ()
        assert declared([Field(b"trailer", b"Trailer", b"X-Sum, " + spelling)]) == {b"x-sum"}


def test_nobody_is_named_by_what_requests_have_anyway() -> None:
    fields = [(name.lower(), b"root") for name in OWN]
    assert Behalf({"x": NOBODY}).named(fields) == ()


def problem(rule: BehalfRule, *fields: tuple[bytes, bytes]) -> str | None:
    behalf = Behalf({"x": rule})
    named = behalf.named(fields)
    told = behalf.why_not(("x",), named)
    assert (behalf.able(("x",), named) == ("x",)) is (told is None)
    return told


def test_what_is_listed_is_held_to_it() -> None:
    rule = parse_behalf(
        {"Stripe-Account": ["acct_1", "acct_2"], "X_Org": {"glob": "team-*"}, "Sudo": {"any": True}}
    )
    own = ((b"stripe-account", b"acct_1"), (b"x-org", b"team-a"))
    assert problem(rule, *own) is None
    assert problem(rule, *own, (b"sudo", b"42")) is None
    assert problem(rule, own[0]) == "x-org is missing, under on_behalf"
    value = "stripe-account has a value that is not listed under on_behalf"
    for other in (b"acct_3", b"", b"acct_1 ", b"acct_1, acct_2", b"ACCT_1", b"acct_\xff"):
        assert problem(rule, (b"stripe-account", other), own[1]) == value
        assert problem(rule, *own, (b"stripe_account", other)) == value
    assert problem(rule, *own, (b"as-user", b"1")) == (
        "as-user names another user, account or tenant, and is not listed under on_behalf"
    )


def test_control_characters_are_no_ones_name() -> None:
    assert problem(parse_behalf({"Sudo": {"any": True}}), (b"sudo", b"a\tb")) is not None


VALUES = st.just(b"a") | st.sampled_from([b"A", b"a ", b"a,b", b"", b"b"]) | st.binary()


@given(st.lists(st.tuples(st.sampled_from([b"x-org", b"x_org", b"sudo"]), VALUES), max_size=4))
def test_a_scope_with_a_listed_value_passes_nothing_else(fields: list[tuple[bytes, bytes]]) -> None:
    """Whatever the fields: what passes says the listed tenant and nobody else."""
    if problem(parse_behalf({"X-Org": "a"}), *fields) is None:
        assert fields
        assert {name.replace(b"_", b"-") for name, _ in fields} == {b"x-org"}
        assert {value for _, value in fields} == {b"a"}


def test_a_key_that_is_listed_is_held_to_it() -> None:
    assert problem(parse_behalf({"X-Auth-Email": "a@b.c"}), (b"x-auth-email", b"a@b.d")) is not None


def test_scopes_of_other_services_say_nothing() -> None:
    behalf = Behalf({"x": parse_behalf({"Sudo": {"any": True}})})
    named = behalf.named([(b"sudo", b"1")])
    assert behalf.able(("y", "x"), named) == ("x",)
    assert behalf.why_not(("y", "x"), named) is None
    assert behalf.why_not(("y",), named) is None  # it has no rule there at all
    assert behalf.able(("y",), named) == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (True, "expected header fields"),
        ({}, "expected header fields"),
        ({"*": {"any": True}}, "'\\*' is no name"),
        ({"a b": "c"}, "'a b' is no name"),
        ({"": "c"}, "'' is no name"),
        ({"Authorization": "c"}, "written by the gateway"),
        ({"proxy_authorization": "c"}, "written by the gateway"),
        ({"X-Org": "a", "x_org": "b"}, "are one to many programs"),
        ({"X-Org": []}, "empty list"),
        ({"X-Org": {"any": False}}, "expected text"),
    ],
)
def test_what_cannot_be_meant_does_not_load(value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_behalf(value)
