"""Tell, for each request, whether a task token's grant is good now.

Verifying a signature costs a hundred times what a request may cost, so verified grants are
remembered under the SHA-256 of their token. What is remembered is looked at again whenever
the policy or the revocations have changed, and lives no longer than the token: by the wall
clock, which sees a suspended machine, and by the monotonic clock, which does not follow a wall
clock that is set back.

Revocations are made in the store, by whoever may; `learn` brings them here. Whoever has not
heard from the store for `STALE_AFTER` seconds knows of no token whether it is good.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.errors import InvalidToken, StorageError
from broker.model import Grant  # noqa: TC001 - for mypyc
from broker.revoked import Revoked
from broker.storage.base import Use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.model import Agent, Revocation
    from broker.tokens import TaskTokens

REMEMBERED_TOKENS: Final = 10_000

STALE_AFTER: Final = 5.0
"""For how many seconds after the store was last read its revocations are known well enough."""

UNKNOWN: Final = "revocations_unknown"
"""The code of the refusal when they are not."""

_CLOCK_MARGIN: Final = 2 * 3600
"""How long, in seconds, a revocation outlives its grant, should the wall clock be set back."""


class PolicyView(Protocol):
    """What a grant's standing depends on: one immutable snapshot of the policy."""

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents by name."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A task token that is not good; `code` is stable, `message` is for the caller."""

    code: str
    message: str


_UNKNOWN: Final = Refusal(
    UNKNOWN, "whether the task token has been revoked cannot be known now; try again later"
)


_EXPIRED: Final = Refusal("expired", "the task token has expired; ask for a new one")


@dataclass(slots=True)
class _Verified:
    """A token's grant, its standing when it was last looked at, and its use not yet taken."""

    grant: Grant
    deadline: float  # monotonic
    policy: PolicyView
    revocations: int
    standing: Grant | Refusal
    used_at: float = 0.0
    requests: int = 0


class Grants:
    """Judge task tokens; all methods are synchronous and belong to one event loop.

    No token is good before `learn` has been called. `policy` returns the current snapshot.
    Rights that the policy has taken from an agent since a token was issued are taken from the
    token too; none is ever added.
    """

    def __init__(  # noqa: PLR0913 - two clocks and two bounds, for tests
        self,
        tokens: TaskTokens,
        policy: Callable[[], PolicyView],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        remembered: int = REMEMBERED_TOKENS,
        stale_after: float = STALE_AFTER,
    ) -> None:
        self._tokens: Final = tokens
        self._policy: Final = policy
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._remembered: Final = remembered
        self._verified: Final[dict[bytes, _Verified]] = {}
        self._used: dict[str, Use] = {}
        self._stale_after: Final = stale_after
        self._revoked: Final = Revoked()
        self._revocations = 0
        self._known_until = -math.inf

    def verify(
        self, token: bytes, digest: bytes | None = None, *, again: bool = False
    ) -> Grant | Refusal:
        """Return the grant behind a task token, with the scopes it still has, or why not.

        `digest` is the token's SHA-256, for a caller who sees the same token again and again;
        `again` says that it is for a request whose use has been counted.
        """
        now = self._monotonic()
        if now >= self._known_until:
            return _UNKNOWN
        digest = digest or sha256(token).digest()
        verified = self._verified.get(digest)
        if verified is None:
            return self._verify(token, digest, uses=0 if again else 1)
        wall = self._clock()
        if wall >= verified.grant.expires_at:
            self._drop(digest)
            return _EXPIRED
        if now >= verified.deadline:
            # Kept: to a wall clock that was set back, a forgotten token would be good again.
            return _EXPIRED
        verified.used_at = wall
        if not again:
            verified.requests += 1
        policy = self._policy()
        if verified.policy is not policy or verified.revocations != self._revocations:
            verified.standing = self._standing(verified.grant, policy)
            verified.policy = policy
            verified.revocations = self._revocations
        return verified.standing

    def require(self, token: bytes) -> Grant:
        """Return the grant behind a task token, as `verify` does.

        Raises `InvalidToken` if there is none, `StorageError` if that cannot be known now.
        """
        answer = self.verify(token)
        if answer is _UNKNOWN:
            raise StorageError(_UNKNOWN.message)
        if isinstance(answer, Refusal):
            raise InvalidToken(answer.code, answer.message)
        return answer

    def learn(self, news: Iterable[Revocation], as_of: float | None = None) -> None:
        """Take new revocations; nothing else had been revoked at `as_of`.

        `as_of` is in seconds of the monotonic clock, and now if it is not given.
        """
        for one in news:
            self._revoked.add(one)
            self._revocations += 1
        self._revoked.forget(self._clock() - _CLOCK_MARGIN)
        moment = self._monotonic() if as_of is None else as_of
        self._known_until = max(self._known_until, moment + self._stale_after)

    def is_revoked(self, grant: Grant) -> bool:
        """Say whether a grant, or any that it descends from, is known to have been revoked."""
        return self._revoked.covers(grant)

    def take_uses(self) -> Mapping[str, Use]:
        """Return how often each grant's token has been shown since this was last called."""
        uses, self._used = self._used, {}
        for verified in self._verified.values():
            _add_use(uses, verified)
            verified.requests = 0
        return uses

    def _verify(self, token: bytes, digest: bytes, *, uses: int) -> Grant | Refusal:
        now = self._clock()
        try:
            grant = self._tokens.verify(token, now)
        except InvalidToken as error:
            return Refusal(error.code, str(error))
        policy = self._policy()
        standing = self._standing(grant, policy)
        deadline = self._monotonic() + (grant.expires_at - now)
        if len(self._verified) >= self._remembered:
            # Whatever was verified first goes first: a token used again is verified again.
            self._drop(next(iter(self._verified)))
        self._verified[digest] = _Verified(
            grant, deadline, policy, self._revocations, standing, now, uses
        )
        return standing

    def _drop(self, digest: bytes) -> None:
        _add_use(self._used, self._verified.pop(digest))

    def _standing(self, grant: Grant, policy: PolicyView) -> Grant | Refusal:
        if self.is_revoked(grant):
            return Refusal("revoked", "the task token has been revoked")
        held = set(grant.scopes)
        for name in (grant.agent, *_actors(grant.actor)):
            agent = policy.agents.get(name)
            if agent is None:
                return Refusal("unknown_agent", f"the policy no longer has an agent {name!r}")
            held.intersection_update(agent.scopes)
        if not held:
            return Refusal("no_scopes", "the policy has taken all of the task token's scopes away")
        if len(held) == len(grant.scopes):
            return grant
        return replace(grant, scopes=tuple(scope for scope in grant.scopes if scope in held))


def _add_use(uses: dict[str, Use], verified: _Verified) -> None:
    if verified.requests:
        jti = verified.grant.jti
        before = uses[jti].requests if jti in uses else 0
        uses[jti] = Use(before + verified.requests, verified.used_at)


def _actors(actor: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return who acts now: the outermost actor alone (RFC 8693, 4.1)."""
    return () if actor is None else (actor["sub"],)
