"""`broker revoke`: end grants at once, whether or not the broker runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output
from broker.errors import ConfigurationError, InvalidRequest, StorageError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from broker.cli.denial import Outliving
    from broker.model import Grant, RevocationKind, Session
    from broker.settings import Settings
    from broker.storage.base import Ended

ACTION: Final = "grant.revoke"

_LONGEST_REASON: Final = 500
_WHICH: Final = "say which: a grant (see `broker sessions`), --agent, --scope or --all"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("revoke")(revoke)


def revoke(  # noqa: PLR0913 - each is an option
    grant: Annotated[
        str | None, typer.Argument(metavar="[GRANT]", help="The grant's id; its children end too.")
    ] = None,
    *,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="All in which this agent has a part.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(metavar="NAME", help="All that hold this scope.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Every grant.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")] = False,
    aws_deny: Annotated[
        bool,
        typer.Option("--aws-deny", metavar="", help="Write the policy that denies AWS sessions."),
    ] = False,
    aws_deny_apply: Annotated[
        bool,
        typer.Option("--aws-deny-apply", metavar="", help="Put it on their roles, as yourself."),
    ] = False,
    aws_deny_tidy: Annotated[
        bool,
        typer.Option("--aws-deny-tidy", metavar="", help="Take off roles what has expired, alone."),
    ] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """End live grants: their task tokens are refused, their streams cut, their credentials ended.

    Grants that are issued later are not touched. A broker that runs knows within a second.

    AWS sessions cannot be revoked, and live on until they expire, unless their role denies them:
    --aws-deny-apply has it do so, with the AWS credentials of whoever runs this (AWS_PROFILE).
    """
    from broker.app.home import open_keys
    from broker.cli import denial
    from broker.cli.sessions import live_sessions

    if reason is not None and len(reason) > _LONGEST_REASON:
        raise InvalidRequest(f"--reason must have at most {_LONGEST_REASON} characters")
    if aws_deny_tidy:
        if any((grant, agent, scope, everything, aws_deny, aws_deny_apply)):
            raise InvalidRequest("--aws-deny-tidy revokes nothing; run it alone")
        _tidy(home, reason, json)
        return
    kind, value = _target(grant, agent, scope, everything=everything)
    settings = output.settings_from(home)
    open_keys(settings)
    live = asyncio.run(live_sessions(settings))
    _require_known(settings, kind, value, live)
    if kind == "all" and not yes:
        output.confirm(f"End all {len(live)} live grant(s), of every agent?")
    ended = _revoke(settings, kind, value, reason)
    left = denial.outliving(settings, kind, value, ended)
    if aws_deny_apply:
        denial.deny(settings, left, reason)
    _show(settings, ended, left, json, written=aws_deny)


def _show(
    settings: Settings,
    ended: Ended,
    left: list[Outliving],
    json: bool,  # noqa: FBT001 - as the command is given it
    *,
    written: bool,
) -> None:
    from broker.cli import denial

    kind, value, now = ended.revocation.kind, ended.revocation.value, time.time()

    def human() -> None:
        _tell(kind, value, ended, sum(len(one.leases) for one in left))
        denial.tell(left, written=written)
        _tell_next(settings, kind, value)

    output.emit(_as_data(ended) | {"outliving": [one.data(now) for one in left]}, human, json)


def _tidy(home: Path | None, reason: str | None, json: bool) -> None:  # noqa: FBT001 - as given
    from broker.app.home import open_keys
    from broker.cli import denial

    settings = output.settings_from(home)
    open_keys(settings)
    places = denial.tidy(settings)
    denial.deny(settings, places, reason)
    data = [{"place": one.denial.place, "done": one.done} for one in places]

    def human() -> None:
        denial.tell(places, written=False)
        if not places:
            typer.echo(
                "No AWS session was opened within the last day; there is nothing to look at."
            )

    output.emit(data, human, json)


def _target(
    grant: str | None, agent: str | None, scope: str | None, *, everything: bool
) -> tuple[RevocationKind, str]:
    """Return what is to be revoked; exactly one thing must be named."""
    named: list[tuple[RevocationKind, str]] = []
    if grant is not None:
        named.append(("grant", grant))
    if agent is not None:
        named.append(("agent", agent))
    if scope is not None:
        named.append(("scope", scope))
    if everything:
        named.append(("all", ""))
    if len(named) != 1 or (named[0][0] != "all" and not named[0][1]):
        raise InvalidRequest(_WHICH if not named else f"name one thing to revoke; {_WHICH}")
    return named[0]


def _require_known(
    settings: Settings, kind: RevocationKind, value: str, live: tuple[Session, ...]
) -> None:
    """Refuse a name that means nothing here: whoever mistypes one must not feel safe."""
    grants = [one.grant for one in live]
    if kind == "grant":
        known = {grant.jti for grant in grants}
        if value not in known and not asyncio.run(_was_issued(settings, value)):
            raise ConfigurationError(
                f"there is no grant {value!r}{did_you_mean(value, known)}; `broker sessions` "
                "lists those that are live"
            )
        return
    if kind == "all":
        return
    if kind == "agent":
        known = {name for grant in grants for name in grant.parties}
    else:
        known = {name for grant in grants for name in grant.scopes}
    known |= _in_policy(settings, kind)
    if value not in known:
        raise ConfigurationError(
            f"no live grant and no policy knows {kind} {value!r}{did_you_mean(value, known)}"
        )


def _in_policy(settings: Settings, kind: RevocationKind) -> set[str]:
    from broker.app.policies import home_policy

    with suppress(
        ConfigurationError, StorageError
    ):  # a policy that does not load must not stop this
        policy = home_policy(settings)
        return set(policy.agents if kind == "agent" else policy.scopes)
    return set()


async def _was_issued(settings: Settings, jti: str) -> bool:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.grant(jti) is not None
    finally:
        await storage.close()


def _revoke(settings: Settings, kind: RevocationKind, value: str, reason: str | None) -> Ended:
    from broker.app.trail import recorded

    detail = f"{kind} {value}".strip()
    about = {kind: value} if kind in {"grant", "agent"} else {}
    with recorded(settings, ACTION, detail, reason=reason, **about) as note:
        ended = asyncio.run(_store(settings, kind, value, reason))
        note(f"ended {len(ended.grants)} grants, {ended.leases} leases")
    return ended


async def _store(settings: Settings, kind: RevocationKind, value: str, reason: str | None) -> Ended:
    from broker.app.home import open_storage
    from broker.app.trail import acting_user
    from broker.revoked import revocation

    storage = open_storage(settings)
    try:
        order = revocation(kind, value, now=time.time(), by=acting_user(), reason=reason)
        ended = await storage.revocations.add(order)
    finally:
        await storage.close()
    if kind != "grant":
        # Grants carry whole seconds: what is asked for once this returns is from the next one.
        await asyncio.sleep(min(1.0, max(0.0, order.revoked_at + 1 - time.time())))
    return ended


def _tell(kind: RevocationKind, value: str, ended: Ended, left: int) -> None:
    whose = {"grant": "", "agent": f" of agent {value}", "scope": f" with scope {value}", "all": ""}
    count = len(ended.grants)
    if count:
        typer.echo(f"Revoked: {count} live grant(s){whose[kind]}.")
    elif kind == "grant":
        typer.echo("That grant has ended already; nothing else descends from it.")
    else:
        typer.echo(f"There was no live grant{whose[kind]}; what was being issued is refused.")
    if ended.leases > left:
        count = ended.leases - left
        typer.echo(f"{count} credential(s) minted under them are being revoked upstream.")
    typer.echo("A running broker refuses their tokens and cuts their streams within a second.")


def _tell_next(settings: Settings, kind: RevocationKind, value: str) -> None:
    if kind == "grant":
        typer.echo("Its agent can ask for a new task token. To end all of an agent's:")
        output.next_steps(("broker revoke --agent NAME", "end every grant of an agent"))
    elif kind == "agent":
        typer.echo(
            f"Agent {value} can ask for new task tokens. To stop that, delete it from the policy "
            f"documents in {settings.policies}; an agent of this machine is also stopped by:"
        )
        output.next_steps((f"broker agents unenroll {value}", "forget its keys"))
    elif kind == "scope":
        typer.echo(
            f"Scope {value} can be asked for again. To stop that, delete it from the agents in "
            f"the policy documents in {settings.policies}."
        )
    else:
        typer.echo("Agents can ask for new task tokens, as policy allows.")


def _as_data(ended: Ended) -> dict[str, Any]:
    order = ended.revocation
    return {
        "kind": order.kind,
        "value": order.value or None,
        "revoked_at": order.revoked_at,
        "by": order.by,
        "reason": order.reason,
        "grants": [_grant_data(grant) for grant in ended.grants],
        "leases": ended.leases,
    }


def _grant_data(grant: Grant) -> dict[str, Any]:
    return {"grant": grant.jti, "agent": grant.agent, "scopes": list(grant.scopes)}
