from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, Chain, Position, digest
from broker.repeated import RecordTemplate, RepeatedRecord
from tests.broker.audit.samples import CREDENTIALS
from tests.broker.audit.trails import NOON, record


def written(**changes: Any) -> dict[str, Any]:
    return dict(orjson.loads(Chain("main").add(record(**changes))))


def test_a_line_holds_the_record_its_place_and_its_link() -> None:
    line = Chain("main", Position(41, "ab" * 32)).add(record(operation="op-1", detail="fine"))
    assert orjson.loads(line) == {
        "v": 1,
        "writer": "main",
        "seq": 42,
        "time": "2026-03-15T10:23:45.123456Z",
        "action": "proxy.request",
        "phase": "outcome",
        "operation": "op-1",
        "decision": "allow",
        "method": "GET",
        "path": "/v1/charges",
        "status": 200,
        "latency_ms": 142.0,
        "agent": "release-bot",
        "issuer": "https://issuer.example.com",
        "subject": "repo:acme/app:ref:refs/heads/main",
        "service": "stripe",
        "scope": "stripe.read",
        "rule": "GET /v1/**",
        "detail": "fine",
        "prev": "ab" * 32,
    }


OWN = {
    "status": st.none() | st.integers(100, 599),
    "latency_ms": st.none() | st.floats(0, 1e9),
    "bytes_in": st.none() | st.integers(0, 1 << 60),
    "bytes_out": st.none() | st.integers(0, 1 << 60),
}


@given(
    times=st.lists(st.floats(0, 4e9), min_size=1, max_size=3),
    own=st.fixed_dictionaries(OWN),
    common=st.fixed_dictionaries(
        {"path": st.none() | st.text(), "detail": st.none() | st.text(), "reason": st.text()}
    ),
)
def test_a_repeated_record_makes_the_line_of_the_whole_one(
    times: list[float], own: dict[str, Any], common: dict[str, Any]
) -> None:
    template = RecordTemplate(record(time=7.0, operation="another", status=418, **common))
    here, there = Chain("main"), Chain("main")
    for number, time in enumerate(times):
        repeated = RepeatedRecord(time, template, f"op-{number}", **own)
        whole = record(time=time, operation=f"op-{number}", **common, **own)
        assert repeated.whole() == whole
        assert here.add(repeated) == there.add(whole)


def test_lines_are_linked_by_their_digests() -> None:
    chain = Chain("main")
    first, second = chain.add(record()), chain.add(record())
    assert orjson.loads(first)["prev"] == GENESIS
    assert orjson.loads(second)["prev"] == hashlib.sha256(first).hexdigest() == digest(first)
    assert chain.position == Position(2, digest(second))


def test_a_chain_goes_back_to_where_it_was() -> None:
    chain = Chain("main")
    chain.add(record())
    position = chain.position
    first = chain.add(record(operation="x"))
    chain.position = position
    assert chain.add(record(operation="x")) == first


def test_every_field_can_be_recorded() -> None:
    fields = {
        "agent": "a", "issuer": "b", "subject": "c", "grant": "d", "task": "e", "reason": "f",
        "service": "g", "scope": "h", "rule": "i", "method": "j", "path": "/k", "status": 1,
        "latency_ms": 2.5, "bytes_in": 3, "bytes_out": 4, "risk": "low", "policy_version": "l",
        "source_address": "m", "detail": "n",
    }  # fmt: skip
    stored = written(**fields)
    assert {name: stored[name] for name in fields} == fields


def test_what_is_not_known_is_left_out() -> None:
    fields = record()._asdict()
    nothing = dict.fromkeys([name for name in fields if name not in {"time", "action", "phase",
                             "operation", "decision"}])  # fmt: skip
    assert set(written(**nothing)) == {
        "v", "writer", "seq", "time", "action", "phase", "operation", "decision", "prev",
    }  # fmt: skip


@pytest.mark.parametrize("field", ["task", "reason", "service", "scope", "rule", "detail"])
def test_secrets_and_personal_data_are_taken_out(field: str) -> None:
    text = f"for jane@example.com with {CREDENTIALS['GitHub personal token']}\nand more"
    assert written(**{field: text})[field] == (
        "for [redacted:email] with [redacted:github-token]\\nand more"
    )


@pytest.mark.parametrize("field", ["agent", "issuer", "subject"])
def test_principals_keep_their_addresses(field: str) -> None:
    text = f"jane@example.com {CREDENTIALS['JWT']}"
    assert written(**{field: text})[field] == "jane@example.com [redacted:jwt]"


@pytest.mark.parametrize("field", ["method", "path", "subject", "reason"])
def test_nothing_breaks_the_line_or_hides_in_it(field: str) -> None:
    line = Chain("main").add(record(**{field: "a\r\nb\u202e\x1b[2J\ud800\u2028"}))
    assert line.count(b"\n") == 1
    assert orjson.loads(line)[field] == "a\\r\\nb\\u202e\\x1b[2J\\ud800\\u2028"


@given(st.text(st.characters()), st.text(st.characters()), st.floats(0, 4e9))
def test_whatever_is_recorded_is_one_line_of_json(reason: str, path: str, time: float) -> None:
    line = Chain("main").add(record(reason=reason, path=path, time=time))
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert orjson.loads(line)["seq"] == 1


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (NOON, "2026-03-15T10:23:45.123456Z"),
        (1_773_570_225.999_999_5, "2026-03-15T10:23:45.999999Z"),
        (-0.5, "1969-12-31T23:59:59.500000Z"),
    ],
)
def test_times(time: float, text: str) -> None:
    assert Chain("main").timestamp(time) == text


def test_what_grants_share_is_encoded_once_and_never_mixed_up() -> None:
    chain = Chain("main")
    lines = [chain.add(record(task=f"task {n % 3000}", detail=str(n))) for n in range(6000)]
    stored = [orjson.loads(line) for line in lines]
    assert [item["task"] for item in stored] == [f"task {n % 3000}" for n in range(6000)]
    assert [item["detail"] for item in stored] == [str(n) for n in range(6000)]


def test_records_of_the_trails_own_stand_in_the_same_chain() -> None:
    chain = Chain("main")
    first = chain.add(record())
    own = orjson.loads(chain.add_own(NOON, {"action": "audit.recover", "detail": "x"}))
    assert own == {
        "v": 1,
        "writer": "main",
        "seq": 2,
        "time": "2026-03-15T10:23:45.123456Z",
        "action": "audit.recover",
        "detail": "x",
        "prev": digest(first),
    }
