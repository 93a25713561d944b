"""J: tokens of others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from broker.audit.redaction import safe_line
from broker.errors import InvalidToken
from broker.identity.base import UnverifiedToken
from broker.identity.resolver import IdentityResolver
from tests.fakes.issuer import (
    BROKER,
    DISCOVERY,
    JWKS,
    NOW,
    Bench,
    FakeIssuer,
    json_answer,
    verified,
)
from tests.fakes.keys import StrangersKey, b64, rsa_private, strangers_key, uint, unb64

if TYPE_CHECKING:
    from broker.model import Identity

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ATTACKER = strangers_key("ES256", "key-1", number=666)


async def resolved(bench: Bench, token: str) -> Identity:
    return await IdentityResolver([bench.source()]).verify(UnverifiedToken(token))


async def code_of(bench: Bench, token: str) -> str:
    with pytest.raises(InvalidToken) as refusal:
        await resolved(bench, token)
    assert safe_line(str(refusal.value), 10_000) == str(refusal.value)
    assert refusal.value.__cause__ is None
    return refusal.value.code


def unsigned(bench: Bench, **header: Any) -> str:
    header_part = b64(json.dumps({"alg": "none", "typ": "JWT"} | header).encode())
    return f"{header_part}.{b64(json.dumps(bench.issuer.claims()).encode())}"


@pytest.mark.parametrize("algorithm", ["none", "NoNe", "NONE", "none ", "", "nonе"])  # noqa: RUF001
@pytest.mark.parametrize("signature", ["", "AAAA", b64(b"none")])
async def test_j1_no_signature_at_all(
    identity_bench: Bench, algorithm: str, signature: str
) -> None:
    token = f"{unsigned(identity_bench, alg=algorithm)}.{signature}"
    assert await code_of(identity_bench, token) in {"algorithm_not_allowed", "malformed"}
    assert not identity_bench.issuer.requests


@pytest.mark.parametrize("form", ["pem", "pem without its last line end", "der", "ssh", "jwk", "n"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
async def test_j1_the_public_key_as_the_secret_of_an_hmac(
    identity_bench: Bench, form: str, algorithm: str
) -> None:
    public = rsa_private(0).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, spki)
    secret = {
        "pem": pem,
        "pem without its last line end": pem.rstrip(),
        "der": public.public_bytes(serialization.Encoding.DER, spki),
        "ssh": public.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ),
        "jwk": json.dumps(strangers_key().jwk()).encode(),
        "n": unb64(strangers_key().jwk()["n"]),
    }[form]
    signed = unsigned(identity_bench, alg=algorithm, kid="key-1")
    digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(algorithm, hashlib.sha256)
    token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), digest))}"
    assert await code_of(identity_bench, token) == "algorithm_not_allowed"


@pytest.mark.parametrize("published", ["RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("signed", ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"])
async def test_j1_an_algorithm_that_is_not_the_keys(
    identity_bench: Bench, published: str, signed: str
) -> None:
    if signed == published:
        return
    identity_bench.issuer.keys = [strangers_key(published)]
    token = identity_bench.issuer.token(strangers_key(signed))
    everything = identity_bench.source(
        algorithms=("RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA")
    )
    with pytest.raises(InvalidToken) as refusal:
        await verified(everything, token)
    assert refusal.value.code == "wrong_key_type"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["https://ext.test"], "https://ext.test": True},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "alg"},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A128GCM"},
    ],
)
async def test_j2_headers_that_change_how_the_token_is_read(
    identity_bench: Bench, header: dict[str, Any]
) -> None:
    token = strangers_key().token(identity_bench.issuer.claims(), **header)
    assert await code_of(identity_bench, token) == "unsupported_header"


async def test_j2_an_encrypted_token(identity_bench: Bench) -> None:
    header = b64(b'{"alg":"RSA-OAEP-256","enc":"A256GCM","typ":"JWT"}')
    assert await code_of(identity_bench, f"{header}.AAAA.AAAA.AAAA.AAAA") == "encrypted"


async def test_j2_a_token_inside_a_token(identity_bench: Bench) -> None:
    inner = identity_bench.issuer.token()
    outer = strangers_key().token(inner.encode(), cty="JWT")
    assert await code_of(identity_bench, outer) == "malformed"


async def test_j3_keys_that_the_token_brings_are_refused_and_not_fetched(
    identity_bench: Bench, network_trap: list[str]
) -> None:
    evil = "https://evil.test/keys"
    for header in (
        {"jku": evil},
        {"x5u": evil},
        {"jwk": ATTACKER.jwk()},
        {"x5c": [base64.b64encode(b"certificate").decode()]},
        {"jku": evil, "jwk": ATTACKER.jwk(), "crit": ["jku"]},
    ):
        token = ATTACKER.token(identity_bench.issuer.claims(), **header)
        assert await code_of(identity_bench, token) == "unsupported_header"
    assert not network_trap


async def test_j3_a_kid_is_a_name_and_nothing_else(identity_bench: Bench) -> None:
    source = identity_bench.source()
    for kid in ("../../dev/null", "/etc/passwd", "https://evil.test/k", "' OR 1=1 --", "key-1\0"):
        with pytest.raises(InvalidToken) as refusal:
            await verified(source, ATTACKER.token(identity_bench.issuer.claims(), kid=kid))
        assert refusal.value.code == "unknown_key"
        assert str(refusal.value).isprintable()
    assert set(identity_bench.issuer.requests) == {DISCOVERY, JWKS}
    assert set(identity_bench.issuer.requests.values()) == {1}


@pytest.mark.parametrize(
    "change",
    [
        lambda iss: iss + "/",
        lambda iss: iss[:-1],
        lambda iss: iss + ".evil.test",
        lambda iss: iss.upper(),
        lambda iss: iss.replace("http://", "HTTP://"),
        lambda iss: iss.replace("http://", "https://"),
        lambda iss: iss.replace("http://", "http://user@"),
        lambda iss: iss.replace("127.0.0.1", "127.1"),
        lambda iss: iss.replace("127.0.0.1", "localhost"),
        lambda iss: iss.replace("127.0.0.1", "127.0.0.\uff11"),
        lambda iss: iss.rsplit(":", 1)[0],
        lambda iss: iss + "\0",
        lambda iss: iss + "#",
        lambda iss: iss + "?",
        lambda iss: iss + "/.",
        lambda iss: " " + iss,
        lambda iss: iss + "\n",
        lambda _: "",
        lambda iss: iss.replace("/", "\\"),
    ],
)
async def test_j4_an_issuer_that_is_only_like_the_configured_one(
    identity_bench: Bench, change: Any
) -> None:
    # CVE-2024-53861: PyJWT accepted issuers that were part of the expected one.
    token = identity_bench.issuer.token(iss=change(identity_bench.issuer.url))
    assert await code_of(identity_bench, token) == "unknown_issuer"
    assert not identity_bench.issuer.requests


async def test_j4_two_issuers_in_one_token(identity_bench: Bench) -> None:
    claims = json.dumps(identity_bench.issuer.claims()).encode()
    for doubled in (
        b'{"iss":"https://evil.test",' + claims[1:],
        claims[:-1] + b',"iss":"https://evil.test"}',
        claims[:-1] + b',"\\u0069ss":"https://evil.test"}',
    ):
        assert await code_of(identity_bench, strangers_key().token(doubled)) == "malformed"


@pytest.mark.parametrize(
    ("audience", "code"),
    [
        ([BROKER, "https://other.test"], "extra_audience"),
        (["https://other.test", BROKER], "extra_audience"),
        ([BROKER, BROKER], "extra_audience"),
        ([BROKER, [BROKER]], "malformed_claim"),
        ([BROKER, None], "malformed_claim"),
        ([], "malformed_claim"),
        ([[BROKER]], "malformed_claim"),
        ({"aud": BROKER}, "malformed_claim"),
        (f"{BROKER} https://other.test", "wrong_audience"),
        (f"{BROKER}/", "wrong_audience"),
        (f"{BROKER}.evil.test", "wrong_audience"),
        (True, "malformed_claim"),
    ],
)
async def test_j5_audience_arrays(identity_bench: Bench, audience: Any, code: str) -> None:
    assert await code_of(identity_bench, identity_bench.issuer.token(aud=audience)) == code


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("null", "malformed_claim"),
        ("true", "malformed_claim"),
        ('"1800000100"', "malformed_claim"),
        ("[1800000100]", "malformed_claim"),
        ("{}", "malformed_claim"),
        ("-1", "malformed_claim"),
        ("-1800000100", "malformed_claim"),
        ("0", "malformed_claim"),
        ("-0.0", "malformed_claim"),
        ("1800000100000", "malformed_claim"),
        ("18446744073709551615", "malformed_claim"),
        ("1e300", "malformed_claim"),
        ("NaN", "malformed"),
        ("Infinity", "malformed"),
        ("-Infinity", "malformed"),
        ("1e999", "malformed"),
        ("0x6B49D200", "malformed"),
        ("1" * 5000, "malformed"),
    ],
)
async def test_j6_times_that_are_none(
    identity_bench: Bench, name: str, raw: str, code: str
) -> None:
    claims = json.dumps(identity_bench.issuer.claims(**{name: None})).encode()
    token = strangers_key().token(claims[:-1] + f', "{name}": {raw}}}'.encode())
    assert await code_of(identity_bench, token) == code


@pytest.mark.parametrize("name", ["exp", "iat"])
async def test_j6_times_that_are_missing(identity_bench: Bench, name: str) -> None:
    token = identity_bench.issuer.token(**{name: None})
    assert await code_of(identity_bench, token) == "missing_claim"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW + 10 * 365 * 86_400}, "lifetime_too_long"),
        ({"exp": NOW - 31}, "expired"),
        ({"iat": NOW + 31}, "not_yet_valid"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"iat": NOW - 86_431}, "too_old"),
        ({"iat": NOW - 5, "exp": NOW - 6}, "malformed_claim"),
    ],
)
async def test_j6_times_that_are_absurd(
    identity_bench: Bench, changes: dict[str, Any], code: str
) -> None:
    assert await code_of(identity_bench, identity_bench.issuer.token(**changes)) == code


async def test_j7_a_signature_turned_into_its_twin_keeps_the_replay_identity(
    identity_bench: Bench,
) -> None:
    key = strangers_key("ES256")
    identity_bench.issuer.keys = [key]
    for jti in ("id-1", None):
        token = key.token(identity_bench.issuer.claims(jti=jti))
        signed, signature = token.rsplit(".", 1)
        r, s = (int.from_bytes(half) for half in (unb64(signature)[:32], unb64(signature)[32:]))
        twin = f"{signed}.{b64(r.to_bytes(32) + (P256_ORDER - s).to_bytes(32))}"
        first, second = await resolved(identity_bench, token), await resolved(identity_bench, twin)
        assert token != twin
        assert (first.issuer, first.token_id) == (second.issuer, second.token_id)


async def test_j7_the_same_claims_signed_again_keep_the_replay_identity(
    identity_bench: Bench,
) -> None:
    key = strangers_key("ES256")
    identity_bench.issuer.keys = [key]
    claims = identity_bench.issuer.claims(jti=None)
    turned = {name: claims[name] for name in reversed(claims)}
    tokens = [
        key.token(claims),
        key.token(claims, typ="at+jwt"),
        key.token(claims, x5t="another header"),
        key.token(json.dumps(claims, indent=2).encode()),
        key.token(turned),
    ]
    identities = {(await resolved(identity_bench, token)).token_id for token in tokens}
    assert len(set(tokens)) == len(tokens)
    assert len(identities) == 1


@pytest.mark.parametrize("padding", ["=", "==", "A", " ", "\n", "."])
async def test_j7_padding_does_not_make_another_token(identity_bench: Bench, padding: str) -> None:
    header, payload, signature = identity_bench.issuer.token().split(".")
    for altered in (
        f"{header}{padding}.{payload}.{signature}",
        f"{header}.{payload}{padding}.{signature}",
        f"{header}.{payload}.{signature}{padding}",
    ):
        assert await code_of(identity_bench, altered) in {"malformed", "bad_signature"}


async def test_j10_a_header_of_one_mebibyte(identity_bench: Bench) -> None:
    _, payload, signature = identity_bench.issuer.token().split(".")
    for header in (b"{" * 2**20, b'{"alg":"RS256","x":"' + b"x" * 2**20 + b'"}'):
        token = f"{b64(header)}.{payload}.{signature}"
        assert await code_of(identity_bench, token) == "too_large"
    assert not identity_bench.issuer.requests


@pytest.mark.parametrize("name", ["sub", "jti", "aud"])
@pytest.mark.parametrize(
    "character",
    [
        "\\ud800",
        "\\udfff",
        "\\u0000",
        "\\n",
        "\\r",
        "\\u0085",
        "\\u2028",
        "\\u202e",
        "\\u2067",
        "\\u200e",
        "\\u200b",
        "\\ufeff",
        "\\u001b[31m",
        "\\u007f",
    ],
)
async def test_j11_characters_that_would_forge_a_line(
    identity_bench: Bench, name: str, character: str
) -> None:
    claims = json.dumps(identity_bench.issuer.claims(**{name: "PLACE"})).encode()
    forged = claims.replace(b"PLACE", f"admin{character}2026 | agent:admin".encode())
    code = await code_of(identity_bench, strangers_key().token(forged))
    assert code == ("malformed" if "\\ud" in character else "malformed_claim")


async def test_j11_what_an_issuer_is_called_still_stands_on_one_line(
    identity_bench: Bench,
) -> None:
    issuer = "https://evil.test/\n2026-03-15T10:23:45Z | agent:admin | \u202e"
    with pytest.raises(InvalidToken) as refusal:
        await resolved(identity_bench, identity_bench.issuer.token(iss=issuer))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"use": None, "key_ops": ["encrypt"]},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"n": uint(rsa_private(0, 1024).public_key().public_numbers().n)},
        {"e": "AQ"},
        {"alg": "RSA-OAEP"},
    ],
)
async def test_j12_a_key_that_is_not_for_this_or_too_weak(
    identity_bench: Bench, changes: dict[str, Any]
) -> None:
    issuer = identity_bench.issuer
    issuer.answers[JWKS] = json_answer({"keys": [strangers_key().jwk(**changes)]})
    assert await code_of(identity_bench, issuer.token()) == "unusable_key"


async def test_j12_a_weak_key_that_signs_well_is_still_refused(
    identity_bench: Bench, fake_issuer: FakeIssuer
) -> None:
    weak = StrangersKey("weak", "RS256", rsa_private(0, 1024))
    fake_issuer.keys = [weak]
    assert await code_of(identity_bench, fake_issuer.token(weak)) == "unusable_key"
