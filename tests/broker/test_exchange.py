from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import AuditUnavailable, IssuerUnavailable, StorageError, TokenRefused
from broker.storage.base import ReplayClaim
from broker.token_request import ACCESS, REFUSAL_TIME
from tests.fakes.issuer import BROKER, NOW, Answer
from tests.fakes.token_bench import GATEWAY, JWT, bearer, client, exchanged, narrowed

if TYPE_CHECKING:
    from broker.model import AuditRecord
    from tests.fakes.token_bench import TokenBench

START = int(NOW)


async def test_a_workload_identity_becomes_a_task_token(token_bench: TokenBench) -> None:
    issued = await token_bench.ask(scope="api.read api.write", reason="a refund", task="t-1")
    assert issued.expires_in == 300
    assert issued.scopes == ("api.read", "api.write")
    assert issued.issued_token_type == ACCESS
    grant = await token_bench.grant_of(issued)
    assert token_bench.tokens.verify(issued.access_token.encode(), NOW) == grant
    assert grant.agent == grant.client_id == "release-bot"
    assert grant.subject == "repo:acme/app:ref:refs/heads/main"
    assert grant.issuer == token_bench.identities.issuer.url
    assert (grant.task, grant.reason) == ("t-1", "a refund")
    assert (grant.issued_at, grant.expires_at) == (START, START + 300)
    assert grant.policy_version == token_bench.policy.version
    assert (grant.ancestors, grant.actor) == ((), None)


async def test_claims_that_templates_use_are_kept_and_no_others(token_bench: TokenBench) -> None:
    without = await token_bench.grant_of(await token_bench.ask())
    assert without.claims == {}
    needed = await token_bench.grant_of(await token_bench.ask(scope="files.own"))
    assert needed.claims == {"repository_id": "123456"}


async def test_standard_6_a_jwt_bearer_assertion(token_bench: TokenBench) -> None:
    issued = await token_bench.exchange.token(bearer(token_bench.proof()))
    assert issued.issued_token_type is None
    assert issued.scopes == ("api.read",)


@pytest.mark.parametrize("audience", [BROKER, f"{BROKER}/token"])
async def test_standard_6_and_8_a_client_assertion(token_bench: TokenBench, audience: str) -> None:
    issued = await token_bench.exchange.token(client(token_bench.assertion(audience=audience)))
    grant = await token_bench.grant_of(issued)
    assert (grant.agent, grant.issuer, grant.subject) == ("helper", "local", "helper")


async def test_standard_8_a_client_assertion_is_the_clients_own(token_bench: TokenBench) -> None:
    refusal = await token_bench.refused(client(token_bench.proof()))
    assert (refusal.error, refusal.cause) == ("invalid_client", "not_self_issued")
    refusal = await token_bench.refused(client(token_bench.assertion(), client_id="other"))
    assert (refusal.error, refusal.cause) == ("invalid_client", "wrong_client")


@pytest.mark.parametrize(
    ("ask", "lifetime"),
    [
        ({}, 900),
        ({"ttl": "60"}, 60),
        ({"ttl": "1800"}, 1800),
        ({"ttl": "999999"}, 3600),  # the agent's max_ttl
        ({"scope": "api.write", "reason": "r"}, 300),  # the scope's
        ({"scope": "api.write", "reason": "r", "ttl": "301"}, 300),
        ({"scope": "api.write", "reason": "r", "ttl": "299"}, 299),
    ],
)
async def test_the_lifetime_is_the_least_of_all_limits(
    token_bench: TokenBench, ask: dict[str, str], lifetime: int
) -> None:
    assert (await token_bench.ask(**ask)).expires_in == lifetime


async def test_t3_a_scope_outside_policy_is_refused_and_what_is_allowed_is_said(
    token_bench: TokenBench,
) -> None:
    refusal = await token_bench.refused(exchanged(token_bench.proof(), scope="api.read api.admin"))
    assert refusal.error == "invalid_scope"
    assert "api.admin" in str(refusal)
    assert str(refusal).endswith("allowed: api.read api.write files.own files.task")


async def test_no_scope_is_refused_and_what_is_allowed_is_said(token_bench: TokenBench) -> None:
    refusal = await token_bench.refused(exchanged(token_bench.proof(), scope=""))
    assert refusal.error == "invalid_scope"
    assert str(refusal).endswith("allowed: api.read api.write files.own files.task")


