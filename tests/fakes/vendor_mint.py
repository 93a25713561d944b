"""A vendor that mints credentials, in memory, and the providers that three such vendors have.

It fails, hangs and forgets when a test says so, and knows at any time which credentials live.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from providers.base import Injection, Minted, Plugin, ProviderError, Reserved, Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from providers.base import CredentialRequest, Provider

GONE: Final = ProviderError("the vendor is down", retryable=True)
REFUSED: Final = ProviderError("the vendor refused (403)", code="403")


@dataclass
class Vendor:
    """The vendor's books. `life` is how long a credential lives before it must be renewed."""

    clock: Callable[[], float]
    live: dict[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fail: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    before: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    after: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    life: int | None = None
    longest: float = float("inf")
    closed_holds: set[str] = field(default_factory=set)

    async def arrive(self, call: str) -> None:
        """Take note of a call that arrives, and fail or hang if the test says so."""
        self.calls.append(call)
        if call in self.before:
            await self.before[call]()
        if self.fail[call]:
            raise self.fail[call].pop(0)

    async def answer(self, call: str) -> None:
        """Do what the test wants between the deed and its answer."""
        if call in self.after:
            await self.after[call]()

    def begin(self, name: str, lifetime: int) -> float:
        """Make a credential and return when it ends."""
        life = lifetime if self.life is None else min(lifetime, self.life)
        self.live[name] = min(self.clock() + life, self.longest)
        return self.live[name]


class Plain:
    """Mints what nothing can revoke."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor

    async def mint(self, request: CredentialRequest) -> Minted:
        await self.vendor.arrive("mint")
        name = f"user-{len(self.vendor.calls)}"
        expires_at = self.vendor.begin(name, request.lifetime)
        await self.vendor.answer("mint")
        fields = {"username": Secret(name.encode()), "password": Secret(b"hunter2")}
        return Minted(fields, expires_at, {"name": name}, renewable=True)

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:
        value = b"%b %b" % (minted.handle["name"].encode(), request.scope.encode())
        return Injection(headers=((b"X-Key", Secret(value)),))


class Revoking(Plain):
    """Mints what can be revoked, once its name is known."""

    async def revoke(self, handle: Mapping[str, str]) -> None:
        await self.vendor.arrive("revoke")
        self.vendor.live.pop(handle["name"], None)
        await self.vendor.answer("revoke")


class Reserving(Revoking):
    """Mints under a hold, whose end is that of whatever was minted under it."""

    async def reserve(self, request: CredentialRequest) -> Reserved:
        await self.vendor.arrive("reserve")
        name = f"user-{len(self.vendor.calls)}"
        return Reserved({"name": name}, Secret(f"{name}:{request.lifetime}".encode()))

    async def mint_reserved(self, request: CredentialRequest, reserved: Reserved) -> Minted:
        await self.vendor.arrive("mint")
        name = reserved.handle["name"]
        if name in self.vendor.closed_holds:
            raise REFUSED
        expires_at = self.vendor.begin(name, request.lifetime)
        await self.vendor.answer("mint")
        return Minted({"password": reserved.secret}, expires_at, {"name": name}, renewable=True)

    async def revoke(self, handle: Mapping[str, str]) -> None:
        await super().revoke(handle)
        self.vendor.closed_holds.add(handle["name"])

    async def renew(self, handle: Mapping[str, str], lifetime: int) -> float:
        await self.vendor.arrive("renew")
        if handle["name"] not in self.vendor.live:
            raise REFUSED
        expires_at = self.vendor.begin(handle["name"], lifetime)
        await self.vendor.answer("renew")
        return expires_at


class Config(BaseModel):
    """What a service of such a vendor says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: str = "acme"


class Constraints(BaseModel):
    """What a scope says: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def plugins(vendor: Vendor) -> dict[str, Plugin]:
    """Return the three kinds: `plain`, `revoking`, `reserving`."""

    def plugin(kind: str, provider: type[Plain]) -> Plugin:
        def build(*_: Any) -> Provider:
            return provider(vendor)

        return Plugin(
            kind=kind,
            service_model=Config,
            scope_model=Constraints,
            deliveries=frozenset({"credential"}),
            http_rules=False,
            build=build,
            upstream=lambda _: None,
            token_slots=lambda _: (),
            secret_references=lambda _: (),
        )

    kinds = {"plain": Plain, "revoking": Revoking, "reserving": Reserving}
    return {kind: plugin(kind, provider) for kind, provider in kinds.items()}
