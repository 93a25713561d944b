"""`broker agents`: who may ask for task tokens, and for what; keys for agents of this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import output
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from broker.model import EnrolledKey
    from broker.settings import Settings

AgentArgument = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(
        help="List agents; enrol them on this machine; grant them scopes.",
        invoke_without_command=True,
    )
    group.callback()(show)
    group.command("enroll")(enroll)
    group.command("grant")(grant)
    group.command("unenroll")(unenroll)
    app.add_typer(group, name="agents")


def show(
    context: typer.Context, home: output.HomeOption = None, *, json: output.JsonOption = False
) -> None:
    """List agents; enrol them on this machine; grant them scopes."""
    if context.invoked_subcommand is not None:
        return
    from broker.app.policies import home_policy

    settings = output.settings_from(home)
    agents = home_policy(settings).agents
    keys = asyncio.run(_enrolled(settings))
    data: list[dict[str, Any]] = [
        {
            "name": name,
            "scopes": list(agent.scopes),
            "max_ttl": agent.max_ttl,
            "enrolled_keys": [key.kid for key in keys if key.agent == name],
        }
        for name, agent in sorted(agents.items())
    ]
    waiting = sorted({key.agent for key in keys} - set(agents))
    data += [
        {
            "name": name,
            "scopes": [],
            "max_ttl": None,
            "enrolled_keys": [key.kid for key in keys if key.agent == name],
        }
        for name in waiting
    ]

    def human() -> None:
        rows = [
            (
                item["name"],
                ", ".join(item["scopes"]) or "none yet: broker agents grant",
                f"{item['max_ttl']}s" if item["max_ttl"] else "-",
                str(len(item["enrolled_keys"])) if item["enrolled_keys"] else "-",
            )
            for item in data
        ]
        output.table(
            ("agent", "scopes", "max ttl", "keys"), rows, "No agents: broker agents enroll NAME"
        )

    output.emit(data, human, json)


def enroll(
    name: AgentArgument,
    *,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="What it may ask for (repeatable).")
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Make a key pair for an agent of this machine; the broker keeps the public key."""
    from broker.app.home import enrol_agent, open_keys
    from broker.app.trail import recorded
    from broker.cli.documents import Documents, require_name

    settings = output.settings_from(home)
    open_keys(settings)
    require_name("an agent", name)
    documents = Documents(settings)
    if scope:
        documents.grant(name, scope)
        documents.check()
    with recorded(settings, "agent.enrol", f"for {' '.join(scope or ['nothing yet'])}", agent=name):
        key = asyncio.run(enrol_agent(settings, name))
        written = documents.write() if scope else ()

    def human() -> None:
        typer.echo(f"Agent {name} is enrolled; its private key is {key}")
        for path in written:
            typer.echo(f"It may ask for {' '.join(scope or ())}, says {path}")
        if scope:
            output.next_steps(
                (f"broker token --agent {name} --scope {scope[0]}", "a task token for it")
            )
        else:
            output.next_steps((f"broker agents grant {name} SCOPE", "let it ask for something"))

    data = {"agent": name, "agent_key": str(key), "policy": [str(path) for path in written]}
    output.emit(data, human, json)


def grant(
    name: AgentArgument,
    scopes: Annotated[list[str], typer.Argument(metavar="SCOPE...", help="What it may ask for.")],
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Let an agent ask for more scopes."""
    from broker.app.trail import recorded
    from broker.cli.documents import Documents, require_name

    settings = output.settings_from(home)
    require_name("an agent", name)
    documents = Documents(settings)
    path = documents.grant(name, scopes)
    documents.check()
    with recorded(settings, "agent.grant", " ".join(scopes), agent=name):
        changed = documents.write()
    said = "may now ask for" if changed else "could ask already for"
    output.emit(
        {"agent": name, "scopes": scopes, "policy": str(path), "changed": bool(changed)},
        lambda: typer.echo(f"Agent {name} {said} {' '.join(scopes)}, says {path}"),
        json,
    )


def unenroll(
    name: AgentArgument, *, home: output.HomeOption = None, json: output.JsonOption = False
) -> None:
    """Forget an agent's public keys: it can prove itself no more. Tokens it has live out."""
    from broker.app.home import Places, open_keys
    from broker.app.trail import recorded

    settings = output.settings_from(home)
    open_keys(settings)
    if name not in {key.agent for key in asyncio.run(_enrolled(settings))}:
        output.fail(f"no key is enrolled for {name!r}", "see `broker agents`")
    path = Places(settings.home).agent_key(name)
    with recorded(settings, "agent.unenrol", "all its keys", agent=name):
        removed = asyncio.run(_unenroll(settings, name))
        path.unlink(missing_ok=True)
    output.emit(
        {"agent": name, "removed_keys": removed},
        lambda: typer.echo(f"{removed} key(s) of {name} forgotten; {path} removed"),
        json,
    )


def choose_agent(settings: Settings, given: str | None) -> str:
    """Return the agent that a command means: `given`, or the only one that there is.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    from broker.app.policies import home_policy
    from broker.cli.documents import require_name

    if given is not None:
        require_name("an agent", given)
        return given
    known = {key.agent for key in asyncio.run(_enrolled(settings))}
    known |= set(home_policy(settings).agents)
    return _only(known, "enrol one with `broker agents enroll NAME`")


def own_agents(settings: Settings) -> set[str]:
    """Return the agents whose private keys are in this home."""
    from broker.app.home import Places

    return {path.stem for path in Places(settings.home).agents.glob("*.pem")}


def own_agent(settings: Settings, given: str | None) -> str:
    """Return the agent whose private key is here: `given`, or the only one.

    Raises:
        ConfigurationError: there is none, or more than one, or `given` is not among them.
    """
    known = own_agents(settings)
    if given is None:
        return _only(known, "enrol one with `broker agents enroll NAME`")
    if given not in known:
        raise ConfigurationError(
            f"agent {given!r} has no private key in {settings.home}; "
            f"enrol it with `broker agents enroll {given}`, or choose from: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return given


def _only(known: set[str], remedy: str) -> str:
    if not known:
        raise ConfigurationError(f"there is no agent here yet; {remedy}")
    if len(known) > 1:
        raise ConfigurationError(
            f"which agent? say --agent with one of: {', '.join(sorted(known))}"
        )
    return known.pop()


async def _enrolled(settings: Settings) -> tuple[EnrolledKey, ...]:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.enrolled_keys()
    finally:
        await storage.close()


async def _unenroll(settings: Settings, agent: str) -> int:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.unenrol(agent)
    finally:
        await storage.close()