async def test_a_missing_reason_is_refused(token_bench: TokenBench) -> None:
    refusal = await token_bench.refused(exchanged(token_bench.proof(), scope="api.write"))
    assert refusal.error == "invalid_request"
    assert "a reason must be given for api.write" in str(refusal)


async def test_a_template_that_cannot_be_filled_in_is_refused(token_bench: TokenBench) -> None:
    refusal = await token_bench.refused(
        exchanged(token_bench.proof(), scope="files.task", task="a/../b")
    )
    assert (refusal.error, refusal.cause) == ("invalid_scope", "template")
    assert "a/../b" not in str(refusal)


@pytest.mark.parametrize(
    "targets",
    [
        {"audience": [BROKER]},
        {"audience": [BROKER + "/"], "resource": [GATEWAY, GATEWAY + "/"]},
        {"resource": [GATEWAY]},
        {"resource": [""], "audience": [""]},
    ],
)
async def test_standard_4_the_broker_and_its_gateway_are_targets(
    token_bench: TokenBench, targets: dict[str, list[str]]
) -> None:
    issued = await token_bench.exchange.token({**exchanged(token_bench.proof()), **targets})
    assert issued.scopes == ("api.read",)


@pytest.mark.parametrize(
    "targets",
    [
        {"audience": ["//iam.googleapis.com/projects/1"]},
        {"audience": [BROKER, "https://evil.example"]},
        {"resource": [GATEWAY + ".evil.example"]},
        {"resource": [GATEWAY + "/stripe"]},
        {"resource": [GATEWAY.upper()]},
    ],
)
async def test_standard_5_any_other_target_is_refused(
    token_bench: TokenBench, targets: dict[str, list[str]]
) -> None:
    refusal = await token_bench.refused({**exchanged(token_bench.proof()), **targets})
    assert refusal.error == "invalid_target"
    assert f"{BROKER}, {GATEWAY}" in str(refusal)


def _unknown_issuer(bench: TokenBench) -> str:
    return bench.proof(iss="https://unknown.test")


def _refused_claims(bench: TokenBench) -> str:
    return bench.proof(repository_id="999")


def _two_agents(bench: TokenBench) -> str:
    return bench.proof(repository_id="222")


def _bad_signature(bench: TokenBench) -> str:
    head, payload, signature = bench.proof().split(".")
    return f"{head}.{payload}.{signature[:-6]}AAAAAA"


def _expired(bench: TokenBench) -> str:
    return bench.proof(exp=START - 100, iat=START - 300, nbf=START - 300)


def _foreign_audience(bench: TokenBench) -> str:
    return bench.proof(aud="https://elsewhere.test")


def _unenrolled(bench: TokenBench) -> str:
    bench.agent_keys["nobody"] = bench.agent_keys["helper"]
    return bench.assertion("nobody")


def _nonsense(_: TokenBench) -> str:
    return "nonsense"


NOT_ACCEPTED = [
    _unknown_issuer,
    _refused_claims,
    _two_agents,
    _bad_signature,
    _expired,
    _foreign_audience,
    _unenrolled,
    _nonsense,
]


@pytest.mark.parametrize(
    ("ask", "error"),
    [(exchanged, "invalid_request"), (bearer, "invalid_grant"), (client, "invalid_client")],
)
async def test_standard_10_a_proof_that_is_not_accepted_is_answered_alike(
    token_bench: TokenBench, ask: Any, error: str
) -> None:
    answers = set()
    for proof in NOT_ACCEPTED:
        refusal = await token_bench.refused(ask(proof(token_bench)))
        answers.add((refusal.error, str(refusal)))
    assert [error for error, _ in answers] == [error]
    details = {record["detail"] for record in token_bench.records()}
    assert len(details) >= len(NOT_ACCEPTED) - 1  # the trail tells apart what the caller cannot


async def test_an_agent_that_is_named_wrongly_is_answered_alike(token_bench: TokenBench) -> None:
    answers = set()
    for name in ("twin-a", "helper", "nobody", "release-bot-2"):
        refusal = await token_bench.refused(exchanged(token_bench.proof(), client_id=name))
        answers.add((refusal.error, str(refusal)))
    refusal = await token_bench.refused(exchanged(_unknown_issuer(token_bench)))
    assert answers == {(refusal.error, str(refusal))}


async def test_an_identity_of_several_agents_names_one(token_bench: TokenBench) -> None:
    issued = await token_bench.exchange.token(
        exchanged(token_bench.proof(repository_id="222"), client_id="twin-b")
    )
    assert (await token_bench.grant_of(issued)).agent == "twin-b"


