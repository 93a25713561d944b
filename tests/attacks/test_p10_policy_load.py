"""P10: a policy that fails to load, an unknown field, a catastrophic pattern: denied, in time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import PolicyError
from broker.model import Deny
from broker.policy.loader import Document, load_policy
from broker.policy.matching import canonical_problem
from broker.policy.source import read
from broker.reload import PolicyStore
from tests.fakes.policies import SMALL, changed, identity, policy, problems

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_PATHS = [
    b"/a" * 4096,
    b"/" + b"a" * 8191,
    b"/aaaaaaa" * 1024 + b"/b",
    b"/%20a" * 1600,
    b"/a:a" * 2048,
]


def small() -> dict[str, Any]:
    (root,) = read(Document("a.yaml", SMALL), [])
    content: dict[str, Any] = root.plain()
    return content


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("identity_sources", "actions"),
        ("identity_sources", "laptop"),
        ("services", "stripe"),
        ("services", "stripe", "credential"),
        ("scopes", "stripe.read"),
        ("agents", "coder"),
        ("agents", "coder", "trust", 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("field", ["allow_all", "Allow", "allow ", "__class__", "<<", "x-allow"])
def test_p10_an_unknown_field_anywhere_fails_the_load(path: tuple[Any, ...], field: str) -> None:
    content: Any = small()
    assert policy(json.dumps(content)).agents
    here = content
    for step in path:
        here = here[step]
    here[field] = ["* /**"]
    assert any("unknown" in one for one in problems(json.dumps(content)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    deny: ["* /v1/refunds/*/cancel"]\n', "    deny:\n"),
        ('    deny: ["* /v1/refunds/*/cancel"]\n', "    deny: []\n"),
        ("    reason: required\n", "    reason:\n"),
        ('"* /v1/refunds/*/cancel"', '"* v1/refunds/*/cancel"'),
        ('"* /v1/refunds/*/cancel"', '"any /v1/refunds/*/cancel"'),
        ('"* /v1/refunds/*/cancel"', '"* /v1/refunds//cancel"'),
        ('"* /v1/refunds/*/cancel"', "null"),
        ('claims: {repository_id: "123456", ref: refs/heads/main}', "claims:"),
        ('repository_id: "123456"', "repository_id:"),
        ("    risk: high\n", "    body:\n"),
        ("    risk: high\n", "    body: {}\n"),
        ("    risk: high\n", "    body: {json:}\n"),
        ("    risk: high\n", "    body: {json: {}}\n"),
        ("    risk: high\n", "    body: {json: {amount: []}}\n"),
        ("    risk: high\n", "    body: {json: {amount: {max: }}}\n"),
        ("    risk: high\n", "    body: {json: {amount: {mx: 5}}}\n"),
        ("    risk: high\n", "    body: {jsn: {amount: 5}}\n"),
        ("    risk: high\n", "    body: {form: {amount: {fields: {a: 1}}}}\n"),
        ("    risk: high\n", "    query: {limit: {max: }}\n"),
    ],
)
def test_p10_half_a_restriction_fails_the_load(old: str, new: str) -> None:
    assert problems(changed(old, new))


def test_p10_a_broker_does_not_start_with_it_and_a_running_one_keeps_the_last(
    tmp_path: Path,
) -> None:
    document = tmp_path / "policy.yaml"
    document.write_text(changed("[stripe.read, stripe.refund]", "[stripe.read]"))
    store = PolicyStore(tmp_path)
    wider = changed("coder:", "co der:")
    document.write_text(wider)
    with pytest.raises(PolicyError):
        PolicyStore(tmp_path)
    assert store.reload().problems
    answer = store.current.entitle(
        identity(), ("stripe.refund",), agent_hint=None, ttl=None, reason="why"
    )
    assert isinstance(answer, Deny)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "rule",
    [
        "/" + "/".join(["**", "a"] * 170),
        "/" + "/".join(["**", "*"] * 170) + "/b",
        "/" + "/".join(["**", "*a*"[:2], "a*a"] * 100) + "/b",
        "/" + "/".join(["*"] * 400),
        "/**/" + "a" * 500 + "*" + "a" * 500,
        "/" + "/".join(["**", "a%20*"] * 100) + "/b",
    ],
    ids=lambda rule: rule[:24],
)
def test_p10_a_catastrophic_rule_is_refused_or_judged_in_time(rule: str) -> None:
    rules = json.dumps([f"GET {rule}"])
    text = changed('allow: ["GET /v1/**"]', f"allow: [GET /v1]\n    deny: {rules}")
    text = text.replace('"POST /v1/refunds"]', f'"GET {rule}"]')
    authorizer = policy(text).authorizer(("stripe.read", "stripe.refund"), "stripe")
    for path in LONGEST_PATHS:
        assert canonical_problem(path) is None
        for _ in range(5):
            authorizer.judge(b"GET", path, b"")


@pytest.mark.timeout(60)
def test_p10_a_catastrophic_claim_pattern_is_judged_in_time() -> None:
    pattern = "*a" * 500 + "b"
    text = changed("ref: refs/heads/main", f'ref: {{glob: "{pattern}"}}')
    loaded = policy(text)
    for _ in range(20):
        claims = {"repository_id": "123456", "ref": "a" * 16_000}
        assert isinstance(loaded.agent_for(identity(claims), None), Deny)


@pytest.mark.timeout(60)
def test_p10_a_catastrophic_query_is_judged_in_time() -> None:
    text = changed(
        'allow: ["GET /v1/**"]', 'allow: ["GET /v1/**"]\n    query: {q: {glob: "*a*a*a*b"}}'
    )
    authorizer = policy(text).authorizer(("stripe.read",), "stripe")
    for query in (b"q=" + b"a" * 8000, b"&" * 8000, b"q=%61" * 1600, b"a=b&" * 2000, b"%25" * 2700):
        assert isinstance(authorizer.judge(b"GET", b"/v1/x", query), Deny)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "agents:\n" + "\n".join(f"  a{n}: {{trust: [], scopes: []}}" for n in range(9_000)),
        "scopes: {a: {service: s, allow: [" + "GET /a, " * 60_000 + "]}}",
        "services: {a: &a {b: " + "{c: " * 20 + "1" + "}" * 20 + "}, d: *a}",
        "services: {a: {provider: " + "x" * 100_000 + "}}",
        "\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),
        "a: " + "'" * 200_000,
        "agents: {? {a: b} : c}",
        "%TAG ! tag:x,2000:\n---\nagents: !x {}",
    ],
    ids=lambda text: text[:20],
)
def test_p10_a_hostile_document_is_refused_in_time(text: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        load_policy([Document("a.yaml", text)])
    assert refusal.value.problems


@pytest.mark.timeout(60)
def test_p10_a_large_policy_loads_and_judges_in_time() -> None:
    content = small()
    for number in range(500):
        content["scopes"][f"s{number}"] = {
            "service": "stripe",
            "allow": [
                f"{method} /v{number}/{n}/**" for method in ("GET", "POST") for n in range(5)
            ],
            "deny": [f"* /v{number}/*/x"],
        }
    names = list(content["scopes"])
    content["agents"]["release-bot"]["scopes"] = names
    loaded = policy(json.dumps(content))
    authorizer = loaded.authorizer(tuple(names), "stripe")
    for path in LONGEST_PATHS:
        authorizer.judge(b"GET", path, b"")
