"""Tell at once, and without a thread, that nothing has been committed to a database since.

What changes seldom and has to be known soon is asked for several times a second; nearly always
the answer is that nothing is new.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from broker.same_file import SameFile

if TYPE_CHECKING:
    from pathlib import Path


class Commits:
    """The commits to the SQLite database at `path`, which has to be there and to keep a WAL.

    It has a connection of its own, which only reads.
    """

    def __init__(self, path: Path) -> None:
        self._same: Final = SameFile(path)
        self._connection: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):
            # It waits for nobody: it is asked on the event loop.
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )

    def latest(self) -> int | None:
        """Return a number that changes with each commit of whatever process.

        None if that cannot be told now, such as while the database is being recovered. It is
        SQLite's `PRAGMA data_version`: in a WAL a look at memory that the processes share.

        Raises `StorageError` if another file is in the place of the one that was opened: what
        others commit goes there.
        """
        self._same.require()
        if self._connection is None:
            return None
        try:
            # All rows: as long as one may be left, the connection sees the database of that moment.
            rows = self._connection.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error:
            return None
        return int(rows[0][0])

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
