from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.api.health import OK, Health
from tests.fakes.token_bench import over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from tests.fakes.token_bench import TokenBench


def _always(health: Health) -> Callable[[], Awaitable[Health]]:
    async def probe() -> Health:
        return health

    return probe


async def _never() -> Health:
    await asyncio.Event().wait()
    return OK


async def _broken() -> Health:
    raise RuntimeError("hunter2")


DEGRADED = Health("degraded", "policy refused: policies/a.yaml:3:1: unknown field")
FAILING = Health("failing", "vault is sealed")


async def test_a_broker_that_runs_is_alive(token_client: httpx.AsyncClient) -> None:
    response = await token_client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("probes", "status", "state"),
    [
        ({}, 200, "ok"),
        ({"policy": OK, "vault": OK}, 200, "ok"),
        ({"policy": DEGRADED, "vault": OK}, 200, "degraded"),
        ({"policy": OK, "vault": FAILING}, 503, "failing"),
        ({"policy": DEGRADED, "vault": FAILING}, 503, "failing"),
    ],
)
async def test_readiness_is_that_of_the_worst_part(
    token_bench: TokenBench, probes: dict[str, Health], status: int, state: str
) -> None:
    asked = {name: _always(health) for name, health in probes.items()}
    async with over(token_bench.app(probes=asked)) as client:
        response = await client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (status, state)
    for name, health in probes.items():
        expected = {"state": health.state} | ({"reason": health.reason} if health.reason else {})
        assert response.json()["checks"][name] == expected


async def test_a_probe_that_hangs_or_breaks_is_failing(
    token_bench: TokenBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.api.health.PROBE_TIMEOUT", 0.05)
    probes = {"hangs": _never, "breaks": _broken, "policy": _always(OK)}
    async with over(token_bench.app(probes=probes)) as client:
        response = await client.get("/readyz")
    assert response.status_code == 503
    checks = response.json()["checks"]
    assert checks["hangs"] == {"state": "failing", "reason": "gave no answer within 0 s"}
    assert checks["breaks"] == {"state": "failing", "reason": "could not be asked (RuntimeError)"}
    assert checks["policy"] == {"state": "ok"}
    assert "hunter2" not in response.text
