"""What the gateway asks: whose token this is, what policy says, who supplies the credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from broker.grants import Refusal
from broker.leases.order import Order
from broker.model import Deny
from providers.base import Presents, ProviderError

if TYPE_CHECKING:
    from broker.gateway.base import PolicySnapshot
    from broker.grants import Grants
    from broker.leases.proxied import Proxied
    from broker.model import Grant, Service
    from broker.policy.engine import Policy
    from broker.reload import PolicyStore
    from providers.base import Dependencies, Injection, Injects, Provider


class Authority:
    """Answer the gateway (`broker.gateway.base.Authority`) from the policy in force.

    A credential goes only where its own policy is enforced, by construction: the gateway takes
    the upstream, the rules and the provider of a request from one `Service` of one snapshot,
    named by the first segment of the path, and no request names its upstream otherwise.
    """

    def __init__(
        self, store: PolicyStore, grants: Grants, dependencies: Dependencies, proxied: Proxied
    ) -> None:
        self._store: Final = store
        self._grants: Final = grants
        self._dependencies: Final = dependencies
        self._proxied: Final = proxied
        self._providers: Final[dict[str, tuple[Service, Provider]]] = {}

    def grant(self, token: bytes, digest: bytes, *, again: bool = False) -> Grant | str:
        """Return the grant behind a task token, or one word for why there is none."""
        verdict = self._grants.verify(token, digest, again=again)
        return verdict.code if isinstance(verdict, Refusal) else verdict

    def policy(self) -> Policy:
        """Return the policy in force."""
        return self._store.current

    async def injection(
        self, policy: PolicySnapshot, service: Service, scope: str, grant: Grant
    ) -> Injection:
        """Return what goes into a grant's requests, minted and leased where it has to be.

        It is that of the snapshot which judged them, even if another is in force by now. Raises
        `ProviderError`.
        """
        constraints = policy.constraints(scope, grant)
        if isinstance(constraints, Deny):
            raise ProviderError(constraints.reason)
        now = self._dependencies.clock()
        lifetime = max(0, int(grant.expires_at - now))
        order = Order(grant, service, scope, constraints, lifetime, now, "proxy")
        provider = self._provider(service)
        if isinstance(provider, Presents):
            return await self._proxied.injection(order, policy.version)
        return await cast("Injects", provider).injection(order.request())

    def _provider(self, service: Service) -> Provider:
        """Return the provider of a service, built once a policy."""
        known = self._providers.get(service.name)
        if known is None or known[0] is not service:
            provider = service.plugin.build(service.config, self._dependencies)
            known = self._providers[service.name] = service, provider
        return known[1]

    def parent(self, token: bytes) -> Grant:
        """Return the grant of one of our own task tokens; raises as `Grants.require` does."""
        return self._grants.require(token)
