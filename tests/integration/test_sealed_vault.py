"""OpenBao is sealed and unsealed while agents are working."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.components.process import wait_until
from tests.fakes.vendor_api import VendorApi, vendor_api
from tests.integration.vault_broker import KEY, proof, vault_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.components.oidc import OidcIssuer
    from tests.components.openbao import OpenBao
    from tests.components.tls import TestAuthority
    from tests.integration.running_broker import RunningBroker

OK, UNAVAILABLE = httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE
STALE_FOR, GATEWAY_REUSES_FOR, PATIENCE = 12, 10, 10
"""Seconds: a value stands in for the first, and the gateway reuses one it was given for the
second. The first is longer than the 10 for which a value is fresh, so that it does stand in."""


@pytest.fixture
def vendor(tls_authority: TestAuthority) -> Iterator[VendorApi]:
    with vendor_api(KEY, tls_authority.certificate("127.0.0.1")) as api:
        yield api


@pytest.fixture
def broker(
    sealable_openbao: OpenBao, oidc_issuer: OidcIssuer, vendor: VendorApi, tmp_path: Path
) -> Iterator[RunningBroker]:
    with vault_broker(
        tmp_path, sealable_openbao, oidc_issuer, vendor, vault_stale_for=f"{STALE_FOR}s"
    ) as running:
        yield running


@contextmanager
def traffic(call: Callable[[], httpx.Response]) -> Iterator[list[int]]:
    """Keep calling until the block ends; the list grows by each answer's status."""
    seen: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            seen.append(call().status_code)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_a_sealed_vault_is_bridged_for_a_while_then_refused_then_recovered_from(
    broker: RunningBroker, oidc_issuer: OidcIssuer, vendor: VendorApi, sealable_openbao: OpenBao
) -> None:
    token = broker.task_token(proof(broker, oidc_issuer), "stripe.read")

    def call() -> httpx.Response:
        return broker.call(token, "GET", "/stripe/v1/charges")

    assert call().status_code == OK
    with traffic(call) as seen:
        sealable_openbao.seal()
        sealed_at, answered = time.monotonic(), len(seen)
        wait_until(lambda: seen[-1:] == [UNAVAILABLE], "a refusal", 60)
        bridged_for = time.monotonic() - sealed_at
        refusal = call()
        sealable_openbao.unseal()
        wait_until(lambda: seen[-1] == OK, "recovery", 60)

    assert len(seen) > answered
    assert set(seen) == {OK, UNAVAILABLE}
    assert GATEWAY_REUSES_FOR < bridged_for < STALE_FOR + GATEWAY_REUSES_FOR + PATIENCE
    assert "Broker-Error" in refusal.headers
    assert KEY not in refusal.text
    assert {request.headers["authorization"] for request in vendor.requests} == {f"Bearer {KEY}"}
