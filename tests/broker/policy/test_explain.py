from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError
from broker.model import Allow, Deny
from broker.policy.body import NO_BODY, Content
from broker.policy.explain import Explanation, Request, explain
from tests.fakes.policies import CLOUD_SCOPE, SMALL, changed, policy

OPEN = changed('allow: ["GET /v1/**"]', 'allow: ["GET /v1/**"]\n    websocket: true')


def explained(
    request: str, scope: str = "stripe.refund", agent: str = "release-bot", text: str = SMALL
) -> Explanation:
    method, _, target = request.partition(" ")
    path, _, query = target.encode().partition(b"?")
    return explain(policy(text), agent, scope, Request(method, path, query))


def lines(explanation: Explanation) -> list[str]:
    return [f"{one.kind} {one.subject}: {one.finding}" for one in explanation.steps]


def test_goes_through_the_rules_until_one_decides() -> None:
    explanation = explained("POST /v1/refunds")
    assert lines(explanation) == [
        "agent release-bot: may have stripe.refund",
        "service stripe: http_api, through the gateway",
        "method POST: can be allowed",
        "path /v1/refunds: is in canonical form",
        "deny * /v1/refunds/*/cancel: is for another path",
        "allow GET /v1/charges/*: is for another method",
        "allow POST /v1/refunds: matches",
    ]
    assert explanation.decision == Allow("stripe.refund", "POST /v1/refunds", "high")


def test_a_deny_rule_ends_it() -> None:
    explanation = explained("POST /v1/refunds/re_1/CANCEL/")
    assert lines(explanation)[-1] == "deny * /v1/refunds/*/cancel: matches"
    assert isinstance(explanation.decision, Deny)
    assert explanation.decision.rule == "* /v1/refunds/*/cancel"


@pytest.mark.parametrize(
    ("request_", "scope", "agent", "last"),
    [
        ("GET /v1/x", "stripe.refund", "coder", "agent coder: may not have stripe.refund"),
        ("get /v1/x", "stripe.refund", "release-bot", "method get: is never allowed"),
        ("GET /v1//x", "stripe.read", "coder", ("path /v1//x: holds '//', which some servers "
         "merge into '/'")),
        ("PUT /v1/x", "stripe.read", "coder", "allow nothing else: no rule allows it"),
    ],
)  # fmt: skip
def test_says_what_stood_in_the_way(request_: str, scope: str, agent: str, last: str) -> None:
    explanation = explained(request_, scope, agent)
    assert lines(explanation)[-1] == last
    assert explanation.steps[-1].decisive
    assert isinstance(explanation.decision, Deny)


def test_a_body_rule_has_its_step() -> None:
    text = changed("    risk: high", "    risk: high\n    body: {json: {amount: {max: 5}}}")
    made = policy(text)
    for body, finding, size in (
        (Content(b'{"amount": 5}', "application/json"), "is allowed", "13 bytes"),
        (Content(b'{"amount": 6}', "application/json"), "body field 'amount' has a", "13 bytes"),
        (Content(b"amount=5", "text/plain"), "the body's Content-Type is not", "8 bytes"),
        (NO_BODY, "the request has no body", "none"),
    ):
        asked = Request("POST", b"/v1/refunds", body=body)
        explanation = explain(made, "release-bot", "stripe.refund", asked)
        assert [one.kind for one in explanation.steps[-2:]] == ["query", "body"]
        assert explanation.steps[-1].subject == size
        assert explanation.steps[-1].finding.startswith(finding)
        assert isinstance(explanation.decision, Allow) is (finding == "is allowed")
    queried = explain(made, "release-bot", "stripe.refund", Request("POST", b"/v1/refunds", b"a=1"))
    assert queried.steps[-1].finding == "the query string may hold nothing"
    reading = explain(made, "release-bot", "stripe.refund", Request("GET", b"/v1/charges/1"))
    assert isinstance(reading.decision, Allow)


@pytest.mark.parametrize(
    ("target", "finding", "allowed"),
    [
        ("/v1/charges?status=paid", "is allowed", True),
        ("/v1/charges?status=all", "query parameter 'status' has a value", False),
        ("/v1/charges", "query parameter 'status' is missing", False),
    ],
)
def test_a_query_rule_has_its_step(target: str, finding: str, *, allowed: bool) -> None:
    text = changed('allow: ["GET /v1/**"]', 'allow: ["GET /v1/**"]\n    query: {status: paid}')
    explanation = explained(f"GET {target}", "stripe.read", "coder", text)
    assert explanation.steps[-1].kind == "query"
    assert explanation.steps[-1].finding.startswith(finding)
    assert isinstance(explanation.decision, Allow) is allowed


