"""Initialise and unseal OpenBao, and give the broker what it may have there, and no more.

Run at each `docker compose up`: what is there stays. Unseal key and root token are kept in a
volume of their own; on more than one machine use auto-unseal, and the Terraform module.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import hvac
import requests
from hvac.exceptions import InvalidPath, InvalidRequest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

ADDRESS: Final = os.environ.get("OPENBAO_URL", "https://openbao:8200")
DATABASE: Final = os.environ.get("DATABASE_HOST", "postgres:5432")
FILES: Final = Path(os.environ.get("FILES", "/files"))
ROLE: Final = "agent-token-broker"
POLICY: Final = """
path "kv/data/orders" { capabilities = ["read"] }
path "database/creds/orders-readonly" { capabilities = ["read"] }
path "auth/token/create-orphan" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
"""
_CREATE: Final = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; "
    'GRANT pg_read_all_data TO "{{name}}";'
)


def _patiently(*errors: type[Exception]) -> Retrying:
    """Try again for a minute: all the containers start together."""
    return Retrying(
        retry=retry_if_exception_type(errors),
        stop=stop_after_delay(60),
        wait=wait_fixed(0.5),
        reraise=True,
    )


def main() -> None:
    """Do whatever has not been done yet."""
    client = hvac.Client(url=ADDRESS, verify=str(FILES / "broker" / "ca.pem"))
    keys = _patiently(requests.ConnectionError)(_initialised, client)
    if client.sys.is_sealed():
        client.sys.submit_unseal_key(keys["unseal_key"])
    client.token = keys["root_token"]
    _patiently(TimeoutError)(_until_active, client)
    _engines(client)
    _login(client)


def _initialised(client: hvac.Client) -> dict[str, Any]:
    """Return unseal key and root token, made now or kept from the first time."""
    kept = FILES / "keys" / "openbao.json"
    if not client.sys.is_initialized():
        made = client.sys.initialize(secret_shares=1, secret_threshold=1)
        keys = {"unseal_key": made["keys_base64"][0], "root_token": made["root_token"]}
        kept.unlink(missing_ok=True)
        _write(kept, json.dumps(keys))
    loaded: dict[str, Any] = json.loads(kept.read_text())
    return loaded


def _until_active(client: hvac.Client) -> None:
    if client.sys.read_health_status().status_code != requests.codes.ok:
        raise TimeoutError("OpenBao was unsealed and does not become active; see its log")


def _engines(client: hvac.Client) -> None:
    engines = client.sys.list_mounted_secrets_engines()["data"]
    if "kv/" not in engines:
        client.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
    key = (FILES / "upstream" / "api-key").read_text()
    client.secrets.kv.v2.create_or_update_secret("orders", {"key": key}, mount_point="kv")
    if "database/" not in engines:
        client.sys.enable_secrets_engine("database")
    # That is what it answers while PostgreSQL starts.
    _patiently(InvalidRequest)(_connect_database, client)
    client.secrets.database.create_role(
        "orders-readonly", "orders", [_CREATE], default_ttl="10m", max_ttl="1h"
    )


def _connect_database(client: hvac.Client) -> None:
    client.secrets.database.configure(
        "orders",
        "postgresql-database-plugin",
        allowed_roles=["orders-readonly"],
        username="postgres",
        password=(FILES / "postgres" / "password").read_text(),
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{DATABASE}/postgres"
        "?sslmode=disable",
    )


def _login(client: hvac.Client) -> None:
    if "approle/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("approle")
    client.sys.create_or_update_policy(ROLE, POLICY)
    approle = client.auth.approle
    # Not for one use: a broker that restarts logs in again, and this is not run for it.
    approle.create_or_update_approle(ROLE, token_policies=[ROLE], token_ttl="20m")  # noqa: S106
    role_id = approle.read_role_id(ROLE)["data"]["role_id"]
    secret = FILES / "broker" / "secret-id"
    if _known(client, secret):
        return
    made = approle.generate_secret_id(ROLE)["data"]["secret_id"]
    for path, text in ((FILES / "broker" / "role-id", role_id), (secret, made)):
        path.unlink(missing_ok=True)
        _write(path, text)


def _known(client: hvac.Client, secret: Path) -> bool:
    try:
        found = client.auth.approle.read_secret_id(ROLE, secret.read_text())
    except (FileNotFoundError, InvalidPath):
        return False
    return bool(found)


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text)


if __name__ == "__main__":
    main()
