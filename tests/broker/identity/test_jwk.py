from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import jwk
from tests.fakes.keys import b64, rsa_private, strangers_key, uint, unb64

RSA = strangers_key("RS256").jwk()
EC = strangers_key("ES256").jwk()
P521 = strangers_key("ES512").jwk()
ED = strangers_key("EdDSA").jwk()


def flipped(text: str) -> str:
    data = bytearray(unb64(text))
    data[-1] ^= 1
    return b64(bytes(data))


def loose(text: str) -> str:
    """The same value with an unused bit set."""
    return text[:-1] + chr(ord(text[-1]) + 1)


REFUSED: dict[str, Any] = {
    "no object": [RSA],
    "null": None,
    "empty": {},
    "kty missing": {**RSA, "kty": None},
    "kty of another key": {**EC, "kty": "RSA"},
    "kty of another key too": {**RSA, "kty": "EC"},
    "kty in lower case": {**EC, "kty": "ec"},
    "kty an array": {**EC, "kty": ["EC"]},
    "symmetric": {"kty": "oct", "kid": "key-1", "alg": "HS256", "k": b64(b"k" * 32)},
    "symmetric without its key": {"kty": "oct", "alg": "HS256"},
    "private RSA": {**RSA, "d": "AQAB"},
    "private EC": {**EC, "d": b64(b"d" * 32)},
    "private RSA, one prime": {**RSA, "p": "AQAB"},
    "kid a number": {**EC, "kid": 1},
    "kid empty": {**EC, "kid": ""},
    "kid too long": {**EC, "kid": "k" * 257},
    "use enc": {**RSA, "use": "enc"},
    "use in capitals": {**RSA, "use": "SIG"},
    "use null": {**RSA, "use": None},
    "key_ops encrypt": {**EC, "key_ops": ["encrypt"]},
    "key_ops sign": {**EC, "key_ops": ["sign"]},
    "key_ops empty": {**EC, "key_ops": []},
    "key_ops twice": {**EC, "key_ops": ["verify", "verify"]},
    "key_ops joined": {**EC, "key_ops": ["sign, verify"]},
    "key_ops a string": {**EC, "key_ops": "verify"},
    "key_ops of numbers": {**EC, "key_ops": [1]},
    "alg of another type": {**RSA, "alg": "ES256"},
    "alg of another curve": {**EC, "alg": "ES384"},
    "alg that does not exist": {**EC, "alg": "ES521"},
    "alg weaker than the curve": {**EC, "alg": "ES224"},
    "alg symmetric": {**RSA, "alg": "HS256"},
    "alg none": {**RSA, "alg": "none"},
    "alg for encryption": {**RSA, "alg": "RSA1_5"},
    "alg null": {**RSA, "alg": None},
    "RSA of 1024 bits": {**RSA, "n": uint(rsa_private(bits=1024).public_key().public_numbers().n)},
    "RSA of 2047 bits": {**RSA, "n": uint(2**2046 + 1)},
    "RSA of 8193 bits": {**RSA, "n": uint(2**8192 + 1)},
    "RSA of a million bits": {**RSA, "n": b64(b"\xff" * 125_000)},
    "RSA exponent 1": {**RSA, "e": "AQ"},
    "RSA exponent 2": {**RSA, "e": "Ag"},
    "RSA exponent 0": {**RSA, "e": "AA"},
    "RSA exponent of 33 bits": {**RSA, "e": uint(2**32 + 1)},
    "RSA modulus even": {**RSA, "n": uint(2**2047)},
    "RSA modulus missing": {name: value for name, value in RSA.items() if name != "n"},
    "RSA modulus a number": {**RSA, "n": 2**2047 + 1},
    "RSA modulus padded": {**RSA, "n": RSA["n"] + "=="},
    "RSA modulus loose": {**RSA, "n": loose(RSA["n"])},
    "RSA modulus empty": {**RSA, "n": ""},
    "EC point off the curve": {**EC, "y": flipped(EC["y"])},
    "EC point at infinity": {**EC, "x": b64(bytes(32)), "y": b64(bytes(32))},
    "EC coordinate short": {**EC, "x": b64(unb64(EC["x"])[1:])},
    "EC coordinate long": {**EC, "x": b64(b"\0" + unb64(EC["x"]))},
    "EC coordinate not in the field": {**EC, "x": b64(b"\xff" * 32)},
    "EC curve of another key": {**EC, "crv": "P-384", "alg": "ES384"},
    "EC curve unknown": {**EC, "crv": "secp256k1"},
    "EC curve missing": {**EC, "crv": None},
    "EC curve an array": {**EC, "crv": ["P-256"]},
    "Ed25519 short": {**ED, "x": b64(unb64(ED["x"])[1:])},
    "Ed448": {**ED, "crv": "Ed448"},
    "X25519": {**ED, "crv": "X25519"},
}


@pytest.mark.parametrize("published", REFUSED.values(), ids=REFUSED.keys())
def test_refused(published: Any) -> None:
    with pytest.raises(jwk.UnusableKey):
        jwk.load(published)


def test_a_key_that_roca_made_is_refused() -> None:
    # The flawed library's primes were k * M + 65537^a mod M (CVE-2017-15361); so are these, but
    # for being prime, which the fingerprint does not depend on.
    primorial = 1
    for prime in [*range(2, 4), *(n for n in range(5, 702, 2) if all(n % d for d in range(3, n)))]:
        primorial *= prime
    factors = [
        ((3 << 1022) // primorial + offset) * primorial + pow(65537, offset, primorial)
        for offset in (3, 5)
    ]
    with pytest.raises(jwk.UnusableKey, match="ROCA"):
        jwk.load({**RSA, "n": uint(factors[0] * factors[1])})


@pytest.mark.parametrize("published", [RSA, EC, P521, ED], ids=["RSA", "P-256", "P-521", "Ed25519"])
def test_a_good_key_is_for_its_algorithm_alone(published: dict[str, Any]) -> None:
    key = jwk.load(published)
    assert key.kid == "key-1"
    assert key.algorithms == {published["alg"]}


def test_a_key_is_loaded_by_its_numbers_whatever_else_is_published() -> None:
    members = {"kty", "n", "e"}
    bare = {name: value for name, value in RSA.items() if name in members}
    decorated = {**bare, "x5c": ["MIIB"], "x5t": "t", "x5u": "https://evil.test", "x-private": {}}
    key = jwk.load({**decorated, "key_ops": ["verify"], "use": "sig"})
    assert key.kid is None
    assert key.algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    assert uint(key.public_key.public_numbers().n) == strangers_key().jwk()["n"]


@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_published_private_key_is_told_apart(name: str) -> None:
    with pytest.raises(jwk.PublishedPrivateKey, match=name):
        jwk.load({**RSA, name: "AQAB"})


@pytest.mark.parametrize("secret", ["d", "k"])
def test_the_reason_does_not_quote_the_key(secret: str) -> None:
    with pytest.raises(jwk.UnusableKey) as refusal:
        jwk.load({**RSA, secret: "c2VjcmV0"})
    assert "c2VjcmV0" not in str(refusal.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.sampled_from([RSA, EC, ED]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "key_ops", "kid"]),
        json_values | st.sampled_from(["RSA", "EC", "OKP", "P-256", "P-384", "Ed25519", "sig"]),
        max_size=4,
    ),
)
def test_whatever_is_published_it_is_a_key_or_unusable(
    published: dict[str, Any], edits: dict[str, Any]
) -> None:
    try:
        key = jwk.load(published | edits)
    except jwk.UnusableKey:
        return
    assert key.algorithms
