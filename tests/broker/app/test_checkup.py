"""Each thing that can be wrong is found, and what to do about it is said."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from broker.app.checkup import Finding, check_up
from broker.app.home import Places, create_home, open_keys, open_storage, open_store
from broker.settings import ControlSettings, GatewaySettings, Settings, VaultSettings
from providers.base import Secret
from tests.components.process import free_port
from tests.contracts.leases import LEASE, MINTER, NOW, REAPER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.broker.app.conftest import Served
    from tests.fakes.issuer import FakeIssuer

POLICY = """\
identity_sources: {{local: {{type: local}}}}
services:
  api:
    provider: http_api
    base_url: https://api.example.com
    credential: {{type: bearer, secret: "{secret}"}}
scopes:
  api.read: {{service: api, allow: ["GET /**"]}}
agents:
  bot: {{trust: [{{source: local, claims: {{sub: bot}}}}], scopes: [api.read]}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home in which all is well."""
    settings = Settings(
        tmp_path / "home",
        issuer="http://127.0.0.1:8700",
        control=ControlSettings(port=free_port()),
        gateway=GatewaySettings(port=free_port()),
    )
    create_home(settings)
    write(settings, POLICY.format(secret="embedded:api"))
    store = open_store(settings, open_keys(settings).master)
    store.put("api", Secret(b"k"))
    store.close()
    return settings


def write(settings: Settings, text: str) -> None:
    (settings.policies / "p.yaml").write_text(text)


async def look(settings: Settings) -> list[Finding]:
    return [finding async for finding in check_up(settings)]


async def problem(settings: Settings, subject: str) -> str:
    """Return the only problem there is, which is with `subject`."""
    problems = [finding for finding in await look(settings) if finding.state == "problem"]
    assert [finding.subject for finding in problems] == [subject], problems
    return problems[0].text


@contextmanager
def server_with_clock(ahead: float) -> Iterator[int]:
    """Serve 404 with a Date that is `ahead` seconds off; give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + ahead, usegmt=True)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


async def test_all_is_well(settings: Settings) -> None:
    findings = await look(settings)
    assert {finding.state for finding in findings} == {"ok"}, findings
    subjects = [finding.subject for finding in findings]
    assert subjects == ["files", "keys", "stores", "leases", "policy", "secrets", "ports"]


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    nothing = Settings(tmp_path / "nothing")
    assert "broker init" in await problem(nothing, "keys")
    assert not nothing.home.exists()


@pytest.mark.parametrize("name", ["data/broker.db", "data/secrets.db", "data/audit", "agents"])
async def test_what_others_can_read(settings: Settings, name: str) -> None:
    path = settings.home / name
    path.touch() if path.suffix else path.mkdir(exist_ok=True)
    path.chmod(0o755)
    problems = [one.text for one in await look(settings) if one.state == "problem"]
    assert f"chmod {600 if path.suffix else 700} {path}" in " ".join(problems)


async def test_a_link_in_the_place_of_a_key(settings: Settings, tmp_path: Path) -> None:
    key = Places(settings.home).agent_key("bot")
    key.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in await problem(settings, "files")


async def test_the_wrong_master_key(settings: Settings) -> None:
    key = settings.home / "keys/master.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    assert "wrong master key" in await problem(settings, "keys")


async def test_a_damaged_database(settings: Settings) -> None:
    path = Places(settings.home).database
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)
    assert str(path) in await problem(settings, "stores")


async def test_a_policy_that_does_not_load(settings: Settings) -> None:
    write(settings, POLICY.format(secret="embedded:api").replace("GET", "GOT"))
    assert "p.yaml:8:" in await problem(settings, "policy")


async def test_warnings_are_no_problem(settings: Settings) -> None:
    write(settings, POLICY.format(secret="embedded:api").replace("GET /**", "* /**"))
    findings = await look(settings)
    (warning,) = [finding for finding in findings if finding.state == "warning"]
    assert "broker policy check" in warning.text


async def test_a_secret_that_is_not_there(settings: Settings) -> None:
    write(settings, POLICY.format(secret="embedded:apy"))
    text = await problem(settings, "secrets")
    assert text.startswith("api needs embedded:apy: ")


async def test_a_variable_may_be_set_for_the_broker_alone(settings: Settings) -> None:
    write(settings, POLICY.format(secret="env:NOWHERE_SET"))
    findings = await look(settings)
    (warning,) = [finding for finding in findings if finding.state == "warning"]
    assert "NOWHERE_SET" in warning.text


