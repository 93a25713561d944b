"""Standards 19 and 20: who may ask about a task token, who may end it, and what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import AuditUnavailable, StorageError, TokenRefused
from broker.token_request import REFUSAL_TIME
from broker.token_status import INACTIVE
from tests.fakes.issuer import BROKER
from tests.fakes.token_bench import BY_JWT, GATEWAY, JWT, POLICY, client, narrowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.exchange import IssuedToken
    from tests.fakes.token_bench import TokenBench


def asking(token: str, assertion: str | None = None, **more: str) -> Mapping[str, list[str]]:
    """Parameters of a question about `token`, by the agent of `assertion`."""
    parameters = {"token": token, **more}
    if assertion is not None:
        parameters |= {"client_assertion": assertion, "client_assertion_type": BY_JWT}
    return {name: [value] for name, value in parameters.items()}


async def _issued(bench: TokenBench, agent: str = "helper", **changes: str) -> str:
    scope = "api.admin" if agent == "other" else "api.read"
    issued = await bench.exchange.token(client(bench.assertion(agent), scope=scope, **changes))
    return issued.access_token


async def _refused(bench: TokenBench, does: str, *arguments: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as refusal:
        await getattr(bench.status, does)(*arguments)
    return refusal.value


def _good(bench: TokenBench, token: str) -> bool:
    return not hasattr(bench.grants.verify(token.encode()), "code")


async def test_standard_19_an_agent_learns_what_its_token_is_good_for(
    token_bench: TokenBench,
) -> None:
    token = await _issued(token_bench, task="tidy up")
    answer = await token_bench.status.introspect(asking(token, token_bench.assertion()), None)
    grant = token_bench.grants.require(token.encode())
    assert answer == {
        "active": True,
        "scope": "api.read",
        "client_id": "helper",
        "token_type": "Bearer",
        "exp": grant.expires_at,
        "iat": grant.issued_at,
        "sub": "helper",
        "aud": GATEWAY,
        "iss": BROKER,
        "jti": grant.jti,
        "task": "tidy up",
    }
    (record,) = token_bench.records("token.introspect")
    assert (record["decision"], record["agent"], record["grant"]) == ("allow", "helper", grant.jti)


async def test_standard_19_whoever_holds_a_token_may_ask_about_it(token_bench: TokenBench) -> None:
    token = await _issued(token_bench)
    answer = await token_bench.status.introspect(asking(token), token.encode())
    assert answer["active"] is True
    child = await token_bench.exchange.token(narrowed(token, "api.read"))
    answer = await token_bench.status.introspect(asking(child.access_token), token.encode())
    assert answer["jti"] == token_bench.grants.require(child.access_token.encode()).jti


@pytest.mark.parametrize("why", ["garbage", "forged", "expired", "revoked", "foreign", "acted"])
async def test_standard_19_of_others_nothing_is_said(token_bench: TokenBench, why: str) -> None:
    token = await _issued(token_bench, "other" if why == "foreign" else "helper")
    if why == "garbage":
        token = "nonsense"
    elif why == "forged":
        token = token[:-8] + "AAAAAAAA"
    elif why == "expired":
        token_bench.wait(900)
    elif why == "revoked":
        await token_bench.revoke(token_bench.grants.require(token.encode()).jti)
    elif why == "acted":
        token = (await _delegated(token_bench, await token_bench.ask())).access_token
    assertion = token_bench.assertion("other" if why == "acted" else "helper")
    answer = await token_bench.status.introspect(asking(token, assertion), None)
    assert answer == {"active": False}
    assert answer is INACTIVE
    (record,) = token_bench.records("token.introspect")
    assert record["decision"] == "allow"
    assert record["detail"].startswith(("not good: ", "foreign: "))


async def _delegated(bench: TokenBench, parent: IssuedToken) -> IssuedToken:
    """A token for helper to act by."""
    actor = {"actor_token": bench.assertion(), "actor_token_type": JWT}
    return await bench.exchange.token(narrowed(parent.access_token, "api.read", **actor))


async def test_the_holder_of_a_child_may_not_ask_about_its_parent(token_bench: TokenBench) -> None:
    parent = await _issued(token_bench)
    child = (await token_bench.exchange.token(narrowed(parent, "api.read"))).access_token
    assert await token_bench.status.introspect(asking(parent), child.encode()) is INACTIVE
    refusal = await _refused(token_bench, "revoke", asking(parent), child.encode())
    assert (refusal.error, refusal.cause) == ("invalid_grant", "foreign")
    assert _good(token_bench, parent)


async def test_whoever_acts_may_ask_and_end_its_own(token_bench: TokenBench) -> None:
    parent = await token_bench.ask()
    child = (await _delegated(token_bench, parent)).access_token
    question = asking(child, token_bench.assertion())
    answer = await token_bench.status.introspect(question, None)
    assert (answer["sub"], answer["client_id"], answer["act"]) == (
        "release-bot",
        "helper",
        {"sub": "helper"},
    )
    foreign = asking(parent.access_token, token_bench.assertion())
    assert await token_bench.status.introspect(foreign, None) is INACTIVE
    await token_bench.status.revoke(asking(child, token_bench.assertion()), None)
    assert not _good(token_bench, child)
    assert _good(token_bench, parent.access_token)


async def test_standard_20_revoking_cascades_and_is_on_record(token_bench: TokenBench) -> None:
    token = await _issued(token_bench)
    child = (await token_bench.exchange.token(narrowed(token, "api.read"))).access_token
    sibling = await _issued(token_bench)
    grant = token_bench.grants.require(token.encode())
    await token_bench.status.revoke(asking(token, token_bench.assertion()), None, "192.0.2.9")
    assert not _good(token_bench, token)
    assert not _good(token_bench, child)
    assert _good(token_bench, sibling)
    (stored,) = await token_bench.storage.revocations.since(0)
    assert (stored.kind, stored.value, stored.by) == ("grant", grant.jti, "agent:helper")
    intent, outcome = token_bench.records("token.revoke")
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert intent["operation"] == outcome["operation"]
    assert (outcome["agent"], outcome["grant"]) == ("helper", grant.jti)
    assert outcome["detail"] == "ended 2 grants, 0 leases"
    assert outcome["source_address"] == "192.0.2.9"


async def test_standard_20_a_token_ends_itself(token_bench: TokenBench) -> None:
    token = await _issued(token_bench)
    await token_bench.status.revoke(asking(token), token.encode())
    assert not _good(token_bench, token)
    await token_bench.status.revoke(asking(token), token.encode())  # once more: no error
    assert await token_bench.status.introspect(asking(token), token.encode()) is INACTIVE


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "€"])
async def test_standard_20_revoking_what_is_unknown_is_no_error(
    token_bench: TokenBench, token: str
) -> None:
    await token_bench.status.revoke(asking(token, token_bench.assertion()), None)
    assert await token_bench.storage.revocations.since(0) == ()
    (record,) = token_bench.records("token.revoke")
    assert (record["phase"], record["decision"]) == ("outcome", "allow")


async def test_standard_20_another_clients_token_stays(token_bench: TokenBench) -> None:
    token = await _issued(token_bench, "other")
    refusal = await _refused(
        token_bench, "revoke", asking(token, token_bench.assertion("helper")), None
    )
    assert (refusal.error, refusal.cause) == ("invalid_grant", "foreign")
    assert _good(token_bench, token)
    assert token_bench.records("token.revoke")[-1]["decision"] == "deny"


@pytest.mark.parametrize("does", ["introspect", "revoke"])
class TestCallersThatAreNotAccepted:
    async def _judge(self, bench: TokenBench, does: str, *arguments: Any) -> TokenRefused:
        token = arguments[0]["token"][0]
        refusal = await _refused(bench, does, *arguments)
        assert _good(bench, token)
        record = bench.records(f"token.{does}")[-1]
        assert (record["decision"], record["phase"]) == ("deny", "outcome")
        assert record["operation"] == refusal.operation
        return refusal

    async def test_nobody(self, token_bench: TokenBench, does: str) -> None:
        token = await _issued(token_bench)
        refusal = await self._judge(token_bench, does, asking(token), None)
        assert refusal.error == "invalid_client"

    async def test_two_ways_at_once(self, token_bench: TokenBench, does: str) -> None:
        token = await _issued(token_bench)
        question = asking(token, token_bench.assertion())
        refusal = await self._judge(token_bench, does, question, token.encode())
        assert refusal.error == "invalid_request"

    async def test_t7_every_bad_assertion_is_answered_alike(
        self, token_bench: TokenBench, does: str
    ) -> None:
        token = await _issued(token_bench)
        used = token_bench.assertion()
        await token_bench.status.introspect(asking(token, used), None)
        bad = {
            "replayed": asking(token, used),
            "malformed": asking(token, "nonsense"),
            "own_token": asking(token, token),
            "wrong_client": asking(token, token_bench.assertion(), client_id="other"),
            "not_self_issued": asking(token, token_bench.proof()),
            "wrong audience": asking(token, token_bench.assertion(audience="https://x.example")),
        }
        token_bench.slept.clear()
        answers = []
        for parameters in bad.values():
            refusal = await self._judge(token_bench, does, parameters, None)
            answers.append((refusal.error, str(refusal)))
        assert len(set(answers)) == 1
        assert answers[0][0] == "invalid_client"
        assert [round(slept, 6) for slept in token_bench.slept] == [REFUSAL_TIME] * len(bad)
        details = [record["detail"] for record in token_bench.records(f"token.{does}")[-6:]]
        assert len(set(details)) == len(bad)  # the trail tells them apart

    async def test_t1_an_assertion_spent_here_is_no_good_at_the_token_endpoint(
        self, token_bench: TokenBench, does: str
    ) -> None:
        token = await _issued(token_bench, "other")
        assertion = token_bench.assertion()
        question = asking(token, assertion)
        if does == "introspect":
            await token_bench.status.introspect(question, None)
        else:
            await self._judge(token_bench, does, question, None)
        assert (await token_bench.refused(client(assertion))).cause == "replayed"

    async def test_a_bearer_that_is_not_good(self, token_bench: TokenBench, does: str) -> None:
        token, bearer = await _issued(token_bench), await _issued(token_bench)
        await token_bench.revoke(token_bench.grants.require(bearer.encode()).jti)
        refusal = await self._judge(token_bench, does, asking(token), bearer.encode())
        assert refusal.error == "invalid_token"

    async def test_an_agent_that_policy_no_longer_has(
        self, token_bench: TokenBench, does: str
    ) -> None:
        token = await _issued(token_bench, "other")
        assertion = token_bench.assertion("helper")
        text = POLICY % token_bench.identities.issuer.url
        token_bench.load(text.replace("  helper:", "  renamed:"))
        refusal = await self._judge(token_bench, does, asking(token, assertion), None)
        assert (refusal.error, refusal.cause) == ("invalid_client", "trust")

    @pytest.mark.parametrize(
        ("parameters", "error"),
        [
            ({}, "invalid_request"),
            ({"token": [""]}, "invalid_request"),
            ({"token": ["a", "b"]}, "invalid_request"),
            ({"Token": ["a"]}, "invalid_request"),
            ({"token": ["a"], "client_secret": ["s"]}, "invalid_client"),
            ({"token": ["a"], "client_assertion": ["x"]}, "invalid_request"),
            ({"token": ["a"], "client_assertion_type": [BY_JWT]}, "invalid_request"),
        ],
    )
    async def test_standard_1_malformed(
        self, token_bench: TokenBench, does: str, parameters: dict[str, list[str]], error: str
    ) -> None:
        refusal = await _refused(token_bench, does, parameters, None)
        assert refusal.error == error

    async def test_a_hint_is_of_no_use(self, token_bench: TokenBench, does: str) -> None:
        token = await _issued(token_bench)
        question = asking(token, token_bench.assertion(), token_type_hint="refresh_token", x="y")
        await getattr(token_bench.status, does)(question, None)


async def test_a2_nothing_is_revoked_that_is_not_on_record(token_bench: TokenBench) -> None:
    token = await _issued(token_bench)
    await token_bench.trail.close()
    with pytest.raises(AuditUnavailable):
        await token_bench.status.revoke(asking(token), token.encode())
    assert _good(token_bench, token)
    assert await token_bench.storage.revocations.since(0) == ()


async def test_a_store_that_fails_is_on_record(token_bench: TokenBench) -> None:
    token = await _issued(token_bench)
    await token_bench.storage.close()
    with pytest.raises(StorageError):
        await token_bench.status.revoke(asking(token), token.encode())
    await token_bench.trail.close()
    assert token_bench.records("token.revoke")[-1]["decision"] == "error"
