"""Write what was measured into docs/performance.md, and say which targets it meets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN: Final = "<!-- Between these lines: written by `make bench`. -->"
END: Final = "<!-- End of what `make bench` writes. -->"

FLOOR: Final = 0.40
FLOOR_CONNECTIONS: Final = "32"

_NAMES: Final = {
    "envoy_ext_authz": "Envoy with ext_authz in Python",
    "haproxy_lua": "HAProxy with Lua, tokens not verified",
    "haproxy_jwt": "HAProxy with Lua, each token verified",
    "haproxy_spoe": "HAProxy asking an agent in Python (SPOE)",
    "mitmproxy_addon": "mitmproxy with an addon",
    "node_undici": "Node with undici",
}
_CASES: Final = {
    "get_1k": ("GET 1 KB", "connection"),
    "post_2k": ("POST 2 KB", "connection"),
    "tls_get_1k": ("GET 1 KB, TLS upstream", "connection"),
    "events": ("events of 200 bytes, for each", "stream"),
}
_HEAD: Final = (
    "| | capacity of nginx's | rounds | µs CPU | nginx, µs CPU | per second | p50 / p99 ms | MiB |",
    "|---|---|---|---|---|---|---|---|",
)


def floor_ratio(figures: dict[str, Any]) -> float | None:
    """Return what the floor is about, if it was measured."""
    found = figures["gateway"].get("get_1k", {}).get(FLOOR_CONNECTIONS)
    return None if found is None else float(found["capacity_ratio"])


def targets(figures: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each target of which there is a figure."""
    gateway, ours = figures["gateway"], floor_ratio(figures)

    def line(what: str, value: float, target: float, *, most: bool = False) -> str:
        met = value <= target if most else value >= target
        relation = "at most" if most else "at least"
        return f"{'met   ' if met else 'MISSED'} {what}: {value:.2f}, {relation} {target:.2f}"

    if ours is not None:
        yield line("floor of the capacity at 32 connections", ours, FLOOR)
        yield line("target of the capacity at 32 connections", ours, 0.50)
        for name, cases in figures.get("peers", {}).items():
            yield line(f"ahead of {name}", ours, cases["get_1k"]["32"]["capacity_ratio"])
    if "tls_get_1k" in gateway:
        yield line("TLS upstream", gateway["tls_get_1k"]["32"]["capacity_ratio"], 0.40)
    if "events" in gateway:
        yield line("events", gateway["events"]["256"]["capacity_ratio"], 0.80)
    for name in ("slow_clients", "bombs"):
        if name in gateway:
            found = gateway[name]
            yield line(f"{name}: MiB of growth", found["memory_growth_mib"], 64, most=True)
            yield line(f"{name}: p99 of good clients", found["p99_ratio"], 2.0, most=True)
    if "token" in figures:
        yield line("POST /token to raw crypto", figures["token"]["ratio_to_crypto"], 1.6, most=True)
    for name, reason in (figures.get("skipped", {}) | figures.get("failed", {})).items():
        yield f"not measured: {name}: {reason}"


def write_report(figures: dict[str, Any], document: Path = DOCUMENT) -> None:
    """Put the tables in their place in the document."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"{document.name} lacks the lines between which its tables belong")
    document.write_text(f"{before}{BEGIN}\n\n{tables(figures)}\n\n{END}{after}")


def tables(figures: dict[str, Any]) -> str:
    """Return all that was measured, as Markdown."""
    gateway, on = figures["gateway"], figures["machine"]
    rows = [
        _row(f"gateway, {what}, {number} {unit}{'' if number == '1' else 's'}", found)
        for case, (what, unit) in _CASES.items()
        for number, found in gateway.get(case, {}).items()
    ]
    peers = figures.get("peers", {}).items()
    rows += [_row(_NAMES[name], cases["get_1k"]["32"]) for name, cases in peers]
    skipped = [f"Not measured: {name} ({why})." for name, why in figures.get("skipped", {}).items()]
    said = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    return "\n".join(
        [
            (
                f"Measured {on['measured_at']} on {on['cores']} cores ({on['processor']}), kernel "
                f"{on['kernel']}, Python {on['python']}; load average before: {on['load_before']}. "
                f"{said}."
            ),
            "",
            *_HEAD,
            *rows,
            "",
            (
                "The other proxies: GET 1 KB, 32 connections, in the same rounds. The third column "
                "has the least and the greatest ratio of any round; the other figures are those "
                "of the round of median ratio."
            ),
            *skipped,
            "",
            *_crowds(gateway),
            *_scrubbing(gateway.get("scrub", {})),
            *_token(figures.get("token")),
            "",
            "![Capacity as a share of nginx's](performance.svg)",
        ]
    )


def _row(what: str, found: dict[str, Any]) -> str:
    ratios = found["capacity_ratios"]
    return (
        f"| {what} | **{found['capacity_ratio']:.2f}** | {min(ratios):.2f} to {max(ratios):.2f} "
        f"| {found['cpu_us']:.1f} | {found['nginx']['cpu_us']:.1f} | {found['rps']:,} "
        f"| {found['p50_ms']:.2f} / {found['p99_ms']:.2f} | {found['rss_mib']:.0f} |"
    )


def _crowds(gateway: dict[str, Any]) -> Iterator[str]:
    kinds = {
        "slow_clients": "2,000 slow clients (silent, with half a head, with a download unread)",
        "bombs": "192 bombs (downloads unread, uploads and heads without end)",
    }
    for name, what in kinds.items():
        if name in gateway:
            found = gateway[name]
            yield (
                f"- Beside {what}: memory grew by {found['memory_growth_mib']:.0f} MiB; p99 of "
                f"the good clients {found['beside']['p99_ms']:.2f} ms against "
                f"{found['alone']['p99_ms']:.2f} ms alone, {found['p99_ratio']:.2f} times as much "
                "in the median round."
            )


def _scrubbing(scrub: dict[str, Any]) -> Iterator[str]:
    for size, found in scrub.items():
        yield (
            f"- Scrubbing a clean response of {size}: {found['on']['cpu_us']:.1f} µs CPU a request "
            f"with, {found['off']['cpu_us']:.1f} µs without ({found['cpu_ratio']:.2f} times)."
        )


def _token(token: dict[str, Any] | None) -> Iterator[str]:
    if token:
        yield (
            f"- `POST /token`: {token['cpu_us']:.0f} µs CPU, {token['ratio_to_crypto']:.1f} times "
            f"the raw cryptography ({token['crypto_us']:.0f} µs)."
        )


if __name__ == "__main__":
    write_report(json.loads(Path(sys.argv[1]).read_text()))
