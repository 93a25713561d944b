from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bench.peers.decision import Decision

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/api/v1/charges/ch_1"


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def decision(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> Decision:
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "1"}
    (tmp_path / "jwks").write_text(json.dumps({"keys": [jwk]}))
    (tmp_path / "rules").write_text("GET /v1/charges/*\nPOST /v1/charges/*\nGET /v1/plans/*\n")
    return Decision(tmp_path / "jwks", tmp_path / "rules", "/api")


def bearer(key: ec.EllipticCurvePrivateKey, kid: str = "1", **claims: Any) -> str:
    stated = {"sub": "bench", "exp": int(time.time()) + 60, **claims}
    return "Bearer " + jwt.encode(stated, key, "ES256", headers={"kid": kid})


def test_a_good_token_passes_where_a_rule_allows_it(
    decision: Decision, key: ec.EllipticCurvePrivateKey
) -> None:
    token = bearer(key)
    for _ in range(2):  # verified, then remembered
        assert decision.allows("GET", PATH, token)
        assert decision.allows("POST", PATH + "?expand=1", token)
        assert not decision.allows("DELETE", PATH, token)
        assert not decision.allows("GET", PATH + "/refunds", token)
        assert not decision.allows("GET", "/v1/charges/ch_1", token)
        assert not decision.allows("POST", "/api/v1/plans/1", token)


def test_no_other_token_passes(decision: Decision, key: ec.EllipticCurvePrivateKey) -> None:
    good = bearer(key)
    other = ec.generate_private_key(ec.SECP256R1())
    head, claims, signature = good.split(".")
    for refused in (
        None,
        "",
        good.removeprefix("Bearer "),
        good.replace("Bearer", "Basic"),
        bearer(other),
        bearer(key, kid="2"),
        bearer(key, exp=int(time.time()) - 1),
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims}",
        "Bearer " + jwt.encode({"exp": 1 << 40}, "", "none", headers={"kid": "1"}),
    ):
        assert not decision.allows("GET", PATH, refused), refused
