from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from broker.errors import ConfigurationError, InvalidToken
from broker.identity.base import Audiences
from broker.identity.oidc import OidcSettings, OidcSource
from broker.model import Identity
from tests.fakes.issuer import BROKER, NOW, Bench, verified
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from tests.components.oidc import OidcIssuer

AUDIENCES = Audiences(BROKER, f"{BROKER}/token")


async def never(url: str, _max_bytes: int) -> bytes:
    return pytest.fail(f"{url} was fetched")


def source(**settings: Any) -> OidcSource:
    return OidcSource(
        "ci", OidcSettings(**{"issuer": "https://issuer.test"} | settings), AUDIENCES, never
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"issuer": BROKER}, "own issuer"),
        ({"issuer": "http://issuer.test"}, "not https"),
        ({"issuer": "https://issuer.test#"}, "fragment"),
        ({"issuer": ""}, "absolute URL"),
        ({"jwks_uri": "http://issuer.test/jwks"}, "not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "absolute URL"),
        ({"algorithms": ()}, "algorithms has nothing"),
        ({"algorithms": ("none",)}, "algorithms has none"),
        ({"algorithms": ("RS256", "HS256")}, "algorithms has HS256"),
        ({"algorithms": ("rs256",)}, "algorithms has rs256"),
        ({"leeway": -1.0}, "leeway"),
        ({"leeway": 61.0}, "leeway"),
        ({"leeway": float("nan")}, "leeway"),
        ({"max_token_age": 0.0}, "max_token_age"),
        ({"max_token_age": float("nan")}, "max_token_age"),
        ({"stale_keys_for": -1.0}, "stale_keys_for"),
    ],
)
def test_settings_that_cannot_be_safe(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"identity source ci: .*{reason}"):
        source(**settings)


async def test_a_good_token_proves_an_identity(identity_bench: Bench) -> None:
    issuer = identity_bench.issuer
    identity = await verified(identity_bench.source(), issuer.token())
    assert identity == Identity(
        source="issuer-under-test",
        issuer=issuer.url,
        subject="repo:acme/app:ref:refs/heads/main",
        claims=issuer.claims(),
        token_id=issuer.claims()["jti"],
        expires_at=NOW + 300,
        replay="single_use",
    )


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES512", "EdDSA"])
async def test_each_allowed_algorithm(identity_bench: Bench, algorithm: str) -> None:
    identity_bench.issuer.keys = [strangers_key(algorithm)]
    source = identity_bench.source(algorithms=(algorithm,))
    assert (await verified(source, identity_bench.issuer.token())).subject


async def test_an_algorithm_that_the_source_does_not_allow_fetches_nothing(
    identity_bench: Bench,
) -> None:
    issuer = identity_bench.issuer
    issuer.keys = [strangers_key("RS512")]
    with pytest.raises(InvalidToken) as refusal:
        await verified(identity_bench.source(), issuer.token())
    assert refusal.value.code == "algorithm_not_allowed"
    assert not issuer.requests


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat"])
async def test_a_token_without_a_required_claim(identity_bench: Bench, name: str) -> None:
    with pytest.raises(InvalidToken) as refusal:
        await verified(identity_bench.source(), identity_bench.issuer.token(**{name: None}))
    assert refusal.value.code == "missing_claim"


@pytest.mark.parametrize(
    ("settings", "claims", "code"),
    [
        ({"audiences": ("https://a.test",)}, {}, "wrong_audience"),
        ({}, {"aud": f"{BROKER}/token"}, "wrong_audience"),
        ({}, {"aud": [BROKER, "https://a.test"]}, "extra_audience"),
        ({"max_token_age": 60.0}, {"iat": NOW - 91}, "too_old"),
        ({"leeway": 0.0}, {"exp": NOW}, "expired"),
        ({"leeway": 0.0}, {"nbf": NOW + 1}, "not_yet_valid"),
        ({}, {"exp": NOW + 400 * 86_400}, "lifetime_too_long"),
    ],
)
async def test_the_settings_are_what_is_demanded(
    identity_bench: Bench, settings: dict[str, Any], claims: dict[str, Any], code: str
) -> None:
    with pytest.raises(InvalidToken) as refusal:
        await verified(identity_bench.source(**settings), identity_bench.issuer.token(**claims))
    assert refusal.value.code == code


async def test_the_settings_are_what_is_allowed(identity_bench: Bench) -> None:
    source = identity_bench.source(
        audiences=("https://a.test", "https://b.test"),
        allow_extra_audiences=True,
        replay="until_exp",
        max_token_age=100.0,
        leeway=60.0,
    )
    token = identity_bench.issuer.token(
        aud=["https://b.test", "https://c.test"], iat=NOW - 150, exp=NOW + 9000
    )
    identity = await verified(source, token)
    assert (identity.replay, identity.expires_at) == ("until_exp", NOW - 50)


async def test_a_token_of_a_real_issuer(oidc_issuer: OidcIssuer) -> None:
    async with http.client(ca_file=str(oidc_issuer.ca_file), allow_private=True) as client:
        source = OidcSource(
            "npm",
            OidcSettings(issuer=oidc_issuer.url, allow_private=True),
            AUDIENCES,
            partial(http.get_bytes, client),
        )
        token = oidc_issuer.token(BROKER, claims={"sub": "repo:acme/app", "run": 7}, lifetime=60)
        identity = await verified(source, token)
        assert (identity.issuer, identity.subject) == (oidc_issuer.url, "repo:acme/app")
        assert identity.claims["run"] == 7
        assert identity.token_id == identity.claims["jti"]
        with pytest.raises(InvalidToken) as refusal:
            await verified(source, oidc_issuer.token("https://other.test"))
        assert refusal.value.code == "wrong_audience"
