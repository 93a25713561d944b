"""Keep the credentials that providers supplied, for as long as they say and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.gateway.inject import Credential

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.gateway.authorize import Admission
    from broker.gateway.base import Authority
    from broker.gateway.route import Route

    # The route stands for service and policy, the grant's jti for agent, task and claims.
    Key = tuple[Route, str, str]

_MOST: Final = 4096


class Credentials:
    """Ask providers for credentials, and remember the answers by all that they depend on.

    `clock` is the monotonic one, in seconds.
    """

    def __init__(self, authority: Authority, clock: Callable[[], float]) -> None:
        self._authority = authority
        self._clock = clock
        self._known: dict[Key, Credential] = {}

    def ready(self, admission: Admission) -> Credential | None:
        """Return the credential for an admitted request if it is at hand and fresh."""
        key = (admission.route, admission.decision.scope, admission.grant.jti)
        credential = self._known.get(key)
        if credential is not None and credential.fresh_until > self._clock():
            return credential
        return None

    async def obtain(self, admission: Admission) -> Credential:
        """Ask the provider; raise `ProviderError` if it has none, or none that is fit."""
        asked_at = self._clock()
        route, scope, grant = admission.route, admission.decision.scope, admission.grant
        service = route.service
        injection = await self._authority.injection(route.policy, service, scope, grant)
        credential = Credential(
            injection,
            service.token_slots,
            asked_at + injection.fresh_for,
            scrub=route.upstream.scrub,
            judged=route.behalf.listed,
        )
        if injection.fresh_for > 0:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[route, scope, grant.jti] = credential
        return credential

    def sweep(self) -> None:
        """Forget what is no longer fresh, so that no secret outstays its time in memory."""
        now = self._clock()
        for key in [key for key, one in self._known.items() if one.fresh_until <= now]:
            del self._known[key]
