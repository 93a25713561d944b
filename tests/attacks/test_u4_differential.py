"""U4, U2, U3, P1 to P5: what the gateway sends on is what policy judged, whoever reads it.

Ten thousand mutated connections; `python -m tests.differential` sends a million. See the modules
of `tests/differential` for how they are made and what they are held against.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
import uvloop

from broker.gateway import framing, inject, sign
from broker.gateway.request import RequestFields
from broker.gateway.route import Route
from broker.model import Allow
from broker.policy.body import BodyRule
from tests.differential.cases import Case, make
from tests.differential.mutations import MUTATIONS
from tests.differential.run import Outcome, cases_of, run_round

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from broker.gateway.authorize import Admission
    from broker.gateway.inject import Credential
    from tests.components.gate import Gate

    Run = Callable[[Sequence[Case], int], Outcome]


@pytest.fixture
def run(component: Gate, tmp_path: Path) -> Run:
    nginx = component.program("nginx", "apt-get install nginx-light")

    def run_here(cases: Sequence[Case], seed: int) -> Outcome:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_round(tmp_path, nginx, cases, seed=seed))

    return run_here


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_u4_upstreams_see_what_was_judged_and_nothing_else(run: Run, seed: int) -> None:
    outcome = run(cases_of(seed, 2500), seed)
    assert not outcome.problems, "\n".join(outcome.problems[:5])
    # Were nearly everything refused, this would show nothing. It is a third, and less where the
    # machine is so slow that senders give up.
    assert outcome.share > 0.15
    assert outcome.untraced < outcome.requests / 50
    for kind in MUTATIONS:
        assert outcome.admitted[kind] > 0, kind


FOUND_BEFORE = [
    # The task token in a cookie without `=`, or in a header's name, was sent on.
    Case(0, "tokens",
    b"GET /api/v1/c0.0.9b7 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer @TOKEN@\r\n"
         b"Cookie: x@TOKEN@\r\n\r\n"),
    Case(1, "tokens",
    b"GET /api/v1/c1.0.9b7 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer @TOKEN@\r\n"
         b"X-@TOKEN@: y\r\n\r\n"),
]  # fmt: skip


def test_u4_what_was_found_once_is_not_found_again(run: Run) -> None:
    outcome = run(FOUND_BEFORE, 0)
    assert not outcome.problems
    assert outcome.refusals["token_misplaced"] == len(FOUND_BEFORE)


def test_u4_a_case_is_made_again_from_its_seed() -> None:
    assert make(7, 42) == make(7, 42)
    assert make(7, 42) != make(8, 42)


def allow_all(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = Allow("api.use", "* /**", "low")
    monkeypatch.setattr(Route, "judge", lambda *_: allowed)


def let_overrides_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inject, "_ALWAYS", inject._OF_THE_CONNECTION | {b"authorization"})


def forget_connection_options(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = inject.may_pass
    monkeypatch.setattr(inject, "may_pass", lambda one, _, kept: passes(one, frozenset(), kept))


def keep_the_agents_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inject, "_ALWAYS", inject._OF_THE_CONNECTION | inject._OVERRIDES)
    monkeypatch.setattr(inject, "twin", lambda key: key.replace(b"authorization", b"x"))


def send_two(monkeypatch: pytest.MonkeyPatch) -> None:
    head = inject.upstream_head

    def twice(admission: Admission, credential: Credential) -> bytes:
        one = head(admission, credential)
        return one + one if admission.request.method == b"GET" else one

    monkeypatch.setattr(sign, "upstream_head", twice)


def change_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    head = inject.upstream_head
    monkeypatch.setattr(sign, "upstream_head", lambda *both: head(*both).replace(b"/x ", b"/y ", 1))


def chunk_badly(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(content: bytes) -> bytes:
        return b"%x\n%b\r\n" % (len(content), content)

    monkeypatch.setattr("broker.gateway.upload.chunk", lenient)


def take_any_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = re.compile(rb"[ \t]*(?:0x)?([0-9A-Fa-f]+)[^\r]*")
    monkeypatch.setattr(framing, "_CHUNK_LINE", loose)
    monkeypatch.setattr(
        "broker.gateway.upload.chunk", lambda one: b"%x;\n\r\n%b\r\n" % (len(one), one)
    )


def judge_no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BodyRule, "problem", lambda *_: None)


def keep_the_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestFields, "reframed", lambda self, _: self)


INTERPRETED = pytest.mark.interpreted


@pytest.mark.parametrize(
    ("sabotage", "noticed"),
    [
        pytest.param(allow_all, "policy does not allow", marks=INTERPRETED),
        (judge_no_body, "a body was let through that policy refuses"),
        pytest.param(keep_the_framing, "not framed by its length alone", marks=INTERPRETED),
        pytest.param(let_overrides_pass, "is sent on", marks=INTERPRETED),
        pytest.param(forget_connection_options, "Connection names", marks=INTERPRETED),
        (keep_the_agents_credential, "the service's credential alone"),
        pytest.param(send_two, "than the trail has intents for", marks=INTERPRETED),
        pytest.param(change_the_path, "stands in its case less often", marks=INTERPRETED),
        (chunk_badly, "refuses what was sent on"),
        (take_any_chunk_size, "refuses what was sent on"),
    ],
)  # fmt: skip
def test_u4_a_broken_gateway_would_be_noticed(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Callable[[pytest.MonkeyPatch], None],
    noticed: str,
) -> None:
    sabotage(monkeypatch)
    outcome = run(cases_of(5, 400), 5)
    assert any(noticed in problem for problem in outcome.problems)
    assert not any("eyJ" in problem for problem in outcome.problems)