async def test_an_issuer_that_is_down(settings: Settings) -> None:
    source = f"ci: {{type: oidc, issuer: 'http://127.0.0.1:{free_port()}', allow_private: true}}"
    write(settings, f"identity_sources: {{{source}}}")
    assert "127.0.0.1" in await problem(settings, "issuer ci")


async def test_an_issuer_that_answers(settings: Settings, fake_issuer: FakeIssuer) -> None:
    source = f"ci: {{type: oidc, issuer: '{fake_issuer.url}', allow_private: true}}"
    write(settings, f"identity_sources: {{{source}}}")
    findings = {finding.subject: finding for finding in await look(settings)}
    assert findings["issuer ci"].state == "ok"
    assert "its clock agrees" in findings["issuer ci"].text


@pytest.mark.parametrize(("ahead", "told"), [(90.0, "90 s behind"), (-90.0, "90 s ahead of")])
async def test_a_clock_that_is_wrong(
    settings: Settings, tmp_path: Path, ahead: float, told: str
) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    with server_with_clock(ahead) as port:
        vault = VaultSettings(address=f"http://127.0.0.1:{port}", token_file=token)
        text = await problem(replace(settings, vault=vault), "vault")
    assert told in text or told.replace("90", "91") in text or told.replace("90", "89") in text
    assert "timedatectl" in text


async def test_a_vault_that_does_not_answer(settings: Settings, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    vault = VaultSettings(address=f"http://127.0.0.1:{free_port()}", token_file=token)
    assert "does not answer" in await problem(replace(settings, vault=vault), "vault")


async def test_a_port_that_something_else_has(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.gateway.port))
        other.listen()
        assert "is in use" in await problem(settings, "ports")


async def test_a_broker_that_runs(served: Served) -> None:
    findings = {finding.subject: finding for finding in await look(served.settings)}
    assert findings["broker"].text == "is running, and well"
    (served.home.path / "policies/bad.yaml").write_text("scops: {}")
    served.wait_for_policy("degraded")
    findings = {finding.subject: finding for finding in await look(served.settings)}
    assert findings["broker"].state == "problem"
    assert "policy" in findings["broker"].text


async def test_another_broker_on_our_port(served: Served) -> None:
    other = replace(served.settings, issuer="https://broker.example.com")
    findings = {finding.subject: finding for finding in await look(other)}
    assert served.settings.issuer in findings["ports"].text


@pytest.mark.parametrize(
    ("ending", "state", "told"),
    [
        (True, "problem", "1 credential cannot be revoked yet"),
        (False, "warning", "1 credential may have been minted, and nobody knows"),
    ],
)
async def test_credentials_that_do_not_end(
    settings: Settings, *, ending: bool, state: str, told: str
) -> None:
    storage = open_storage(settings)
    await storage.leases.open(LEASE, MINTER, NOW, 1)
    (lease,) = await storage.leases.claim(REAPER, NOW, NOW + 1, 1)
    await storage.leases.retry(lease, REAPER, NOW, "the database is down", ending=ending)
    await storage.close()
    (finding,) = [one for one in await look(settings) if one.subject == "leases"]
    assert finding.state == state
    assert finding.text == f"{told}; see `broker leases`. The latest: the database is down"


async def test_what_can_only_expire_is_no_problem_that_somebody_could_mend(
    settings: Settings,
) -> None:
    storage = open_storage(settings)
    soon = time.time() + 1000
    await storage.leases.open(replace(LEASE, expires_at=soon), MINTER, NOW, 1)
    (lease,) = await storage.leases.claim(REAPER, NOW, NOW + 1, 1)
    await storage.leases.retry(lease, REAPER, soon, "its provider revokes nothing", ending=True)
    await storage.close()
    (finding,) = [one for one in await look(settings) if one.subject == "leases"]
    assert finding.state == "warning"
    assert re.search(r"can only expire, the last in (9\d\d|1000) s", finding.text)


async def test_a_service_that_needs_a_vault_where_there_is_none(settings: Settings) -> None:
    write(
        settings,
        "services: {db: {provider: vault_dynamic, mount: database}}\n"
        "scopes: {db.read: {service: db, path: creds/x, delivery: [credential]}}\n",
    )
    assert "service db needs a Vault" in await problem(settings, "policy")
