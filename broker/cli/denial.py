"""What a revocation leaves behind: credentials that nobody can revoke, and how they are denied."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import typer

from broker.errors import ConfigurationError
from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.model import Lease, RevocationKind
    from broker.settings import Settings
    from broker.storage.base import Ended
    from providers.denial import Denial

ACTION: Final = "credential.deny"


@dataclass(slots=True)
class Outliving:
    """Credentials of one place that outlive their grants.

    `grants` says until when each of these has one; `done` what has been put there, if anything.
    """

    denial: Denial
    leases: list[Lease] = field(default_factory=list)
    grants: dict[str, float] = field(default_factory=dict)
    done: str | None = None

    def add(self, lease: Lease) -> None:
        """Count a credential that expires later."""
        self.leases.append(lease)
        known = self.grants.get(lease.grant, 0.0)
        self.grants[lease.grant] = max(known, lease.expires_at)

    def data(self, now: float) -> dict[str, Any]:
        """Return it as it is shown with `--json`."""
        return {
            "place": self.denial.place,
            "credentials": [
                {
                    "lease": lease.id,
                    "grant": lease.grant,
                    "agent": lease.agent,
                    "service": lease.service,
                    "expires_at": lease.expires_at,
                    "remaining": round(lease.expires_at - now),
                }
                for lease in self.leases
            ],
            "policy": json.loads(self.denial.document(self.grants, now)),
            "done": self.done,
        }


def outliving(
    settings: Settings, kind: RevocationKind, value: str, ended: Ended
) -> list[Outliving]:
    """Return what agents still have of the grants that a revocation has ended, now or before."""
    jtis = {grant.jti for grant in ended.grants}

    def concerned(lease: Lease) -> bool:
        line = {lease.grant, *lease.ancestors}
        named = {
            "grant": value in line,
            "agent": lease.agent == value,
            "scope": lease.scope == value,
            "all": True,
        }
        return named[kind] or not jtis.isdisjoint(line)

    return _by_place(settings, lambda lease: concerned(lease) and lease.delivery == "credential")


def deny(settings: Settings, found: Iterable[Outliving], reason: str | None) -> None:
    """Put what denies them where it is to stand, on record.

    Raises:
        ConfigurationError: that failed somewhere; it was tried everywhere all the same.
    """
    failures: list[str] = []
    for one in found:
        try:
            _put(settings, one, reason)
        except ConfigurationError as error:
            failures.append(str(error))
    if failures:
        raise ConfigurationError("; ".join(failures))


def _put(settings: Settings, one: Outliving, reason: str | None) -> None:
    from broker.app.trail import recorded

    place = one.denial.place
    with recorded(settings, ACTION, f"{len(one.grants)} grants at {place}", reason=reason) as note:
        try:
            one.done = one.denial.put(one.grants, time.time())
        except ProviderError as error:
            what = (
                f"the grants are revoked, but nobody is denied at {place}"
                if one.grants
                else f"what has expired could not be taken off {place}"
            )
            raise ConfigurationError(f"{what}: {error}") from None
        note(one.done)


def tidy(settings: Settings) -> list[Outliving]:
    """Return the places where something may stand that nobody needs any more."""
    found = _by_place(settings, lambda _: True, over=True)
    for one in found:
        one.leases.clear()
        one.grants.clear()
    return found


def tell(found: Iterable[Outliving], *, written: bool) -> None:
    """Say what outlives its grant, for how long, and what ends it sooner."""
    now = time.time()
    for one in found:
        last = max(one.grants.values(), default=now) - now
        if one.leases:
            typer.echo(
                f"{len(one.leases)} credential(s) of {one.denial.place} cannot be revoked; agents "
                f"have them until they expire, the last in {last:.0f}s."
            )
        if one.done is not None:
            typer.echo(f"{one.denial.place}: {one.done}.")
        elif written:
            typer.echo("This policy on it denies them at once; --aws-deny-apply puts it there:")
            typer.echo(one.denial.document(one.grants, now))
        else:
            typer.echo("--aws-deny writes the policy that denies them at once.")


def _by_place(
    settings: Settings, wanted: Callable[[Lease], bool], *, over: bool = False
) -> list[Outliving]:
    found: dict[str, Outliving] = {}
    now = time.time()
    for lease in asyncio.run(_leases(settings, over=over)):
        if not wanted(lease) or (lease.expires_at <= now and not over):
            continue
        denial = _denial(lease)
        if denial is not None:
            found.setdefault(denial.place, Outliving(denial)).add(lease)
    return [found[place] for place in sorted(found)]


def _denial(lease: Lease) -> Denial | None:
    from broker.policy.plugins import InstalledPlugins

    try:
        plugin = InstalledPlugins().get(lease.provider)
        if plugin is None or plugin.denial is None:
            return None
        return plugin.denial(plugin.service_model.model_validate_json(lease.config))
    except (ConfigurationError, ValueError):
        return None  # of a plugin that is broken, or has changed; `broker doctor` says so


async def _leases(settings: Settings, *, over: bool) -> tuple[Lease, ...]:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.leases.leases(over=over)
    finally:
        await storage.close()
