"""FLOW 1: a workload identity comes in, policy decides, a task token goes out.

`Exchange.token` is that sentence. Whatever way a request leaves it, the audit trail has its
record: an intent before anything is stored, an outcome for every end.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from broker.errors import AuditUnavailable, BrokerError, InvalidToken, TokenRefused
from broker.identity.base import LOCAL_ISSUER, UnverifiedToken
from broker.limits.tokens import count_token
from broker.model import AuditRecord, Deny, Grant, Identity
from broker.storage.base import ReplayClaim
from broker.token_request import ACCESS, EXCHANGE, read, refusal_delay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from broker.audit.base import Trail
    from broker.limits.limiter import Limiter
    from broker.policy.engine import Policy
    from broker.storage.base import Storage
    from broker.token_request import TokenRequest
    from broker.tokens import TaskTokens

ACTION: Final = "token.exchange"

DEEPEST_DELEGATION: Final = 4
"""How many ancestors a grant may have."""

_REPLAY_LEEWAY: Final = 60.0
"""Added to a proof's own end, in seconds; more than any identity source allows for clocks."""

_OAUTH_ERROR: Final = {"scope": "invalid_scope", "template": "invalid_scope"}


class Identities(Protocol):
    """Verify a proof with the identity source of its issuer."""

    async def verify(self, token: UnverifiedToken, *, client_id: str | None = None) -> Identity:
        """Return the identity; raise `InvalidToken` or `IssuerUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A task token and what the caller is told about it; `expires_in` is in seconds.

    `issued_token_type` is set for token exchange alone (RFC 8693, 2.2.1).
    """

    access_token: str
    expires_in: int
    scopes: tuple[str, ...]
    issued_token_type: str | None


@dataclass(frozen=True, slots=True)
class _Delegation:
    """Somebody who holds a task token wants a narrower one, for itself or for an actor."""

    parent: Grant
    actor: Identity | None


class _Untrusted(TokenRefused):
    """A proof that is not accepted; the caller learns no more than that."""

    def __init__(self, request: TokenRequest, cause: str, detail: str | None = None) -> None:
        message = "the proof of identity is not accepted; the broker's audit trail says why"
        super().__init__(request.refused_proof, message, cause=cause, detail=detail)


