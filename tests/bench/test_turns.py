from __future__ import annotations

from bench.load import Measured
from bench.turns import summary


def measured(cpu_us: float, p99_ms: float = 1.0) -> Measured:
    return Measured(rps=1000, p50_ms=0.5, p99_ms=p99_ms, cpu_us=cpu_us, rss_mib=80.0)


def test_figures_are_of_the_round_with_the_median_ratio() -> None:
    nginx = [measured(10.0), measured(12.0), measured(20.0)]
    ours = [measured(40.0, 9.0), measured(24.0, 3.0), measured(80.0, 7.0)]
    found = summary(nginx, ours)
    assert found["capacity_ratios"] == [0.25, 0.25, 0.5]
    assert found["capacity_ratio"] == 0.25
    assert found["cpu_us"] == 80.0
    assert found["nginx"]["cpu_us"] == 20.0
    assert found["p99_ms"] == 7.0