@pytest.mark.parametrize(
    ("text", "method", "finding", "allowed"),
    [
        (SMALL, "GET", "scope stripe.read does not say websocket: true", False),
        (OPEN, "GET", "may be opened by a GET that is allowed", True),
        (OPEN, "POST", "a websocket is opened by GET and nothing else", False),
    ],
    ids=["closed", "open", "not by POST"],
)
def test_a_websocket_has_its_step(text: str, method: str, finding: str, *, allowed: bool) -> None:
    request = Request(method, b"/v1/x", websocket=True)
    explanation = explain(policy(text), "coder", "stripe.read", request)
    assert f"websocket stripe.read: {finding}" in lines(explanation)
    assert isinstance(explanation.decision, Allow) is allowed
    if isinstance(explanation.decision, Allow):
        assert explanation.decision.risk == "medium"
    else:
        assert (explanation.decision.reason, explanation.decision.rule) == (finding, "websocket")


LISTED = changed('allow: ["GET /v1/**"]', 'allow: ["GET /v1/**"]\n    on_behalf: {Sudo: "7"}')
UNLISTED = "sudo names another user, account or tenant, and is not listed under on_behalf"


@pytest.mark.parametrize(
    ("text", "headers", "finding"),
    [
        (SMALL, ((b"sudo", b"7"),), UNLISTED),
        (LISTED, ((b"sudo", b"7"),), "is allowed"),
        (LISTED, ((b"sudo", b"8"),), "sudo has a value that is not listed under on_behalf"),
        (LISTED, (), "sudo is missing, under on_behalf"),
    ],
)
def test_whom_a_request_names_has_its_step(
    text: str, headers: tuple[tuple[bytes, bytes], ...], finding: str
) -> None:
    request = Request("GET", b"/v1/x", headers=(*headers, (b"accept", b"text/html")))
    explanation = explain(policy(text), "coder", "stripe.read", request)
    field = "sudo" if headers else ""
    assert f"on_behalf {field}: {finding}" in lines(explanation)
    if isinstance(explanation.decision, Deny):
        assert (explanation.decision.reason, explanation.decision.rule) == (finding, "on_behalf")
    else:
        assert finding == "is allowed"


def test_a_scope_that_is_not_for_the_gateway_says_so() -> None:
    text = changed("[stripe.read]", "[stripe.read, cloud.use]")
    made = policy(text, CLOUD_SCOPE)
    explanation = explain(made, "coder", "cloud.use", Request("GET", b"/"))
    assert lines(explanation)[-1] == "service cloud: cloud, not through the gateway"
    assert isinstance(explanation.decision, Deny)


@pytest.mark.parametrize(
    ("agent", "scope", "problem"),
    [
        ("codr", "stripe.read", "no agent 'codr'; did you mean 'coder'?"),
        ("coder", "stripe.raed", "no scope 'stripe.raed'; did you mean 'stripe.read'?"),
        ("xyz", "stripe.read", "no agent 'xyz'; there are coder, release-bot"),
    ],
)
def test_an_unknown_name_is_told(agent: str, scope: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        explained("GET /v1", scope, agent)
    assert problem in str(refusal.value)


SMALL_POLICY = policy(SMALL)


@given(
    st.sampled_from(["release-bot", "coder"]),
    st.sampled_from(["stripe.read", "stripe.refund"]),
    st.sampled_from(["GET", "POST", "DELETE", "get"]),
    st.sampled_from(["/v1", "/v1/charges/x", "/v1/refunds", "/v1/refunds/a/cancel", "/a//b", "/"]),
)
def test_the_last_step_agrees_with_the_decision(
    agent: str, scope: str, method: str, path: str
) -> None:
    explanation = explain(SMALL_POLICY, agent, scope, Request(method, path.encode()))
    last = explanation.steps[-1]
    assert last.decisive
    assert [one.decisive for one in explanation.steps].count(True) == 1
    allowed = isinstance(explanation.decision, Allow)
    assert allowed is (last.kind == "allow" and last.finding == "matches")
    if last.kind in {"allow", "deny"} and last.finding == "matches":
        assert explanation.decision.rule == last.subject


def test_tells_what_is_counted() -> None:
    text = changed("    risk: high\n", "    risk: high\n    limits: {rate: 3/hour, total: 9}\n")
    text = text.replace("    max_ttl: 1h\n", "    max_ttl: 1h\n    limits: {concurrent: 4}\n")
    assert lines(explained("POST /v1/refunds", text=text))[2:5] == [
        "limit scope stripe.refund: rate 3/hour",
        "limit scope stripe.refund: total 9",
        "limit agent release-bot: concurrent 4",
    ]
