"""`broker token`: get a task token as an agent of this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output
from broker.errors import ConfigurationError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.settings import Settings

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OK: Final = 200


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("token")(token)


def token(  # noqa: PLR0913 - each is an option
    *,
    scope: Annotated[
        list[str], typer.Option(metavar="SCOPE", help="What the task needs (repeatable).")
    ],
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="As whom; default: the only agent.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What the agent is doing, for the record.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it needs this, for the record.")] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long, as in 5m; never more than allowed."),
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Print a task token, and nothing else: TOKEN=$(broker token --scope stripe.read)."""
    from broker.cli.agents import own_agent
    from broker.settings.values import duration

    settings = output.settings_from(home)
    wanted = {"scope": " ".join(scope), "task": task, "reason": reason}
    if ttl is not None:
        try:
            wanted["ttl"] = str(duration(ttl))
        except ValueError as error:
            raise ConfigurationError(f"--ttl is {ttl!r}; expected {error}") from None
    answer = asyncio.run(
        request_token(
            settings,
            own_agent(settings, agent),
            {name: value for name, value in wanted.items() if value is not None},
        )
    )
    output.emit(answer, lambda: typer.echo(answer["access_token"]), json)


async def request_token(
    settings: Settings, agent: str, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Return the token endpoint's answer to `agent`, who proves itself with its own key.

    `wanted` are parameters of the request: `scope`, `task`, `reason`, `ttl`.

    Raises:
        ConfigurationError: the agent has no private key here, or the request was refused.
        UpstreamError: no broker answers.
    """
    import httpx

    from broker import http
    from broker.app.home import Places
    from broker.files import read_private
    from broker.identity.local import client_assertion
    from providers.base import Secret

    key = Secret(read_private(Places(settings.home).agent_key(agent)))
    form = {
        "grant_type": "client_credentials",
        "client_id": agent,
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": client_assertion(key, agent, settings.issuer),
        **wanted,
    }
    async with http.client(allow_private=True, allow_loopback_http=True) as client:
        try:
            response = await client.post(settings.token_endpoint, data=form)
        except (httpx.TransportError, UpstreamError) as error:
            raise UpstreamError(
                f"no broker answers at {settings.issuer} ({type(error).__name__}); "
                "start it with `broker serve`"
            ) from None
    try:
        answer = dict(response.json())
    except (ValueError, TypeError):
        answer = {}
    if "error" in answer:
        told = output.printable(str(answer.get("error_description") or answer["error"]))
        raise ConfigurationError(f"refused: {told}")
    if response.status_code != _OK or "access_token" not in answer:
        raise UpstreamError(f"what answers at {settings.token_endpoint} is not a broker")
    return answer
