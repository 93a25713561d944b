from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from broker.cli.play import Stage, claims_of, describe

if TYPE_CHECKING:
    import pytest


def test_each_step_is_shown_with_its_command_and_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage()
    stage.step("It asks.", "curl x")
    stage.answer("HTTP 200 OK\nyes", passed=True)
    assert stage.passed
    assert capsys.readouterr().out == ("\n1  It asks.\n   $ curl x\n   HTTP 200 OK\n   yes\n")


def test_what_should_not_have_happened_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.step("It asks.", "curl x")
    assert not stage.passed
    stage.answer("HTTP 500", passed=False)
    assert not stage.passed
    assert "not what should have happened" in capsys.readouterr().out


def test_a_quiet_stage_keeps_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(quiet=True)
    stage.step("It asks.", "curl x")
    stage.answer("yes", passed=True)
    assert capsys.readouterr().out == ""
    assert stage.steps == [
        {"title": "It asks.", "command": "curl x", "answer": "yes", "passed": True}
    ]


def test_an_answer_is_described_by_status_marker_and_body() -> None:
    response = httpx.Response(
        403, headers={"Broker-Error": "policy_denied", "Other": "x"}, json={"rule": None}
    )
    assert describe(response) == (
        'HTTP 403 Forbidden\nBroker-Error: policy_denied\n{\n  "rule": null\n}'
    )
    assert describe(httpx.Response(200, text="a\x1b[2Jb")) == "HTTP 200 OK\na\\x1b[2Jb"


def test_claims_of_a_token() -> None:
    assert claims_of("e30.eyJhIjogMX0.sig") == {"a": 1}
