from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.errors import ConfigurationError, InvalidToken
from broker.identity import jws
from broker.identity.base import Audiences, UnverifiedToken
from broker.identity.local import LocalSource, client_assertion, new_agent_key
from broker.jose import thumbprint
from broker.model import EnrolledKey, Identity
from providers.base import Secret
from tests.fakes.keys import StrangersKey, strangers_key

NOW = 1_800_000_000.0
BROKER = Audiences("https://broker.test", "https://broker.test/token")
AGENT = strangers_key("ES256", "agent-key")


def clock() -> float:
    return NOW


def enrolled(*keys: StrangersKey, agent: str = "dev") -> LocalSource:
    stored = tuple(EnrolledKey(agent, key.kid, key.jwk(kid=None), 1) for key in keys)

    async def lookup(name: str) -> tuple[EnrolledKey, ...]:
        return stored if name == agent else ()

    return LocalSource("laptops", lookup, BROKER, clock)


def claims(**changes: Any) -> dict[str, Any]:
    good = {
        "iss": "dev",
        "sub": "dev",
        "aud": BROKER.issuer,
        "iat": int(NOW),
        "exp": int(NOW) + 60,
        "jti": "id-1",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


async def verify(source: LocalSource, token: str) -> Identity:
    return await source.verify(jws.parse(UnverifiedToken(token)))


async def code_of(source: LocalSource, token: str) -> str:
    with pytest.raises(InvalidToken) as refusal:
        await verify(source, token)
    return refusal.value.code


async def test_a_new_key_signs_what_the_broker_verifies() -> None:
    key = new_agent_key()
    stored = EnrolledKey("dev", key.kid, key.public_jwk, 1)

    async def lookup(name: str) -> tuple[EnrolledKey, ...]:
        return (stored,) if name == "dev" else ()

    token = client_assertion(key.pem, "dev", BROKER.issuer, clock)
    identity = await verify(LocalSource("laptops", lookup, BROKER, clock), token)
    assert (identity.source, identity.issuer, identity.subject) == ("laptops", "local", "dev")
    assert identity.claims == {"sub": "dev"}
    assert identity.replay == "single_use"
    assert identity.expires_at == NOW + 60


def test_a_new_key_shows_only_its_public_half() -> None:
    key = new_agent_key()
    assert key.kid == thumbprint(key.public_jwk)
    assert set(key.public_jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert "PRIVATE" not in repr(key)
    assert b"BEGIN PRIVATE KEY" in key.pem.reveal()
    assert new_agent_key().kid != key.kid


def test_every_assertion_has_its_own_id_and_lives_for_a_minute() -> None:
    key = new_agent_key()
    both = [
        jws.parse(UnverifiedToken(client_assertion(key.pem, "dev", BROKER.issuer, clock))).claims
        for _ in range(2)
    ]
    assert both[0]["jti"] != both[1]["jti"]
    assert both[0]["exp"] - both[0]["iat"] == 60


def private_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        private_pem(rsa.generate_private_key(65537, 2048)),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        ),
    ],
)
def test_a_file_that_holds_no_agent_key_is_refused_unquoted(pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match="agent dev is not a P-256") as refusal:
        client_assertion(Secret(pem), "dev", BROKER.issuer)
    assert refusal.value.__cause__ is None
    assert "AAAA" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": None}, "malformed_claim"),
        ({"iss": "", "sub": ""}, "unknown_key"),
        ({"iss": 7}, "malformed_claim"),
        ({"iss": ["dev"]}, "malformed_claim"),
        ({"iss": "dev\n", "sub": "dev\n"}, "unknown_key"),
        ({"iss": "dev\0", "sub": "dev\0"}, "unknown_key"),
        ({"iss": "%", "sub": "%"}, "unknown_key"),
        ({"iss": "d\u0435v", "sub": "d\u0435v"}, "unknown_key"),
        ({"sub": None}, "wrong_subject"),
        ({"sub": "admin"}, "wrong_subject"),
        ({"sub": ["dev"]}, "wrong_subject"),
        ({"iss": "ghost", "sub": "ghost"}, "unknown_key"),
        ({"iss": "DEV", "sub": "DEV"}, "unknown_key"),
        ({"aud": None}, "missing_claim"),
        ({"aud": "https://other.test"}, "wrong_audience"),
        ({"aud": "https://broker.test/"}, "wrong_audience"),
        ({"aud": [BROKER.issuer, "https://other.test"]}, "extra_audience"),
        ({"jti": None}, "missing_claim"),
        ({"jti": ""}, "malformed_claim"),
        ({"exp": None}, "missing_claim"),
        ({"iat": None}, "missing_claim"),
        ({"exp": int(NOW) + 301}, "lifetime_too_long"),
        ({"exp": "soon"}, "malformed_claim"),
        ({"iat": int(NOW) - 331, "exp": int(NOW) - 31}, "expired"),
        ({"iat": int(NOW) + 31, "exp": int(NOW) + 91}, "not_yet_valid"),
        ({"nbf": int(NOW) + 31}, "not_yet_valid"),
    ],
)
async def test_an_assertion_that_is_refused(changes: dict[str, Any], code: str) -> None:
    assert await code_of(enrolled(AGENT), AGENT.token(claims(**changes))) == code


@pytest.mark.parametrize("audience", [BROKER.issuer, BROKER.token_endpoint, [BROKER.issuer]])
async def test_an_assertion_for_our_issuer_or_token_endpoint(audience: Any) -> None:
    identity = await verify(enrolled(AGENT), AGENT.token(claims(aud=audience)))
    assert identity.subject == "dev"


async def test_the_key_must_be_one_that_this_agent_enrolled() -> None:
    other = strangers_key("ES256", "other-key")
    source = enrolled(AGENT, other)
    assert (await verify(source, other.token(claims()))).subject == "dev"
    assert await code_of(source, AGENT.token(claims(), kid="other-key")) == "bad_signature"
    assert await code_of(source, AGENT.token(claims(), kid="stranger")) == "unknown_key"
    assert await code_of(source, AGENT.token(claims(), kid=None)) == "unknown_key"
    assert (await verify(enrolled(AGENT), AGENT.token(claims(), kid=None))).subject == "dev"
    assert await code_of(enrolled(AGENT, agent="prod"), AGENT.token(claims())) == "unknown_key"


async def test_only_the_algorithm_of_the_enrolled_key() -> None:
    stranger = strangers_key("RS256", "agent-key")
    assert await code_of(enrolled(AGENT), stranger.token(claims())) == "wrong_key_type"
    with pytest.raises(InvalidToken, match="'alg' is 'HS256'"):
        jws.parse(UnverifiedToken(jwt.encode(claims(), b"k" * 32, "HS256")))


async def test_two_agents_never_share_a_replay_identity() -> None:
    first = await verify(enrolled(AGENT), AGENT.token(claims()))
    second = await verify(
        enrolled(AGENT, agent="prod"), AGENT.token(claims(iss="prod", sub="prod"))
    )
    assert (first.issuer, first.token_id) != (second.issuer, second.token_id)


async def test_a_stored_key_that_is_spoilt_is_refused() -> None:
    async def lookup(_: str) -> tuple[EnrolledKey, ...]:
        return (EnrolledKey("dev", "agent-key", {"kty": "EC", "crv": "P-256"}, 1),)

    source = LocalSource("laptops", lookup, BROKER, clock)
    assert await code_of(source, AGENT.token(claims())) == "unusable_key"
