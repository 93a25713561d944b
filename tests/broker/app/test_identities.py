from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.app.identities import Identities
from broker.errors import InvalidToken, IssuerUnavailable, PolicyError
from broker.identity.base import Audiences, UnverifiedToken
from broker.identity.local import client_assertion, new_agent_key
from broker.model import EnrolledKey
from broker.policy.loader import load_policy
from broker.policy.source import Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from broker.policy.engine import Policy
    from tests.fakes.issuer import FakeIssuer

BROKER = "http://127.0.0.1:8700"
LOCAL = "local: {type: local}"
KEY = new_agent_key()


async def enrolled(agent: str) -> tuple[EnrolledKey, ...]:
    """Return the keys of the one agent that has enrolled."""
    return (EnrolledKey(agent, KEY.kid, KEY.public_jwk, 0),) if agent == "laptop" else ()


def policy(*sources: str) -> Policy:
    listed = "\n".join(f"  {source}" for source in sources)
    return load_policy([Document("p.yaml", f"identity_sources:\n{listed}\n" if sources else "{}")])


@pytest.fixture
async def identities() -> AsyncIterator[Identities]:
    identities = Identities(Audiences(BROKER, f"{BROKER}/token"), enrolled)
    yield identities
    await identities.close()


async def test_an_agent_of_this_machine(identities: Identities) -> None:
    token = UnverifiedToken(client_assertion(KEY.pem, "laptop", BROKER))
    with pytest.raises(InvalidToken, match="no identity source"):
        await identities.verify(token)
    identities.adopt(policy(LOCAL))
    assert (await identities.verify(token)).subject == "laptop"
    identities.adopt(policy())
    with pytest.raises(InvalidToken, match="no identity source"):
        await identities.verify(token)


async def test_an_issuer_keeps_its_keys_while_the_policy_leaves_it_as_it_was(
    identities: Identities, fake_issuer: FakeIssuer
) -> None:
    ci = f"ci: {{type: oidc, issuer: '{fake_issuer.url}', allow_private: true}}"
    identities.adopt(policy(ci))
    await identities.probe(policy(ci), "ci")
    fetched = fake_issuer.requests.total()
    assert fetched > 0
    identities.adopt(policy(ci, LOCAL))
    await identities.probe(policy(ci, LOCAL), "ci")
    assert fake_issuer.requests.total() == fetched
    other = f"ci: {{type: oidc, issuer: '{fake_issuer.url}', allow_private: true, leeway: 10s}}"
    identities.adopt(policy(other))
    await identities.probe(policy(other), "ci")
    assert fake_issuer.requests.total() > fetched


async def test_an_issuer_that_is_down_degrades_and_says_which(
    identities: Identities, fake_issuer: FakeIssuer
) -> None:
    ci = policy(LOCAL, f"ci: {{type: oidc, issuer: '{fake_issuer.url}', allow_private: true}}")
    fake_issuer.stop()
    identities.adopt(ci)
    health = await identities.health()
    assert health.state == "degraded"
    assert health.reason is not None
    assert health.reason.startswith("ci: ")
    with pytest.raises(IssuerUnavailable):
        await identities.probe(ci, "ci")


async def test_without_remote_issuers_all_is_well(identities: Identities) -> None:
    identities.adopt(policy(LOCAL))
    await identities.probe(policy(LOCAL), "local")
    assert (await identities.health()).state == "ok"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (f"me: {{type: oidc, issuer: '{BROKER}'}}", "the broker's own issuer"),
        ("ci: {type: oidc, issuer: 'https://i.example', ca_file: /nowhere.pem}", "/nowhere.pem"),
    ],
)
async def test_sources_that_cannot_be_built_refuse_the_policy(
    identities: Identities, source: str, told: str
) -> None:
    with pytest.raises(PolicyError, match=told):
        identities.prepare(policy(source))


async def test_a_policy_that_is_only_judged_leaves_nothing_behind(
    identities: Identities, fake_issuer: FakeIssuer
) -> None:
    ci = f"ci: {{type: oidc, issuer: '{fake_issuer.url}', allow_private: true}}"
    identities.judge(policy(ci, LOCAL))
    assert not identities._sources
    assert not identities._clients
    with pytest.raises(PolicyError, match="own issuer"):
        identities.judge(policy(f"me: {{type: oidc, issuer: '{BROKER}'}}"))
