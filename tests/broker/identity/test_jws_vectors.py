"""Signatures that a careless verifier takes for valid, by the categories of Project Wycheproof.

Its JWS and JWK vectors are in no package that can be installed here, so these are made anew,
with keys of the tests' own. What is wrong with keys and with base64url is in `test_jwk` and
`test_jws`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from broker.errors import InvalidToken
from broker.identity import jwk, jws
from broker.identity.base import UnverifiedToken
from tests.fakes.keys import b64, strangers_key, unb64

if TYPE_CHECKING:
    from collections.abc import Callable

ES256 = strangers_key("ES256")
RS256 = strangers_key("RS256")
PS256 = strangers_key("PS256")
KEYS = {key.algorithm: key for key in (ES256, strangers_key("ES384"), RS256, PS256)}
ORDERS: Final = {
    "ES256": 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    "ES384": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
}


def signing_input(algorithm: str) -> bytes:
    return KEYS[algorithm].token({"a": 1}).rsplit(".", 1)[0].encode()


def code_of(algorithm: str, signature: bytes) -> str:
    token = UnverifiedToken(f"{signing_input(algorithm).decode()}.{b64(signature)}")
    with pytest.raises(InvalidToken) as refusal:
        jws.verify(jws.parse(token), jwk.load(KEYS[algorithm].jwk()))
    return refusal.value.code


EDGES: Final[dict[str, Callable[[int], int]]] = {
    "0": lambda _: 0,
    "1": lambda _: 1,
    "n-1": lambda order: order - 1,
    "n": lambda order: order,
    "n+1": lambda order: order + 1,
    "all ones": lambda order: (1 << order.bit_length()) - 1,
}


@pytest.mark.parametrize("algorithm", sorted(ORDERS))
@pytest.mark.parametrize("r", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("s", EDGES.values(), ids=EDGES.keys())
def test_ecdsa_with_numbers_from_the_edge(
    algorithm: str, r: Callable[[int], int], s: Callable[[int], int]
) -> None:
    order = ORDERS[algorithm]
    size = order.bit_length() // 8
    assert code_of(algorithm, r(order).to_bytes(size) + s(order).to_bytes(size)) == "bad_signature"


def plus_order(number: bytes) -> bytes:
    return (int.from_bytes(number) + ORDERS["ES256"]).to_bytes(33)


@pytest.mark.parametrize(
    "change",
    [
        lambda r, s: r + s + b"\0",
        lambda r, s: r + s + b"\0" * 64,
        lambda r, s: b"\0" + r + s,
        lambda r, s: b"\0" + r + b"\0" + s,
        lambda r, s: b"\0" * 300 + r + b"\0" * 300 + s,
        lambda r, s: b"\x01" + r + b"\0" + s,
        lambda r, s: plus_order(r) + b"\0" + s,
        lambda r, s: b"\0" + r + plus_order(s),
        lambda r, s: s + r,
        lambda r, _: r + r,
        lambda r, _: r,
        lambda r, s: (r + s)[:-1],
        lambda r, s: (r + s)[1:],
        lambda r, s: b"\x30\x44\x02\x20" + r + b"\x02\x20" + s,
    ],
)
def test_ecdsa_with_its_numbers_in_another_form(change: Callable[[bytes, bytes], bytes]) -> None:
    signature = ES256.sign(signing_input("ES256"))
    assert code_of("ES256", change(signature[:32], signature[32:])) == "bad_signature"


def test_ecdsa_in_der_as_tls_writes_it() -> None:
    assert isinstance(ES256.private, ec.EllipticCurvePrivateKey)
    der = ES256.private.sign(signing_input("ES256"), ec.ECDSA(hashes.SHA256()))
    assert code_of("ES256", der) == "bad_signature"


# DigestInfo ::= SEQUENCE { SEQUENCE { OID sha256, NULL }, OCTET STRING digest }  (RFC 8017, 9.2)
OID = bytes.fromhex("0609608648016503040201")
NULL = bytes.fromhex("0500")


def der(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


def digest_info(algorithm: bytes, octets: bytes) -> bytes:
    return der(0x30, algorithm + octets)


GOOD_ALGORITHM = der(0x30, OID + NULL)
FORGERIES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "no DigestInfo": lambda digest: digest,
    "no NULL": lambda digest: digest_info(der(0x30, OID), der(4, digest)),
    "two NULLs": lambda digest: digest_info(der(0x30, OID + NULL + NULL), der(4, digest)),
    "NULL with content": lambda digest: digest_info(
        der(0x30, OID + b"\x05\x01\x00"), der(4, digest)
    ),
    "OID of SHA-1": lambda digest: digest_info(
        der(0x30, bytes.fromhex("06052b0e03021a") + NULL), der(4, digest)
    ),
    "OID with a leading zero": lambda digest: digest_info(
        der(0x30, b"\x06\x0a\x80" + OID[2:] + NULL), der(4, digest)
    ),
    "long form of the outer length": lambda digest: (
        b"\x30\x81\x31" + GOOD_ALGORITHM + der(4, digest)
    ),
    "long form of the inner length": lambda digest: digest_info(
        b"\x30\x81\x0d" + OID + NULL, der(4, digest)
    ),
    "indefinite length": lambda digest: b"\x30\x80" + GOOD_ALGORITHM + der(4, digest) + b"\0\0",
    "length that overflows": lambda digest: (
        b"\x30\x85\x01\0\0\0\x31" + GOOD_ALGORITHM + der(4, digest)
    ),
    "garbage after": lambda digest: digest_info(GOOD_ALGORITHM, der(4, digest)) + b"\0\0",
    "garbage inside": lambda digest: digest_info(GOOD_ALGORITHM, der(4, digest) + b"\x05\0"),
    "digest cut short": lambda digest: digest_info(GOOD_ALGORITHM, der(4, digest[:-1])),
    "digest of length zero": lambda _: digest_info(GOOD_ALGORITHM, der(4, b"")),
    "bit string": lambda digest: digest_info(GOOD_ALGORITHM, der(3, b"\0" + digest)),
    "digest of other bytes": lambda _: digest_info(
        GOOD_ALGORITHM, der(4, hashlib.sha256(b"other").digest())
    ),
}


def raw_rsa(encoded: bytes) -> bytes:
    """Sign whatever block the test made, as only the owner of the key can."""
    assert isinstance(RS256.private, rsa.RSAPrivateKey)
    numbers = RS256.private.private_numbers()
    return pow(int.from_bytes(encoded), numbers.d, numbers.public_numbers.n).to_bytes(256)


def padded(info: bytes, *, head: bytes = b"\0\x01", fill: bytes = b"\xff") -> bytes:
    return head + fill * (256 - len(head) - 1 - len(info)) + b"\0" + info


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_pkcs1_with_another_digest_info(forge: Callable[[bytes], bytes]) -> None:
    digest = hashlib.sha256(signing_input("RS256")).digest()
    assert code_of("RS256", raw_rsa(padded(forge(digest)))) == "bad_signature"


def good_info() -> bytes:
    return digest_info(GOOD_ALGORITHM, der(4, hashlib.sha256(signing_input("RS256")).digest()))


def test_the_forgeries_differ_from_the_real_thing_in_their_flaw_alone() -> None:
    token = UnverifiedToken(
        f"{signing_input('RS256').decode()}.{b64(raw_rsa(padded(good_info())))}"
    )
    assert jws.verify(jws.parse(token), jwk.load(RS256.jwk())) == {"a": 1}


PADDINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "block type 0": lambda info: padded(info, head=b"\0\0", fill=b"\0"),
    "block type 2": lambda info: padded(info, head=b"\0\x02", fill=b"\x99"),
    "first octet not zero": lambda info: padded(info, head=b"\x01\x01"),
    "fill of zeros": lambda info: padded(info, fill=b"\0"),
    "fill of fe": lambda info: padded(info, fill=b"\xfe"),
    "no separator": lambda info: b"\0\x01" + b"\xff" * (254 - len(info)) + info,
    "fill cut short, garbage after": lambda info: (
        b"\0\x01" + b"\xff" * 8 + b"\0" + info + b"\0" * (245 - len(info))
    ),
    "no fill, garbage after": lambda info: b"\0\x01\0" + info + b"\xff" * (253 - len(info)),
}


@pytest.mark.parametrize("pad", PADDINGS.values(), ids=PADDINGS.keys())
def test_pkcs1_with_another_padding(pad: Callable[[bytes], bytes]) -> None:
    assert code_of("RS256", raw_rsa(pad(good_info()))) == "bad_signature"


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: b"\0" + signature,
        lambda signature: signature + b"\0",
        lambda signature: signature[:-1],
        lambda _: b"\0" * 256,
        lambda _: b"\0" * 255 + b"\x01",
        lambda _: unb64(RS256.jwk()["n"]),
        lambda signature: (
            int.from_bytes(signature) + int.from_bytes(unb64(RS256.jwk()["n"]))
        ).to_bytes(257),
    ],
)
def test_rsa_with_its_number_in_another_form(change: Callable[[bytes], bytes]) -> None:
    signature = RS256.sign(signing_input("RS256"))
    assert code_of("RS256", change(signature)) == "bad_signature"


@pytest.mark.parametrize(
    ("mask", "salt", "digest"),
    [
        (hashes.SHA256(), 0, hashes.SHA256()),
        (hashes.SHA256(), 20, hashes.SHA256()),
        (hashes.SHA256(), 33, hashes.SHA256()),
        (hashes.SHA1(), 32, hashes.SHA256()),  # noqa: S303 - what an attacker would use
        (hashes.SHA384(), 32, hashes.SHA256()),
        (hashes.SHA256(), 32, hashes.SHA384()),
        (hashes.SHA384(), 48, hashes.SHA384()),
    ],
)
def test_pss_with_other_parameters(
    mask: hashes.HashAlgorithm, salt: int, digest: hashes.HashAlgorithm
) -> None:
    assert isinstance(PS256.private, rsa.RSAPrivateKey)
    parameters = padding.PSS(mgf=padding.MGF1(mask), salt_length=salt)
    signature = PS256.private.sign(signing_input("PS256"), parameters, digest)
    assert code_of("PS256", signature) == "bad_signature"


def test_the_signature_of_one_rsa_scheme_under_the_name_of_another() -> None:
    assert code_of("RS256", RS256.sign(signing_input("RS256"), "PS256")) == "bad_signature"
    assert code_of("RS256", RS256.sign(signing_input("RS256"), "RS512")) == "bad_signature"
    assert code_of("PS256", PS256.sign(signing_input("PS256"), "RS256")) == "bad_signature"
