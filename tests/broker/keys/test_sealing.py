from __future__ import annotations

import base64
import os
import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError
from broker.files import create_private
from broker.keys.sealing import MasterKey, create_master_key, load_master_key, master_key_file

if TYPE_CHECKING:
    from pathlib import Path

KEY = MasterKey(bytes(range(32)))
TEXT = base64.b64encode(bytes(range(32))).decode()

purposes = st.text(max_size=20)
blobs = st.binary(max_size=200)


@given(purposes, blobs, blobs)
def test_what_is_sealed_is_unsealed(purpose: str, context: bytes, plaintext: bytes) -> None:
    sealed = KEY.seal(purpose, context, plaintext)
    assert KEY.unseal(purpose, context, sealed) == plaintext
    assert sealed != KEY.seal(purpose, context, plaintext)


@given(purposes, blobs, blobs, st.data())
def test_any_bit_flipped_is_refused(
    purpose: str, context: bytes, plaintext: bytes, data: st.DataObject
) -> None:
    sealed = bytearray(KEY.seal(purpose, context, plaintext))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ConfigurationError):
        KEY.unseal(purpose, context, bytes(sealed))


@given(purposes, blobs, blobs, st.data())
def test_any_cut_is_refused(
    purpose: str, context: bytes, plaintext: bytes, data: st.DataObject
) -> None:
    sealed = KEY.seal(purpose, context, plaintext)
    kept = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(ConfigurationError):
        KEY.unseal(purpose, context, sealed[:kept])


@given(purposes, purposes, blobs, blobs, blobs)
def test_another_purpose_or_context_is_refused(
    purpose: str, other: str, context: bytes, elsewhere: bytes, plaintext: bytes
) -> None:
    sealed = KEY.seal(purpose, context, plaintext)
    if purpose != other:
        with pytest.raises(ConfigurationError, match="from another place"):
            KEY.unseal(other, context, sealed)
    if context != elsewhere:
        with pytest.raises(ConfigurationError, match="from another place"):
            KEY.unseal(purpose, elsewhere, sealed)


def test_a_wrong_key_is_named_as_such() -> None:
    other = MasterKey(b"\x01" * 32)
    sealed = KEY.seal("p", b"", b"text")
    with pytest.raises(ConfigurationError, match=f"wrong master key: .* {KEY.key_id}.* restore"):
        other.unseal("p", b"", sealed)


def test_a_later_format_is_named_as_such() -> None:
    sealed = b"\x02" + KEY.seal("p", b"", b"text")[1:]
    with pytest.raises(ConfigurationError, match="format 2, and this broker reads format 1"):
        KEY.unseal("p", b"", sealed)


def test_a_master_key_shows_nothing_of_itself() -> None:
    assert repr(KEY) == str(KEY) == f"MasterKey({KEY.key_id})"
    assert KEY.key_id not in bytes(range(32)).hex()
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"has {size} bytes, and must have 32"):
        MasterKey(bytes(size))


def test_the_file_source_keeps_a_private_key(tmp_path: Path) -> None:
    made = create_master_key("file", tmp_path)
    assert load_master_key("file", tmp_path).key_id == made.key_id
    assert master_key_file(tmp_path).stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="there already"):
        create_master_key("file", tmp_path)
    master_key_file(tmp_path).chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_master_key("file", tmp_path)


def test_two_brokers_have_two_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = (create_master_key("file", tmp_path / name) for name in ("a", "b"))
    assert one.key_id != two.key_id


def test_a_file_that_is_absent_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no master key; run: broker init"):
        load_master_key("file", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "short", TEXT[:-2], TEXT + TEXT, TEXT.replace("A", "!"), "ä" * 44, "=" * 44]
)
def test_a_malformed_key_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = master_key_file(tmp_path)
    path.parent.mkdir(mode=0o700)
    create_private(path, text.encode())
    with pytest.raises(ConfigurationError, match="is not a master key") as caught:
        load_master_key("file", tmp_path)
    assert not text or text not in str(caught.value)
    monkeypatch.setenv("BROKER_MASTER_KEY", text)
    with pytest.raises(ConfigurationError, match=r"\$BROKER_MASTER_KEY: is not a master key"):
        load_master_key("environment", tmp_path)
    assert "BROKER_MASTER_KEY" not in os.environ


@pytest.fixture
def fresh_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment from which no master key has been taken yet."""
    monkeypatch.setattr("broker.keys.sealing._taken", {})
    monkeypatch.delenv("BROKER_MASTER_KEY", raising=False)
    return monkeypatch


def test_the_environment_source_takes_the_variable_away_and_remembers_the_key(
    tmp_path: Path, fresh_environment: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="BROKER_MASTER_KEY is not set"):
        load_master_key("environment", tmp_path)
    fresh_environment.setenv("BROKER_MASTER_KEY", TEXT)
    for _ in range(2):
        assert load_master_key("environment", tmp_path).key_id == KEY.key_id
        assert "BROKER_MASTER_KEY" not in os.environ
    fresh_environment.setenv("BROKER_MASTER_KEY", TEXT.replace("A", "B"))
    assert load_master_key("environment", tmp_path).key_id != KEY.key_id


def test_the_environment_source_creates_nothing(
    tmp_path: Path, fresh_environment: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32"):
        create_master_key("environment", tmp_path)
    fresh_environment.setenv("BROKER_MASTER_KEY", TEXT)
    assert create_master_key("environment", tmp_path).key_id == KEY.key_id
    assert not list(tmp_path.iterdir())
