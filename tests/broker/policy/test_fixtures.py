from __future__ import annotations

import pytest

from broker.errors import PolicyError
from broker.policy.fixtures import Result, run_fixtures
from broker.policy.source import Document
from tests.fakes.policies import CLOUD_SCOPE, SMALL, changed, policy

HEAD = """\
tests:
  - name: one
    identity: {source: actions, claims: {repository_id: "123456", ref: refs/heads/main}}
"""


def run(request: str, expect: str, text: str = SMALL) -> Result:
    document = f"{HEAD}    request: {request}\n    expect: {expect}\n"
    (result,) = run_fixtures(policy(text, CLOUD_SCOPE), [Document("a.test.yaml", document)])
    return result


@pytest.mark.parametrize(
    ("request_", "expect"),
    [
        ("{scope: stripe.read}", "{decision: allow, agent: release-bot, rule: token}"),
        ("{scope: [stripe.read, stripe.refund], reason: why}", "{decision: allow}"),
        ("{scope: stripe.read, agent: release-bot}", "{decision: allow}"),
        ("{scope: stripe.read, agent: coder}", "{decision: deny, rule: trust}"),
        ("{scope: stripe.write}", "{decision: deny, rule: scope}"),
        ("{scope: stripe.refund}", "{decision: deny, rule: reason}"),
        ("{scope: stripe.read, ttl: 0}", "{decision: deny, rule: lifetime}"),
        ("{scope: stripe.read, method: GET, path: /v1/charges, query: limit=3}",
         '{decision: allow, scope: stripe.read, rule: "GET /v1/**", risk: low}'),
        ("{scope: stripe.read, method: POST, path: /v1/charges}", "{decision: deny, rule: none}"),
        ("{scope: stripe.refund, reason: x, method: POST, path: /v1/refunds/1/cancel}",
         '{decision: deny, rule: "* /v1/refunds/*/cancel"}'),
        ("{scope: stripe.read, method: GET, path: /v1/../x}", "{decision: deny, rule: canonical}"),
        ("{scope: stripe.read, service: cloud, method: GET, path: /v1}",
         "{decision: deny, rule: none}"),
    ],
)  # fmt: skip
def test_passes_if_the_answer_is_as_expected(request_: str, expect: str) -> None:
    assert run(request_, expect).failures == ()


@pytest.mark.parametrize(
    ("headers", "expect"),
    [
        ("{Sudo: '7'}", '{decision: allow, rule: "GET /v1/**"}'),
        ("{Sudo: '8'}", "{decision: deny, rule: on_behalf}"),
        ("{Sudo: '7', As-User: '1'}", "{decision: deny, rule: on_behalf}"),
        ("{Accept: a}", "{decision: deny, rule: on_behalf}"),
    ],
)
def test_whom_a_request_names_is_looked_at(headers: str, expect: str) -> None:
    text = changed('allow: ["GET /v1/**"]', 'allow: ["GET /v1/**"]\n    on_behalf: {Sudo: "7"}')
    request = f"{{scope: stripe.read, method: GET, path: /v1/x, headers: {headers}}}"
    assert run(request, expect, text).failures == ()


@pytest.mark.parametrize(
    ("request_", "expect", "failure"),
    [
        ("{scope: stripe.read}", "{decision: deny}", "expected decision 'deny', got 'allow'"),
        ("{scope: stripe.write}", "{decision: allow}",
         "expected decision 'allow', got 'deny' (agent release-bot may not have stripe.write)"),
        ("{scope: stripe.read, method: GET, path: /v1}", "{decision: allow, rule: GET /v1}",
         "expected rule 'GET /v1', got 'GET /v1/**'"),
        ("{scope: stripe.read, method: GET, path: /v1}", "{decision: allow, risk: high}",
         "expected risk 'high', got 'low'"),
        ("{scope: stripe.read, method: GET, path: /v1}", "{decision: allow, scope: stripe.refund}",
         "expected scope 'stripe.refund', got 'stripe.read'"),
        ("{scope: stripe.read}", "{decision: allow, agent: coder}",
         "expected agent 'coder', got 'release-bot'"),
    ],
)  # fmt: skip
def test_fails_with_what_differs(request_: str, expect: str, failure: str) -> None:
    result = run(request_, expect)
    assert result.failures == (failure,)
    assert str(result.place) == "a.test.yaml:2:5"


def test_a_local_identity_has_its_subject_as_a_claim() -> None:
    document = (
        "tests: [{name: x, identity: {source: laptop, subject: coder},"
        " request: {scope: stripe.read}, expect: {decision: allow, agent: coder}}]"
    )
    (result,) = run_fixtures(policy(SMALL), [Document("a.test.yaml", document)])
    assert result.failures == ()


def test_a_task_fills_templates() -> None:
    holder = changed("[stripe.read, stripe.refund]", "[cloud.use]")
    document = (
        HEAD + "    request: {scope: cloud.use, task: T1}\n    expect: {decision: allow}\n"
        "  - name: two\n"
        "    identity: {source: actions, claims: {repository_id: '123456', ref: refs/heads/main}}\n"
        "    request: {scope: cloud.use, task: 'T 1'}\n"
        "    expect: {decision: deny, rule: template}\n"
    )
    made = policy(holder, CLOUD_SCOPE + "    tags: {task: '{task}'}\n")
    for result in run_fixtures(made, [Document("a.test.yaml", document)]):
        assert result.failures == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tests: []", "a:1:8: policy tests, tests: an empty list"),
        ("test: []", "a:1:1: policy tests: unknown field 'test'; did you mean 'tests'?"),
        ("tests: [{name: x}]", "a:1:9: policy tests, tests[0]: field 'identity' is missing"),
        (HEAD.replace("actions", "action")
         + "    request: {scope: a}\n    expect: {decision: deny}",
         "a:3:24: test 'one': unknown identity source 'action'; did you mean 'actions'?"),
        (HEAD + "    request: {scope: a, service: strip}\n    expect: {decision: deny}",
         "a:4:34: test 'one': unknown service 'strip'; did you mean 'stripe'?"),
        (HEAD + "    request: {scope: a, method: GET}\n    expect: {decision: deny}",
         "a:4:14: policy tests, tests[0].request: give both method and path, or neither"),
        (HEAD + "    request: {scope: a, websocket: true}\n    expect: {decision: deny}",
         "a:4:14: policy tests, tests[0].request: a websocket is opened by method: GET"),
        (HEAD + "    request: {scope: a}\n    expect: {decision: denied}",
         ("a:5:24: policy tests, tests[0].expect.decision: expected 'allow' or 'deny'; did you "
         "mean 'deny'?")),
        (HEAD + "    request: {scope: []}\n    expect: {decision: deny}", "a:4:22: policy tests"),
        ("tests: [", "not YAML"),
    ],
)  # fmt: skip
def test_tests_with_mistakes_are_refused(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        run_fixtures(policy(SMALL), [Document("a", text)])
    assert problem in str(refusal.value)


def test_no_tests_are_no_results() -> None:
    assert run_fixtures(policy(SMALL), []) == ()