class Exchange:
    """Issue task tokens.

    `policy` returns the policy in force; `parent` returns the grant of one of our own task
    tokens or raises `InvalidToken`; `targets` are the values of `resource` and `audience` that
    mean this broker or its gateway. `clock` is wall time in seconds since the epoch. Without a
    `limiter` an agent with a rate gets no token.
    """

    def __init__(  # noqa: PLR0913 - the parts of the flow, each by its name
        self,
        *,
        identities: Identities,
        policy: Callable[[], Policy],
        parent: Callable[[bytes], Grant],
        storage: Storage,
        tokens: TaskTokens,
        trail: Trail,
        issuer: str,
        targets: Iterable[str],
        limiter: Limiter | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._identities: Final = identities
        self._policy: Final = policy
        self._parent: Final = parent
        self._storage: Final = storage
        self._tokens: Final = tokens
        self._trail: Final = trail
        self._issuer: Final = issuer
        self._limiter: Final = limiter
        self._targets: Final = frozenset(target.rstrip("/") for target in targets)
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._sleep: Final = sleep

    async def token(
        self, parameters: Mapping[str, Sequence[str]], source_address: str | None = None
    ) -> IssuedToken:
        """Exchange the proof in a request's parameters for a task token.

        Raises `TokenRefused` for whatever the caller must change; `IssuerUnavailable`,
        `StorageError` or `AuditUnavailable` when the broker cannot do its work now. Then no
        token is out, and what happened is on record unless the trail itself has failed.
        """
        attempt = self._attempt(source_address)
        try:
            attempt.request = request = read(parameters)
            self._check_targets(request)
            attempt.caller = caller = await self._identify(request)
            attempt.grant = grant = self._decide(attempt, request, caller)
            claim, policy = _claim(caller), self._policy()
            await count_token(self._limiter, policy, grant, claim, self._storage)
            await self._trail.record(attempt.record("intent", "allow"))
            await self._save(request, claim, grant)
            token = self._tokens.issue(grant)
            await self._trail.record(attempt.record("outcome", "allow"))
        except TokenRefused as refusal:
            await self._refuse(attempt, refusal)
            raise
        except BaseException as error:
            await self._fail(attempt, error)
            raise
        return IssuedToken(
            access_token=token,
            expires_in=grant.expires_at - grant.issued_at,
            scopes=grant.scopes,
            issued_token_type=ACCESS if request.grant_type == EXCHANGE else None,
        )

    async def refuse(self, refusal: TokenRefused, source_address: str | None = None) -> None:
        """Put on record a request that was refused before it could be read."""
        await self._refuse(self._attempt(source_address), refusal)

    def _check_targets(self, request: TokenRequest) -> None:
        """Refuse a token for others: our tokens are good at our own gateway alone."""
        if any(target.rstrip("/") not in self._targets for target in request.targets):
            raise TokenRefused(
                "invalid_target",
                "resource and audience must be this broker or its gateway: "
                + ", ".join(sorted(self._targets)),
            )

    async def _identify(self, request: TokenRequest) -> Identity | _Delegation:
        """Turn the request's proof into a verified caller."""
        if not request.delegated:
            return await self._verify(request, request.proof)
        try:
            parent = self._parent(request.proof.encode())
        except InvalidToken as error:
            raise _Untrusted(request, error.code, str(error)) from None
        if request.actor is not None:
            return _Delegation(parent, await self._verify(request, request.actor))
        if request.client_id not in {None, parent.client_id}:
            raise _Untrusted(request, "wrong_client", "the task token is another client's")
        return _Delegation(parent, None)

    async def _verify(self, request: TokenRequest, proof: str) -> Identity:
        try:
            identity = await self._identities.verify(
                UnverifiedToken(proof), client_id=request.client_id
            )
        except InvalidToken as error:
            raise _Untrusted(request, error.code, str(error)) from None
        if identity.issuer == self._issuer:
            raise _Untrusted(request, "own_token", "our own tokens are no workload identity")
        if request.vouches_for_itself and identity.issuer != LOCAL_ISSUER:
            raise _Untrusted(request, "not_self_issued", "a client assertion has iss = sub")
        return identity

    def _decide(
        self, attempt: _Attempt, request: TokenRequest, caller: Identity | _Delegation
    ) -> Grant:
        """Return the grant that policy allows; nothing is stored yet."""
        policy = self._policy()
        attempt.policy_version = policy.version
        now = int(self._clock())
        if isinstance(caller, _Delegation):
            return self._narrow(attempt, request, caller, policy, now)
        agent = policy.agent_for(caller, request.client_id)
        if isinstance(agent, Deny):
            raise _Untrusted(request, "trust", agent.reason)
        attempt.agent = agent.name
        answer = policy.entitle(
            caller,
            request.scopes,
            agent_hint=agent.name,
            ttl=request.ttl,
            reason=request.reason,
            task=request.task,
        )
        if isinstance(answer, Deny):
            raise _denied(answer)
        return Grant(
            jti=secrets.token_hex(16),
            agent=agent.name,
            issuer=caller.issuer,
            subject=caller.subject,
            scopes=answer.scopes,
            issued_at=now,
            expires_at=now + answer.lifetime,
            policy_version=policy.version,
            client_id=agent.name,
            task=request.task,
            reason=request.reason,
            claims=answer.claims,
        )

    def _narrow(
        self,
        attempt: _Attempt,
        request: TokenRequest,
        caller: _Delegation,
        policy: Policy,
        now: int,
    ) -> Grant:
        """Return a grant that has at most what its parent has, in every respect.

        The rights stay those of the parent's agent, claims and task, because templates are
        filled in with them. An actor must hold each scope itself as well.
        """
        parent = caller.parent
        attempt.agent = parent.agent
        if len(parent.ancestors) >= DEEPEST_DELEGATION:
            raise TokenRefused(
                "invalid_request",
                f"the subject_token has been narrowed {DEEPEST_DELEGATION} times already",
                cause="too_deep",
            )
        if request.task not in {None, parent.task}:
            raise TokenRefused(
                "invalid_request", "task is the subject_token's and cannot be changed"
            )
        actor = policy.agent_for(caller.actor, request.client_id) if caller.actor else None
        if isinstance(actor, Deny):
            raise _Untrusted(request, "trust", actor.reason)
        reason = request.reason or parent.reason
        answer = policy.narrow(
            parent, request.scopes, actor=actor, ttl=request.ttl, reason=reason, now=now
        )
        if isinstance(answer, Deny):
            raise _denied(answer)
        return replace(
            parent,
            jti=secrets.token_hex(16),
            scopes=answer.scopes,
            issued_at=now,
            expires_at=now + answer.lifetime,
            policy_version=policy.version,
            client_id=parent.client_id if actor is None else actor.name,
            reason=reason,
            ancestors=(*parent.ancestors, parent.jti),
            actor=parent.actor if actor is None else _act(actor.name, parent.actor),
        )

    async def _save(self, request: TokenRequest, claim: ReplayClaim | None, grant: Grant) -> None:
        """Store the grant and spend the proof's one use, both or neither."""
        saved = await self._storage.save_grant(grant, claim)
        if saved == "spent":
            raise TokenRefused(
                request.refused_proof,
                "the proof of identity has been used before; get a new one",
                cause="replayed",
            )
        if saved == "revoked":
            raise TokenRefused(
                request.refused_proof,
                "this was revoked while it was being issued; ask again if it is still needed",
                cause="revoked",
            )

    def _attempt(self, source_address: str | None) -> _Attempt:
        return _Attempt(self._clock, self._monotonic, source_address)

    async def _refuse(self, attempt: _Attempt, refusal: TokenRefused) -> None:
        detail = f"{refusal.cause}: {refusal.detail or refusal}"
        await self._trail.record(attempt.record("outcome", "deny", detail))
        refusal.operation = attempt.operation
        if isinstance(refusal, _Untrusted):
            await self._sleep(refusal_delay(attempt.elapsed()))

    async def _fail(self, attempt: _Attempt, error: BaseException) -> None:
        # The texts of our own errors hold no secret; of others we know nothing but their type.
        text = f": {error}" if isinstance(error, BrokerError) else ""
        record = attempt.record("outcome", "error", type(error).__name__ + text)
        with suppress(AuditUnavailable):
            if isinstance(error, Exception):
                await self._trail.record(record)
            else:
                self._trail.append(record)  # cancelled: there is no time to wait


def one_use(identity: Identity) -> ReplayClaim | None:
    """Return the one use of an identity's proof, if it has but one."""
    if identity.replay != "single_use":
        return None
    return ReplayClaim(identity.issuer, identity.token_id, identity.expires_at + _REPLAY_LEEWAY)


class _Attempt:
    """One request on its way, and what is known of it when its record is written."""

    def __init__(
        self,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        source_address: str | None,
    ) -> None:
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._started: Final = monotonic()
        self.operation: Final = secrets.token_hex(8)
        self._source_address: Final = source_address
        self.request: TokenRequest | None = None
        self.caller: Identity | _Delegation | None = None
        self.agent: str | None = None
        self.policy_version: str | None = None
        self.grant: Grant | None = None

    def elapsed(self) -> float:
        """Return the seconds since the request came."""
        return self._monotonic() - self._started

    def record(
        self,
        phase: Literal["intent", "outcome"],
        decision: Literal["allow", "deny", "error"],
        detail: str | None = None,
    ) -> AuditRecord:
        """Return the record of what is known now."""
        request, grant = self.request, self.grant
        who: Identity | Grant | None
        if isinstance(self.caller, _Delegation):
            who = self.caller.actor or self.caller.parent
            detail = f"{detail or 'narrowed'}; from grant {self.caller.parent.jti}"
        else:
            who = self.caller
        scopes = grant.scopes if grant else request.scopes if request else ()
        return AuditRecord(
            time=self._clock(),
            action=ACTION,
            phase=phase,
            operation=self.operation,
            decision=decision,
            agent=self.agent,
            issuer=who.issuer if who else None,
            subject=who.subject if who else None,
            grant=grant.jti if grant else None,
            task=grant.task if grant else request.task if request else None,
            reason=grant.reason if grant else request.reason if request else None,
            scope=" ".join(scopes) or None,
            latency_ms=round(self.elapsed() * 1000, 3) if phase == "outcome" else None,
            policy_version=self.policy_version,
            source_address=self._source_address,
            detail=detail,
        )


def _denied(deny: Deny) -> TokenRefused:
    """Tell a trusted caller what policy refuses, and what it would allow."""
    allowed = f"; allowed: {' '.join(deny.allowed) or 'none'}" if deny.rule == "scope" else ""
    error = _OAUTH_ERROR.get(deny.rule or "", "invalid_request")
    return TokenRefused(error, deny.reason + allowed, cause=deny.rule)


def _claim(caller: Identity | _Delegation) -> ReplayClaim | None:
    identity = caller.actor if isinstance(caller, _Delegation) else caller
    return None if identity is None else one_use(identity)


def _act(actor: str, prior: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the `act` claim of an actor after earlier ones (RFC 8693, 4.1)."""
    return {"sub": actor} if prior is None else {"sub": actor, "act": prior}
