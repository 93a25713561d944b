"""The nouns of the broker: frozen values without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.allowance import Limits
    from providers.base import Delivery, Plugin, TokenSlot, Upstream

Risk = Literal["low", "medium", "high"]
Replay = Literal["single_use", "until_exp"]
LeaseState = Literal["intent", "minted", "delivered", "revoking", "revoked", "expired"]
LeaseStanding = LeaseState | Literal["used", "unrevocable"]
RevocationKind = Literal["grant", "agent", "scope", "all"]
Section = Literal["identity_sources", "services", "scopes", "agents"]
Permission = Literal["policy:read", "policy:write"]

LONGEST_LIFETIME: Final = 86_400
"""Seconds that no grant can be given more of, whatever the policy says."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Verified claims about a caller: a workload identity.

    Built by identity sources alone, after every check of the source has passed.
    `token_id` is the proof's `jti`, or a digest of its claims where it has none; together with
    `issuer` it identifies the proof for replay. Times are in seconds since the epoch.
    """

    source: str
    issuer: str
    subject: str
    claims: Mapping[str, Any]
    token_id: str
    expires_at: float
    replay: Replay


@dataclass(frozen=True, slots=True)
class Service:
    """One upstream, as policy declares it; `config` is the plugin's validated service model."""

    name: str
    provider: str
    plugin: Plugin
    config: Any
    upstream: Upstream | None
    token_slots: tuple[TokenSlot, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """A named capability; `allow`, `deny` are rules as written, `constraints` the plugin's model.

    `max_ttl` is in seconds. `websocket` says that a GET that it allows may open a websocket.
    """

    name: str
    service: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    delivery: frozenset[Delivery]
    constraints: Any
    max_ttl: int | None = None
    reason_required: bool = False
    risk: Risk | None = None
    websocket: bool = False
    description: str | None = None
    registries: tuple[str, ...] = ()
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """A named principal; `max_ttl` is in seconds, `limits` are over all of its grants."""

    name: str
    scopes: tuple[str, ...]
    max_ttl: int | None = None
    description: str | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """The record behind a task token.

    Times are whole seconds since the epoch. `claims` are the workload identity's claims that
    the policy's templates may use. `subject` is the workload identity's, `issuer` its issuer.
    `ancestors` are the jtis of the grants that this one descends from, the root first.
    `actor` is the `act` claim (RFC 8693, 4.1): who acts for `agent`, where it is another.
    """

    jti: str
    agent: str
    issuer: str
    subject: str
    scopes: tuple[str, ...]
    issued_at: int
    expires_at: int
    policy_version: str
    client_id: str
    task: str | None = None
    reason: str | None = None
    ancestors: tuple[str, ...] = ()
    actor: Mapping[str, Any] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parent_jti(self) -> str | None:
        """The grant that this one was narrowed from, if any."""
        return self.ancestors[-1] if self.ancestors else None

    @property
    def line(self) -> tuple[str, ...]:
        """The jtis of this grant and of all that it descends from."""
        return (self.jti, *self.ancestors)

    @property
    def parties(self) -> tuple[str, ...]:
        """The agent whose rights these are, then all who act or have acted for it."""
        names, actor = [self.agent], self.actor
        while actor is not None:
            names.append(actor["sub"])
            actor = actor.get("act")
        return tuple(names)


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of grants that were issued before it; those issued later are not touched.

    It ends `grant`: one grant, whose jti is `value`; `agent`: all in which the agent `value` has
    a part, itself or acting for another; `scope`: all that hold the scope `value`; `all`: every
    one, and `value` is empty. Whatever descends from a grant ends with it.

    Times are in whole seconds since the epoch; no grant that it ends lives beyond `until`. `by`
    says who wanted it, `reason` why. `number` is the store's: greater than any before it.
    """

    kind: RevocationKind
    value: str
    revoked_at: int
    until: int
    by: str
    reason: str | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A grant that is good now, and its use: how many requests, and when the last (or None)."""

    grant: Grant
    requests: int
    used_at: float | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The record of an upstream credential that was, or was to be, minted for a grant.

    Its states:

        intent      about to be minted: from here on it may exist
        minted      it exists, and nobody has it yet
        delivered   it is in use: the agent has it, or the gateway (see `delivery`)
        revoking    it is to end, and has not yet
        revoked     it has been ended, or was never minted
        expired     it has ended by itself

    `delivery` says who has it: `credential` the agent, `proxy` the gateway of the process that
    holds the claim. What the gateway has is due as soon as it is not claimed any more.
    `expires_at` is when it ends by itself at the latest, `grant_ends_at` when its grant does,
    `due_at` when it must be looked at next (None once it is over); times are in seconds since
    the epoch. `config` is the service as JSON, by which it was minted and will be revoked
    whatever policy says by then. `handle` is what the provider needs for that, sealed.
    `problem` says why it is not what it should be; `attempts` counts failures to end it.
    """

    id: str
    grant: str
    ancestors: tuple[str, ...]
    agent: str
    service: str
    scope: str
    provider: str
    config: str
    state: LeaseState
    created_at: float
    grant_ends_at: float
    expires_at: float
    due_at: float | None
    handle: bytes | None = field(default=None, repr=False)
    attempts: int = 0
    problem: str | None = None
    ended_at: float | None = None
    delivery: Delivery = "credential"

    @property
    def standing(self) -> LeaseStanding:
        """Where it stands, as people are told.

        What is delivered to a gateway is `used`. What is to end, and can only be waited for until
        it expires, is `unrevocable`.
        """
        if self.state == "delivered" and self.delivery == "proxy":
            return "used"
        if self.state == "revoking" and self.due_at == self.expires_at:
            return "unrevocable"
        return self.state


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    """A public key enrolled for a local agent; `kid` is its RFC 7638 thumbprint."""

    agent: str
    kid: str
    public_jwk: Mapping[str, str]
    enrolled_at: int


@dataclass(frozen=True, slots=True)
class PolicyEdit:
    """One entry of the policy as it is to be: `body` is canonical JSON, or None to remove it."""

    section: Section
    name: str
    body: str | None


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A version of the policy that the admin API keeps: what was changed, when, by whom, why.

    Versions are numbered from 1 and never change. `digest` is over all that the version says and
    over `previous`, the digest of the version before; it is empty until the store has made it.
    """

    made_at: float
    made_by: str
    comment: str | None
    edits: tuple[PolicyEdit, ...]
    number: int = 0
    previous: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """An entry that the admin API keeps, as of `change`, the version that last set it.

    `change` has no edits here.
    """

    section: Section
    name: str
    body: str
    change: PolicyChange

    @property
    def etag(self) -> str:
        """What tells this state of the entry from every other (RFC 9110, 8.8.3), unquoted."""
        return f"{self.change.number}-{self.change.digest[:16]}"


@dataclass(frozen=True, slots=True)
class AdminToken:
    """What is kept of an administrator's token: never the token itself, only its SHA-256.

    `id` is the part of the token that is no secret. Times are in seconds since the epoch.
    """

    id: str
    name: str
    digest: bytes = field(repr=False)
    permissions: tuple[Permission, ...]
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int | None = None

    def is_good(self, now: float) -> bool:
        """Say whether it has neither expired nor been revoked."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Allow:
    """A request that policy permits: by which scope and rule, at which risk."""

    scope: str
    rule: str
    risk: Risk


@dataclass(frozen=True, slots=True)
class Deny:
    """A request that policy refuses.

    `reason` is a sentence for the person who reads it; `rule` the deny rule that matched, or
    None where no rule allowed; `allowed` what would have been allowed; `scopes` the scopes of
    the same service that the agent could ask for instead.
    """

    reason: str
    rule: str | None = None
    allowed: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


Decision = Allow | Deny


class AuditRecord(NamedTuple):
    """One line of the trail, before the writer adds sequence and chain.

    A tuple because two are made for each proxied request. `time` is in seconds since the
    epoch. `action` is a dotted verb (`token.exchange`, `proxy.request`, `secret.put`,
    `policy.load`); `phase` is `intent` or `outcome`; `operation` joins the two. `decision` is
    `allow`, `deny` or `error`. `path` has passed redaction.
    """

    time: float
    action: str
    phase: Literal["intent", "outcome"]
    operation: str
    decision: Literal["allow", "deny", "error"]
    agent: str | None = None
    issuer: str | None = None
    subject: str | None = None
    grant: str | None = None
    task: str | None = None
    reason: str | None = None
    service: str | None = None
    scope: str | None = None
    rule: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    latency_ms: float | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    risk: Risk | None = None
    policy_version: str | None = None
    source_address: str | None = None
    detail: str | None = None
