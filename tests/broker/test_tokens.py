from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.keys.signing import FileSigningKey, KeySet, KeyState
from broker.model import Grant
from broker.tokens import OWN_SUBJECT, TaskTokens

ISSUER = "https://broker.example"
AUDIENCE = "https://gateway.example"
NOW = 1_750_000_000
PRIVATE_KEY = ec.generate_private_key(ec.SECP256R1())
KEY = FileSigningKey(PRIVATE_KEY)
OTHER_KEY = FileSigningKey(ec.generate_private_key(ec.SECP256R1()))
GRANT = Grant(
    jti="grant-1",
    agent="release-bot",
    issuer="https://issuer.example",
    subject="repo:acme/app",
    scopes=("stripe.read", "issues.write"),
    issued_at=NOW,
    expires_at=NOW + 900,
    policy_version="sha256:00",
    client_id="helper",
    task="release 1.2",
    reason="ça va",
    ancestors=("root", "child"),
    actor={"sub": "helper", "act": {"sub": "older"}},
    claims={"repository_id": "123", "count": 3},
)


def _keys(*keys: FileSigningKey) -> KeySet:
    states = (KeyState(key, 0, index) for index, key in enumerate(keys))
    return KeySet(tuple(states), lambda: NOW)


TOKENS = TaskTokens(_keys(KEY), ISSUER, AUDIENCE)


def _segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def _signed(header: Any, claims: Any, key: FileSigningKey = KEY) -> bytes:
    signing_input = f"{_segment(header)}.{_segment(claims)}".encode()
    return signing_input + b"." + _segment(key.sign(signing_input)).encode()


def _header() -> dict[str, str]:
    return {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}


def _refused(token: bytes | str, now: float = NOW, tokens: TaskTokens = TOKENS) -> str:
    with pytest.raises(InvalidToken) as refusal:
        tokens.verify(token.encode() if isinstance(token, str) else token, now)
    return refusal.value.code


def test_a_grant_comes_back_from_its_token() -> None:
    assert TOKENS.verify(TOKENS.issue(GRANT).encode(), NOW) == GRANT


def test_a_plain_grant_comes_back_from_its_token() -> None:
    plain = Grant("j", "a", "local", "a", ("s",), NOW, NOW + 1, "v", "a")
    assert TOKENS.verify(TOKENS.issue(plain).encode(), NOW) == plain


def test_standard_11_the_claims_of_rfc_9068() -> None:
    token = TOKENS.issue(GRANT)
    assert jwt.get_unverified_header(token) == _header()
    assert _claims(token) == {
        "iss": ISSUER,
        "sub": "release-bot",
        "aud": AUDIENCE,
        "exp": NOW + 900,
        "iat": NOW,
        "jti": "grant-1",
        "client_id": "helper",
        "scope": "stripe.read issues.write",
        "agent": "release-bot",
        "policy": "sha256:00",
        "identity": {
            "iss": "https://issuer.example",
            "sub": "repo:acme/app",
            "claims": {"repository_id": "123", "count": 3},
        },
        "task": "release 1.2",
        "reason": "ça va",
        "ancestors": ["root", "child"],
        "act": {"sub": "helper", "act": {"sub": "older"}},
    }


def test_what_a_grant_lacks_is_absent_from_its_token() -> None:
    plain = Grant("j", "a", "local", "a", ("s",), NOW, NOW + 1, "v", "a")
    assert not {"task", "reason", "ancestors", "act"} & _claims(TOKENS.issue(plain)).keys()


