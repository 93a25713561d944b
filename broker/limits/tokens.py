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
    from broker.storage.base import ReplayClaim, Storage


async def count_token(
    limiter: Limiter | None,
    policy: PolicyView,
    grant: Grant,
    claim: ReplayClaim | None,
    storage: Storage,
) -> None:
    """Count a grant that is about to be issued to whoever asked for it.

    Not if its proof, whose one use is `claim`, has been used before: storing the grant refuses it
    then, and whoever shows another's old proof must not use up that one's rate.

    Raises:
        TokenRefused: the agent's rate is reached, and nothing has been counted.
        LimitsUnavailable: that cannot be known now, as without a limiter.
    """
    quota = token_quota(policy.agents.get(grant.client_id))
    if quota is not None and claim is not None and await storage.is_spent(claim):
        return
    over = await exceeded(limiter, quota, "token")
    if over is not None:
        raise TokenRefused(
            "temporarily_unavailable",
            f"the limit is reached: {over.name}; try again in {over.wait} s",
            cause="limit_exceeded",
            retry_after=over.wait,
        )
