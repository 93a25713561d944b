"""Standard 22: a task token is exchanged for one that can do at most the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import TokenRefused
from broker.exchange import DEEPEST_DELEGATION
from tests.fakes.issuer import NOW
from tests.fakes.token_bench import JWT, POLICY, exchanged, narrowed

if TYPE_CHECKING:
    from broker.exchange import IssuedToken
    from broker.model import Grant
    from broker.policy.engine import Policy
    from tests.fakes.token_bench import TokenBench

START = int(NOW)
SCOPES = ("api.read", "api.write", "api.admin", "files.own", "files.task")


async def test_standard_22_a_task_token_narrows_to_a_child(token_bench: TokenBench) -> None:
    parent = await token_bench.ask(scope="api.read files.own", task="t-1", reason="r")
    token_bench.wait(100)
    issued = await token_bench.exchange.token(narrowed(parent.access_token, "files.own"))
    assert issued.expires_in == 800
    root, child = await token_bench.grant_of(parent), await token_bench.grant_of(issued)
    assert child == replace(
        root,
        jti=child.jti,
        scopes=("files.own",),
        issued_at=START + 100,
        ancestors=(root.jti,),
    )
    assert child.parent_jti == root.jti


async def test_standard_22_an_actor_is_named_and_nested(token_bench: TokenBench) -> None:
    parent = await token_bench.ask(scope="api.read")
    actor = {"actor_token": token_bench.assertion(), "actor_token_type": JWT}
    child = await token_bench.exchange.token(narrowed(parent.access_token, "api.read", **actor))
    assert child.expires_in == 600  # helper's max_ttl
    grant = await token_bench.grant_of(child)
    assert (grant.agent, grant.client_id, grant.actor) == (
        "release-bot",
        "helper",
        {"sub": "helper"},
    )
    again = {"actor_token": token_bench.assertion(), "actor_token_type": JWT}
    grandchild = await token_bench.exchange.token(narrowed(child.access_token, "api.read", **again))
    grant = await token_bench.grant_of(grandchild)
    assert grant.actor == {"sub": "helper", "act": {"sub": "helper"}}
    assert len(grant.ancestors) == 2


async def test_standard_22_an_actor_must_hold_the_scope_itself(token_bench: TokenBench) -> None:
    parent = await token_bench.ask(scope="api.read files.task", task="t")
    actor = {"actor_token": token_bench.assertion(), "actor_token_type": JWT}
    refusal = await token_bench.refused(
        narrowed(parent.access_token, "api.read files.task", **actor)
    )
    assert refusal.error == "invalid_scope"
    assert str(refusal).endswith("allowed: api.read")


async def test_an_actors_proof_is_used_once_too(token_bench: TokenBench) -> None:
    parent = await token_bench.ask()
    actor = {"actor_token": token_bench.assertion(), "actor_token_type": JWT}
    await token_bench.exchange.token(narrowed(parent.access_token, "api.read", **actor))
    refusal = await token_bench.refused(narrowed(parent.access_token, "api.read", **actor))
    assert refusal.cause == "replayed"


@pytest.mark.parametrize("scope", ["api.write", "files.own", "api.admin", "nonsense", ""])
async def test_standard_22_a_child_gets_nothing_that_its_parent_lacks(
    token_bench: TokenBench, scope: str
) -> None:
    parent = await token_bench.ask(scope="api.read")
    refusal = await token_bench.refused(
        narrowed(parent.access_token, f"api.read {scope}" if scope else "", reason="r")
    )
    assert refusal.error == "invalid_scope"
    assert str(refusal).endswith("allowed: api.read")


async def test_standard_22_a_child_does_not_outlive_its_parent(token_bench: TokenBench) -> None:
    parent = await token_bench.ask(ttl="600")
    token_bench.wait(599)
    child = await token_bench.exchange.token(narrowed(parent.access_token, "api.read", ttl="3600"))
    assert child.expires_in == 1


async def test_a_child_keeps_the_task_that_templates_were_filled_with(
    token_bench: TokenBench,
) -> None:
    parent = await token_bench.ask(scope="files.task", task="t-1")
    refusal = await token_bench.refused(narrowed(parent.access_token, "files.task", task="t-2"))
    assert refusal.error == "invalid_request"
    same = await token_bench.exchange.token(narrowed(parent.access_token, "files.task", task="t-1"))
    assert (await token_bench.grant_of(same)).task == "t-1"
    none = await token_bench.ask(scope="api.read")
    await token_bench.refused(narrowed(none.access_token, "api.read", task="t-1"))


async def test_standard_22_delegation_has_a_floor(token_bench: TokenBench) -> None:
    issued = await token_bench.ask()
    for _ in range(DEEPEST_DELEGATION):
        issued = await token_bench.exchange.token(narrowed(issued.access_token, "api.read"))
    refusal = await token_bench.refused(narrowed(issued.access_token, "api.read"))
    assert (refusal.error, refusal.cause) == ("invalid_request", "too_deep")


@pytest.mark.parametrize("ended", ["revoked", "expired", "agent dropped", "forged"])
async def test_a_parent_that_is_not_good_is_answered_like_any_bad_proof(
    token_bench: TokenBench, ended: str
) -> None:
    issued = await token_bench.ask()
    token = issued.access_token
    if ended == "revoked":
        await token_bench.revoke((await token_bench.grant_of(issued)).jti)
    elif ended == "expired":
        token_bench.wait(900)
    elif ended == "agent dropped":
        text = POLICY % token_bench.identities.issuer.url
        token_bench.load(text.replace("release-bot:", "renamed-bot:"))
    else:
        token = token[:-8] + "AAAAAAAA"
    refusal = await token_bench.refused(narrowed(token, "api.read"))
    unknown = await token_bench.refused(exchanged("nonsense"))
    assert (refusal.error, str(refusal)) == (unknown.error, str(unknown))
    assert len(token_bench.slept) == 2


async def test_an_actor_that_is_not_accepted_is_answered_like_any_bad_proof(
    token_bench: TokenBench,
) -> None:
    parent = await token_bench.ask()
    unknown = await token_bench.refused(exchanged("nonsense"))
    for proof in (
        "x",
        token_bench.proof(repository_id="9"),
        token_bench.proof(iss="https://x.test"),
    ):
        actor = {"actor_token": proof, "actor_token_type": JWT}
        refusal = await token_bench.refused(narrowed(parent.access_token, "api.read", **actor))
        assert (refusal.error, str(refusal)) == (unknown.error, str(unknown))


@dataclass(frozen=True)
class Step:
    """One exchange: of which earlier token, for what, by whom, after how many seconds."""

    of: int
    scopes: tuple[str, ...]
    ttl: int | None
    actor: str | None
    pause: int


steps = st.lists(
    st.builds(
        Step,
        of=st.integers(0, 9),
        scopes=st.lists(st.sampled_from(SCOPES), min_size=1, max_size=3, unique=True).map(tuple),
        ttl=st.none() | st.integers(1, 5000),
        actor=st.none() | st.sampled_from(["helper", "other"]),
        pause=st.integers(0, 200),
    ),
    max_size=7,
)
held = st.lists(st.sampled_from(SCOPES), min_size=1, unique=True)


@given(first=held, helper=held, other=held, plan=steps)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_standard_22_no_sequence_of_exchanges_widens_a_right(
    token_bench: TokenBench, first: list[str], helper: list[str], other: list[str], plan: list[Step]
) -> None:
    text = POLICY % token_bench.identities.issuer.url
    for before, after in (
        ("scopes: [api.read, api.write, files.own, files.task]", SCOPES),
        ("scopes: [api.read, files.own]", helper),
        ("scopes: [api.admin]", other),
    ):
        assert before in text
        text = text.replace(before, f"scopes: [{', '.join(after)}]")
    token_bench.load(text)
    root = await token_bench.ask(scope=" ".join(first), task="t-1", reason="r", ttl="3600")
    tokens = [root]
    for step in plan:
        token_bench.wait(step.pause)
        issued = await _exchange(token_bench, tokens[step.of % len(tokens)], step)
        if issued is not None:
            tokens.append(issued)
            await _narrower(token_bench, issued, tokens[step.of % (len(tokens) - 1)], step.actor)


async def _exchange(bench: TokenBench, parent: IssuedToken, step: Step) -> IssuedToken | None:
    optional = {"ttl": str(step.ttl)} if step.ttl else {}
    if step.actor:
        optional |= {"actor_token": bench.assertion(step.actor), "actor_token_type": JWT}
    try:
        return await bench.exchange.token(
            narrowed(parent.access_token, " ".join(step.scopes), **optional)
        )
    except TokenRefused:
        return None


async def _narrower(
    bench: TokenBench, issued: IssuedToken, origin: IssuedToken, actor: str | None
) -> None:
    child, parent = await bench.grant_of(issued), await bench.grant_of(origin)
    assert set(child.scopes) <= set(parent.scopes)
    assert child.expires_at <= parent.expires_at
    assert child.issued_at >= parent.issued_at
    assert child.ancestors == (*parent.ancestors, parent.jti)
    assert len(child.ancestors) <= DEEPEST_DELEGATION
    assert (child.agent, child.issuer, child.subject) == (
        parent.agent,
        parent.issuer,
        parent.subject,
    )
    for scope in child.scopes:
        assert _constraints(bench.policy, scope, child) == _constraints(bench.policy, scope, parent)
    if actor is None:
        assert (child.actor, child.client_id) == (parent.actor, parent.client_id)
    else:
        assert child.client_id == actor
        assert child.actor == {"sub": actor} | ({"act": parent.actor} if parent.actor else {})
        assert set(child.scopes) <= set(bench.policy.agents[actor].scopes)


def _constraints(policy: Policy, scope: str, grant: Grant) -> object:
    """What the provider is told, but for the grant's own name."""
    return policy.constraints(scope, replace(grant, jti="-"))
