from __future__ import annotations

import base64
import json

import jwt
import pytest

from broker.audit.statement import TrustedKeys, sign_statement
from tests.broker.audit.trails import signing_key, trusted

STATEMENT = {"writer": "main", "seq": 7, "hash": "ab" * 32, "time": "2026-03-15T10:23:45.000000Z"}


def test_a_signed_statement_is_believed() -> None:
    signature = sign_statement(signing_key(), "head", STATEMENT)
    assert trusted().problem("head", STATEMENT, signature) is None
    assert trusted(1, 0).problem("head", STATEMENT, signature) is None


def test_any_jose_library_can_check_it() -> None:
    """The signature is a JWS whose content was detached (RFC 7515, appendix F)."""
    signature = sign_statement(signing_key(), "checkpoint", STATEMENT)
    canonical = json.dumps(STATEMENT, sort_keys=True, separators=(",", ":")).encode()
    content = base64.urlsafe_b64encode(canonical).rstrip(b"=").decode()
    key = jwt.PyJWK(dict(signing_key().public_jwk()))
    decoded = jwt.api_jws.PyJWS().decode_complete(
        signature.replace("..", f".{content}."), key, algorithms=["ES256"]
    )
    assert json.loads(decoded["payload"]) == STATEMENT
    assert decoded["header"] == {
        "alg": "ES256",
        "kid": signing_key().kid,
        "typ": "audit-checkpoint",
    }


@pytest.mark.parametrize(
    "change", [{"seq": 8}, {"writer": "cli"}, {"hash": "cd" * 32}, {"more": True}]
)
def test_a_changed_statement_is_not(change: dict[str, object]) -> None:
    signature = sign_statement(signing_key(), "head", STATEMENT)
    assert trusted().problem("head", {**STATEMENT, **change}, signature) == "its signature is wrong"


def test_one_kind_does_not_pass_as_another() -> None:
    signature = sign_statement(signing_key(), "head", STATEMENT)
    assert "none of the trusted keys" in str(trusted().problem("checkpoint", STATEMENT, signature))


def test_another_key_is_not_trusted() -> None:
    signature = sign_statement(signing_key(1), "head", STATEMENT)
    assert signing_key().kid in str(trusted().problem("head", STATEMENT, signature))


def test_another_key_under_our_name_is_not_trusted() -> None:
    ours = sign_statement(signing_key(), "head", STATEMENT)
    theirs = sign_statement(signing_key(1), "head", STATEMENT)
    forged = ours.partition("..")[0] + ".." + theirs.partition("..")[2]
    assert trusted().problem("head", STATEMENT, forged) == "its signature is wrong"


@pytest.mark.parametrize("signature", [None, 5, "", "..", "a..b", "a.b.c", "é..é", ["x"]])
def test_what_is_no_signature_is_refused(signature: object) -> None:
    assert trusted().problem("head", STATEMENT, signature)


@pytest.mark.parametrize("tail", ["=", "A", "!", "\n", "é"])
def test_a_signature_has_one_spelling(tail: str) -> None:
    signature = sign_statement(signing_key(), "head", STATEMENT)
    assert trusted().problem("head", STATEMENT, signature + tail) == "its signature is wrong"


def test_without_keys_nothing_is_believed() -> None:
    signature = sign_statement(signing_key(), "head", STATEMENT)
    nobody = TrustedKeys((), trusted().check)
    assert "there are none" in str(nobody.problem("head", STATEMENT, signature))
