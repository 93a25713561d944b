from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import StorageError
from broker.grants import Grants, Refusal
from broker.keys.signing import FileSigningKey, KeySet, KeyState
from broker.model import Agent, Grant
from broker.revoked import revocation
from broker.storage.base import Use
from broker.tokens import TaskTokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.model import Revocation, RevocationKind

NOW = 1_750_000_000
KEY = FileSigningKey(ec.generate_private_key(ec.SECP256R1()))
TOKENS = TaskTokens(
    KeySet((KeyState(KEY, 0, 0),), lambda: NOW), "https://broker.example", "https://gw.example"
)
GRANT = Grant(
    jti="grant-1",
    agent="bot",
    issuer="local",
    subject="bot",
    scopes=("a.read", "a.write"),
    issued_at=NOW,
    expires_at=NOW + 900,
    policy_version="v1",
    client_id="bot",
)
TOKEN = TOKENS.issue(GRANT).encode()


@dataclass(frozen=True)
class _Policy:
    agents: Mapping[str, Agent]


def _policy(**scopes: tuple[str, ...]) -> _Policy:
    return _Policy({name: Agent(name, held) for name, held in scopes.items()})


@dataclass
class _World:
    """A wall clock, a monotonic clock and a policy, to be changed by tests."""

    wall: float = NOW
    monotonic: float = 50.0
    policy: _Policy = field(default_factory=lambda: _policy(bot=("a.read", "a.write", "b")))

    def unlearned(self, remembered: int = 100, stale_after: float = math.inf) -> Grants:
        return Grants(
            TOKENS,
            lambda: self.policy,
            clock=lambda: self.wall,
            monotonic=lambda: self.monotonic,
            remembered=remembered,
            stale_after=stale_after,
        )

    def grants(self, remembered: int = 100, stale_after: float = math.inf) -> Grants:
        grants = self.unlearned(remembered, stale_after)
        grants.learn(())
        return grants

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def world() -> _World:
    return _World()


def _code(answer: Grant | Refusal) -> str:
    assert isinstance(answer, Refusal)
    return answer.code


def test_a_good_token_is_its_grant_every_time(world: _World) -> None:
    grants = world.grants()
    assert grants.verify(TOKEN) == GRANT
    assert grants.verify(TOKEN) is grants.verify(TOKEN)


def test_a_bad_token_is_refused_every_time(world: _World) -> None:
    grants = world.grants()
    assert _code(grants.verify(b"nonsense")) == "malformed"
    assert _code(grants.verify(b"nonsense")) == "malformed"
    assert not grants._verified


