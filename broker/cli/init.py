"""`broker init`: make a home directory with keys, settings and a first agent."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from broker.cli import output

if TYPE_CHECKING:
    from pathlib import Path

    from broker.settings import Settings

DEFAULT_AGENT: Final = "my-agent"

SETTINGS: Final = """\
# Settings of this broker. The environment goes before this file: [gateway] port is
# BROKER_GATEWAY_PORT. What is commented out shows its default.

# The public URL of the control plane, byte for byte what task tokens carry as `iss`.
# issuer = "http://127.0.0.1:8700"

# Where the master key is: "file" (keys/master.key), "keyring", or "environment"
# (BROKER_MASTER_KEY).
master_key_source = "{source}"

# [control]
# host = "127.0.0.1"
# port = 8700

# [gateway]
# host = "127.0.0.1"
# port = 8701

# Secrets in Vault or OpenBao, for references such as vault:kv/stripe#key.
# [vault]
# address = "https://vault.example.com"
"""

SOURCES: Final = """\
# Who can vouch for a caller. `local` is agents on this machine, each with a key of its own
# that `broker agents enroll` made. CI jobs and services bring their own identity:
#
#   github-actions:
#     type: oidc
#     issuer: https://token.actions.githubusercontent.com
#     audiences: [https://broker.example.com]
#     algorithms: [RS256]
#     replay: single_use
identity_sources:
  local:
    type: local
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("init")(init)


def init(
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Ask nothing; take the defaults.")
    ] = False,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="The first agent's name.")
    ] = None,
    master_key: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Where the master key is: file, keyring, environment."),
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Set up a broker: its home, its keys, a first agent."""
    from broker.app.home import Places, create_home, enrol_agent
    from broker.cli.documents import require_name
    from broker.files import create_private

    asking = not yes and not json and sys.stdin.isatty()
    if agent is None:
        agent = typer.prompt("Name of your first agent", DEFAULT_AGENT) if asking else DEFAULT_AGENT
    require_name("an agent", agent)
    overrides = {} if master_key is None else {"master_key_source": master_key}
    settings = output.settings_from(home, overrides)
    made = list(create_home(settings))
    if not made:
        output.fail(
            f"{settings.home}: there is a broker here already; nothing was changed",
            "look at it with `broker doctor`, or name another directory with --home",
        )
    places = Places(settings.home)
    documents = {
        places.settings: SETTINGS.format(source=settings.master_key_source),
        places.policies / "sources.yaml": SOURCES,
    }
    for path, text in documents.items():
        if not path.exists():
            create_private(path, text.encode())
            made.append(path)
    key = places.agent_key(agent)
    if not key.exists():
        made.append(asyncio.run(enrol_agent(settings, agent)))
    output.emit(
        {"home": str(settings.home), "agent": agent, "made": [str(path) for path in made]},
        lambda: _tell(settings, agent, made),
        json,
    )


def _tell(settings: Settings, agent: str, made: list[Path]) -> None:
    meanings = {
        "broker.toml": "settings",
        "policies/sources.yaml": "who can vouch for a caller; services and agents join it here",
        "keys/master.key": "seals everything else; keep a copy of it apart from the rest",
        "keys/signing.sealed": "signs task tokens",
        "keys/audit.sealed": "signs the audit trail",
        f"agents/{agent}.pem": f"what the agent {agent} proves itself with",
    }
    typer.echo(f"A broker is set up in {settings.home}\n")
    for path in made:
        name = str(path.relative_to(settings.home)) if path != settings.home else ""
        if name in meanings:
            typer.echo(f"  {name:<24}{meanings[name]}")
    output.next_steps(
        ("broker add stripe", "let it call Stripe; `broker add` alone lists what is known"),
        ("broker serve", "start the control plane and the gateway"),
    )
