from __future__ import annotations

import os
import pty
import subprocess
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from broker.app.home import open_keys, open_store
from broker.cli import catalogue
from broker.cli.add import scopes_of
from broker.settings import load_settings
from tests.components.process import wait_until
from tests.integration.running_broker import COMMAND

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands
    from tests.components.tls import TestAuthority

KEY = "sk_test_that_nobody_should_see"


def stored(broker: Commands, name: str) -> bytes:
    settings = load_settings(broker.home, {})
    store = open_store(settings, open_keys(settings).master)
    try:
        return store.read(name).secret.reveal()
    finally:
        store.close()


def granted(broker: Commands, agent: str = "my-agent") -> list[str]:
    agents = broker.ok("agents", "--json").data
    return next(list(item["scopes"]) for item in agents if item["name"] == agent)


def test_from_the_catalogue(broker: Commands) -> None:
    ran = broker.ok("add", "stripe", "--secret-stdin", stdin=f"{KEY}\n")
    assert stored(broker, "stripe") == KEY.encode()
    assert granted(broker) == ["stripe.read"]
    assert "broker token --scope stripe.read" in ran.out
    assert "http://127.0.0.1:8701/stripe/v1/charges" in ran.out
    everything = ran.out + ran.err + "".join(map(repr, broker.files().values()))
    assert KEY not in everything


def test_what_is_written_loads_and_keeps_its_comments(broker: Commands) -> None:
    broker.ok("add", "slack", "--secret-stdin", stdin="xoxb-1\n")
    text = (broker.home / "policies/services/slack.yaml").read_text()
    assert "# Slack's methods take GET and POST alike" in text
    assert broker.run("policy", "check").status == 0


def test_scopes_can_be_chosen(broker: Commands) -> None:
    chosen = ("--scope", "refund", "--scope", "stripe.read")
    broker.ok("add", "stripe", *chosen, "--secret-stdin", stdin=f"{KEY}\n")
    assert granted(broker) == ["stripe.refund", "stripe.read"]


def test_what_was_done_is_on_record(broker: Commands) -> None:
    broker.ok("add", "stripe", "--secret-stdin", stdin=f"{KEY}\n")
    lines = broker.ok("logs").out
    assert "stripe | service.add | OK | granted stripe.read to my-agent" in lines
    assert "stripe | secret.put | OK | embedded:stripe" in lines


def test_under_another_name_and_for_a_new_agent(broker: Commands) -> None:
    broker.ok(
        "add", "stripe", "--as", "stripe-eu", "--agent", "eu-bot", "--secret-stdin", stdin="k\n"
    )
    assert stored(broker, "stripe-eu") == b"k"
    assert granted(broker, "eu-bot") == ["stripe-eu.read"]


def test_parameters(broker: Commands) -> None:
    options = ("--set", "site=acme", "--set", "email=bot@acme.example")
    broker.ok("add", "jira", *options, "--secret-stdin", stdin="token\n")
    services = broker.ok("services", "--json").data
    assert services[0]["upstream"] == "https://acme.atlassian.net"


def test_a_service_with_two_secrets_reads_two_lines(broker: Commands) -> None:
    broker.ok("add", "datadog", "--secret-stdin", stdin="first\nsecond\n")
    assert stored(broker, "datadog-api-key") == b"first"
    assert stored(broker, "datadog-app-key") == b"second"


def test_any_api(broker: Commands) -> None:
    base_url = ("--base-url", "https://api.acme.example/v2", "--credential", "header:X-Api-Key")
    broker.ok("add", "acme", *base_url, "--secret-stdin", stdin="k\n")
    services = broker.ok("services", "--json").data
    assert services[0]["upstream"] == "https://api.acme.example/v2"
    assert granted(broker) == ["acme.read"]


def test_any_api_on_this_machine_needs_two_exceptions(broker: Commands) -> None:
    local = ("add", "local", "--base-url", "http://127.0.0.1:9000", "--secret-stdin")
    assert "insecure_http" in broker.refused(*local, stdin="k\n")
    broker.ok(*local, "--insecure-http", "--allow-private", stdin="k\n")


def test_a_service_of_ones_own_is_reached_as_it_has_to_be(
    broker: Commands, tls_authority: TestAuthority, tmp_path: Path
) -> None:
    own = ("--set", "host=gitlab.corp.example", "--allow-private", "--ca-file")
    link = tmp_path / "ca.pem"  # as a secret that is mounted is: where it leads to may change
    link.symlink_to(tls_authority.ca_file)
    here = os.path.relpath(link)
    broker.ok("add", "gitlab", *own, here, "--secret-stdin", stdin="k\n")
    document = yaml.safe_load((broker.home / "policies/services/gitlab.yaml").read_text())
    service = document["services"]["gitlab"]
    assert (service["allow_private"], service["ca_file"]) == (True, str(Path(here).absolute()))
    assert "insecure_http" not in service
    assert broker.run("policy", "check").status == 0