def test_a_standard_library_verifies_it() -> None:
    now = int(time.time())
    token = TOKENS.issue(replace(GRANT, issued_at=now, expires_at=now + 60))
    public = PRIVATE_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = jwt.decode(token, public, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
    assert claims["sub"] == "release-bot"


def test_the_newest_key_signs_and_the_older_still_verifies() -> None:
    old_token = TOKENS.issue(GRANT)
    rotated = TaskTokens(_keys(KEY, OTHER_KEY), ISSUER, AUDIENCE)
    new_token = rotated.issue(GRANT)
    assert jwt.get_unverified_header(new_token)["kid"] == OTHER_KEY.kid
    assert rotated.verify(old_token.encode(), NOW) == GRANT
    assert rotated.verify(new_token.encode(), NOW) == GRANT


def test_a_key_that_is_not_published_verifies_nothing() -> None:
    token = TOKENS.issue(GRANT)
    assert _refused(token, tokens=TaskTokens(_keys(OTHER_KEY), ISSUER, AUDIENCE)) == "unknown_key"


def test_another_keys_signature_under_our_kid_is_refused() -> None:
    claims = _claims(TOKENS.issue(GRANT))
    assert _refused(_signed(_header(), claims, OTHER_KEY)) in {"bad_signature", "unknown_key"}
    head, payload, _ = TOKENS.issue(GRANT).split(".")
    forged = _segment(OTHER_KEY.sign(f"{head}.{payload}".encode()))
    assert _refused(f"{head}.{payload}.{forged}") == "bad_signature"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256", "kid": KEY.kid, "typ": "at+jwt"},
        {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"},
        {"alg": "ES256", "kid": KEY.kid},
        {"alg": "ES256", "typ": "at+jwt"},
        {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt", "crit": ["x"], "x": 1},
        {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt", "jku": "http://127.0.0.1:1/"},
        {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt", "b64": False, "crit": ["b64"]},
    ],
)
def test_any_header_but_ours_is_refused(header: dict[str, Any]) -> None:
    assert _refused(_signed(header, _claims(TOKENS.issue(GRANT)))) == "unknown_key"


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"])
def test_a_missing_claim_is_refused(name: str) -> None:
    head, payload, _ = TOKENS.issue(GRANT).split(".")
    claims = _claims(f"{head}.{payload}.")
    del claims[name]
    signing_input = f"{head}.{_segment(claims)}"
    assert _refused(f"{signing_input}.{_segment(KEY.sign(signing_input.encode()))}") == "malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"iss": ISSUER + "/"},
        {"iss": "https://evil.example"},
        {"aud": "https://other.example"},
        {"aud": [AUDIENCE, "https://other.example"]},
        {"aud": []},
        {"identity": None},
        {"agent": None, "identity": {}},
    ],
)
def test_claims_that_are_not_ours_are_refused(change: dict[str, Any]) -> None:
    head, payload, _ = TOKENS.issue(GRANT).split(".")
    claims = {**_claims(f"{head}.{payload}."), **change}
    signing_input = f"{head}.{_segment(claims)}"
    assert _refused(f"{signing_input}.{_segment(KEY.sign(signing_input.encode()))}") == "malformed"


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW + 900, "expired"),
        (NOW + 10_000, "expired"),
        (NOW - 31, "not_yet_valid"),
        (NOW - 3600, "not_yet_valid"),
    ],
)
def test_a_token_outside_its_life_is_refused(now: int, code: str) -> None:
    assert _refused(TOKENS.issue(GRANT), now) == code


@pytest.mark.parametrize("now", [NOW - 30, NOW, NOW + 899.9])
def test_a_token_within_its_life_is_good(now: float) -> None:
    assert TOKENS.verify(TOKENS.issue(GRANT).encode(), now) == GRANT


@pytest.mark.parametrize(
    "altered",
    [
        lambda token: token + "=",
        lambda token: token + "==",
        lambda token: token + "A",
        lambda token: token[:-1],
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.replace(".", "..", 1),
        lambda token: token + "." + token,
        lambda token: token[:-1] + chr(ord(token[-1]) + 1),  # the same bytes, not canonical
        lambda token: token[:0],
        lambda token: token[:0] + "..",
        lambda token: token.split(".")[0] + ".." + token.split(".")[2],
        lambda token: token + "A" * 20_000,
    ],
)
def test_j7_an_altered_text_is_refused(altered: Any) -> None:
    assert _refused(altered(TOKENS.issue(GRANT))) in {"malformed", "bad_signature", "unknown_key"}


def test_every_single_changed_character_is_refused() -> None:
    token = TOKENS.issue(replace(GRANT, reason=None, claims={}))
    for index, character in enumerate(token):
        other = "B" if character != "B" else "C"
        _refused(token[:index] + other + token[index + 1 :])


@given(st.binary(max_size=300))
def test_no_bytes_break_it(token: bytes) -> None:
    _refused(token)


@given(st.text(st.characters(codec="utf-8"), max_size=50), st.integers(0, 2**40))
def test_any_grant_comes_back(text: str, number: int) -> None:
    grant = replace(GRANT, subject=text, task=text or None, claims={text: [text, number, None]})
    assert TOKENS.verify(TOKENS.issue(grant).encode(), NOW) == grant


def test_a_key_of_another_algorithm_signs_nothing() -> None:
    key = FileSigningKey(PRIVATE_KEY)
    key.algorithm = "RS256"
    with pytest.raises(ValueError, match="ES256, not RS256"):
        TaskTokens(_keys(key), ISSUER, AUDIENCE).issue(GRANT)


class TestVouch:
    def test_others_verify_it_by_our_published_keys(self) -> None:
        token = TOKENS.vouch("sts.amazonaws.com", NOW)
        jwk = _keys(KEY).public_jwks()["keys"][0]
        claims = jwt.decode(
            token,
            jwt.PyJWK(dict(jwk), algorithm="ES256"),
            algorithms=["ES256"],
            audience="sts.amazonaws.com",
            issuer=ISSUER,
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
        assert claims["sub"] == OWN_SUBJECT
        assert claims["exp"] - claims["iat"] == 300
        assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"}
        assert _claims(TOKENS.vouch("sts.amazonaws.com", NOW))["jti"] != claims["jti"]

    def test_it_is_no_task_token(self) -> None:
        assert _refused(TOKENS.vouch("sts.amazonaws.com", NOW)) == "unknown_key"
        with pytest.raises(ValueError, match="own gateway"):
            TOKENS.vouch(AUDIENCE, NOW)
