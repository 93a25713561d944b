"""What it costs to search responses for the credential: one gateway with, one without.

Both run on core 0 and are measured in turn, with the load and the upstream on core 1. The bodies
are JSON as APIs send it; the credential is not in them.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from bench.broker import running_broker
from bench.load import Load, Measured, measure
from bench.nginx import nginx_upstream
from bench.processes import LOAD_CORE, PROXY_CORE, MissingProgram
from bench.turns import Effort

if TYPE_CHECKING:
    from bench.broker import Broker

KEY: Final = "sk_live_51MqLiJLkdIwHu7ixYtRbA2pQz"
RESULT: Final = Path(__file__).parent / "results" / "scrub.json"
_RECORD: Final = {
    "id": "ch_3MqLiJLkdIwHu7ix0sNoMQ2e",
    "amount": 1099,
    "description": 'Order 4711,\n"express"',
    "receipt_url": "https://pay.example.com/receipts/CAcaFwoVYWNjdF8xSGw%3D?s=ap",
    "metadata": {"order": None, "paid": True},
}
SIZES: Final = {"1 KB": (1 << 10, 32), "1 MiB": (1 << 20, 4)}
"""How large a body is, in bytes, and over how many connections it is asked for."""


def scrub(effort: Effort) -> dict[str, Any]:
    """Measure each size with and without; return the figures by size."""
    text = (json.dumps(_RECORD) + ",\n").encode() * ((1 << 20) // 200)
    files = {str(size): text[:size] for size, _ in SIZES.values()}
    with TemporaryDirectory(prefix="broker-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, nginx reads files as another user
        upstream = stack.enter_context(nginx_upstream(folder, LOAD_CORE, files))
        pair = []
        for on in (False, True):
            home = folder / f"broker-{on}"
            home.mkdir()
            broker = running_broker(home, PROXY_CORE, upstream, KEY, scrub=on)
            pair.append(stack.enter_context(broker))
        figures = {}
        for label, (size, connections) in SIZES.items():
            # Turn and turn about, so that what else the machine does meets both.
            measured = [
                [_measure(broker, size, connections, effort.seconds) for broker in pair]
                for _ in range(effort.rounds)
            ]
            figures[label] = _summary(measured)
            _show(label, figures[label])
        return figures


def _measure(broker: Broker, size: int, connections: int, seconds: int) -> Measured:
    headers = {"Authorization": f"Bearer {broker.token}"}
    url = f"http://127.0.0.1:{broker.port}/api/v1/files/{size}"
    return measure(url, [broker.pid], Load(connections, seconds, LOAD_CORE, headers))


def _summary(measured: list[list[Measured]]) -> dict[str, Any]:
    # The round of median ratio stands for all: figures of different rounds do not mix.
    ordered = sorted(measured, key=lambda pair: pair[1].cpu_us / pair[0].cpu_us)
    off, on = ordered[len(ordered) // 2]
    return {
        "cpu_ratio": round(on.cpu_us / off.cpu_us, 3),
        "cpu_ratios": [round(two.cpu_us / one.cpu_us, 3) for one, two in ordered],
        "on": asdict(on),
        "off": asdict(off),
    }


def _show(label: str, figures: dict[str, Any]) -> None:
    on, off = figures["on"], figures["off"]
    print(
        f"GET of {label}: scrubbing costs {on['cpu_us'] - off['cpu_us']:.1f} us a response "
        f"({on['cpu_us']:.1f} us against {off['cpu_us']:.1f} us of processor, "
        f"{figures['cpu_ratio']:.2f} times as much); {on['rps']:,.0f} against "
        f"{off['rps']:,.0f} requests/s; p99 {on['p99_ms']:.2f} ms against {off['p99_ms']:.2f} ms",
        flush=True,
    )


def main() -> int:
    """Measure, and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scrub", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of a run (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default: 3)")
    arguments = parser.parse_args()
    try:
        figures = scrub(Effort(arguments.seconds, arguments.rounds))
    except MissingProgram as missing:
        print(missing, file=sys.stderr)
        return 1
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
