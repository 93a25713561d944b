from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError
from broker.jose import p256_jwk
from broker.keys.jwk import verify_es256
from broker.keys.signing import FileSigningKey

PRIVATE = ec.generate_private_key(ec.SECP256R1())
SIGNER = FileSigningKey(PRIVATE)
JWK = p256_jwk(PRIVATE.public_key())
DATA = b"signed"
SIGNATURE = SIGNER.sign(DATA)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@given(st.integers(0, 511))
def test_a_flipped_bit_in_the_signature_does_not_verify(bit: int) -> None:
    altered = bytearray(SIGNATURE)
    altered[bit // 8] ^= 1 << bit % 8
    assert not verify_es256(JWK, DATA, bytes(altered))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        SIGNATURE[:63],
        SIGNATURE + b"\0",
        ORDER.to_bytes(32, "big") * 2,
        b"\xff" * 64,
        bytes(32) + SIGNATURE[32:],
        SIGNATURE[:32] + bytes(32),
    ],
    ids=["empty", "zeros", "short", "long", "order", "ones", "r=0", "s=0"],
)
def test_a_degenerate_signature_does_not_verify(signature: bytes) -> None:
    assert not verify_es256(JWK, DATA, signature)


def test_other_data_or_another_key_does_not_verify() -> None:
    other = p256_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert verify_es256(JWK, DATA, SIGNATURE)
    assert not verify_es256(JWK, DATA + b"!", SIGNATURE)
    assert not verify_es256(other, DATA, SIGNATURE)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "RSA"},
        {"crv": "P-384"},
        {"kty": None},
        {"x": ""},
        {"x": None},
        {"x": "A" * 43},
        {"x": JWK["x"] + "="},
        {"x": JWK["x"][:-1]},
        {"x": "ä" + JWK["x"][1:]},
        {"y": JWK["x"]},
        {"y": JWK["y"] + "A"},
    ],
    ids=[
        "another type",
        "another curve",
        "no type",
        "x empty",
        "x none",
        "x not of the curve",
        "x padded",
        "x cut",
        "x not base64url",
        "y not of the curve",
        "y too long",
    ],
)
def test_what_is_no_p256_key_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not a P-256 public key"):
        verify_es256({**JWK, **change}, DATA, SIGNATURE)


def test_coordinates_have_one_spelling() -> None:
    # The last character of 43 carries two unused bits: 3 of 4 spellings are not canonical.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = alphabet.index(JWK["x"][-1])
    twin = JWK["x"][:-1] + alphabet[place ^ 1]
    with pytest.raises(ConfigurationError, match="x must be 32 bytes in base64url"):
        verify_es256({**JWK, "x": twin}, DATA, SIGNATURE)
