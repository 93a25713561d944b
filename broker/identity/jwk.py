"""Turn a published JWK into a key that verifies, or say why it must not (RFC 7517, RFC 7518)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.jose import base64url_decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
_MAX_EXPONENT_BITS: Final = 32
_ED25519_BYTES: Final = 32
_MAX_KID: Final = 256

_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, str]]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})

_ROCA_SUBGROUPS: Final[Mapping[int, frozenset[int]]] = {
    prime: frozenset(pow(65537, power, prime) for power in range(prime - 1))
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}


class UnusableKey(ValueError):
    """A JWK that must not verify anything; the text says why, and holds none of its numbers."""


class PublishedPrivateKey(UnusableKey):
    """A JWK with private or symmetric key material, which whoever can read it can sign with."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that has passed every check, and the algorithms that it is for."""

    kid: str | None
    algorithms: frozenset[str]
    public_key: PublicKey


def load(jwk: Any) -> VerificationKey:
    """Return the key that a JSON value describes.

    Raise `UnusableKey` unless it is a JSON object with a public RSA key of 2048 to 8192 bits,
    an EC key on P-256, P-384 or P-521, or an Ed25519 key; with `use`, `key_ops` and `alg`, where
    present, that say it verifies signatures of its type. Unknown members are ignored.
    """
    if not isinstance(jwk, dict):
        raise UnusableKey("it is not a JSON object")
    private = sorted(_PRIVATE_MEMBERS & jwk.keys())
    if private:
        raise PublishedPrivateKey(f"it publishes private key material ({', '.join(private)})")
    kid = jwk.get("kid")
    if "kid" in jwk and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID):
        raise UnusableKey(f"its kid is not a string of 1 to {_MAX_KID} characters")
    _require_purpose(jwk)
    kty = jwk.get("kty")
    build = _BUILDERS.get(kty) if isinstance(kty, str) else None
    if build is None:
        raise UnusableKey(f"its kty is not one of {', '.join(_BUILDERS)}")
    try:
        public_key, algorithms = build(jwk)
    except (ValueError, UnsupportedAlgorithm) as error:
        # Only texts of our own are passed on; the library's may quote the numbers.
        reason = str(error) if isinstance(error, UnusableKey) else "its numbers make no valid key"
        raise UnusableKey(reason) from None
    return VerificationKey(kid, _narrowed(algorithms, jwk), public_key)


def _require_purpose(jwk: dict[str, Any]) -> None:
    if "use" in jwk and jwk["use"] != "sig":
        raise UnusableKey("its use is not 'sig'")
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not isinstance(operations, list) or not all(isinstance(name, str) for name in operations):
        raise UnusableKey("its key_ops is not a list of strings")
    if "verify" not in operations or len(set(operations)) != len(operations):
        raise UnusableKey("its key_ops does not say 'verify', or says something twice")


def _narrowed(algorithms: frozenset[str], jwk: dict[str, Any]) -> frozenset[str]:
    if "alg" not in jwk:
        return algorithms
    if not isinstance(jwk["alg"], str) or jwk["alg"] not in algorithms:
        raise UnusableKey(f"its alg is not one of its type's ({', '.join(sorted(algorithms))})")
    return frozenset({jwk["alg"]})


def _rsa(jwk: dict[str, Any]) -> tuple[PublicKey, frozenset[str]]:
    modulus = int.from_bytes(_octets(jwk, "n"))
    exponent = int.from_bytes(_octets(jwk, "e"))
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise UnusableKey(
            f"its RSA modulus has {modulus.bit_length()} bits, not {_MIN_RSA_BITS} to "
            f"{_MAX_RSA_BITS}"
        )
    if exponent == 1 or exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise UnusableKey("its RSA exponent is 1, or longer than 32 bits")
    if modulus % 2 == 0 or exponent % 2 == 0:
        raise UnusableKey("its RSA modulus or exponent is even")
    if all(modulus % prime in residues for prime, residues in _ROCA_SUBGROUPS.items()):
        raise UnusableKey("its RSA modulus can be factored (ROCA, CVE-2017-15361)")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _ec(jwk: dict[str, Any]) -> tuple[PublicKey, frozenset[str]]:
    known = _CURVES.get(jwk["crv"]) if isinstance(jwk.get("crv"), str) else None
    if known is None:
        raise UnusableKey(f"its curve is not one of {', '.join(_CURVES)}")
    curve, algorithm = known
    size = (curve.key_size + 7) // 8
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if len(x) != size or len(y) != size:
        raise UnusableKey(f"its coordinates are not {size} octets long")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
    return numbers.public_key(), frozenset({algorithm})


def _okp(jwk: dict[str, Any]) -> tuple[PublicKey, frozenset[str]]:
    if jwk.get("crv") != "Ed25519":
        raise UnusableKey("its curve is not Ed25519")
    x = _octets(jwk, "x")
    if len(x) != _ED25519_BYTES:
        raise UnusableKey(f"its x is not {_ED25519_BYTES} octets long")
    return ed25519.Ed25519PublicKey.from_public_bytes(x), frozenset({"EdDSA"})


_BUILDERS: Final[Mapping[str, Callable[[dict[str, Any]], tuple[PublicKey, frozenset[str]]]]] = {
    "RSA": _rsa,
    "EC": _ec,
    "OKP": _okp,
}


def _octets(jwk: dict[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise UnusableKey(f"its {name} is missing, or not a string")
    try:
        return base64url_decode(value)
    except ValueError:
        raise UnusableKey(f"its {name} is not canonical base64url") from None