async def test_t7_what_is_not_accepted_is_answered_after_a_whole_step_of_time(
    token_bench: TokenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proof in NOT_ACCEPTED:
        await token_bench.refused(exchanged(proof(token_bench)))
    assert token_bench.slept == [REFUSAL_TIME] * len(NOT_ACCEPTED)
    record = token_bench.trail.record

    async def record_slowly(what: AuditRecord) -> None:
        token_bench.identities.monotonic.now += 0.07
        await record(what)

    monkeypatch.setattr(token_bench.trail, "record", record_slowly)
    await token_bench.refused(exchanged(_nonsense(token_bench)))
    assert token_bench.slept[-1] == pytest.approx(0.03)


async def test_only_what_is_not_accepted_is_delayed(token_bench: TokenBench) -> None:
    await token_bench.ask()
    await token_bench.refused(exchanged(token_bench.proof(), scope="api.admin"))
    await token_bench.refused(exchanged(token_bench.proof(), ttl="x"))
    assert token_bench.slept == []


async def test_standard_18_a_single_use_proof_is_used_once(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    await token_bench.exchange.token(exchanged(proof))
    for ask, error in ((exchanged, "invalid_request"), (bearer, "invalid_grant")):
        refusal = await token_bench.refused(ask(proof))
        assert (refusal.error, refusal.cause) == (error, "replayed")


async def test_standard_18_a_refusal_by_policy_spends_nothing(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    await token_bench.refused(exchanged(proof, scope="api.admin"))
    await token_bench.refused(exchanged(proof, scope="api.write"))
    await token_bench.refused(exchanged(proof, resource="https://evil.example"))
    assert (await token_bench.exchange.token(exchanged(proof))).scopes == ("api.read",)


async def test_standard_18_a_spent_proof_is_remembered_past_its_end(
    token_bench: TokenBench,
) -> None:
    proof = token_bench.proof(jti="the-only-one")
    await token_bench.exchange.token(exchanged(proof))
    claim = ReplayClaim(token_bench.identities.issuer.url, "the-only-one", 0.0)
    grant = await token_bench.grant_of(await token_bench.ask())
    await token_bench.storage.purge(START + 300 + 30)
    assert await token_bench.storage.save_grant(replace(grant, jti="x"), claim) == "spent"


async def test_a_proof_that_may_be_used_until_it_expires(token_bench: TokenBench) -> None:
    source = token_bench.identities.source(replay="until_exp", audiences=(BROKER,))
    source.name = "ci"
    token_bench.exchange._identities._by_issuer[source.issuer] = source  # type: ignore[attr-defined]
    proof = token_bench.proof()
    jtis = {
        (await token_bench.grant_of(await token_bench.exchange.token(exchanged(proof)))).jti
        for _ in range(3)
    }
    assert len(jtis) == 3


async def test_an_issuer_that_cannot_be_reached_is_no_refusal(token_bench: TokenBench) -> None:
    token_bench.identities.issuer.answers["/.well-known/openid-configuration"] = Answer(status=500)
    with pytest.raises(IssuerUnavailable):
        await token_bench.ask()
    (record,) = token_bench.records()
    assert (record["phase"], record["decision"]) == ("outcome", "error")
    assert record["detail"].startswith("IssuerUnavailable: ")


async def test_an_intent_and_an_outcome_for_each_token(token_bench: TokenBench) -> None:
    issued = await token_bench.ask(task="t-1", reason="because")
    grant = await token_bench.grant_of(issued)
    intent, outcome = token_bench.records()
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert intent["operation"] == outcome["operation"]
    for record in (intent, outcome):
        assert record["decision"] == "allow"
        assert record["agent"] == "release-bot"
        assert record["issuer"] == token_bench.identities.issuer.url
        assert record["subject"] == "repo:acme/app:ref:refs/heads/main"
        assert record["grant"] == grant.jti
        assert record["task"] == "t-1"
        assert record["reason"] == "because"
        assert record["scope"] == "api.read"
        assert record["policy_version"] == token_bench.policy.version
        assert record["source_address"] == "192.0.2.1"


async def test_a_narrowing_is_recorded_with_its_parent(token_bench: TokenBench) -> None:
    parent = await token_bench.ask()
    await token_bench.exchange.token(narrowed(parent.access_token, "api.read"))
    jti = (await token_bench.grant_of(parent)).jti
    assert token_bench.records()[-1]["detail"] == f"narrowed; from grant {jti}"


@pytest.mark.parametrize(
    ("change", "detail", "known"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type: ", {}),
        ({"subject_token": ""}, "malformed: parameter subject_token is missing", {}),
        ({"subject_token": "x"}, "malformed: ", {"scope": "api.read"}),
        ({"audience": "https://evil.example"}, "invalid_target: ", {"scope": "api.read"}),
        ({"client_id": "helper"}, "trust: ", {"subject": "repo:acme/app:ref:refs/heads/main"}),
        ({"scope": "api.admin"}, "scope: ", {"agent": "release-bot", "scope": "api.admin"}),
        ({"scope": "api.write"}, "reason: ", {"agent": "release-bot", "scope": "api.write"}),
    ],
)
async def test_a4_every_refusal_is_recorded(
    token_bench: TokenBench, change: dict[str, str], detail: str, known: dict[str, str]
) -> None:
    refusal = await token_bench.refused(exchanged(token_bench.proof(), **change))
    (record,) = token_bench.records()
    assert (record["phase"], record["decision"]) == ("outcome", "deny")
    assert record["detail"].startswith(detail)
    assert record["operation"] == refusal.operation
    assert record["source_address"] == "192.0.2.1"
    assert known.items() <= record.items()


async def test_a4_a_replay_is_recorded_after_its_intent(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    await token_bench.exchange.token(exchanged(proof))
    await token_bench.refused(exchanged(proof))
    intent, outcome = token_bench.records()[2:]
    assert intent["operation"] == outcome["operation"]
    assert (outcome["decision"], outcome["detail"].split(":")[0]) == ("deny", "replayed")


async def test_no_token_and_no_proof_is_on_record(token_bench: TokenBench) -> None:
    proof, assertion = token_bench.proof(), token_bench.assertion()
    issued = await token_bench.exchange.token(exchanged(proof))
    await token_bench.exchange.token(
        narrowed(issued.access_token, "api.read", actor_token=assertion, actor_token_type=JWT)
    )
    await token_bench.refused(exchanged(proof + "x"))
    text = str(token_bench.records())
    for token in (proof, assertion, issued.access_token):
        assert token.split(".")[2][:20] not in text
        assert token.split(".")[1][:40] not in text


async def test_a2_without_a_trail_nothing_is_stored(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    await token_bench.trail.close()
    with pytest.raises(AuditUnavailable):
        await token_bench.exchange.token(exchanged(proof))
    await token_bench.trail.start()
    issued = await token_bench.exchange.token(exchanged(proof))
    assert issued.scopes == ("api.read",)  # the proof had not been spent


async def test_a2_a_refusal_that_cannot_be_recorded_is_a_failure(token_bench: TokenBench) -> None:
    await token_bench.trail.close()
    with pytest.raises(AuditUnavailable):
        await token_bench.exchange.token(exchanged("nonsense"))


async def test_without_storage_no_token_is_issued(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    await token_bench.storage.close()
    with pytest.raises(StorageError):
        await token_bench.exchange.token(exchanged(proof))
    intent, outcome = token_bench.records()
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert (outcome["decision"], outcome["detail"].split(":")[0]) == ("error", "StorageError")


async def test_a_cancelled_request_is_recorded(token_bench: TokenBench) -> None:
    proof = token_bench.proof()
    token_bench.identities.issuer.answers["/jwks"] = Answer(delay=5.0)
    asking = asyncio.ensure_future(token_bench.exchange.token(exchanged(proof)))
    await asyncio.sleep(0.2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    token_bench.identities.issuer.answers.clear()
    await token_bench.trail.close()
    (record,) = token_bench.records()
    assert (record["decision"], record["detail"]) == ("error", "CancelledError")


async def test_an_unforeseen_failure_is_recorded_by_its_type_alone(
    token_bench: TokenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> str:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(token_bench.tokens, "issue", broken)
    with pytest.raises(RuntimeError):
        await token_bench.ask()
    assert token_bench.records()[-1]["detail"] == "RuntimeError"


async def test_what_cannot_be_read_is_recorded(token_bench: TokenBench) -> None:
    refusal = TokenRefused("invalid_request", "too long", cause="too_large")
    await token_bench.exchange.refuse(refusal, "192.0.2.9")
    (record,) = token_bench.records()
    assert (record["decision"], record["detail"]) == ("deny", "too_large: too long")
    assert record["source_address"] == "192.0.2.9"
    assert record["operation"] == refusal.operation