def test_secrets_in_vault_are_not_asked_for(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_VAULT_ADDRESS", "https://vault.example")
    broker.ok("add", "stripe", "--vault", "kv/stripe#key")
    broker.ok("add", "datadog", "--vault", "vault:kv/datadog")
    secrets = {item["name"]: item["secrets"] for item in broker.ok("services", "--json").data}
    assert secrets["stripe"] == ["vault:kv/stripe#key"]
    assert secrets["datadog"] == ["vault:kv/datadog#api_key", "vault:kv/datadog#app_key"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("strip",), "k\n", "did you mean 'stripe'"),
        (("stripe",), "", "--secret-stdin"),
        (("stripe", "--secret-stdin"), "", "no key was given"),
        (("stripe", "--secret-stdin"), "\n", "no key was given"),
        (("datadog", "--secret-stdin"), "first\n", "no app_key was given"),
        (("stripe", "--scope", "refunds", "--secret-stdin"), "k\n", "did you mean 'stripe.refund'"),
        (("stripe", "--set", "site=x", "--secret-stdin"), "k\n", "asks for nothing"),
        (("jira", "--secret-stdin"), "k\n", "--set site=acme"),
        (("jira", "--set", "sit=x", "--secret-stdin"), "k\n", "did you mean 'site'"),
        (("jira", "--set", "site=a.b/#", "--secret-stdin"), "k\n", "site is 'a.b/#'"),
        (("stripe", "--vault", "kv/stripe#key"), "", "BROKER_VAULT_ADDRESS"),
        (("datadog", "--vault", "kv/datadog#key"), "", "name the path alone"),
        (("stripe", "--as", "Stripe EU", "--secret-stdin"), "k\n", "cannot be the name"),
        (("stripe", "--agent", "../x", "--secret-stdin"), "k\n", "cannot be the name"),
        (("acme", "--base-url", "acme.example", "--secret-stdin"), "k\n", "base_url"),
        (("acme", "--base-url", "https://a.example", "--credential", "beer"), "", "'bearer'"),
        (("stripe", "--credential", "bearer", "--secret-stdin"), "k\n", "the catalogue says how"),
        (("stripe", "--ca-file", "/nowhere.pem", "--secret-stdin"), "k\n", "name a PEM file"),
        (("stripe", "--ca-file", "/dev/null", "--secret-stdin"), "k\n", "name a PEM file"),
    ],
)
def test_a_refusal_says_what_to_mend_and_changes_nothing(
    broker: Commands, arguments: tuple[str, ...], stdin: str, told: str
) -> None:
    before = {path: text for path, text in broker.files().items() if path.suffix == ".yaml"}
    assert told in broker.refused("add", *arguments, stdin=stdin)
    after = {path: text for path, text in broker.files().items() if path.suffix == ".yaml"}
    assert after == before
    assert not (broker.home / "data/secrets.db").exists()


def test_a_service_that_is_there_is_not_overwritten(broker: Commands) -> None:
    broker.ok("add", "stripe", "--secret-stdin", stdin="first\n")
    assert "not overwritten" in broker.refused("add", "stripe", "--secret-stdin", stdin="second\n")
    assert stored(broker, "stripe") == b"first"


def test_without_a_broker_it_says_how_to_make_one(bare: Commands) -> None:
    assert "broker init" in bare.refused("add", "stripe", "--secret-stdin", stdin="k\n")


def test_with_several_agents_it_asks_which(broker: Commands) -> None:
    broker.ok("agents", "enroll", "second")
    told = broker.refused("add", "stripe", "--secret-stdin", stdin="k\n")
    assert "--agent with one of: my-agent, second" in told


def test_the_catalogue_is_listed(bare: Commands) -> None:
    assert len(bare.ok("add", "--json").data) >= 20
    assert "Stripe" in bare.ok("add").out


def test_scopes_of_names_them_after_the_service() -> None:
    assert "payments.refund" in scopes_of(catalogue.load("stripe"), "payments")


def test_at_a_terminal_the_key_is_asked_for_without_echo(broker: Commands) -> None:
    command = [COMMAND, "add", "stripe", "--home", str(broker.home)]
    status, seen = at_a_terminal(command, KEY)
    assert status == 0, seen
    assert KEY not in seen
    assert "Stripe is added as stripe." in seen
    document = yaml.safe_load((broker.home / "policies/services/stripe.yaml").read_text())
    assert document["services"]["stripe"]["credential"]["secret"] == "embedded:stripe"
    assert stored(broker, "stripe") == KEY.encode()


def at_a_terminal(command: list[str], answer: str) -> tuple[int, str]:
    """Run a command at a terminal, answer once it has turned echo off; return what was seen."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    try:
        wait_until(lambda: not termios.tcgetattr(controller)[3] & termios.ECHO, "echo to be off")
        os.write(controller, f"{answer}\n".encode())
        seen = b""
        while True:
            try:
                seen += os.read(controller, 1024)
            except OSError:  # the other end is closed
                break
        return process.wait(timeout=30), seen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(controller)
