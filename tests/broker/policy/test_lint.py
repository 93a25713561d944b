from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.policies import CLOUD_SCOPE, SMALL, changed, warnings


def test_a_careful_policy_has_nothing_to_reconsider() -> None:
    assert warnings(SMALL) == []


def test_what_nobody_uses_is_told() -> None:
    spare = "identity_sources:\n  spare: {type: oidc, issuer: https://spare.example.com}\n"
    found = warnings(SMALL, CLOUD_SCOPE.split("scopes:")[0] + spare)
    assert found == [
        "1.yaml:2:3: no scope is for service 'cloud': nobody can call it",
        "1.yaml:4:3: no agent trusts identity source 'spare': it proves nothing",
    ]
    assert warnings(SMALL, CLOUD_SCOPE) == [
        "1.yaml:4:3: no agent may have scope 'cloud.use': list it under an agent's scopes"
    ]


def test_a_scope_that_allows_everything_is_told() -> None:
    assert warnings(changed('"GET /v1/**"', '"* /**"'))[0] == (
        "0.yaml:15:13: scope 'stripe.read' allows every request that its credential can make; "
        "list the methods and paths that are needed"
    )


@pytest.mark.parametrize("rule", ["GET /**", "* /v1/**", "* /*"])
def test_a_scope_that_allows_much_is_not(rule: str) -> None:
    found = warnings(changed('"GET /v1/**"', f'"{rule}"'))
    assert not [one for one in found if "every request" in one]


def test_a_service_without_encryption_is_told() -> None:
    text = changed(
        "base_url: https://api.stripe.com", "base_url: http://10.0.0.1\n    insecure_http: true"
    )
    assert warnings(text) == [
        (
            "0.yaml:11:5: service 'stripe': insecure_http sends its credential readable over the "
            "network"
        )
    ]


def test_a_source_that_takes_tokens_meant_for_others_is_told() -> None:
    text = changed("    audiences: [h", "    allow_extra_audiences: true\n    audiences: [h")
    assert warnings(text) == [
        (
            "0.yaml:5:5: identity source 'actions': whoever else such a token is meant for can use "
            "it here"
        )
    ]


class TestLooseDenials:
    def test_a_deny_rule_that_another_scope_gets_round_is_told(self) -> None:
        text = changed('allow: ["GET /v1/**"]', 'allow: ["POST /v1/**"]').replace(
            'allow: ["GET /v1/charges/*", "POST /v1/refunds"]', 'allow: ["POST /v1/refunds/**"]'
        )
        assert warnings(text) == [
            (
                "0.yaml:28:27: agent 'release-bot': '* /v1/refunds/*/cancel' of scope "
                "'stripe.refund' does not bind it, for its scope 'stripe.read' allows some of "
                "the same"
            )
        ]

    def test_one_that_the_other_scope_has_too_is_not(self) -> None:
        deny = '    deny: ["* /v1/refunds/*/cancel"]\n'
        text = changed(
            '    allow: ["GET /v1/**"]\n', f'    allow: ["POST /v1/**"]\n{deny}'
        ).replace('"POST /v1/refunds"]', '"POST /v1/refunds/**"]')
        assert warnings(text) == []

    def test_one_that_is_a_precaution_is_not(self) -> None:
        assert warnings(changed('"GET /v1/**"', '"POST /v1/**"')) == []

    def test_one_for_another_method_is_not(self) -> None:
        assert warnings(changed('"POST /v1/refunds"]', '"POST /v1/refunds/**"]')) == []

    @pytest.mark.timeout(60)
    def test_a_thousand_scopes_are_compared_in_bounded_time(self) -> None:
        names = [f"s{number}" for number in range(1000)]
        scopes: dict[str, Any] = {
            name: {"service": "stripe", "allow": ["* /v1/**"], "deny": [f"GET /v1/{name}/**"]}
            for name in names
        }
        agent = {"trust": [{"source": "laptop"}], "scopes": names}
        text = json.dumps({"scopes": scopes, "agents": {"all": agent}})
        assert len(warnings(SMALL, text)) <= 20_000
