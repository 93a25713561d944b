"""An agent that holds no key but its own: it asks, calls, is refused, and says what it saw."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import httpx

from broker.identity.local import client_assertion
from providers.base import Secret

NAME = "demo"
BROKER = os.environ["BROKER_URL"]
GATEWAY = os.environ["GATEWAY_URL"]
ISSUER = os.environ["BROKER_ISSUER"]
OUT_OF_REACH = (("upstream", 8443), ("openbao", 8200), ("postgres", 5432), ("192.0.2.1", 443))
_PATIENCE = 120.0


def main() -> int:
    """Play the task; 0 if everything went as it must."""
    went_well = True

    def say(what: str, answer: object, *, good: bool) -> None:
        nonlocal went_well
        went_well &= good
        print(f"{'ok ' if good else 'BAD'} {what}: {answer}", flush=True)  # noqa: T201

    with httpx.Client(trust_env=False, timeout=30) as client:
        token = _task_token(client)
        bearer = {"Authorization": f"Bearer {token}"}
        orders = _patiently(client, "GET", f"{GATEWAY}/orders/v1/orders", bearer)
        say("GET /v1/orders", orders.status_code, good=orders.status_code == httpx.codes.OK)
        refund = client.post(f"{GATEWAY}/orders/v1/refunds", headers=bearer)
        say(
            "POST /v1/refunds, which no scope allows",
            f"{refund.status_code} {refund.headers.get('Broker-Error')}",
            good=refund.headers.get("Broker-Error") == "policy_denied",
        )
        wanted = {"scope": "orders-db.read"}
        login = _patiently(client, "POST", f"{BROKER}/credentials", bearer, wanted)
        say(
            "a login of the database, which ends with the task",
            f"{login.status_code}, with {', '.join(sorted(login.json().get('credential', {})))}",
            good=login.status_code == httpx.codes.OK,
        )
    for host, port in OUT_OF_REACH:
        met = _reach(host, port)
        say(f"{host}:{port} without the broker", met or "REACHED", good=met is not None)
    return 0 if went_well else 1


def _task_token(client: httpx.Client) -> str:
    key = Secret(Path(f"/files/agent/{NAME}.pem").read_bytes())
    form = {
        "grant_type": "client_credentials",
        "client_id": NAME,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": client_assertion(key, NAME, ISSUER),
        "scope": "orders.read orders-db.read",
        "task": "see how it all works",
    }
    token: str = client.post(f"{BROKER}/token", data=form).raise_for_status().json()["access_token"]
    return token


def _patiently(
    client: httpx.Client,
    method: str,
    url: str,
    headers: dict[str, str],
    form: dict[str, str] | None = None,
) -> httpx.Response:
    """Ask again while the broker has no credential yet: OpenBao is set up beside all this."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        answer = client.request(method, url, headers=headers, data=form)
        if not answer.is_server_error or time.monotonic() > deadline:
            return answer
        time.sleep(2)


def _reach(host: str, port: int) -> str | None:
    """Return why there is no way to an address; None if there is one."""
    try:
        socket.create_connection((host, port), 2).close()
    except OSError as error:
        return type(error).__name__
    return None


if __name__ == "__main__":
    sys.exit(main())
