"""The trail as commands see it: which keys it is signed with, and how to record what they do."""

from __future__ import annotations

import logging
import os
import pwd
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

from broker.app.home import Places, open_keys
from broker.app.worker import MAIN, writer
from broker.audit.head import Head, read_head, writers_with_head
from broker.audit.once import close_chain, record_once
from broker.audit.statement import TrustedKeys
from broker.errors import AuditUnavailable, BrokerError
from broker.keys.jwk import verify_es256
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.keys.signing import KeySet
    from broker.settings import Settings

_log: Final = logging.getLogger(__name__)


def trusted_keys(keys: KeySet) -> TrustedKeys:
    """Return every key that ever signed here: a checkpoint outlives its key's use."""
    return TrustedKeys(tuple(state.key.public_jwk() for state in keys.keys), verify_es256)


def close_left_chains(settings: Settings, keys: KeySet) -> None:
    """Sign and close the chains of workers that were killed and have no successor now.

    One that cannot be closed is as it was, and `broker audit verify` says what is in it.
    """
    place, trusted = Places(settings.home).audit, trusted_keys(keys)
    used = {writer(number + 1) for number in range(settings.workers)}
    for name in writers_with_head(place):
        if name in used or not name.startswith(f"{MAIN}."):
            continue
        head = read_head(place, name, trusted)
        if isinstance(head, Head) and head.closed:
            continue
        try:
            close_chain(place, keys.signer, trusted, name)
        except BrokerError as error:
            _log.warning("the audit chain %s could not be closed: %s", name, error)


@contextmanager
def recorded(  # noqa: PLR0913 - what a record may name, each by its name
    settings: Settings,
    action: str,
    detail: str,
    *,
    agent: str | None = None,
    service: str | None = None,
    grant: str | None = None,
    reason: str | None = None,
) -> Iterator[Callable[[str], None]]:
    """Record that a person is about to do something; let the block do it; record how it ended.

    `action` is a dotted verb such as `secret.put`, `detail` says to what and holds no value.
    The block may call what it is given to say what came of it.
    Raises `AuditUnavailable`, and the block does not run, if the intent cannot be recorded;
    and after the block, if its outcome cannot.
    """
    keys = open_keys(settings).audit
    operation = secrets.token_hex(8)
    notes = [detail]

    def put(phase: Literal["intent", "outcome"], error: BaseException | None = None) -> None:
        # The texts of our own errors hold no secret; of others we know nothing but their type.
        cause = f": {error}" if isinstance(error, BrokerError) else ""
        record = AuditRecord(
            time=time.time(),
            action=action,
            phase=phase,
            operation=operation,
            decision="error" if error else "allow",
            agent=agent,
            grant=grant,
            reason=reason,
            subject=acting_user(),
            service=service,
            detail=f"{detail}: {type(error).__name__}{cause}" if error else ": ".join(notes),
        )
        record_once(Places(settings.home).audit, keys.signer, trusted_keys(keys), record)

    put("intent")
    try:
        yield notes.append
    except BaseException as error:
        with suppress(AuditUnavailable):  # the intent stands, and says that the outcome is missing
            put("outcome", error)
        raise
    put("outcome")


def acting_user() -> str:
    """Return who runs the command, by the system's word and not the environment's."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"user:{name}"
