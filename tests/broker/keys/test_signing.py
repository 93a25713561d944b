from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import jwt
import pytest

from broker.errors import ConfigurationError
from broker.files import create_private
from broker.keys.jwk import verify_es256
from broker.keys.sealing import MasterKey
from broker.keys.signing import CLOCK_MARGIN, FileSigningKey, KeySet, KeyState

if TYPE_CHECKING:
    from pathlib import Path

SEALER = MasterKey(b"\x07" * 32)


def key(tmp_path: Path, name: str = "k") -> FileSigningKey:
    signer = KeySet.create(tmp_path / name, SEALER, "signing").signer
    assert isinstance(signer, FileSigningKey)
    return signer


def test_a_signature_is_raw_and_verifies(tmp_path: Path) -> None:
    signer = key(tmp_path)
    for number in range(40):  # short r and s need padding: about one in 128 has one
        data = str(number).encode()
        signature = signer.sign(data)
        assert len(signature) == 64
        assert verify_es256(signer.public_jwk(), data, signature)


def test_pyjwt_verifies_with_the_published_key(tmp_path: Path) -> None:
    keys = KeySet.create(tmp_path / "k", SEALER, "signing")
    header = {"alg": keys.signer.algorithm, "kid": keys.signer.kid}
    parts = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (header, {"a": 1}))
    signing_input = b".".join(parts)
    token = signing_input + b"." + jwt.utils.base64url_encode(keys.signer.sign(signing_input))
    published = jwt.PyJWKSet.from_dict(keys.public_jwks())
    assert jwt.decode(token, published[keys.signer.kid], algorithms=["ES256"]) == {"a": 1}


def test_the_public_jwk_holds_public_members_only(tmp_path: Path) -> None:
    jwk = key(tmp_path).public_jwk()
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert (jwk["alg"], jwk["use"]) == ("ES256", "sig")


def test_a_key_set_is_kept_sealed_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "k"
    made = KeySet.create(path, SEALER, "signing", clock=lambda: 9000.5)
    opened = KeySet.open(path, SEALER, "signing")
    assert opened.public_jwks() == made.public_jwks()
    assert [(k.published_at, k.signs_from, k.retired_at) for k in opened.keys] == [
        (9000 - CLOCK_MARGIN, 9000 - CLOCK_MARGIN, None)
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"private_key" not in path.read_bytes()
    with pytest.raises(ConfigurationError, match="there already"):
        KeySet.create(path, SEALER, "signing")


def test_a_key_set_of_another_purpose_is_refused(tmp_path: Path) -> None:
    KeySet.create(tmp_path / "k", SEALER, "audit")
    with pytest.raises(ConfigurationError, match=r"k: sealed text .* from another place"):
        KeySet.open(tmp_path / "k", SEALER, "signing")


def test_c4_a_wrong_master_key_is_named_with_the_file(tmp_path: Path) -> None:
    KeySet.create(tmp_path / "k", SEALER, "signing")
    with pytest.raises(ConfigurationError, match=r"k: wrong master key"):
        KeySet.open(tmp_path / "k", MasterKey(b"\x08" * 32), "signing")


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"keys": [{}]}', b'{"keys": [{"private_key": "AAAA"}]}', b'{"keys": 1}'],
)
def test_an_unreadable_key_set_is_refused_without_its_content(
    tmp_path: Path, document: bytes
) -> None:
    create_private(tmp_path / "k", SEALER.seal("signing-keys/signing", b"", document))
    with pytest.raises(ConfigurationError, match="another version of the broker") as caught:
        KeySet.open(tmp_path / "k", SEALER, "signing")
    assert "AAAA" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_newest_key_whose_time_has_come_signs(tmp_path: Path) -> None:
    old, new = key(tmp_path, "old"), key(tmp_path, "new")
    now = 0.0
    keys = KeySet(
        (
            KeyState(old, published_at=0, signs_from=10, retired_at=40),
            KeyState(new, published_at=20, signs_from=30),
        ),
        clock=lambda: now,
    )

    def published() -> list[str]:
        return [jwk["kid"] for jwk in keys.public_jwks()["keys"]]

    with pytest.raises(ConfigurationError, match="no key may sign at this time"):
        _ = keys.signer
    assert published() == [old.kid]
    now = 29.9
    assert keys.signer is old
    assert published() == [old.kid, new.kid]
    now = 30
    assert keys.signer is new
    assert published() == [old.kid, new.kid]
    now = 40
    assert keys.signer is new
    assert published() == [new.kid]


def test_a_signing_key_shows_nothing_of_itself(tmp_path: Path) -> None:
    signer = key(tmp_path)
    assert repr(signer) == f"FileSigningKey({signer.kid})"
    with pytest.raises(TypeError):
        pickle.dumps(signer)


def test_r5_a_new_key_signs_though_the_clock_is_set_back(tmp_path: Path) -> None:
    made = KeySet.create(tmp_path / "k", SEALER, "signing", clock=lambda: 1e9)
    opened = KeySet.open(tmp_path / "k", SEALER, "signing", clock=lambda: 1e9 - 3600)
    assert opened.signer.kid == made.signer.kid
    assert opened.public_jwks() == made.public_jwks()
