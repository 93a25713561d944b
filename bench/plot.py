"""Draw the capacities: `python -m bench.plot RESULTS` in the peers' own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

TARGET: Final = Path(__file__).parent.parent / "docs" / "performance.svg"
OURS: Final = "#1f6f8b"
OTHERS: Final = "#b7b7a4"


def bars(figures: dict[str, Any]) -> list[tuple[str, float, float, float, str]]:
    """Return a bar for each measurement: its label, median, least and greatest, and colour."""
    found = [
        (f"gateway: {case}, {number}", one, OURS)
        for case in ("get_1k", "post_2k", "tls_get_1k", "events")
        for number, one in figures["gateway"].get(case, {}).items()
    ]
    found += [
        (f"{name}: get_1k, 32", cases["get_1k"]["32"], OTHERS)
        for name, cases in figures.get("peers", {}).items()
    ]
    return [
        (label, one["capacity_ratio"], min(one["capacity_ratios"]), max(one["capacity_ratios"]), by)
        for label, one, by in found
    ]


def draw(figures: dict[str, Any], target: Path) -> None:
    """Write the plot as SVG, the same bytes for the same figures."""
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    shown = list(reversed(bars(figures)))
    labels, medians, least, most, colours = zip(*shown, strict=True)
    figure = Figure(figsize=(8, 0.32 * len(shown) + 1), layout="constrained")
    axes = figure.add_subplot()
    below = [median - low for median, low in zip(medians, least, strict=True)]
    above = [high - median for median, high in zip(medians, most, strict=True)]
    axes.barh(labels, medians, color=colours, xerr=(below, above), error_kw={"lw": 0.8})
    for place, median in enumerate(medians):
        axes.text(0.005, place, f"{median:.2f}", va="center", color="white", fontsize=8)
    axes.axvline(0.5, color="black", lw=0.8, ls=":")
    axes.set_xlim(0, max(1.0, *most))
    axes.set_xlabel("capacity as a share of nginx's, same run, same core (lines: all rounds)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), TARGET)
