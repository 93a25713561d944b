from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from broker.api.metrics import TokenMetrics
from broker.token_request import EXCHANGE
from tests.fakes.token_bench import exchanged, over

if TYPE_CHECKING:
    import httpx

    from tests.fakes.token_bench import TokenBench


def _fields(bench: TokenBench, **changes: str) -> dict[str, str]:
    return {name: values[0] for name, values in exchanged(bench.proof(), **changes).items()}


async def test_requests_are_counted(token_bench: TokenBench) -> None:
    async with over(token_bench.app()) as client:
        await client.post("/token", data=_fields(token_bench))
        await client.post("/token", data=_fields(token_bench, scope="api.admin"))
        await client.post("/token", data=_fields(token_bench, grant_type="made-up-by-the-caller"))
        await client.post("/token", content=b"")
        metrics = (await client.get("/metrics")).text
    assert 'broker_token_requests_total{grant="token_exchange",result="issued"} 1.0' in metrics
    assert 'grant="token_exchange",result="invalid_scope"} 1.0' in metrics
    assert 'grant="other",result="unsupported_grant_type"} 1.0' in metrics
    assert 'grant="other",result="invalid_request"} 1.0' in metrics
    assert "broker_token_request_seconds_count 4.0" in metrics
    assert "made-up" not in metrics


async def test_metrics_are_in_prometheus_text(token_client: httpx.AsyncClient) -> None:
    response = await token_client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert "# TYPE broker_token_requests_total counter" in response.text


def test_a_label_is_never_a_callers_word() -> None:
    registry = CollectorRegistry()
    metrics = TokenMetrics(registry)
    for grant_type in (EXCHANGE, "made up", "x" * 1000, "", None):
        metrics.count(grant_type, "issued", 0.01)
    (family,) = (one for one in registry.collect() if one.name == "broker_token_requests")
    assert {sample.labels["grant"] for sample in family.samples} == {"token_exchange", "other"}
