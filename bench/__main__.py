"""Measure the broker beside what a user would pick instead: `make bench`.

The exit code is 1 if the gateway is below its floor, or if something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.crowd import bombs, slow_clients
from bench.events import events
from bench.gateway import get_1k, post_2k, tls_get_1k
from bench.machine import machine, versions
from bench.peers.base import ENVIRONMENT
from bench.peers.start import PEERS
from bench.processes import LOAD_CORE, MissingProgram
from bench.report import FLOOR, floor_ratio, targets, write_report
from bench.scrub import scrub
from bench.token import post_token
from bench.turns import Effort

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS: Final = Path(__file__).parent / "results"
LATEST: Final = RESULTS / "latest.json"
WHOLE_ROUNDS: Final = 3
"""Rounds that a run must have for its figures to be kept: a median of fewer says little."""

PARTIAL: Final = RESULTS / "partial.json"
"""Where a run of some measurements goes, so that the latest is always of one whole run."""

GATEWAYS: Final[dict[str, Callable[[Effort], dict[str, Any]]]] = {
    "post_2k": post_2k,
    "tls_get_1k": tls_get_1k,
    "events": events,
    "slow_clients": slow_clients,
    "bombs": bombs,
    "scrub": scrub,
}
SCENARIOS: Final = ("get_1k", *GATEWAYS, "token")


def main() -> int:
    """Run the benchmarks and keep the figures."""
    arguments = _arguments()
    if not {0, LOAD_CORE} <= os.sched_getaffinity(0):
        print("two cores are needed: one for the proxy, one for the load", file=sys.stderr)
        return 1
    effort = Effort(arguments.seconds, arguments.rounds)
    # What is started here says itself where it runs; the harness shall not be in the proxy's way.
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        figures = {"machine": machine(), "versions": versions()}
        figures |= _measure(effort, arguments.only, arguments.peers)
    except MissingProgram as missing:
        print(missing, file=sys.stderr)
        return 1
    whole = (
        not figures["failed"]
        and arguments.rounds >= WHOLE_ROUNDS
        and set(arguments.only) == set(SCENARIOS)
        and set(arguments.peers) == set(PEERS)
    )
    file = LATEST if whole else PARTIAL
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(figures, indent=2) + "\n")
    for line in targets(figures):
        print(line)
    print(f"the figures are in {file.relative_to(Path.cwd())}")
    if whole:
        _keep(figures)
    ratio = floor_ratio(figures)
    return 1 if figures["failed"] or (ratio is not None and ratio < FLOOR) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="length of a run (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind (default: 5)")
    parser.add_argument(
        "--only",
        type=_names(SCENARIOS),
        default=list(SCENARIOS),
        help=f"what to measure, with commas between: {', '.join(SCENARIOS)} (default: all)",
    )
    parser.add_argument(
        "--peers",
        type=_names((*PEERS, "none")),
        default=list(PEERS),
        help=f"whom to measure beside: {', '.join(PEERS)}, or none (default: all)",
    )
    return parser.parse_args()


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: not known; expected {', '.join(known)}"
            )
        return [name for name in names if name != "none"]

    return parse


def _measure(effort: Effort, only: list[str], wanted: list[str]) -> dict[str, Any]:
    gateway: dict[str, Any] = {}
    figures: dict[str, Any] = {"gateway": gateway, "peers": {}, "skipped": {}, "failed": {}}

    def beside_peers() -> None:
        gateway["get_1k"], figures["peers"], figures["skipped"] = get_1k(effort, wanted)

    def of_token() -> None:
        figures["token"] = post_token(effort.seconds * 500, effort.rounds)

    apart: dict[str, Callable[[], None]] = {"get_1k": beside_peers, "token": of_token}
    for name in only:
        try:
            if name in apart:
                apart[name]()
            else:
                gateway[name] = GATEWAYS[name](effort)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            # The others may still be worth knowing; the exit code tells of this one.
            figures["failed"][name] = str(error)
            print(f"FAILED {name}: {error}", flush=True)
    return figures


def _keep(figures: dict[str, Any]) -> None:
    """Keep a whole run under its time as well, and write the documentation's tables and plot."""
    measured_at = str(figures["machine"]["measured_at"])
    stamp = measured_at[:16].replace(":", "").replace("-", "")
    (RESULTS / f"{stamp}Z.json").write_text(LATEST.read_text())
    write_report(figures)
    python = ENVIRONMENT / "bin" / "python"
    if python.exists():
        subprocess.run([str(python), "-m", "bench.plot", str(LATEST)], check=True)
    else:
        print(f"no plot: {ENVIRONMENT.name} is not there, run `make bench`", flush=True)


if __name__ == "__main__":
    sys.exit(main())
