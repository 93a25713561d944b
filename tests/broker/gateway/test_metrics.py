from __future__ import annotations

from prometheus_client import CollectorRegistry

from broker.gateway.metrics import GatewayMetrics


def test_requests_times_and_gauges() -> None:
    metrics, registry = GatewayMetrics(), CollectorRegistry()
    registry.register(metrics)
    metrics.watch("open_things", "Things.", lambda: 7)
    metrics.count("api", "allow", 200, 0.003)
    metrics.count("api", "allow", 200, 99.0)
    metrics.count(None, "deny", 401)
    metrics.count("api", "error", None, 0.2)
    metrics.count_echo("api")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"broker_gateway_{name}", labels)

    assert value("requests_total", service="api", decision="allow", status="200") == 2
    assert value("requests_total", service="", decision="deny", status="401") == 1
    assert value("requests_total", service="api", decision="error", status="") == 1
    assert value("echoes_total", service="api") == 1
    assert value("request_seconds_bucket", le="0.0025") == 0
    assert value("request_seconds_bucket", le="0.005") == 1
    assert value("request_seconds_bucket", le="+Inf") == 3
    assert value("request_seconds_count") == 3
    assert registry.get_sample_value("open_things") == 7
