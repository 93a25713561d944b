from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import orjson
import pytest

from broker.audit.head import (
    BadHead,
    Head,
    head_path,
    parse_head,
    read_head,
    write_head,
    writers_with_head,
)
from broker.audit.statement import sign_statement
from tests.broker.audit.trails import signing_key, trusted

if TYPE_CHECKING:
    from pathlib import Path

HEAD = Head(
    writer="main",
    seq=42,
    hash="ab" * 32,
    time="2026-03-15T10:23:45.000000Z",
    segment="main-000000000001.jsonl",
    offset=1234,
    closed=False,
)


def test_a_head_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_head(tmp_path, HEAD, signing_key())
    assert read_head(tmp_path, "main", trusted()) == HEAD
    write_head(tmp_path, replace(HEAD, seq=43, closed=True), signing_key())
    assert read_head(tmp_path, "main", trusted()) == replace(HEAD, seq=43, closed=True)
    assert head_path(tmp_path, "main").stat().st_mode & 0o777 == 0o600
    assert HEAD.anchor == ("main", 42, "ab" * 32)


def test_a_head_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_head(tmp_path, "main", trusted()) is None
    assert writers_with_head(tmp_path) == []


def test_the_writers_that_have_a_head(tmp_path: Path) -> None:
    for name in ("main.head", "cli.head", ".main.head.0123", "main.lock", "worker.1.head"):
        (tmp_path / name).touch()
    assert writers_with_head(tmp_path) == ["cli", "main", "worker.1"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "not signed"),
        (orjson.dumps(asdict(HEAD)), "not signed"),
        (orjson.dumps({**asdict(HEAD), "signature": "x..y"}), "none of the trusted keys"),
    ],
)
def test_what_is_no_head_is_not_believed(tmp_path: Path, data: bytes, problem: str) -> None:
    head_path(tmp_path, "main").write_bytes(data)
    found = read_head(tmp_path, "main", trusted())
    assert isinstance(found, BadHead)
    assert problem in found.problem


@pytest.mark.parametrize("change", [{"seq": 41}, {"offset": 0}, {"closed": True}, {"more": 1}])
def test_a_changed_head_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    write_head(tmp_path, HEAD, signing_key())
    fields = orjson.loads(head_path(tmp_path, "main").read_bytes())
    found = parse_head(orjson.dumps(fields | change), trusted())
    assert found == BadHead("its signature is wrong")


def test_the_head_of_another_writer_is_not_believed(tmp_path: Path) -> None:
    write_head(tmp_path, replace(HEAD, writer="cli"), signing_key())
    head_path(tmp_path, "cli").rename(head_path(tmp_path, "main"))
    assert read_head(tmp_path, "main", trusted()) == BadHead("it is the head of writer cli")


def test_a_head_is_not_read_through_a_link(tmp_path: Path) -> None:
    write_head(tmp_path, HEAD, signing_key())
    head_path(tmp_path, "main").rename(tmp_path / "elsewhere")
    head_path(tmp_path, "main").symlink_to(tmp_path / "elsewhere")
    found = read_head(tmp_path, "main", trusted())
    assert isinstance(found, BadHead)
    assert "cannot be read" in found.problem


def test_a_signed_statement_that_is_no_head_is_not_believed() -> None:
    statement = {"writer": "main", "seq": 1}
    signed = {**statement, "signature": sign_statement(signing_key(), "head", statement)}
    found = parse_head(orjson.dumps(signed), trusted())
    assert found == BadHead("it lacks members, or has more than it should")
