"""Record what a command does, where no event loop runs and the broker may be running beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.audit.journal import Journal
from broker.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.audit.statement import Signs, TrustedKeys
    from broker.model import AuditRecord

COMMANDS: Final = "cli"
"""The writer of the command line's records: a chain of its own beside the broker's."""

LOCK_SECONDS: Final = 10.0
"""How long a command waits for another one that writes at the same time."""


def record_once(
    directory: Path, signer: Signs, trusted: TrustedKeys, *records: AuditRecord
) -> None:
    """Append records to the command line's chain; they are durable on return.

    Raises `AuditUnavailable` if they cannot be written: then do not do what they announce.
    """
    _write(Journal(directory, signer, trusted, writer=COMMANDS), records, LOCK_SECONDS)


def close_chain(directory: Path, signer: Signs, trusted: TrustedKeys, writer: str) -> None:
    """Go over a chain that its writer left open, sign it, and close it in good order.

    Raises `AuditUnavailable` if that cannot be done, or if its writer is alive.
    """
    _write(Journal(directory, signer, trusted, writer=writer), (), 0.0)


def _write(journal: Journal, records: Sequence[AuditRecord], wait: float) -> None:
    try:
        journal.open(wait=wait)
        if records:
            journal.add(records)
            journal.commit()
        journal.close()
    except OSError as error:
        raise AuditUnavailable(f"the audit trail cannot be written: {error}") from error
    finally:
        journal.abandon()
