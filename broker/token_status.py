"""Whoever may use a task token asks what it is good for (RFC 7662), or ends it (RFC 7009).

The caller shows who it is: an agent by its client assertion, as at the token endpoint, or
whoever holds a task token by that token. An agent may ask about and end the grants that are its
own or that it acts in; the holder of a token, that grant and those that descend from it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from broker.errors import AuditUnavailable, BrokerError, InvalidToken, TokenRefused
from broker.exchange import one_use
from broker.identity.base import LOCAL_ISSUER, UnverifiedToken
from broker.model import AuditRecord, Deny
from broker.revoked import revocation
from broker.token_request import read_question, refusal_delay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from broker.audit.base import Trail
    from broker.exchange import Identities
    from broker.model import Grant, Revocation
    from broker.policy.engine import Policy
    from broker.storage.base import Ended, Storage
    from broker.token_request import TokenQuestion

    Parameters = Mapping[str, Sequence[str]]

_T = TypeVar("_T")

Action = Literal["token.introspect", "token.revoke"]

INACTIVE: Final[Mapping[str, Any]] = {"active": False}
"""All that is said of a token that is unknown, over, revoked, or not the caller's to ask about."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks: an agent, or whoever holds the token of `grant`."""

    agent: str | None
    grant: Grant | None

    def may_judge(self, grant: Grant) -> bool:
        """Say whether a grant is the caller's to ask about and to end."""
        if self.grant is not None:
            return self.grant.jti in grant.line
        return self.agent in {grant.agent, grant.client_id}


