from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.components.process import free_port

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTROL", "GATEWAY"):
        monkeypatch.setenv(f"BROKER_{name}_PORT", str(free_port()))


def test_a_healthy_home(broker: Commands) -> None:
    ran = broker.ok("doctor", "--json")
    assert ran.data["problems"] == 0
    assert "problem" not in {finding["state"] for finding in ran.data["findings"]}
    assert "All is well." in broker.ok("doctor").out


def test_a_problem_ends_with_status_1_and_its_remedy_on_one_line(broker: Commands) -> None:
    key = broker.home / "keys/master.key"
    key.chmod(0o644)
    ran = broker.run("doctor")
    assert ran.status == 1
    (line,) = [line for line in ran.out.splitlines() if "problem" in line]
    assert line.endswith(f"run: chmod 600 {key}")
    assert "1 to mend." in ran.out


def test_settings_that_do_not_load_are_findings(broker: Commands) -> None:
    (broker.home / "broker.toml").write_text('isuer = "x"\n[gateway]\nport = 70000\n')
    ran = broker.run("doctor", "--json")
    assert ran.status == 1
    assert [finding["subject"] for finding in ran.data["findings"]] == ["settings", "settings"]
    assert "did you mean 'issuer'" in ran.data["findings"][0]["text"]


def test_without_a_broker(bare: Commands) -> None:
    ran = bare.run("doctor")
    assert ran.status == 1
    assert "broker init" in ran.out
