from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.report import BEGIN, DOCUMENT, END, floor_ratio, tables, targets, write_report

if TYPE_CHECKING:
    from pathlib import Path

LATEST = DOCUMENT.parent.parent / "bench" / "results" / "latest.json"


def case(ratio: float) -> dict[str, Any]:
    one = {"rps": 40000, "p50_ms": 0.7, "p99_ms": 1.9, "cpu_us": 24.0, "rss_mib": 80.0}
    return {
        "capacity_ratio": ratio,
        "capacity_ratios": [ratio - 0.01, ratio, ratio + 0.01],
        **one,
        "nginx": {**one, "cpu_us": 12.0},
    }


def figures(ratio: float = 0.5) -> dict[str, Any]:
    crowd = {
        "p99_ratio": 2.5,
        "memory_growth_mib": 12.0,
        "alone": {"p99_ms": 2.0},
        "beside": {"p99_ms": 5.0},
    }
    return {
        "machine": {
            "processor": "a processor",
            "cores": "2",
            "kernel": "6.1",
            "python": "3.11",
            "load_before": "0.10",
            "measured_at": "2026-03-15T10:23:45+00:00",
        },
        "versions": {"nginx": "nginx version: nginx/1.22.1"},
        "gateway": {"get_1k": {"32": case(ratio)}, "slow_clients": crowd},
        "peers": {"envoy_ext_authz": {"get_1k": {"32": case(0.2)}}},
        "skipped": {"haproxy_lua": "haproxy was not found. On Debian: apt-get install haproxy"},
        "failed": {},
        "token": {"ratio_to_crypto": 15.0, "cpu_us": 1000.0, "crypto_us": 66.0},
    }


def test_each_target_is_said_to_be_met_or_missed() -> None:
    lines = list(targets(figures(0.45)))
    assert lines[0].startswith("met    floor of the capacity")
    assert lines[1].startswith("MISSED target of the capacity")
    assert any(line.startswith("met    ahead of envoy_ext_authz: 0.45") for line in lines)
    assert any(line.startswith("MISSED slow_clients: p99") for line in lines)
    assert any(line.startswith("met    slow_clients: MiB") for line in lines)
    assert lines[-1].startswith("not measured: haproxy_lua: haproxy was not found")


def test_without_the_measurement_there_is_no_floor() -> None:
    assert floor_ratio({"gateway": {}}) is None
    assert floor_ratio(figures(0.39)) == 0.39


def test_tables_hold_every_measurement_and_what_was_skipped() -> None:
    text = tables(figures())
    assert "| gateway, GET 1 KB, 32 connections | **0.50** | 0.49 to 0.51 | 24.0 | 12.0 |" in text
    assert "| Envoy with ext_authz in Python | **0.20** |" in text
    assert "Not measured: haproxy_lua (haproxy was not found" in text
    assert "memory grew by 12 MiB" in text


def test_the_report_replaces_what_it_wrote_before(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}\nold figures\n{END}\nafter\n")
    write_report(figures(), document)
    write_report(figures(0.6), document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old figures" not in text
    assert "**0.60**" in text
    assert "**0.50**" not in text


def test_a_document_without_the_place_for_it_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("nothing to replace\n")
    with pytest.raises(ValueError, match=r"performance\.md lacks the lines"):
        write_report(figures(), document)
    assert document.read_text() == "nothing to replace\n"


def test_what_is_kept_is_what_the_documentation_says() -> None:
    latest = json.loads(LATEST.read_text())
    found = latest["gateway"]["get_1k"]["32"]
    assert {"capacity_ratio", "cpu_us", "rps", "p50_ms", "p99_ms"} <= set(found)
    assert latest["token"]["ratio_to_crypto"] > 0
    assert tables(latest) in DOCUMENT.read_text(), (
        "run `make bench`, or undo what changed one of both"
    )
