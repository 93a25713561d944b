"""Tell, for each request, whether a task token's grant is good now.

Verifying a signature costs a hundred times what a request may cost, so verified grants are
remembered under the SHA-256 of their token. What is remembered is looked at again whenever
the policy or the list of revocations has changed, and lives no longer than the token: by the
wall clock, which sees a suspended machine, and by the monotonic clock, which does not follow a
wall clock that is set back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.errors import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.model import Agent, Grant
    from broker.tokens import TaskTokens

REMEMBERED_TOKENS: Final = 10_000
_FEW_REVOCATIONS: Final = 1_000
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


@dataclass(slots=True)
class _Verified:
    """A token's grant, and its standing when it was last looked at."""

    grant: Grant
    deadline: float  # monotonic
    policy: PolicyView
    revocations: int
    standing: Grant | Refusal


class Grants:
    """Judge task tokens; all methods are synchronous and belong to one event loop.

    `policy` returns the current snapshot. Rights that the policy has taken from an agent since
    a token was issued are taken from the token too; none is ever added.
    """

    def __init__(
        self,
        tokens: TaskTokens,
        policy: Callable[[], PolicyView],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        remembered: int = REMEMBERED_TOKENS,
    ) -> None:
        self._tokens: Final = tokens
        self._policy: Final = policy
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._remembered: Final = remembered
        self._verified: Final[dict[bytes, _Verified]] = {}
        self._revoked: Final[dict[str, float]] = {}
        self._revocations = 0
        self._forget_at = _FEW_REVOCATIONS

    def verify(self, token: bytes) -> Grant | Refusal:
        """Return the grant behind a task token, with the scopes it still has, or why not."""
        digest = sha256(token).digest()
        verified = self._verified.get(digest)
        if verified is None:
            return self._verify(token, digest)
        if self._clock() >= verified.grant.expires_at or self._monotonic() >= verified.deadline:
            del self._verified[digest]
            return Refusal("expired", "the task token has expired; ask for a new one")
        policy = self._policy()
        if verified.policy is not policy or verified.revocations != self._revocations:
            verified.standing = self._standing(verified.grant, policy)
            verified.policy = policy
            verified.revocations = self._revocations
        return verified.standing

    def require(self, token: bytes) -> Grant:
        """Return the grant behind a task token, as `verify` does; raise `InvalidToken` if none."""
        answer = self.verify(token)
        if isinstance(answer, Refusal):
            raise InvalidToken(answer.code, answer.message)
        return answer

    def revoke(self, jti: str, expires_at: float) -> None:
        """Refuse a grant, and all that descend from it, from now on.

        `expires_at` is the grant's own end: no descendant outlives it, so nor need the entry.
        """
        if len(self._revoked) >= self._forget_at:
            self._forget_revocations()
        self._revoked[jti] = expires_at + _CLOCK_MARGIN
        self._revocations += 1

    def is_revoked(self, grant: Grant) -> bool:
        """Say whether a grant, or any that it descends from, has been revoked."""
        revoked = self._revoked
        return grant.jti in revoked or any(jti in revoked for jti in grant.ancestors)

    def _verify(self, token: bytes, digest: bytes) -> Grant | Refusal:
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
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = _Verified(grant, deadline, policy, self._revocations, standing)
        return standing

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

    def _forget_revocations(self) -> None:
        now = self._clock()
        for jti in [jti for jti, until in self._revoked.items() if until < now]:
            del self._revoked[jti]
        self._forget_at = max(_FEW_REVOCATIONS, 2 * len(self._revoked))


def _actors(actor: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return who acts now: the outermost actor alone (RFC 8693, 4.1)."""
    return () if actor is None else (actor["sub"],)
