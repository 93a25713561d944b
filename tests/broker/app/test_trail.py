from __future__ import annotations

import os
import pwd
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.app.home import Places, create_home, open_keys
from broker.app.trail import close_left_chains, recorded, trusted_keys
from broker.audit.journal import Journal
from broker.audit.query import Reader
from broker.audit.verify import verify
from broker.errors import AuditUnavailable, ConfigurationError
from broker.keys.signing import KeySet
from broker.model import AuditRecord
from broker.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from broker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        monkeypatch.delenv(name)
    settings = load_settings(tmp_path / "home")
    create_home(settings)
    return settings


def stored(settings: Settings) -> list[dict[str, object]]:
    return [r for r in Reader(Places(settings.home).audit).read() if "operation" in r]


def test_what_a_person_does_is_recorded_before_and_after(settings: Settings) -> None:
    with recorded(settings, "secret.put", "embedded:stripe", service="stripe"):
        (intent,) = stored(settings)
        assert intent["phase"] == "intent"
    intent, outcome = stored(settings)
    assert outcome["operation"] == intent["operation"]
    assert outcome["subject"] == f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    assert (outcome["action"], outcome["phase"], outcome["decision"], outcome["detail"]) == (
        "secret.put",
        "outcome",
        "allow",
        "embedded:stripe",
    )
    report = verify(Places(settings.home).audit, trusted_keys(open_keys(settings).audit))
    assert report.whole


def test_the_outcome_says_what_came_of_it(settings: Settings) -> None:
    with recorded(settings, "grant.revoke", "agent bot", agent="bot", reason="lost") as note:
        note("3 grants")
    with recorded(settings, "grant.revoke", "grant x", grant="x"):
        pass
    intent, outcome, _, other = stored(settings)
    assert (intent["detail"], outcome["detail"]) == ("agent bot", "agent bot: 3 grants")
    assert (outcome["agent"], outcome["reason"]) == ("bot", "lost")
    assert (other["grant"], other["detail"]) == ("x", "grant x")


def test_what_fails_is_recorded_with_its_cause(settings: Settings) -> None:
    with (
        pytest.raises(ConfigurationError),
        recorded(settings, "secret.put", "embedded:stripe"),
    ):
        raise ConfigurationError("there is no such thing")
    outcome = stored(settings)[-1]
    assert outcome["decision"] == "error"
    assert outcome["detail"] == "embedded:stripe: ConfigurationError: there is no such thing"


def test_the_text_of_a_foreign_error_is_not_recorded(settings: Settings) -> None:
    with pytest.raises(ValueError, match="hunter2"), recorded(settings, "secret.put", "x"):
        raise ValueError("hunter2 is not a number")
    assert stored(settings)[-1]["detail"] == "x: ValueError"


def test_without_a_record_nothing_is_done(settings: Settings) -> None:
    audit = Places(settings.home).audit
    (audit / "cli-000000000001.jsonl").mkdir()
    done = False
    with (
        pytest.raises((AuditUnavailable, ConfigurationError)),
        recorded(settings, "secret.put", "embedded:stripe"),
    ):
        done = True
    assert not done


def test_a_retired_key_is_still_trusted_for_what_it_signed(settings: Settings) -> None:
    (state,) = open_keys(settings).audit.keys
    retired = KeySet((type(state)(state.key, 0, 0, retired_at=1),))
    assert retired.public_jwks() == {"keys": []}
    assert [jwk["kid"] for jwk in trusted_keys(retired).jwks] == [state.key.kid]


def test_chains_of_workers_without_a_successor_are_closed(settings: Settings) -> None:
    keys, place = open_keys(settings).audit, Places(settings.home).audit
    trusted = trusted_keys(keys)
    journals = {
        name: Journal(place, keys.signer, trusted, writer=name)
        for name in ("main", "main.2", "main.3", "main.4")
    }
    for name, journal in journals.items():
        journal.open()
        journal.add([AuditRecord(0.0, "test.act", "outcome", name, "allow")])
        journal.commit()
        if name != "main.4":
            journal.abandon()  # as the end of its process would
    close_left_chains(replace(settings, workers=2), keys)
    report = verify(place, trusted)
    assert report.whole
    closed = {one.writer: one.closed for one in report.writers}
    assert closed == {"main": False, "main.2": False, "main.3": True, "main.4": False}
    signed = {one.writer: (one.records, one.signed) for one in report.writers}
    assert signed["main.3"][0] == signed["main.3"][1]
    journals["main.4"].close()
    before = {path.name: path.read_bytes() for path in place.glob("main.[34]*")}
    close_left_chains(replace(settings, workers=2), keys)
    assert before == {path.name: path.read_bytes() for path in place.glob("main.[34]*")}
