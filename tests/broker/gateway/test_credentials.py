from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.gateway.authorize import Admission
from broker.gateway.credentials import Credentials
from broker.gateway.grammar import Field
from broker.gateway.request import Request, RequestFields
from broker.gateway.route import Route
from broker.model import Allow, Grant
from providers.base import Injection, ProviderError, Secret
from tests.fakes.gateway import policy, policy_text

if TYPE_CHECKING:
    from broker.gateway.base import PolicySnapshot
    from broker.model import Service

POLICY = policy(policy_text(), 8080)


@dataclass
class Mint:
    """An authority that has another credential each time."""

    fresh_for: float = 10.0
    requests: list[tuple[object, ...]] = field(default_factory=list)
    refusal: ProviderError | None = None

    async def injection(
        self, policy: PolicySnapshot, service: Service, scope: str, grant: Grant
    ) -> Injection:
        self.requests.append((policy, service, scope, grant))
        if self.refusal is not None:
            raise self.refusal
        value = Secret(b"minted-%d" % len(self.requests))
        return Injection(headers=((b"X-Key", value),), fresh_for=self.fresh_for)

    def grant(self, token: bytes, digest: bytes, *, again: bool = False) -> Any:
        raise NotImplementedError(token, digest)

    def policy(self) -> Any:
        raise NotImplementedError


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def route(name: str) -> Route:
    service = POLICY.services[name]
    assert service.upstream is not None
    return Route(POLICY, service, service.upstream)


ROUTES = {name: route(name) for name in ("api", "keyed")}


def admission(service: str = "api", scope: str = "api.all", jti: str = "j1") -> Admission:
    fields = RequestFields(b"", (Field(b"host", b"Host", b"g"),), 0)
    grant = Grant(jti, "tester", "local", "s", (scope,), 0, 2**40, "v", "c", task="t")
    request = Request(b"GET", b"/x", None, fields, 0)
    return Admission(request, ROUTES[service], grant, Allow(scope, "r", "low"), b"/x")


async def test_a_credential_is_asked_for_once_while_it_is_fresh() -> None:
    mint, clock = Mint(), Clock()
    credentials = Credentials(mint, clock)
    assert credentials.ready(admission()) is None
    first = await credentials.obtain(admission())
    assert first.lines.startswith(b"X-Key: minted-1\r\n")
    clock.now += 9.9
    assert credentials.ready(admission()) is first
    clock.now += 0.2
    assert credentials.ready(admission()) is None


async def test_the_provider_is_told_for_whom() -> None:
    mint, asked = Mint(), admission()
    await Credentials(mint, Clock()).obtain(asked)
    assert mint.requests == [(POLICY, ROUTES["api"].service, "api.all", asked.grant)]


@pytest.mark.parametrize(
    "other",
    [
        admission(jti="j2"),
        admission(scope="api.read"),
        admission("keyed", "keyed.all"),
        replace(admission(), route=route("api")),
    ],
    ids=["grant", "scope", "service", "policy"],
)
async def test_a_credential_is_never_used_for_another(other: Admission) -> None:
    credentials = Credentials(Mint(), Clock())
    await credentials.obtain(admission())
    assert credentials.ready(other) is None


async def test_what_must_not_be_kept_is_not() -> None:
    credentials = Credentials(Mint(fresh_for=0.0), Clock())
    await credentials.obtain(admission())
    assert credentials.ready(admission()) is None


async def test_what_is_no_longer_fresh_is_forgotten() -> None:
    clock = Clock()
    credentials = Credentials(Mint(), clock)
    await credentials.obtain(admission())
    clock.now += 11
    credentials.sweep()
    assert not credentials._known


async def test_what_is_kept_is_bounded() -> None:
    credentials = Credentials(Mint(), Clock())
    for number in range(4200):
        await credentials.obtain(admission(jti=str(number)))
    assert len(credentials._known) <= 4096


async def test_a_refusal_is_passed_on_and_not_kept() -> None:
    mint = Mint(refusal=ProviderError("no"))
    credentials = Credentials(mint, Clock())
    with pytest.raises(ProviderError, match="no"):
        await credentials.obtain(admission())
    mint.refusal = None
    assert (await credentials.obtain(admission())).lines
