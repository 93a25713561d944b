"""Measure the broker beside what a user would pick instead: `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.gateway import get_1k
from bench.processes import MissingProgram, program
from bench.token import post_token

RESULTS: Final = Path(__file__).parent / "results" / "latest.json"
FLOOR: Final = 0.40
FLOOR_CONNECTIONS: Final = "32"


def main() -> int:
    """Run every benchmark and keep the figures; 1 if the gateway is below its floor."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of a run (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default: 3)")
    arguments = parser.parse_args()
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        print("two cores are needed: one for the proxy, one for the load", file=sys.stderr)
        return 1
    try:
        versions = {name: _version(name) for name in ("nginx", "wrk")}
        print("GET of 1 KB, policy of 21 rules, ES256 task token, durable audit trail")
        figures = {
            "gateway": {"get_1k": get_1k(arguments.seconds, arguments.rounds)},
            "token": post_token(arguments.seconds * 500, arguments.rounds),
        }
    except MissingProgram as missing:
        print(missing, file=sys.stderr)
        return 1
    _keep({**figures, "machine": _machine(), "versions": versions})
    ratio = figures["gateway"]["get_1k"][FLOOR_CONNECTIONS]["capacity_ratio"]
    verdict = "above" if ratio >= FLOOR else "BELOW"
    print(f"{verdict} the floor of {FLOOR:.2f} at {FLOOR_CONNECTIONS} connections; see {RESULTS}")
    return 0 if ratio >= FLOOR else 1


def _keep(figures: dict[str, Any]) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**known, **figures}, indent=2) + "\n")


def _machine() -> dict[str, str]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    done = subprocess.run([program(name), "-v"], check=False, capture_output=True, text=True)
    return (done.stderr + done.stdout).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
