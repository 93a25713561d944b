from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.policies import SMALL, changed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.cli.conftest import Commands

TESTS = """\
tests:
  - name: the bot reads
    identity: {source: actions, claims: {repository_id: "123456", ref: refs/heads/main}}
    request: {scope: stripe.read, method: GET, path: /v1/charges}
    expect: {decision: allow, rule: "GET /v1/**"}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A directory with the small policy and a test of it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "small.yaml").write_text(SMALL)
    (folder / "small.test.yaml").write_text(TESTS)
    return folder


class TestCheck:
    def test_says_that_all_is_well(self, broker: Commands, small: Path) -> None:
        out = broker.ok("policy", "check", str(small)).out
        assert out.startswith("ok: 1 service, 2 scopes, 2 agents, 0 warnings; sha256:")

    def test_checks_the_brokers_own_policies_by_default(self, broker: Commands) -> None:
        assert "ok:" in broker.ok("policy", "check").out

    def test_its_own_policies_are_judged_with_its_own_stores(self, broker: Commands) -> None:
        (broker.home / "policies" / "stripe.yaml").write_text(
            "services:\n  stripe: {provider: http_api, base_url: https://api.stripe.com,\n"
            "    credential: {type: bearer, secret: 'vault:kv/stripe#key'}}\n"
        )
        ran = broker.run("policy", "check")
        assert ran.status == 1
        assert "stripe.yaml:3:40: error: service 'stripe': refers to a Vault, and none" in ran.out

    def test_tells_all_errors_with_their_places_and_fails(
        self, broker: Commands, small: Path
    ) -> None:
        (small / "small.yaml").write_text(SMALL.replace("allow:", "alow:"))
        ran = broker.run("policy", "check", str(small))
        assert ran.status == 1
        place = f"{small}/small.yaml:15:5: error: scope 'stripe.read': unknown field 'alow'"
        assert place in ran.out
        assert "4 errors: a running broker keeps its last good policy" in ran.out

    def test_warns_and_does_not_fail(self, broker: Commands, small: Path) -> None:
        (small / "small.yaml").write_text(changed('"GET /v1/**"', '"* /**"'))
        out = broker.ok("policy", "check", str(small)).out
        assert f"{small}/small.yaml:15:13: warning: scope 'stripe.read' allows every" in out
        assert "1 warning;" in out

    def test_speaks_json(self, broker: Commands, small: Path) -> None:
        (small / "small.yaml").write_text(changed('"GET /v1/**"', '"* /**"'))
        data = broker.ok("policy", "check", str(small), "--json").data
        assert data["version"].startswith("sha256:")
        assert data["errors"] == []
        assert data["warnings"][0]["line"] == 15
        (small / "small.yaml").write_text("agents: []")
        ran = broker.run("policy", "check", str(small), "--json")
        assert ran.status == 1
        assert ran.data["version"] is None
        assert ran.data["errors"] == [
            {
                "file": f"{small}/small.yaml",
                "line": 1,
                "column": 9,
                "message": "agents: expected a mapping of names",
            }
        ]

    def test_a_directory_that_is_not_there_is_an_error(
        self, broker: Commands, tmp_path: Path
    ) -> None:
        assert broker.run("policy", "check", str(tmp_path / "gone")).status == 1

    def test_what_a_document_holds_cannot_steer_the_terminal(
        self, broker: Commands, small: Path
    ) -> None:
        (small / "evil\x1b[2J.yaml").write_text('agents: {"a\\nok: all": {}}')
        ran = broker.run("policy", "check", str(small))
        assert ran.status == 1
        assert "\x1b" not in ran.out
        assert "\nok: all" not in ran.out


class TestTest:
    def test_runs_the_tests_beside_the_policies(self, broker: Commands, small: Path) -> None:
        out = broker.ok("policy", "test", str(small)).out
        assert out.splitlines() == ["ok    the bot reads", "1 passed, 0 failed"]

    def test_tells_what_failed_and_fails(self, broker: Commands, small: Path) -> None:
        (small / "small.test.yaml").write_text(TESTS.replace("/v1/charges", "/v2"))
        ran = broker.run("policy", "test", str(small))
        assert ran.status == 1
        assert f"FAIL  the bot reads  ({small}/small.test.yaml:2:5)" in ran.out
        assert "expected decision 'allow', got 'deny'" in ran.out
        assert ran.out.endswith("0 passed, 1 failed\n")

    def test_speaks_json(self, broker: Commands, small: Path) -> None:
        data = broker.ok("policy", "test", str(small), "--json").data
        assert (data["passed"], data["failed"]) == (1, 0)
        assert data["tests"][0]["failures"] == []

    def test_no_tests_are_a_mistake(self, broker: Commands, small: Path) -> None:
        (small / "small.test.yaml").unlink()
        assert "there are no policy tests" in broker.refused("policy", "test", str(small))

    def test_a_policy_that_does_not_load_is_told(self, broker: Commands, small: Path) -> None:
        (small / "small.yaml").write_text("agents: []")
        said = broker.refused("policy", "test", str(small))
        assert "small.yaml:1:9: agents: expected a mapping" in said


class TestExplain:
    def explain(self, small: Path, *arguments: str) -> tuple[str, ...]:
        return ("policy", "explain", "--policies", str(small), *arguments)

    def test_shows_the_steps_and_the_rule(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "release-bot", "--scope", "stripe.refund", "POST", "/v1/refunds")
        out = broker.ok(*self.explain(small, *asked)).out
        assert "deny       * /v1/refunds/*/cancel  is for another path" in out
        assert out.endswith("allowed by POST /v1/refunds of stripe.refund, risk high\n")

    def test_shows_what_denies_and_what_would_be_allowed(
        self, broker: Commands, small: Path
    ) -> None:
        asked = ("--agent", "coder", "--scope", "stripe.read", "POST", "/v1/refunds")
        out = broker.ok(*self.explain(small, *asked)).out
        assert "denied: no rule of stripe.read allows this request to stripe" in out
        assert out.endswith("what would be allowed:\n  GET /v1/**\n")

    def test_speaks_json(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "coder", "--scope", "stripe.read", "--json", "GET", "/v1/a?b=c")
        data = broker.ok(*self.explain(small, *asked)).data
        assert (data["decision"], data["rule"], data["risk"]) == ("allow", "GET /v1/**", "low")
        assert data["steps"][-1] == {
            "kind": "allow",
            "subject": "GET /v1/**",
            "finding": "matches",
            "decisive": True,
        }

    def test_explains_why_no_websocket_is_opened(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "coder", "--scope", "stripe.read", "--websocket", "GET", "/v1/a")
        out = broker.ok(*self.explain(small, *asked)).out
        assert "websocket  stripe.read" in out
        assert "denied: scope stripe.read does not say websocket: true" in out

    def test_explains_why_nobody_else_may_be_named(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "coder", "--scope", "stripe.read", "GET", "/v1/a")
        out = broker.ok(*self.explain(small, "--header", "Stripe-Account: acct_1", *asked)).out
        assert "denied: stripe-account names another user, account or tenant" in out
        assert "allowed" in broker.ok(*self.explain(small, "--header", "Accept: a", *asked)).out
        refused = broker.run(*self.explain(small, "--header", "Accept", *asked))
        assert refused.status == 2
        assert "expected a name, a colon and a value" in refused.err

    def test_judges_the_body_too(self, broker: Commands, small: Path) -> None:
        (place,) = [one for one in small.iterdir() if "stripe.refund:" in one.read_text()]
        text = place.read_text().replace(
            "    risk: high\n", "    risk: high\n    body: {json: {amount: {max: 5}}}\n"
        )
        place.write_text(text)
        asked = ("--agent", "release-bot", "--scope", "stripe.refund", "POST", "/v1/refunds")
        out = broker.ok(*self.explain(small, "--body", '{"amount": 5}', *asked)).out
        assert "body       13 bytes                is allowed" in out
        for given, reason in (
            (("--body", '{"amount": 77}'), "body field 'amount' has a value"),
            (("--body", "a", "--content-type", "text/plain"), "the body's Content-Type is not"),
            ((), "the request has no body"),
        ):
            out = broker.ok(*self.explain(small, *given, *asked)).out
            assert f"denied: scope stripe.refund: {reason}" in out
            assert "77" not in out

    def test_takes_any_path_as_the_gateway_would(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "coder", "--scope", "stripe.read", "GET", "/v1/\u00e9\x1b[2J")
        out = broker.ok(*self.explain(small, *asked)).out
        assert "denied: the path holds" in out
        assert "\x1b[2J" not in out

    def test_names_the_nearest_agent(self, broker: Commands, small: Path) -> None:
        asked = ("--agent", "codr", "--scope", "stripe.read", "GET", "/v1")
        assert "did you mean 'coder'?" in broker.refused(*self.explain(small, *asked))
