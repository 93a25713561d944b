from __future__ import annotations

import pytest

from broker.errors import PolicyError
from broker.model import Allow, Deny
from broker.policy.loader import Document, load_policy
from tests.fakes.policies import CLOUD_SCOPE, SMALL, changed, policy, problems


def test_an_http_scope_has_its_rules() -> None:
    small = policy(SMALL)
    assert [rule.text for rule in small.rules["stripe.refund"].allow] == [
        "GET /v1/charges/*",
        "POST /v1/refunds",
    ]
    assert small.scopes["stripe.read"].constraints is not None


def test_another_scope_has_constraints_and_no_rules() -> None:
    loaded = policy(CLOUD_SCOPE + "    repositories: [acme/shop]\n")
    assert "cloud.use" not in loaded.rules
    assert loaded.scopes["cloud.use"].constraints.repositories == ("acme/shop",)
    assert loaded.scopes["cloud.use"].delivery == frozenset({"credential"})


@pytest.mark.parametrize("line", ["allow: ['* /**']", "deny: ['* /**']", "query: {a: b}"])
def test_only_http_scopes_take_rules(line: str) -> None:
    field = line.partition(":")[0]
    assert problems(f"{CLOUD_SCOPE}    {line}\n") == [
        f"0.yaml:7:5: scope 'cloud.use': a scope of provider 'cloud' takes no '{field}'"
    ]


FORGE_SCOPE = changed("provider: cloud", "provider: forge", CLOUD_SCOPE)
BOTH = changed("[credential]", "[credential, proxy]", FORGE_SCOPE)


def test_a_credential_that_is_handed_out_has_no_rules() -> None:
    loaded = policy(FORGE_SCOPE)
    assert "cloud.use" not in loaded.rules
    judge = loaded.authorizer(("cloud.use",), "cloud")
    assert isinstance(judge.judge(b"GET", b"/", b""), Deny)


@pytest.mark.parametrize("line", ["allow: ['GET /a']", "deny: ['GET /a']", "query: {a: b}"])
def test_rules_that_would_bind_nobody_are_refused(line: str) -> None:
    field = line.partition(":")[0]
    (problem,) = problems(f"{FORGE_SCOPE}    {line}\n")
    assert problem.startswith(f"0.yaml:7:5: scope 'cloud.use': '{field}' binds nobody who has")


def test_what_passes_the_gateway_has_its_rules_whatever_else_it_does() -> None:
    (problem,) = problems(BOTH)
    assert "field 'allow' is missing" in problem
    loaded = policy(BOTH + "    allow: ['GET /a']\n")
    judge = loaded.authorizer(("cloud.use",), "cloud")
    assert isinstance(judge.judge(b"GET", b"/a", b""), Allow)
    assert isinstance(judge.judge(b"GET", b"/b", b""), Deny)


def test_the_providers_fields_are_checked() -> None:
    assert problems(f"{CLOUD_SCOPE}    repositories: []\n") == [
        (
            "0.yaml:7:19: scope 'cloud.use', repositories: an empty list or mapping says nothing; "
            "leave it out or fill it"
        )
    ]
    assert problems(f"{CLOUD_SCOPE}    repositores: [a]\n") == [
        "0.yaml:7:5: scope 'cloud.use': unknown field 'repositores'; did you mean 'repositories'?"
    ]


def test_the_providers_fields_are_not_checked_while_the_provider_is_unknown() -> None:
    text = changed("provider: cloud", "provider: clowd", CLOUD_SCOPE) + "    repositories: []\n"
    assert problems(text) == [
        "0.yaml:2:21: service 'cloud': unknown provider 'clowd'; did you mean 'cloud'?"
    ]


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("GET /v1/charges", "GET /v1/charges"),
        ("GET /v1/charges", "* /v1/**"),
        ("GET /v1/Charges/", "GET /v1/charges"),
        ("* /v1/*", "* /**"),
        ("GET /models/*:run", "* /models/*"),
    ],
)
def test_an_allow_rule_that_is_wholly_denied_fails_the_load(allow: str, deny: str) -> None:
    text = changed('allow: ["GET /v1/**"]', f'allow: ["{allow}"]\n    deny: ["{deny}"]')
    (found,) = problems(text)
    assert found == (
        f"0.yaml:15:13: scope 'stripe.read': {allow!r} can never allow anything: "
        f"{deny!r} denies it all"
    )


def test_an_allow_rule_that_is_partly_denied_loads() -> None:
    text = changed('allow: ["GET /v1/**"]', 'allow: ["* /v1/**"]\n    deny: ["GET /v1/**"]')
    assert policy(text).scopes["stripe.read"].deny == ("GET /v1/**",)


@pytest.mark.parametrize("delivery", ["[credential]", "[proxy, credential]"])
def test_a_static_key_is_never_handed_out(delivery: str) -> None:
    text = changed('allow: ["GET /v1/**"]', f'allow: ["GET /v1/**"]\n    delivery: {delivery}')
    (found,) = problems(text)
    assert found.startswith("0.yaml:16:15: scope 'stripe.read': provider 'http_api' has no deliv")


@pytest.mark.parametrize("delivery", ["", "    delivery: [credential, proxy]\n"])
def test_what_the_gateway_has_no_way_to_does_not_load(delivery: str) -> None:
    text = (
        "services: {db: {provider: vault_dynamic, mount: database}}\n"
        "scopes:\n  db.read:\n    service: db\n    path: creds/x\n    allow: ['GET /**']\n"
    )
    with pytest.raises(PolicyError) as refusal:
        load_policy([Document("p.yaml", text + delivery)])
    assert "for service 'db' has no base_url; write delivery: [credential]" in str(refusal.value)


KEYED = """
services:
  shop:
    provider: http_api
    base_url: https://shop.example
    credential: {type: %s, secret: "env:SHOP"%s}
scopes:
  shop.read:
    service: shop
    allow: ["GET /**"]
    on_behalf: {%s: a}
"""


@pytest.mark.parametrize("name", ["X-Api-Key", "x_api-KEY"])
def test_the_field_of_the_services_own_key_names_nobody(name: str) -> None:
    (found,) = problems(KEYED % ("header", ", name: X-API-Key", name))
    assert found == (
        f"0.yaml:11:17: scope 'shop.read', on_behalf: {name} holds the task token, in whose place "
        "the gateway writes the key of service 'shop'; it names nobody, so leave it out"
    )


@pytest.mark.parametrize("kind", ["query", "cookie"])
def test_a_key_elsewhere_leaves_the_field_of_its_name_free(kind: str) -> None:
    loaded = policy(KEYED % (kind, ", name: x-api-key", "X-Api-Key"))
    assert loaded.behalf("shop").listed == {b"x-api-key"}


def test_registries_are_named_where_somebody_gets_the_credential() -> None:
    text = CLOUD_SCOPE + "    registries: [ghcr.io, 'registry.example:5000']\n"
    assert policy(text).scopes["cloud.use"].registries == ("ghcr.io", "registry.example:5000")
    (found,) = problems(text.replace("[credential]", "[proxy]"))
    assert "'registries' name where its credential is used, and nobody gets that" in found
    assert policy(CLOUD_SCOPE).scopes["cloud.use"].registries == ()


@pytest.mark.parametrize(
    "listed",
    ["[]", "[https://ghcr.io]", "[ghcr.io/x]", "[GHCR.io]", "[a, a]", "['*']", "['']", "[-a]"],
)
def test_what_is_no_registry_does_not_load(listed: str) -> None:
    assert problems(CLOUD_SCOPE + f"    registries: {listed}\n")
