"""Count task tokens against the rates of the agents that ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import TokenRefused
from broker.limits.limiter import exceeded
from broker.limits.quota import token_quota

if TYPE_CHECKING:
    from broker.limits.limiter import Limiter
    from broker.limits.quota import PolicyView
    from broker.model import Grant


async def count_token(limiter: Limiter | None, policy: PolicyView, grant: Grant) -> None:
    """Count a grant that is about to be issued to whoever asked for it.

    Raises:
        TokenRefused: the agent's rate is reached, and nothing has been counted.
        LimitsUnavailable: that cannot be known now, as without a limiter.
    """
    quota = token_quota(policy.agents.get(grant.client_id))
    over = await exceeded(limiter, quota, "token")
    if over is not None:
        raise TokenRefused(
            "temporarily_unavailable",
            f"the limit is reached: {over.name}; try again in {over.wait} s",
            cause="limit_exceeded",
            retry_after=over.wait,
        )
