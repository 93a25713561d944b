from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.jose import base64url_decode, base64url_encode, p256_jwk, thumbprint


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "Zm9=",
        "Zm8=",
        "Zm9v====",
        "Zm9v\n",
        " Zm9v",
        "Zm 9v",
        "AB",
        "AAB",
        "+_==",
        "/w",
        "+w",
        "Zm9v.",
        "Zm\u00e9v",
        "\uff21" * 4,
        "\ud800" * 4,
        "#Zm9v",
    ],
)
def test_every_spelling_but_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        base64url_decode(text)


@given(st.binary())
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    assert base64url_encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert base64url_decode(base64url_encode(data)) == data


@given(st.text(alphabet="ABCDabcd0123-_+/= \n.\u00e9", max_size=12))
def test_no_two_texts_mean_the_same(text: str) -> None:
    try:
        data = base64url_decode(text)
    except ValueError:
        return
    assert base64url_encode(data) == text


def test_the_thumbprint_of_an_ec_key() -> None:
    # The key of RFC 7515, appendix A.3; its thumbprint is computed as RFC 7638, 3 says.
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    expected = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
    assert thumbprint(jwk) == expected
    assert thumbprint({**jwk, "kid": "x", "use": "sig", "d": "ignored"}) == expected


def test_the_thumbprint_of_an_rsa_key() -> None:
    # The key and the thumbprint of RFC 7638, 3.1.
    published = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS"
            "oc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65"
            "YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyr"
            "dkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
            "nqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(published) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_p256_key_as_a_jwk() -> None:
    key = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    jwk = p256_jwk(key)
    # The base point of the curve (SEC 2, 2.4.2).
    assert base64url_decode(jwk["x"]).hex().startswith("6b17d1f2e12c4247f8bce6e5")
    assert base64url_decode(jwk["y"]).hex().startswith("4fe342e2fe1a7f9b8ee7eb4a")
    assert jwk["kid"] == thumbprint(jwk)
    assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) == ("EC", "P-256", "ES256", "sig")