def test_a_remembered_token_ends_with_its_life(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.wait(899)
    assert grants.verify(TOKEN) == GRANT
    world.wait(1)
    assert _code(grants.verify(TOKEN)) == "expired"
    assert not grants._verified
    assert _code(grants.verify(TOKEN)) == "expired"


def test_r5_a_wall_clock_that_is_set_back_lengthens_no_life(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.wait(600)
    world.wall -= 3600
    assert grants.verify(TOKEN) == GRANT
    world.wait(300)
    assert _code(grants.verify(TOKEN)) == "expired"


def test_r5_what_has_run_out_stays_so_though_the_wall_clock_says_otherwise(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.wait(600)
    world.wall -= 500
    world.wait(300)
    for _ in range(3):
        assert _code(grants.verify(TOKEN)) == "expired"
    world.wait(500)
    assert _code(grants.verify(TOKEN)) == "expired"
    assert not grants._verified, "forgotten once both clocks agree"


def test_r5_after_the_clock_is_set_back_a_token_of_before_is_from_the_future(
    world: _World,
) -> None:
    world.wait(1000)
    world.wall -= 3600
    assert _code(world.grants().verify(TOKEN)) == "not_yet_valid"


def test_r5_a_suspended_machine_lengthens_no_life(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.wall += 900  # the monotonic clock stood still
    assert _code(grants.verify(TOKEN)) == "expired"


def _end(jti: str) -> Revocation:
    return revocation("grant", jti, now=NOW, by="test")


def test_a_revoked_grant_is_refused_at_once(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    grants.learn([_end("grant-1")])
    assert _code(grants.verify(TOKEN)) == "revoked"


def test_a_grant_revoked_before_it_is_seen_is_refused(world: _World) -> None:
    grants = world.grants()
    grants.learn([_end("grant-1")])
    assert _code(grants.verify(TOKEN)) == "revoked"


def test_revoking_one_grant_leaves_the_others(world: _World) -> None:
    grants = world.grants()
    grants.learn([_end("grant-2")])
    assert grants.verify(TOKEN) == GRANT


@pytest.mark.parametrize("ancestor", ["root", "middle"])
def test_revoking_any_ancestor_ends_a_grant(world: _World, ancestor: str) -> None:
    grants = world.grants()
    child = replace(GRANT, jti="child", ancestors=("root", "middle"))
    token = TOKENS.issue(child).encode()
    assert grants.verify(token) == child
    grants.learn([_end(ancestor)])
    assert _code(grants.verify(token)) == "revoked"
    assert grants.is_revoked(child)
    assert not grants.is_revoked(GRANT)


@pytest.mark.parametrize(("kind", "value"), [("agent", "bot"), ("scope", "b"), ("all", "")])
def test_a_grant_issued_after_a_revocation_is_good(
    world: _World, kind: RevocationKind, value: str
) -> None:
    grants = world.grants()
    grant = replace(GRANT, scopes=("a.read", "b"))
    later = replace(grant, issued_at=NOW + 1)
    world.wait(1)
    grants.learn([revocation(kind, value, now=NOW, by="test")])
    assert _code(grants.verify(TOKENS.issue(grant).encode())) == "revoked"
    assert grants.verify(TOKENS.issue(later).encode()) == later


def test_a_revoked_scope_counts_even_if_the_policy_has_taken_it_already(world: _World) -> None:
    grants = world.grants()
    world.policy = _policy(bot=("a.read",))
    assert grants.verify(TOKEN) == replace(GRANT, scopes=("a.read",))
    grants.learn([revocation("scope", "a.write", now=NOW, by="test")])
    assert _code(grants.verify(TOKEN)) == "revoked"


def test_revocations_are_forgotten_when_their_grants_are_long_over(world: _World) -> None:
    grants = world.grants()
    grants.learn(_end(f"old-{number}") for number in range(999))
    world.wait(27 * 3600)
    grants.learn([revocation("grant", "new", now=world.wall, by="test")])
    assert len(grants._revoked) == 1


def test_r5_revocations_are_never_forgotten_early(world: _World) -> None:
    grants = world.grants()
    grants.learn(_end(f"g{number}") for number in range(5000))
    world.wait(25 * 3600)  # the wall clock may be an hour ahead
    grants.learn(())
    assert len(grants._revoked) == 5000


def test_r4_before_revocations_are_known_no_token_is_good(world: _World) -> None:
    grants = world.unlearned()
    assert _code(grants.verify(TOKEN)) == "revocations_unknown"
    grants.learn(())
    assert grants.verify(TOKEN) == GRANT


def test_r4_when_revocations_are_stale_no_token_is_good(world: _World) -> None:
    grants = world.grants(stale_after=5.0)
    assert grants.verify(TOKEN) == GRANT
    world.wait(4.9)
    assert grants.verify(TOKEN) == GRANT
    world.wait(0.1)
    assert _code(grants.verify(TOKEN)) == "revocations_unknown"
    with pytest.raises(StorageError, match="cannot be known"):
        grants.require(TOKEN)
    grants.learn(())
    assert grants.verify(TOKEN) == GRANT


def test_r4_a_slow_answer_is_as_old_as_its_question(world: _World) -> None:
    grants = world.grants(stale_after=5.0)
    asked = world.monotonic
    world.wait(6)
    grants.learn((), as_of=asked + 0.5)
    assert _code(grants.verify(TOKEN)) == "revocations_unknown"


def test_uses_are_counted_and_taken_once(world: _World) -> None:
    grants = world.grants()
    for _ in range(3):
        grants.verify(TOKEN)
        world.wait(1)
    grants.verify(b"nonsense")
    assert grants.take_uses() == {"grant-1": Use(3, NOW + 2)}
    assert grants.take_uses() == {}
    grants.verify(TOKEN)
    assert grants.take_uses() == {"grant-1": Use(1, NOW + 3)}


def test_uses_of_what_is_forgotten_or_has_expired_are_kept(world: _World) -> None:
    grants = world.grants(remembered=1)
    other = TOKENS.issue(replace(GRANT, jti="other")).encode()
    for token in (TOKEN, other, TOKEN):
        grants.verify(token)
    world.wait(900)
    grants.verify(TOKEN)
    assert grants.take_uses() == {"grant-1": Use(2, NOW), "other": Use(1, NOW)}


def test_a_scope_that_the_policy_takes_away_is_taken_from_the_grant(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.policy = _policy(bot=("a.read",))
    assert grants.verify(TOKEN) == replace(GRANT, scopes=("a.read",))
    world.policy = _policy(bot=("a.read", "a.write"))
    assert grants.verify(TOKEN) == GRANT


def test_a_scope_that_the_policy_adds_is_not_added_to_the_grant(world: _World) -> None:
    grants = world.grants()
    world.policy = _policy(bot=("a.read", "a.write", "admin"))
    assert grants.verify(TOKEN) == GRANT


def test_an_agent_that_the_policy_drops_is_refused(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    world.policy = _policy(other=("a.read",))
    assert _code(grants.verify(TOKEN)) == "unknown_agent"


def test_an_agent_that_has_lost_every_scope_is_refused(world: _World) -> None:
    world.policy = _policy(bot=("b",))
    assert _code(world.grants().verify(TOKEN)) == "no_scopes"


def test_standard_7_the_outermost_actor_counts_and_no_other(world: _World) -> None:
    acted = replace(GRANT, actor={"sub": "helper", "act": {"sub": "long-gone"}})
    token = TOKENS.issue(acted).encode()
    world.policy = _policy(bot=("a.read", "a.write"), helper=("a.write",))
    grants = world.grants()
    assert grants.verify(token) == replace(acted, scopes=("a.write",))
    world.policy = _policy(bot=("a.read", "a.write"))
    assert _code(grants.verify(token)) == "unknown_agent"


def test_what_is_remembered_is_bounded(world: _World) -> None:
    grants = world.grants(remembered=3)
    tokens = [TOKENS.issue(replace(GRANT, jti=f"g{n}")).encode() for n in range(10)]
    for token in tokens:
        assert isinstance(grants.verify(token), Grant)
    assert len(grants._verified) == 3
    assert isinstance(grants.verify(tokens[0]), Grant)


def test_no_token_is_kept(world: _World) -> None:
    grants = world.grants()
    grants.verify(TOKEN)
    assert {len(key) for key in grants._verified} == {32}
    assert TOKEN.decode().split(".")[2] not in repr(grants._verified)
