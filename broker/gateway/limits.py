"""The bounds within which the gateway works, whoever is at either end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Caps in bytes or counts, times in seconds.

    `head_bytes` bounds a request's line and header fields together, `target_bytes` its
    target alone, `body_bytes` its body. `response_head_bytes` and `interim_responses` (1xx)
    bound what an upstream may send before the response itself.

    `buffer_bytes` is how much of a body waits in memory on each side of the gateway before the
    sender is made to wait. A body whose digest has to be signed is read whole first: of
    `whole_body_bytes` at most; so is one that has to be judged, of what its scope allows; and all
    such bodies together of `whole_bodies_bytes`, of which one agent has three quarters at most.
    `idle_timeout` is how long an agent may keep a connection open between requests, `head_timeout`
    how long it may take to send a head, `body_timeout` how long it may pause while it sends or
    takes a body. `preparation_timeout` bounds the wait for the audit trail and for the provider's
    credential. `linger` is how long the gateway goes on reading from an agent that it has refused,
    so that the refusal is not lost to a reset.

    Of the connections on either side, `roomy_connections` read as much as they can at once; all
    others share `crowd_bytes`.

    An upstream connection is kept for `pool_idle` after its last use: shorter than the
    common servers' own time-outs, so that few connections go stale under a request.
    """

    head_bytes: int = 32 << 10
    head_fields: int = 100
    target_bytes: int = 8 << 10
    body_bytes: int = 16 << 30
    response_head_bytes: int = 64 << 10
    response_head_fields: int = 200
    interim_responses: int = 16
    buffer_bytes: int = 64 << 10
    whole_body_bytes: int = 16 << 20
    whole_bodies_bytes: int = 256 << 20
    roomy_connections: int = 64
    crowd_bytes: int = 4 << 20

    connections: int = 8192
    """Of agents; also the most that there are to all services together."""
    upstream_connections: int = 4096
    upstream_waiting: int = 1024

    idle_timeout: float = 75.0
    head_timeout: float = 10.0
    body_timeout: float = 60.0
    preparation_timeout: float = 30.0
    linger: float = 2.0
    pool_idle: float = 20.0
