"""The admin API of a running broker, and what judges the changes that come by it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from broker.administrators import Administrators
from broker.api.admin.app import AdminPlane, create_admin_app
from broker.api.admin.policy import PolicyPages
from broker.app.backends import reference_check
from broker.changes.keeping import Judges, KeptPolicies
from broker.changes.recorded import RecordedChanges
from broker.policy.loader import find_problems, load_policy
from broker.reload import read_policies
from broker.settings.values import authority, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp

    from broker.app.identities import Identities
    from broker.audit.base import Trail
    from broker.changes.following import PolicyFollower
    from broker.policy.engine import Policy
    from broker.policy.source import Document
    from broker.reload import PolicyStore
    from broker.settings import Settings
    from broker.storage.base import Storage


def judges(
    settings: Settings,
    check: Callable[[str], None] | None = None,
    identities: Identities | None = None,
) -> Judges:
    """Return what judges a policy as this broker would.

    `check` judges secret references, if more is known than their form; `identities` whether the
    identity sources can be built.
    """
    check_reference = check or reference_check(settings)

    def load(documents: Iterable[Document]) -> Policy:
        policy = load_policy(documents, check_reference=check_reference)
        if identities is not None:
            identities.judge(policy)
        return policy

    return Judges(
        partial(read_policies, settings.policies),
        load,
        partial(find_problems, check_reference=check_reference),
    )


def admin_app(  # noqa: PLR0913 - the parts of the plane, each by its name
    settings: Settings,
    *,
    storage: Storage,
    trail: Trail,
    policies: PolicyStore,
    follower: PolicyFollower,
    judged_by: Judges,
) -> ASGIApp:
    """Return the admin API."""
    kept = KeptPolicies(storage.policies, judged_by)
    pages = PolicyPages(
        storage.policies,
        kept,
        RecordedChanges(kept, trail, follower.catch_up),
        lambda: (policies.current, policies.documents),
    )
    administrators = Administrators(storage.admin_tokens)
    return create_admin_app(AdminPlane(administrators, trail, _hosts(settings), pages))


def _hosts(settings: Settings) -> frozenset[str]:
    """Return what a Host header may say: the listener itself, and the URL that leads to it."""
    host, port = settings.admin.host, settings.admin.port or 0
    names = {host, "localhost", "127.0.0.1", "::1"} if is_loopback(host) else {host}
    hosts = {authority(name, port) for name in names}
    if settings.admin.url is not None:
        hosts.add(urlsplit(settings.admin.url).netloc)
    return frozenset(name.lower() for name in hosts)
