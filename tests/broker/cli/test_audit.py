from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.home import Places, open_keys
from broker.app.trail import trusted_keys
from broker.audit.journal import Journal
from broker.settings import load_settings
from tests.broker.audit.trails import record, signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.cli.conftest import Commands


def write(broker: Commands, count: int = 3) -> None:
    keys = open_keys(load_settings(broker.home)).audit
    journal = Journal(Places(broker.home).audit, keys.signer, trusted_keys(keys))
    journal.open()
    journal.add([record() for _ in range(count)])
    journal.commit()
    journal.close()


def segment(broker: Commands) -> Path:
    return Places(broker.home).audit / "main-000000000001.jsonl"


def tamper(broker: Commands) -> None:
    segment(broker).write_bytes(segment(broker).read_bytes().replace(b"charges", b"Charges", 2))


@pytest.fixture
def filled(broker: Commands) -> Commands:
    write(broker)
    return broker


def test_a_whole_trail(filled: Commands) -> None:
    out = filled.ok("audit", "verify").out
    assert "main: 4 records, signed to 4, the last is 4:" in out
    assert "The trail is whole." in out
    data = filled.ok("audit", "verify", "--json").data
    assert data["whole"]
    assert data["findings"] == []
    assert data["writers"][-1]["last"]["seq"] == 4


def test_the_first_bad_record_is_named_and_the_status_is_1(filled: Commands) -> None:
    tamper(filled)
    ran = filled.run("audit", "verify")
    assert ran.status == 1
    assert "BAD main-000000000001.jsonl:1: record 1: it was changed" in ran.out
    assert "whole" not in ran.out
    ran = filled.run("audit", "verify", "--json")
    assert ran.status == 1
    assert not ran.data["whole"]
    (finding,) = ran.data["findings"]
    assert (finding["file"], finding["line"], finding["seq"]) == (segment(filled).name, 1, 1)


def test_notes_are_shown_and_are_no_findings(filled: Commands) -> None:
    keys = open_keys(load_settings(filled.home)).audit
    journal = Journal(Places(filled.home).audit, keys.signer, trusted_keys(keys))
    journal.open()
    journal.add([record()])
    journal.commit()
    journal.abandon()
    assert "note: 1 records are not signed yet" in filled.ok("audit", "verify").out


def anchors_of(broker: Commands) -> list[str]:
    return broker.ok("audit", "head").out.split()


def test_an_anchor_shows_that_an_older_state_was_put_back(filled: Commands, tmp_path: Path) -> None:
    audit = Places(filled.home).audit
    shutil.copytree(audit, tmp_path / "older")
    write(filled)
    anchors = anchors_of(filled)
    exported = tmp_path / "anchor.json"
    exported.write_text(filled.ok("audit", "head", "--json").out)
    given = [part for anchor in anchors for part in ("--anchor", anchor)]
    assert "whole" in filled.ok("audit", "verify", *given).out
    assert "whole" in filled.ok("audit", "verify", "--anchor", str(exported)).out
    shutil.rmtree(audit)
    shutil.copytree(tmp_path / "older", audit)
    assert "whole" in filled.ok("audit", "verify").out
    for option in (given, ["--anchor", str(exported)]):
        ran = filled.run("audit", "verify", *option)
        assert ran.status == 1
        assert "the tail was cut" in ran.out


def test_an_anchor_without_a_writer_is_the_brokers(filled: Commands) -> None:
    main = next(anchor for anchor in anchors_of(filled) if anchor.startswith("main:"))
    filled.ok("audit", "verify", "--anchor", main.removeprefix("main:"))
    ran = filled.run("audit", "verify", "--anchor", "2:" + "ab" * 32)
    assert ran.status == 1
    assert "record 2: it is not the record that the anchor names" in ran.out


def test_a_copy_can_be_verified_elsewhere_with_the_public_key_alone(
    filled: Commands, bare: Commands, tmp_path: Path
) -> None:
    exported = tmp_path / "head.json"
    exported.write_text(filled.ok("audit", "head", "--json").out)
    copy = shutil.copytree(Places(filled.home).audit, tmp_path / "copy")
    shutil.rmtree(filled.home)
    out = bare.ok("audit", "verify", "--dir", str(copy), "--key", str(exported)).out
    assert "whole" in out
    keys = tmp_path / "keys.json"
    for jwk in (json.loads(exported.read_text())["keys"][0], dict(signing_key(5).public_jwk())):
        keys.write_text(json.dumps(jwk))
        ran = bare.run("audit", "verify", "--dir", str(copy), "--key", str(keys))
        assert ran.status == int(jwk["kid"] == signing_key(5).kid)


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--key", None, "No such file"),
        ("--key", "{", "is not JSON"),
        ("--key", "[]", "expected a JSON object"),
        ("--key", {"keys": 5}, "expected a JWK"),
        ("--key", {"kty": "RSA", "kid": "x"}, "expected a JWK"),
        ("--key", {"kty": "EC", "kid": "x", "d": "private"}, "private key"),
        ("--anchor", None, "No such file"),
        ("--anchor", "", "is not JSON"),
        ("--anchor", {"writer": "main", "seq": 1}, "not signed"),
        ("--anchor", {"heads": 7}, "not a JSON object"),
    ],
)
def test_what_cannot_be_used_is_refused(
    filled: Commands, tmp_path: Path, option: str, content: Any, said: str
) -> None:
    path = tmp_path / "given"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    said_by_it = filled.refused("audit", "verify", option, str(path))
    assert said in said_by_it
    assert 'private"' not in said_by_it


def test_a_head_that_was_tampered_with_is_not_handed_out(filled: Commands) -> None:
    head = Places(filled.home).audit / "main.head"
    head.write_bytes(head.read_bytes().replace(b'"seq":4', b'"seq":3'))
    assert "its signature is wrong" in filled.refused("audit", "head")


def test_a_trail_that_is_not_there_is_a_finding(filled: Commands) -> None:
    shutil.rmtree(Places(filled.home).audit)
    ran = filled.run("audit", "verify")
    assert ran.status == 1
    assert "there is no such directory" in ran.out
