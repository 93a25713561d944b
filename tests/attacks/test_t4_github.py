"""T4, R2, R3: GitHub is never asked for a token that could do everything, from policy to lease.

GitHub's default for a list that is left out is all there is: every repository of the
installation, every permission of the App.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker import http
from broker.errors import CredentialRefused, CredentialUnavailable, PolicyError
from broker.leases.reaper import LONGEST_PAUSE
from providers.base import Dependencies
from providers.github_app import PLUGIN
from providers.github_app.api import GithubApi
from providers.github_app.provider import GithubApp
from tests.fakes.github import Reply, refused
from tests.fakes.github_bench import PEM, Values
from tests.fakes.lease_bench import GRANT

if TYPE_CHECKING:
    from broker.leases.minting import Issued
    from tests.fakes.github_bench import GithubBench
    from tests.fakes.lease_bench import LeaseBench

SCOPE: Final[dict[str, Any]] = {"repositories": ["shop"], "permissions": {"issues": "write"}}
ABSENT: Final = object()


class Desk:
    """The lease desk, before a GitHub."""

    def __init__(self, bench: LeaseBench, github: GithubBench) -> None:
        self.bench, self.github = bench, github.github
        self.github.clock = bench.clock
        secrets = Values({PEM: github.key.pem})
        dependencies = Dependencies(secrets, http.client, bench.clock)

        def build(config: Any, _: Dependencies) -> GithubApp:
            return GithubApp(config, dependencies)

        bench.plugins["github_app"] = replace(PLUGIN, build=build)
        service = github.service().model_dump(mode="json", exclude_none=True)
        self.service = {"provider": "github_app", **service}

    def load(self, scope: dict[str, Any]) -> None:
        """Put a policy with this scope in force."""
        given = {"service": "github", "delivery": ["credential"], **scope}
        agent = {"trust": [{"source": "laptop", "claims": {"sub": "x"}}], "scopes": ["issues"]}
        document = {
            "identity_sources": {"laptop": {"type": "local"}},
            "services": {"github": self.service},
            "scopes": {"issues": {name: one for name, one in given.items() if one is not ABSENT}},
            "agents": {"coder": agent},
        }
        self.bench.policy = self.bench.load(json.dumps(document))

    def problems(self, scope: dict[str, Any]) -> list[str]:
        """Put a policy with this scope in force, or say why that does not work: for the scope."""
        try:
            self.load(scope)
        except PolicyError as error:
            told = [problem.message for problem in error.problems]
        else:
            return []
        assert all(re.match(r"scopes?\W+issues", one) for one in told), told
        return told

    async def deliver(self, jti: str = GRANT.jti, **claims: Any) -> Issued:
        return await self.bench.deliver("issues", jti=jti, scopes=("issues",), claims=claims)


@pytest.fixture
def desk(lease_bench: LeaseBench, github_bench: GithubBench) -> Desk:
    return Desk(lease_bench, github_bench)


@pytest.mark.parametrize("value", [ABSENT, None, [], {}, "", "*", ["*"], [None], [{}], [""]])
@pytest.mark.parametrize("field", ["repositories", "permissions"])
def test_t4_a_policy_that_leaves_a_list_out_does_not_load(
    desk: Desk, field: str, value: Any
) -> None:
    assert desk.problems({**SCOPE, field: value})


@pytest.mark.parametrize(
    "claim",
    [
        *("", "*", ".", "..", "a/..", "shop,bank", "shop bank", "a/b/c", "shop\n", "\u0455hop"),
        *("{agent}", "%73hop", "shop?", "/shop", "evil/", "s" * 300, None, True, 1.5),
        *(["shop"], {"a": "shop"}),
    ],
)
async def test_t4_t5_a_claim_that_is_no_repository_gets_no_token(desk: Desk, claim: Any) -> None:
    desk.load({**SCOPE, "repositories": ["{claims.repository}"]})
    with pytest.raises((CredentialRefused, CredentialUnavailable)):
        await desk.deliver(repository=claim)
    with pytest.raises((CredentialRefused, CredentialUnavailable)):
        await desk.deliver()
    assert desk.github.orders == []


async def test_t4_a_claim_of_another_owner_gets_no_token(desk: Desk) -> None:
    desk.load({**SCOPE, "repositories": ["{claims.repository}"]})
    with pytest.raises(CredentialUnavailable, match="installation is that of acme"):
        await desk.deliver(repository="evil/shop")
    assert desk.github.orders == []
    await desk.deliver(repository="acme/shop")
    assert desk.github.orders == [{"repositories": ["shop"], "permissions": {"issues": "write"}}]


WORDS: Final = st.sampled_from(
    ["shop", "bank", "acme/shop", "*", "", "{agent}", "{claims.x}", "a/b"]
)
LEVELS: Final = st.sampled_from(["read", "write", "admin", "", "all", None])
HOLLOW: Final = st.sampled_from([ABSENT, None, [], {}, "", 0, False, "shop"])
POLICIES: Final = st.fixed_dictionaries(
    {
        "repositories": HOLLOW | st.lists(WORDS, max_size=3),
        "repository_ids": st.just(ABSENT) | HOLLOW | st.lists(st.integers(-1, 3), max_size=3),
        "permissions": HOLLOW
        | st.dictionaries(st.sampled_from(["issues", "contents", "pages", "isues", "*"]), LEVELS),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policy=POLICIES)
@example(policy={**SCOPE, "repositories": ["{claims.x}"]})
async def test_t4_whatever_the_policy_github_gets_both_lists(
    desk: Desk, policy: dict[str, Any]
) -> None:
    jti = token_hex(8)  # a new one each time: the grants of earlier examples have been revoked
    desk.github.calls.clear()
    if not desk.problems(policy):
        with suppress(CredentialUnavailable):  # of a repository or a level that is not there
            await desk.deliver(jti, x="bank")
    for order in desk.github.orders:
        assert order["permissions"] == policy["permissions"] != {}
        (field,) = order.keys() - {"permissions"}
        assert 0 < len(order[field]) <= len(policy[field])
    await desk.bench.revoke(jti)
    await desk.bench.reap()
    assert desk.github.live == {}


async def test_r1_a_token_ends_with_its_grant_long_before_githubs_hour(desk: Desk) -> None:
    desk.load(SCOPE)
    issued = await desk.deliver()
    assert issued.fields["token"].reveal().decode() in desk.github.live
    await desk.bench.reap(GRANT.expires_at - GRANT.issued_at - 1)
    assert desk.github.live
    desk.github.replies["DELETE"] = [refused(503), refused(429)]
    await desk.bench.reap(1)
    assert desk.github.live
    lease = await desk.bench.only()
    assert (lease.state, lease.problem) == ("revoking", "GitHub answered 503")
    for _ in range(3):
        await desk.bench.reap(300)
    assert desk.github.live == {}
    assert (await desk.bench.only()).state == "revoked"


async def test_c2_the_token_is_kept_sealed_until_it_is_revoked(desk: Desk) -> None:
    desk.load(SCOPE)
    issued = await desk.deliver()
    token = issued.fields["token"].reveal()
    files = [one for one in desk.bench.directory.parent.rglob("*") if one.is_file()]
    assert files
    assert not [one for one in files if token in one.read_bytes()]
    lease = await desk.bench.only()
    assert lease.handle is not None
    assert desk.bench.desk.unseal(lease.id, lease.handle) == {"token": token.decode()}


async def test_r2_a_rate_limit_leaves_nothing_behind(desk: Desk) -> None:
    desk.load(SCOPE)
    desk.github.replies["POST"] = [refused(429, retry_after="5")]
    for _ in range(30):  # more than the credentials that a grant may have
        with pytest.raises(CredentialUnavailable, match="limits how often") as error:
            await desk.deliver()
        assert error.value.retryable
    assert len(desk.github.orders) == 1
    assert await desk.bench.storage.leases.leases() == ()
    desk.bench.clock.now += 6
    await desk.deliver()


async def test_r1_a_token_that_may_have_been_lost_stays_in_sight_for_its_hour(desk: Desk) -> None:
    desk.load(SCOPE)
    desk.github.replies["POST"] = [Reply(502, {"message": "SECRET TEXT"})]
    with pytest.raises(CredentialUnavailable, match="answered 502"):
        await desk.deliver()
    await desk.bench.reap(3599)
    lease = await desk.bench.only()
    assert lease.state == "intent"
    assert "SECRET" not in (lease.problem or "")
    await desk.bench.reap(2)
    assert (await desk.bench.only()).state == "expired"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
async def test_r2_a_caller_is_told_after_a_bounded_number_of_calls(desk: Desk, status: int) -> None:
    desk.load(SCOPE)
    desk.github.replies["POST"] = [refused(status)] * 50
    before = len(desk.github.calls)
    with pytest.raises(CredentialUnavailable) as error:
        await desk.deliver()
    assert error.value.retryable == (status >= 429)
    assert len(desk.github.calls) - before <= 5
    assert "SECRET" not in str(error.value)


async def test_r2_a_token_is_revoked_however_long_that_takes(desk: Desk) -> None:
    desk.load(SCOPE)
    await desk.deliver()
    await desk.bench.revoke()
    failures = [refused(status) for status in (500, 502, 503, 429, 403)] * 6
    desk.github.replies["DELETE"] = list(failures)
    await desk.bench.reap()
    while (lease := await desk.bench.only()).state == "revoking":
        assert (lease.attempts, bool(lease.problem)) == (
            len(failures) - len(desk.github.replies["DELETE"]),
            True,
        )
        assert desk.github.live
        assert await desk.bench.storage.leases.counts() == {"revoking": 1}
        await desk.bench.reap(LONGEST_PAUSE)
    assert (lease.due_at, desk.github.live) == (None, {})
    assert desk.github.replies["DELETE"] == []
    assert lease.attempts == len(failures)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_r3_revocation_wins_over_a_token_that_is_being_minted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    desk.load(SCOPE)
    call = GithubApi._call

    async def racing(self: GithubApi, method: str, *given: Any) -> Any:
        if method == "POST" and side == "before":
            await desk.bench.revoke()
        answer = await call(self, method, *given)
        if method == "POST" and side == "after":
            await desk.bench.revoke()
        return answer

    monkeypatch.setattr(GithubApi, "_call", racing)
    with pytest.raises(CredentialRefused, match="revoked"):
        await desk.deliver()
    assert len(desk.github.orders) == 1
    await desk.bench.reap()
    assert desk.github.live == {}
    assert (await desk.bench.only()).state == "revoked"
