from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import ConfigurationError, InvalidToken
from broker.identity.base import Audiences, UnverifiedToken
from broker.identity.local import LocalSource, client_assertion, new_agent_key
from broker.identity.resolver import IdentityResolver
from broker.model import EnrolledKey, Identity
from tests.fakes.issuer import BROKER, NOW, Bench
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from broker.identity.jws import UnverifiedJws

KEY = new_agent_key()


@dataclass
class Recorder:
    """A source that believes everything, to show which source was asked."""

    name: str
    issuer: str
    asked: list[Any] = field(default_factory=list)

    async def verify(self, token: UnverifiedJws) -> Identity:
        self.asked.append(token.claims["iss"])
        return Identity(self.name, self.issuer, "s", {}, "id", NOW, "single_use")


def token(**claims: Any) -> UnverifiedToken:
    return UnverifiedToken(strangers_key("ES256").token(claims))


async def lookup(agent: str) -> tuple[EnrolledKey, ...]:
    return (EnrolledKey("dev", KEY.kid, KEY.public_jwk, 1),) if agent == "dev" else ()


def laptops() -> LocalSource:
    return LocalSource("laptops", lookup, Audiences(BROKER, f"{BROKER}/token"), lambda: NOW)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://a.test/",
        "https://a.tes",
        "https://A.test",
        "https://a.test:443",
        "https://user@a.test",
        "https://a.test\0",
        "https://\u0430.test",
        "http://a.test",
        "",
    ],
)
async def test_an_issuer_that_is_not_exactly_configured_is_unknown(issuer: str) -> None:
    source = Recorder("a", "https://a.test")
    with pytest.raises(InvalidToken) as refusal:
        await IdentityResolver([source]).verify(token(iss=issuer))
    assert refusal.value.code == "unknown_issuer"
    assert not source.asked


@pytest.mark.parametrize("claims", [{}, {"iss": None}, {"iss": 7}, {"iss": ["https://a.test"]}])
async def test_a_token_without_an_issuer_is_nobodys(claims: dict[str, Any]) -> None:
    source = Recorder("a", "https://a.test")
    with pytest.raises(InvalidToken) as refusal:
        await IdentityResolver([source, laptops()]).verify(token(**claims))
    assert refusal.value.code == "missing_claim"


async def test_each_token_goes_to_its_issuers_source_alone() -> None:
    first, second = Recorder("a", "https://a.test"), Recorder("b", "https://b.test")
    resolver = IdentityResolver([first, second])
    assert (await resolver.verify(token(iss="https://b.test"))).source == "b"
    assert (first.asked, second.asked) == ([], ["https://b.test"])


def test_two_sources_of_one_issuer_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sources a and b both have the issuer"):
        IdentityResolver([Recorder("a", "https://a.test"), Recorder("b", "https://a.test")])


async def test_the_same_source_twice_is_one_source() -> None:
    source = Recorder("a", "https://a.test")
    resolver = IdentityResolver([source, source])
    assert (await resolver.verify(token(iss="https://a.test"))).source == "a"


async def test_an_unknown_issuer_is_quoted_on_one_line() -> None:
    with pytest.raises(InvalidToken) as refusal:
        await IdentityResolver([]).verify(token(iss="x:\n\u202e" + "y" * 500))
    assert str(refusal.value).isascii()
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


async def test_an_agent_vouches_for_itself(identity_bench: Bench) -> None:
    resolver = IdentityResolver([identity_bench.source(), laptops()])
    assertion = UnverifiedToken(client_assertion(KEY.pem, "dev", BROKER, lambda: NOW))
    assert (await resolver.verify(assertion)).subject == "dev"
    assert (await resolver.verify(assertion, client_id="dev")).subject == "dev"
    with pytest.raises(InvalidToken) as refusal:
        await resolver.verify(assertion, client_id="admin")
    assert refusal.value.code == "wrong_client"


async def test_no_agent_vouches_for_itself_where_no_local_source_is_configured() -> None:
    assertion = UnverifiedToken(client_assertion(KEY.pem, "dev", BROKER, lambda: NOW))
    with pytest.raises(InvalidToken) as refusal:
        await IdentityResolver([]).verify(assertion)
    assert refusal.value.code == "unknown_issuer"


async def test_the_client_id_of_an_issuers_token_is_the_agent_it_asks_for(
    identity_bench: Bench,
) -> None:
    resolver = IdentityResolver([identity_bench.source(), laptops()])
    presented = UnverifiedToken(identity_bench.issuer.token())
    identity = await resolver.verify(presented, client_id="release-bot")
    assert identity.source == "issuer-under-test"
