"""Run the differential test at length: `python -m tests.differential --count 1000000 --seed 1`.

It is done in rounds, each with a seed of its own: the first is `--seed`, and they count on. With
`--case` one case of a seed is run alone. Exits with 1 if anything is found.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path
from shutil import which
from typing import Final

import uvloop

from tests.differential.cases import make
from tests.differential.run import Outcome, cases_of, run_round

ROUND: Final = 10_000


def main() -> int:
    """Read the arguments, run the rounds, print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--count", type=int, default=ROUND, help="how many cases (10000)")
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed (1)")
    parser.add_argument("--case", type=int, help="run this one case of the seed")
    arguments = parser.parse_args()
    nginx = which("nginx")
    if nginx is None:
        parser.error("nginx is missing; on Debian or Ubuntu: apt-get install nginx-light")
    logging.disable(logging.WARNING)
    begun, total = time.monotonic(), Outcome()
    rounds = max(1, -(-arguments.count // ROUND)) if arguments.case is None else 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for seed in range(arguments.seed, arguments.seed + rounds):
            if arguments.case is not None:
                cases = [make(seed, arguments.case)]
            else:
                left = arguments.count - (seed - arguments.seed) * ROUND
                cases = cases_of(seed, min(ROUND, left))
            with tempfile.TemporaryDirectory(prefix="differential-") as folder:
                outcome = runner.run(run_round(Path(folder), nginx, cases, seed=seed))
            total.add(outcome)
            seconds = time.monotonic() - begun
            print(f"seed {seed}: {len(cases)} cases, {outcome.share:.0%} sent on, "  # noqa: T201
                  f"{len(outcome.problems)} problems, {seconds:.0f} s", flush=True)  # fmt: skip
            for problem in outcome.problems[:20]:
                print(problem, flush=True)  # noqa: T201
    print("\n".join(total.lines()))  # noqa: T201
    return 1 if total.problems else 0


if __name__ == "__main__":
    sys.exit(main())
