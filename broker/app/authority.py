"""What the gateway asks: whose token this is, what policy says, who supplies the credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from broker.grants import Refusal

if TYPE_CHECKING:
    from broker.grants import Grants
    from broker.model import Grant, Service
    from broker.policy.engine import Policy
    from broker.reload import PolicyStore
    from providers.base import Dependencies, Injects


class Authority:
    """Answer the gateway (`broker.gateway.base.Authority`) from the policy in force.

    A credential goes only where its own policy is enforced, by construction: the gateway takes
    the upstream, the rules and the injector of a request from one `Service` of one snapshot,
    named by the first segment of the path, and no request names its upstream otherwise.
    """

    def __init__(self, store: PolicyStore, grants: Grants, dependencies: Dependencies) -> None:
        self._store: Final = store
        self._grants: Final = grants
        self._dependencies: Final = dependencies
        self._injectors: Final[dict[str, tuple[Service, Injects]]] = {}

    def grant(self, token: bytes, digest: bytes) -> Grant | str:
        """Return the grant behind a task token, or one word for why there is none."""
        verdict = self._grants.verify(token, digest)
        return verdict.code if isinstance(verdict, Refusal) else verdict

    def policy(self) -> Policy:
        """Return the policy in force."""
        return self._store.current

    def injector(self, service: Service) -> Injects:
        """Return the provider that supplies the service's credential, built once a policy.

        It is that of the snapshot which judged the request, even if another is in force by now.
        """
        known = self._injectors.get(service.name)
        if known is None or known[0] is not service:
            provider = service.plugin.build(service.config, self._dependencies)
            known = self._injectors[service.name] = service, cast("Injects", provider)
        return known[1]

    def parent(self, token: bytes) -> Grant:
        """Return the grant of one of our own task tokens; raises as `Grants.require` does."""
        return self._grants.require(token)
