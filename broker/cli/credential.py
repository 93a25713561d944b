"""`broker credential`: collect a credential that is minted for one task, as a local agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from broker.cli import output
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.settings import Settings

_DEFAULT: Final = "get"
_OK: Final = 200

ScopeArgument = Annotated[str, typer.Argument(metavar="SCOPE", help="Whose credential is wanted.")]
AgentOption = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="As whom; default: the only agent.")
]
TaskOption = Annotated[
    str | None, typer.Option("--task", help="What the agent is doing, for the record.")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Why it needs this, for the record.")
]
TtlOption = Annotated[
    str | None,
    typer.Option("--ttl", metavar="TIME", help="How long, as in 5m; never more than allowed."),
]


class _Shapes(TyperGroup):
    """Take a word that is no command for a scope: `credential SCOPE` is `credential get SCOPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the usual command's name where a scope stands in its place."""
        first = next((index for index, one in enumerate(args) if not one.startswith("-")), None)
        if first is not None and args[first] not in self.commands:
            args = [_DEFAULT, *args]
        return list(super().parse_args(ctx, args))


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    from broker.cli.credential_aws import aws
    from broker.cli.credential_docker import docker
    from broker.cli.credential_github import git, github
    from broker.cli.credential_kubectl import kubectl

    group = typer.Typer(
        cls=_Shapes,
        no_args_is_help=True,
        help="Collect a short-lived credential that is minted for one task.",
    )
    group.command(_DEFAULT)(get)
    group.command("aws")(aws)
    group.command("github")(github)
    group.command("git")(git)
    group.command("kubectl")(kubectl)
    group.command("docker")(docker)
    app.add_typer(group, name="credential")


def get(  # noqa: PLR0913 - each is an option
    scope: ScopeArgument,
    *,
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Print a credential's parts, a NAME=VALUE a line; --json for all that is known of it."""
    answer = collect(scope, agent, home, task=task, reason=reason, ttl=ttl)

    def human() -> None:
        for name, value in answer["credential"].items():
            typer.echo(f"{output.printable(name)}={value}")

    output.emit(answer, human, json)


def collect(
    scope: str, agent: str | None, home: output.HomeOption, **wanted: str | None
) -> dict[str, Any]:
    """Return the broker's answer to `agent`, or to the only one here, who wants a credential.

    `wanted` are `task`, `reason` and `ttl` as the command line says them. Raises as
    `request_credential` does.
    """
    from broker.cli.agents import own_agent
    from broker.cli.token import parameters

    settings = output.settings_from(home)
    asked = parameters(scope, **{"task": None, "reason": None, "ttl": None, **wanted})
    return asyncio.run(request_credential(settings, own_agent(settings, agent), asked))


async def request_credential(
    settings: Settings, agent: str, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Return the broker's answer to `agent`, who gets a task token for the one scope first.

    `wanted` is as for `broker.cli.token.request_token`, and names one scope.

    Raises:
        ConfigurationError: the agent has no private key here, or a request was refused.
        UpstreamError: no broker answers.
    """
    from broker.cli.token import not_a_broker, post, request_token

    token = (await request_token(settings, agent, wanted))["access_token"]
    url = f"{settings.issuer}/credentials"
    status, answer = await post(
        settings,
        url,
        json={"scope": wanted["scope"]},
        headers={"Authorization": f"Bearer {token}"},
    )
    if "detail" in answer:
        raise ConfigurationError(f"refused: {output.printable(str(answer['detail']))}")
    if status != _OK or not isinstance(answer.get("credential"), dict):
        raise not_a_broker(url)
    return answer
