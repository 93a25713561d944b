from __future__ import annotations

import multiprocessing
import sqlite3
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError, InvalidRequest, SecretUnavailable, StorageError
from broker.keys.sealing import MasterKey
from broker.secrets.base import MAX_SECRET_BYTES
from broker.secrets.embedded import KEPT_VERSIONS, EmbeddedBackend, EmbeddedStore
from providers.base import Secret
from tests.contracts.secrets import VALUE, Kept, SecretBackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MASTER = MasterKey(b"\x05" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets.db"


@pytest.fixture
def store(path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(path, MASTER, clock=lambda: 1700000000.5)
    yield store
    store.close()


class TestEmbeddedBackend(SecretBackendContract):
    @pytest.fixture
    def kept(self, store: EmbeddedStore) -> Kept:
        store.put("stripe", Secret(VALUE))

        async def rotate(value: bytes) -> None:
            store.rotate("stripe", Secret(value))

        return Kept(
            backend=EmbeddedBackend(store),
            rest="stripe",
            absent="stripe2",
            malformed=(
                "-x",
                "a b",
                "a#b",
                "a@",
                "a@0",
                "a@01",
                "a@x",
                "a@1@2",
                "a/",
                "a//b",
                "a/.b",
                "x" * 129,
            ),
            rotate=rotate,
        )

    async def test_a_version_can_be_pinned(self, kept: Kept, store: EmbeddedStore) -> None:
        store.put("stripe", Secret(b"second"))
        assert (await kept.backend.read("stripe@1")).secret.reveal() == VALUE
        assert (await kept.backend.read("stripe@2")).secret.reveal() == b"second"
        with pytest.raises(SecretUnavailable, match="has no version 3; kept are 1, 2"):
            await kept.backend.read("stripe@3")

    async def test_a_near_name_is_suggested(self, kept: Kept) -> None:
        with pytest.raises(SecretUnavailable, match=r"secret put strpe; did you mean 'stripe'\?"):
            await kept.backend.read("strpe")

    async def test_a_store_that_fails_may_work_later(self, kept: Kept, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE versions RENAME TO gone")
        connection.close()
        with pytest.raises(SecretUnavailable, match="the database failed") as caught:
            await kept.backend.read("stripe")
        assert caught.value.retryable


def test_versions_count_up_and_are_listed(store: EmbeddedStore) -> None:
    assert [store.put("a", Secret(value)) for value in (b"1", b"2", b"3")] == [1, 2, 3]
    assert store.put("b/c", Secret(b"1")) == 1
    listed = [(s.name, s.version, s.created_at, s.versions) for s in store.list()]
    assert listed == [("a", 3, 1700000000, (1, 2, 3)), ("b/c", 1, 1700000000, (1,))]


def test_old_versions_are_dropped(store: EmbeddedStore) -> None:
    for number in range(KEPT_VERSIONS + 3):
        store.put("a", Secret(str(number).encode()))
    (listed,) = store.list()
    assert listed.versions == tuple(range(4, KEPT_VERSIONS + 4))


def test_rotation_needs_a_secret_and_another_value(store: EmbeddedStore) -> None:
    with pytest.raises(InvalidRequest, match="there is no secret 'a'"):
        store.rotate("a", Secret(b"1"))
    store.put("a", Secret(b"1"))
    with pytest.raises(InvalidRequest, match="has this value already"):
        store.rotate("a", Secret(b"1"))
    assert store.rotate("a", Secret(b"2")) == 2
    assert store.rotate("a", Secret(b"1")) == 3


def test_what_is_removed_is_gone_and_its_numbers_are_not_used_again(store: EmbeddedStore) -> None:
    store.put("a", Secret(b"1"))
    store.put("a", Secret(b"2"))
    assert store.remove("a") == 2
    assert store.list() == ()
    with pytest.raises(SecretUnavailable, match="there is no secret 'a'"):
        store.read("a")
    with pytest.raises(InvalidRequest, match="there is no secret 'a'"):
        store.remove("a")
    assert store.put("a", Secret(b"3")) == 3


@pytest.mark.parametrize("name", ["", "-a", ".a", "/a", "a b", "a@1", "a\n", "ä", "x" * 129])
def test_a_malformed_name_is_refused(store: EmbeddedStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="the name must be 1 to 128 letters"):
        store.put(name, Secret(b"1"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"", "is empty"), (b"x" * (MAX_SECRET_BYTES + 1), "65537 bytes, .* at most 65536")],
    ids=["empty", "huge"],
)
def test_a_value_that_is_no_credential_is_refused(
    store: EmbeddedStore, value: bytes, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        store.put("a", Secret(value))
    assert store.list() == ()


@pytest.mark.parametrize(
    "value", [b"\0", bytes(range(256)), b"x" * MAX_SECRET_BYTES], ids=["nul", "binary", "largest"]
)
def test_any_bytes_survive(store: EmbeddedStore, value: bytes) -> None:
    store.put("a", Secret(value))
    assert store.read("a").secret.reveal() == value


def test_the_file_is_private_and_holds_no_value(path: Path, store: EmbeddedStore) -> None:
    store.put("a", Secret(VALUE))
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert VALUE not in file.read_bytes()


def test_a_removed_secret_leaves_nothing_in_the_file(path: Path, store: EmbeddedStore) -> None:
    store.put("a", Secret(VALUE))
    with sqlite3.connect(path) as connection:
        (sealed,) = connection.execute("SELECT sealed_key FROM versions").fetchone()
    connection.close()
    assert any(sealed in file.read_bytes() for file in path.parent.iterdir())
    store.remove("a")
    assert not any(sealed in file.read_bytes() for file in path.parent.iterdir())


def test_two_stores_share_the_file(path: Path, store: EmbeddedStore) -> None:
    other = EmbeddedStore(path, MASTER)
    assert store.put("a", Secret(b"1")) == 1
    assert other.put("a", Secret(b"2")) == 2
    assert store.read("a").secret.reveal() == b"2"
    other.close()


def _put_many(path: Path, name: str) -> None:
    store = EmbeddedStore(path, MASTER)
    for number in range(10):
        store.put(name, Secret(f"{name}{number}".encode()))
    store.close()


def test_processes_take_turns(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(path, "shared")) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    store = EmbeddedStore(path, MASTER)
    assert [(s.name, s.version) for s in store.list()] == [("shared", 30)]
    store.close()


def test_c4_a_wrong_master_key_is_refused_even_for_an_empty_store(
    path: Path, store: EmbeddedStore
) -> None:
    other = MasterKey(b"\x06" * 32)
    with pytest.raises(ConfigurationError, match=r"secrets.db: wrong master key"):
        EmbeddedStore(path, other)
    store.put("a", Secret(b"1"))
    with pytest.raises(ConfigurationError, match=r"secrets.db: wrong master key"):
        EmbeddedStore(path, other)


ALTERATIONS = {
    "value": "UPDATE versions SET sealed_value = zeroblob(60) WHERE version = 2",
    "short value": "UPDATE versions SET sealed_value = x'00' WHERE version = 2",
    "key": "UPDATE versions SET sealed_key = zeroblob(70) WHERE version = 2",
    "key of another version": (
        "UPDATE versions SET sealed_key = "
        "(SELECT sealed_key FROM versions WHERE version = 1) WHERE version = 2"
    ),
    "moved to another version": "UPDATE versions SET version = 3 WHERE version = 2",
    "moved to another name": "UPDATE versions SET name = 'b' WHERE version = 2",
}


@pytest.mark.parametrize("statement", ALTERATIONS.values(), ids=ALTERATIONS)
def test_c4_an_altered_row_is_refused_with_its_name(path: Path, statement: str) -> None:
    store = EmbeddedStore(path, MASTER)
    store.put("a", Secret(b"first"))
    store.put("a", Secret(b"second"))
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises((SecretUnavailable, InvalidRequest)):
        _use_everything(store)
    store.close()
    with pytest.raises(
        ConfigurationError, match=r"version [23] of secret '[ab]' is damaged .*; stop the broker"
    ):
        EmbeddedStore(path, MASTER)


def _use_everything(store: EmbeddedStore) -> None:
    for listed in store.list():
        store.read(listed.name)
    store.rotate("b", Secret(b"second"))


@pytest.mark.parametrize("place", ["header", "page"])
def test_c4_a_damaged_file_is_refused(path: Path, place: str) -> None:
    store = EmbeddedStore(path, MASTER)
    store.put("a", Secret(b"x" * 20_000))
    store.close()
    damaged = bytearray(path.read_bytes())
    start = 0 if place == "header" else 4096
    damaged[start : start + 64] = b"\xff" * 64
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match=r"damaged.*restore the file from a backup"):
        EmbeddedStore(path, MASTER)


def test_a_write_that_fails_changes_nothing(path: Path, store: EmbeddedStore) -> None:
    store.put("a", Secret(b"1"))
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON versions "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    connection.close()
    with pytest.raises(StorageError, match="no room"):
        store.put("a", Secret(b"2"))
    (listed,) = store.list()
    assert listed.versions == (1,)


async def test_c3_a_store_in_its_place_is_noticed(path: Path, store: EmbeddedStore) -> None:
    """What is rotated from then on is in the other file: the old value must not be used on."""
    store.put("stripe", Secret(VALUE))
    other = path.with_name("other.db")
    with_more = EmbeddedStore(other, MASTER)
    with_more.put("stripe", Secret(b"another value"))
    with_more.close()
    other.replace(path)
    for work in (
        lambda: store.read("stripe"),
        lambda: store.rotate("stripe", Secret(b"a third value")),
        store.list,
    ):
        with pytest.raises(StorageError, match=r"secrets\.db: is not the file any more") as refusal:
            work()
        assert "another value" not in str(refusal.value)
    with pytest.raises(SecretUnavailable, match="start the broker anew"):
        await EmbeddedBackend(store).read("stripe")