class TokenStatus:
    """Answer for task tokens.

    `policy` returns the policy in force; `grant` returns the grant of a task token that is good,
    or raises `InvalidToken`; `revoke` makes a revocation. `issuer` and `audience` are what task
    tokens say. `clock` is wall time in seconds since the epoch.
    """

    def __init__(  # noqa: PLR0913 - the parts of the flow, each by its name
        self,
        *,
        identities: Identities,
        policy: Callable[[], Policy],
        grant: Callable[[bytes], Grant],
        revoke: Callable[[Revocation], Awaitable[Ended]],
        storage: Storage,
        trail: Trail,
        issuer: str,
        audience: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._identities: Final = identities
        self._policy: Final = policy
        self._grant: Final = grant
        self._revoke: Final = revoke
        self._storage: Final = storage
        self._trail: Final = trail
        self._issuer: Final = issuer
        self._audience: Final = audience
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._sleep: Final = sleep

    async def introspect(
        self, parameters: Parameters, bearer: bytes | None, source_address: str | None = None
    ) -> Mapping[str, Any]:
        """Return what a token is good for (RFC 7662, 2.2), or `INACTIVE`.

        `bearer` is the token in the Authorization header, if there is one. Raises as `revoke`.
        """
        attempt = self._attempt("token.introspect", source_address)
        return await self._watch(attempt, self._introspect(attempt, parameters, bearer))

    async def revoke(
        self, parameters: Parameters, bearer: bytes | None, source_address: str | None = None
    ) -> None:
        """End a token's grant, with all that descends from it; of one that is not good, nothing.

        Raises `TokenRefused` for whatever the caller must change; `IssuerUnavailable`,
        `StorageError` or `AuditUnavailable` when the broker cannot do its work now.
        """
        attempt = self._attempt("token.revoke", source_address)
        await self._watch(attempt, self._end(attempt, parameters, bearer))

    async def refuse(
        self, action: Action, refusal: TokenRefused, source_address: str | None = None
    ) -> None:
        """Put on record a request that was refused before it could be read."""
        await self._refuse(self._attempt(action, source_address), refusal)

    async def _introspect(
        self, attempt: _Attempt, parameters: Parameters, bearer: bytes | None
    ) -> Mapping[str, Any]:
        caller, grant = await self._look(attempt, parameters, bearer)
        if grant is not None and not caller.may_judge(grant):
            attempt.note, grant = "foreign: another client's token", None
        await self._trail.record(attempt.record("outcome", "allow", attempt.note))
        return INACTIVE if grant is None else self._describe(grant)

    async def _end(self, attempt: _Attempt, parameters: Parameters, bearer: bytes | None) -> None:
        caller, grant = await self._look(attempt, parameters, bearer)
        if grant is not None:
            if not caller.may_judge(grant):
                raise TokenRefused(
                    "invalid_grant", "the token was issued to another client", cause="foreign"
                )
            await self._trail.record(attempt.record("intent", "allow"))
            by = f"agent:{caller.agent}"
            ended = await self._revoke(revocation("grant", grant.jti, now=self._clock(), by=by))
            attempt.note = f"ended {len(ended.grants)} grants, {ended.leases} leases"
        await self._trail.record(attempt.record("outcome", "allow", attempt.note))

    async def _look(
        self, attempt: _Attempt, parameters: Parameters, bearer: bytes | None
    ) -> tuple[_Caller, Grant | None]:
        """Return the caller, and the grant of the token in question if that is good."""
        question = read_question(parameters)
        token = question.token.encode()
        if bearer is not None and question.assertion is not None:
            raise TokenRefused(
                "invalid_request", "authenticate in one way: by client_assertion or by Bearer"
            )
        try:
            attempt.grant = grant = self._grant(token)
        except InvalidToken as error:
            attempt.note, grant = f"not good: {error.code}", None
        if bearer == token and grant is None:
            caller = _Caller(None, None)  # whoever holds a token may know that it is not good
        elif bearer is not None:
            caller = self._holder(bearer)
        else:
            caller = _Caller(await self._authenticate(question), None)
        attempt.caller = caller
        return caller, grant

    def _holder(self, bearer: bytes) -> _Caller:
        try:
            held = self._grant(bearer)
        except InvalidToken as error:
            raise _Unauthenticated("invalid_token", error.code, str(error)) from None
        return _Caller(held.client_id, held)

    async def _authenticate(self, question: TokenQuestion) -> str:
        """Return the agent that a client assertion proves, whose one use is spent by it."""
        if question.assertion is None:
            raise TokenRefused(
                "invalid_client",
                "authenticate by client_assertion, or by the task token itself as Bearer",
                cause="unauthenticated",
            )
        try:
            identity = await self._identities.verify(
                UnverifiedToken(question.assertion), client_id=question.client_id
            )
        except InvalidToken as error:
            raise _Unauthenticated("invalid_client", error.code, str(error)) from None
        if identity.issuer != LOCAL_ISSUER:
            raise _Unauthenticated(
                "invalid_client", "not_self_issued", "a client assertion has iss = sub"
            )
        agent = self._policy().agent_for(identity, question.client_id)
        if isinstance(agent, Deny):
            raise _Unauthenticated("invalid_client", "trust", agent.reason)
        claim = one_use(identity)
        if claim is not None and not await self._storage.spend(claim):
            raise _Unauthenticated("invalid_client", "replayed", "the assertion was used before")
        return agent.name

    def _describe(self, grant: Grant) -> Mapping[str, Any]:
        answer = {
            "active": True,
            "scope": " ".join(grant.scopes),
            "client_id": grant.client_id,
            "token_type": "Bearer",
            "exp": grant.expires_at,
            "iat": grant.issued_at,
            "sub": grant.agent,
            "aud": self._audience,
            "iss": self._issuer,
            "jti": grant.jti,
            "task": grant.task,
            "act": grant.actor,
        }
        return {name: value for name, value in answer.items() if value is not None}

    def _attempt(self, action: Action, source_address: str | None) -> _Attempt:
        return _Attempt(action, self._clock, self._monotonic, source_address)

    async def _watch(self, attempt: _Attempt, work: Awaitable[_T]) -> _T:
        """Let a request be served, and put on record whatever else comes of it."""
        try:
            return await work
        except TokenRefused as refusal:
            await self._refuse(attempt, refusal)
            raise
        except BaseException as error:
            self._fail(attempt, error)
            raise

    async def _refuse(self, attempt: _Attempt, refusal: TokenRefused) -> None:
        detail = f"{refusal.cause}: {refusal.detail or refusal}"
        await self._trail.record(attempt.record("outcome", "deny", detail))
        refusal.operation = attempt.operation
        if isinstance(refusal, _Unauthenticated):
            await self._sleep(refusal_delay(attempt.elapsed()))

    def _fail(self, attempt: _Attempt, error: BaseException) -> None:
        # The texts of our own errors hold no secret; of others we know nothing but their type.
        text = f": {error}" if isinstance(error, BrokerError) else ""
        with suppress(AuditUnavailable):
            self._trail.append(attempt.record("outcome", "error", type(error).__name__ + text))


class _Unauthenticated(TokenRefused):
    """A caller that is not accepted; it learns no more than that."""

    def __init__(self, error: str, cause: str, detail: str) -> None:
        message = "the caller's proof is not accepted; the broker's audit trail says why"
        super().__init__(error, message, cause=cause, detail=detail)


class _Attempt:
    """One request on its way, and what is known of it when its record is written."""

    def __init__(
        self,
        action: Action,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        source_address: str | None,
    ) -> None:
        self._action: Final = action
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._started: Final = monotonic()
        self._source_address: Final = source_address
        self.operation: Final = secrets.token_hex(8)
        self.caller: _Caller | None = None
        self.grant: Grant | None = None
        self.note: str | None = None

    def elapsed(self) -> float:
        """Return the seconds since the request came."""
        return self._monotonic() - self._started

    def record(
        self,
        phase: Literal["intent", "outcome"],
        decision: Literal["allow", "deny", "error"],
        detail: str | None = None,
    ) -> AuditRecord:
        """Return the record of what is known now; `agent` is the caller."""
        grant = self.grant
        return AuditRecord(
            time=self._clock(),
            action=self._action,
            phase=phase,
            operation=self.operation,
            decision=decision,
            agent=self.caller.agent if self.caller else None,
            grant=grant.jti if grant else None,
            task=grant.task if grant else None,
            scope=" ".join(grant.scopes) if grant else None,
            latency_ms=round(self.elapsed() * 1000, 3) if phase == "outcome" else None,
            source_address=self._source_address,
            detail=detail,
        )
