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

    settings = output.settings_from(home)
    wanted = parameters(" ".join(scope), task=task, reason=reason, ttl=ttl)
    answer = asyncio.run(request_token(settings, own_agent(settings, agent), wanted))
    output.emit(answer, lambda: typer.echo(answer["access_token"]), json)


def parameters(
    scope: str, *, task: str | None, reason: str | None, ttl: str | None
) -> dict[str, str]:
    """Return what a request for a task token says, from what the command line says.

    Raises:
        ConfigurationError: `ttl` is no time.
    """
    from broker.settings.values import duration

    wanted = {"scope": scope, "task": task, "reason": reason}
    if ttl is not None:
        try:
            wanted["ttl"] = str(duration(ttl))
        except ValueError as error:
            raise ConfigurationError(f"--ttl is {ttl!r}; expected {error}") from None
    return {name: value for name, value in wanted.items() if value is not None}


def _advice(settings: Settings, agent: str) -> str | None:
    """Return what the broker does not tell a stranger, and its policy shows whoever owns it."""
    from broker.app.policies import home_policy
    from broker.errors import PolicyError

    try:
        known = home_policy(settings).agents
    except PolicyError:
        return "mend the policy: `broker policy check`"
    if agent not in known:
        return f"no policy has the agent {agent} yet: `broker agents grant {agent} SCOPE`"
    return None


async def request_token(
    settings: Settings, agent: str, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Return the token endpoint's answer to `agent`, who proves itself with its own key.

    `wanted` are parameters of the request: `scope`, `task`, `reason`, `ttl`.

    Raises:
        ConfigurationError: the agent has no private key here, or the request was refused.
        UpstreamError: no broker answers.
    """
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
    status, answer = await post(settings, settings.token_endpoint, data=form)
    if "error" in answer:
        told = output.printable(str(answer.get("error_description") or answer["error"]))
        advice = _advice(settings, agent)
        raise ConfigurationError(f"refused: {told}" + (f"; {advice}" if advice else ""))
    if status != _OK or "access_token" not in answer:
        raise not_a_broker(settings.token_endpoint)
    return answer


async def post(settings: Settings, url: str, **content: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON object that the broker answers; {} if it is none.

    Raises:
        UpstreamError: no broker answers.
    """
    import httpx

    from broker import http

    async with http.client(allow_private=True, allow_loopback_http=True) as client:
        try:
            response = await client.post(url, **content)
        except (httpx.TransportError, UpstreamError) as error:
            raise UpstreamError(
                f"no broker answers at {settings.issuer} ({type(error).__name__}); "
                "start it with `broker serve`"
            ) from None
    try:
        return response.status_code, dict(response.json())
    except (ValueError, TypeError):
        return response.status_code, {}


def not_a_broker(url: str) -> UpstreamError:
    """Return the error of an answer that no broker gives."""
    return UpstreamError(f"what answers at {url} is not a broker")
