from __future__ import annotations

import dataclasses

import pytest

from broker.gateway.limits import GatewayLimits


def test_limits_bound_everything_and_stay_as_they_are() -> None:
    limits = GatewayLimits()
    assert all(value > 0 for value in dataclasses.asdict(limits).values())
    assert limits.target_bytes < limits.head_bytes <= limits.buffer_bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.connections = 0  # type: ignore[misc]


def test_connections_are_given_up_before_common_servers_do() -> None:
    assert GatewayLimits().pool_idle < 60
