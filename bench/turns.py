"""Measure contenders turn and turn about, so that what else the machine does meets them all.

Capacity is nginx's processor time per request over a contender's, of the same round: how much of
nginx's load it would carry on the same core. It holds on machines of any speed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.load import Load, Measured, measure
from bench.processes import LOAD_CORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NGINX: Final = "nginx"
GATEWAY: Final = "gateway"


@dataclass(frozen=True)
class Contender:
    """A running proxy: where it is asked, and the processes whose time and memory count."""

    name: str
    url: str
    pids: tuple[int, ...]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Effort:
    """How much to measure: seconds a run, and runs of each kind."""

    seconds: int
    rounds: int


def take_turns(
    contenders: Sequence[Contender], connections: int, effort: Effort, body: str | None = None
) -> dict[str, dict[str, Any]]:
    """Measure each in each round; return the figures by name. One of them must be nginx."""
    measured: dict[str, list[Measured]] = {one.name: [] for one in contenders}
    for number in range(effort.rounds):
        for one in contenders:
            load = Load(connections, effort.seconds, LOAD_CORE, one.headers, body)
            measured[one.name].append(measure(one.url, one.pids, load, warm_up=0 if number else 1))
    return {one.name: summary(measured[NGINX], measured[one.name]) for one in contenders}


def summary(nginx: list[Measured], other: list[Measured]) -> dict[str, Any]:
    """Return the figures of the round whose ratio is the median, for rounds do not mix."""
    pairs = sorted(zip(nginx, other, strict=True), key=lambda pair: pair[0].cpu_us / pair[1].cpu_us)
    reference, median = pairs[len(pairs) // 2]
    return {
        "capacity_ratio": round(reference.cpu_us / median.cpu_us, 3),
        "capacity_ratios": [round(one.cpu_us / two.cpu_us, 3) for one, two in pairs],
        **asdict(median),
        "nginx": asdict(reference),
    }


def show(what: str, name: str, figures: Mapping[str, Any]) -> None:
    """Print one line of progress."""
    nginx = figures["nginx"]
    print(
        f"{what:<22} {name:<17} {figures['capacity_ratio']:5.3f} of nginx's capacity "
        f"({figures['cpu_us']:7.1f} us against {nginx['cpu_us']:5.1f}); "
        f"{figures['rps']:>7,.0f} requests/s; p50 {figures['p50_ms']:.2f} ms, "
        f"p99 {figures['p99_ms']:.2f} ms; {figures['rss_mib']:.0f} MiB",
        flush=True,
    )
