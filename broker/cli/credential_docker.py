"""`broker credential docker`, and `docker-credential-broker`: a registry's user and password.

Docker, podman, skopeo and others run `docker-credential-broker get` for the registries that their
configuration names it for, and say on standard input which one they mean:

    {"credHelpers": {"ghcr.io": "broker"}}

Only a registry that a scope of the policy names (`registries: [ghcr.io]`) gets anything.
https://github.com/docker/docker-credential-helpers
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output
from broker.cli.credential import AgentOption, ReasonOption, TaskOption, TtlOption, collect
from broker.errors import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.policy.engine import Policy

_NOT_FOUND: Final = "credentials not found in native keychain"
"""What Docker knows as: there is none, go on without."""

_USER: Final = "x-access-token"
_LONGEST_QUESTION: Final = 65_536
_SERVER: Final = re.compile(
    r"(?:https://)?(?P<registry>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?)(?:/[!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def docker(  # noqa: PLR0913 - each is an option
    operation: Annotated[
        str, typer.Argument(metavar="OPERATION", help="What is wanted: get, list, store or erase.")
    ],
    *,
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
) -> None:
    """Be Docker's credential helper, for the registries that a scope names."""
    try:
        typer.echo(json.dumps(_answer(operation, agent, home, task=task, reason=reason, ttl=ttl)))
    except BrokerError as error:
        # Docker shows what is on standard output, and tells "not found" by it.
        typer.echo(output.printable(str(error)))
        raise typer.Exit(1) from None


_TOLD: Final = {
    "store": "the broker stores no passwords: it makes one for each task, and no login is needed",
    "erase": "the broker has nothing to erase: what it made for a task ends by itself",
}

Whose = tuple[tuple[str, str], ...]
"""Pairs of an agent and a scope of its."""


def _answer(
    operation: str, agent: str | None, home: output.HomeOption, **wanted: str | None
) -> dict[str, str]:
    """Return what Docker asked for; raise `ConfigurationError` where there is nothing."""
    asked = "" if operation == "list" else sys.stdin.read(_LONGEST_QUESTION).strip()
    if operation in _TOLD:
        raise ConfigurationError(_TOLD[operation])
    if operation not in {"get", "list"}:
        raise ConfigurationError("Docker asks for one of: get, list, store, erase")
    found = registries(_policy(home), agent, _own(home))
    if operation == "list":
        return dict.fromkeys(found, _USER)
    whose = found.get(registry_of(asked))
    if whose is None:
        raise ConfigurationError(_NOT_FOUND)
    name, scope = chosen(whose, asked)
    answer = collect(scope, name, home, **wanted)
    return {"ServerURL": asked, **user_and_secret(answer)}


def registry_of(server: str) -> str:
    """Return the registry that Docker means, as policies name it; "" for what is none.

    Over plain http no credential is sent, so of such a registry nothing is known here.
    """
    match = _SERVER.fullmatch(server)
    registry = match["registry"].lower() if match else ""
    return "docker.io" if registry in _HUB else registry


def registries(policy: Policy, agent: str | None, own: set[str]) -> dict[str, Whose]:
    """Return whose scopes name each registry: those of `agent`, or of all agents here."""
    found: dict[str, Whose] = {}
    for name in sorted(own if agent is None else {agent}):
        known = policy.agents.get(name)
        for scope in known.scopes if known else ():
            for registry in policy.scopes[scope].registries:
                found[registry] = (*found.get(registry, ()), (name, scope))
    return found


def chosen(whose: Whose, server: str) -> tuple[str, str]:
    """Return the one agent and scope that a registry is for; raise `ConfigurationError`."""
    if len(whose) > 1:
        named = ", ".join(f"{scope} of {agent}" for agent, scope in whose)
        raise ConfigurationError(
            f"{output.printable(server)} is named by several scopes ({named}); name each registry "
            "in one scope of one agent, or give each agent a home of its own"
        )
    return whose[0]


def user_and_secret(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return a credential as Docker reads it: user and password, or a token in their place.

    Raises:
        ConfigurationError: the credential is neither.
    """
    credential = answer["credential"]
    if {"username", "password"} <= credential.keys():
        return {"Username": credential["username"], "Secret": credential["password"]}
    if "token" in credential:
        return {"Username": _USER, "Secret": credential["token"]}
    raise ConfigurationError(
        f"scope {output.printable(str(answer.get('scope')))} has neither a user and password nor "
        "a token; `broker credential SCOPE` prints what it has"
    )


def _policy(home: output.HomeOption) -> Policy:
    from broker.app.policies import home_policy

    return home_policy(output.settings_from(home))


def _own(home: output.HomeOption) -> set[str]:
    from broker.cli.agents import own_agents

    return own_agents(output.settings_from(home))


def main() -> None:
    """Run as `docker-credential-broker`, of which Docker asks one operation."""
    from broker.cli.main import app

    app(["credential", "docker", *sys.argv[1:]], prog_name="broker")
