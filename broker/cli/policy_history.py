"""`broker policy history|rollback|export`: the policy that is set through the admin API."""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from broker.cli import output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from broker.changes.keeping import Changed
    from broker.model import PolicyChange, PolicyEntry
    from broker.settings import Settings
    from broker.storage.sqlite import SqliteStorage

_T = TypeVar("_T")

_SHORT: Final = 60


def register(group: typer.Typer) -> None:
    """Add the commands to the group `broker policy`."""
    group.command("history")(history)
    group.command("rollback")(rollback)
    group.command("export")(export)


def history(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest first.")
    ] = 20,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """List the versions that the admin API has made: when, by whom, what and why."""
    settings = _settings(home)
    found = asyncio.run(_with(settings, lambda storage: storage.policies.versions(None, limit)))

    def human() -> None:
        output.table(
            ("version", "time", "by", "what", "why"),
            [
                (str(one.number), _utc(one.made_at), one.made_by, _what(one), one.comment or "-")
                for one in found
            ],
            "The admin API has changed nothing yet: all policy is in files.",
        )

    output.emit([_version(one) for one in found], human, json)


def rollback(
    number: Annotated[
        int, typer.Argument(metavar="N", min=0, help="The version; 0 means empty, as at first.")
    ],
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Have what the admin API keeps be as it was at version N; that makes a new version.

    Files are not touched. A broker that runs knows within about a second.
    """
    from broker.app.admin import judges
    from broker.app.trail import acting_user, recorded
    from broker.changes.keeping import KeptPolicies
    from broker.changes.recorded import ACTION

    settings = _settings(home)
    if not yes:
        output.confirm(f"Set the policy that the admin API keeps back to version {number}?")

    async def back(storage: SqliteStorage) -> Changed:
        kept = KeptPolicies(storage.policies, judges(settings))
        return await kept.rollback(number, by=acting_user(), comment=reason, now=time.time())

    with recorded(settings, ACTION, f"rollback to version {number}", reason=reason) as note:
        changed = asyncio.run(_with(settings, back))
        made = changed.change
        came = f"version {made.number}, sha256:{made.digest}" if made else "all was so before"
        note(came)

    def human() -> None:
        if made is None:
            typer.echo(f"All is as at version {number} already; nothing was changed.")
        else:
            typer.echo(f"Version {made.number} is as version {number}: {_what(made)}.")

    output.emit(_version(made) if made else {"version": changed.kept.number}, human, json)


def export(
    *,
    api_only: Annotated[
        bool, typer.Option("--api-only", metavar="", help="Without what files define.")
    ] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Print the policy as YAML that loads again, with where each entry is from."""
    from broker.app.backends import reference_check
    from broker.app.policies import home_policy, kept_policy
    from broker.policy.merging import merge
    from broker.policy.references import KEPT
    from broker.policy.writing import policy_text
    from broker.reload import read_policies

    settings = output.settings_from(home)
    policy = home_policy(settings, reference_check(settings))
    kept = kept_policy(settings)
    sections: dict[str, dict[str, Any]] = {}
    remarks: dict[tuple[str, str], str] = {}
    for entry in kept.entries:
        sections.setdefault(entry.section, {})[entry.name] = jsonlib.loads(entry.body)
        remarks[entry.section, entry.name] = _origin(entry)
    if not api_only:
        for section, entries in merge(read_policies(settings.policies), []).items():
            for name, defined in entries.items():
                sections.setdefault(section, {})[name] = defined.node.plain()
                remarks[section, name] = f"from {defined.place}"
    sections = {name: dict(sorted(entries.items())) for name, entries in sections.items()}
    what = f"what {KEPT} keeps, version {kept.number}" if api_only else policy.version

    def human() -> None:
        typer.echo(f"# {what}\n{policy_text(sections, remarks)}", nl=False)

    output.emit(_exported(policy.version, kept.number, sections), human, json)


def _exported(policy_version: str, number: int, sections: Mapping[str, Any]) -> dict[str, Any]:
    return {"policy_version": policy_version, "version": number, **sections}


def _origin(entry: PolicyEntry) -> str:
    change = entry.change
    why = f": {change.comment}" if change.comment else ""
    return f"version {change.number}, {_utc(change.made_at)}, {change.made_by}{why}"


def _what(change: PolicyChange) -> str:
    edits = [
        f"{'set' if edit.body is not None else 'remove'} {edit.section}/{edit.name}"
        for edit in change.edits
    ]
    text = ", ".join(edits)
    return text if len(text) <= _SHORT else f"{edits[0]} and {len(edits) - 1} more"


def _version(change: PolicyChange) -> dict[str, Any]:
    from broker.api.admin.shapes import change_data

    return change_data(change)


def _settings(home: Path | None) -> Settings:
    from broker.app.home import open_keys

    settings = output.settings_from(home)
    open_keys(settings)
    return settings


async def _with(settings: Settings, do: Callable[[SqliteStorage], Awaitable[_T]]) -> _T:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await do(storage)
    finally:
        await storage.close()


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
