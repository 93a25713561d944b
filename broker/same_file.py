"""Notice that a database was put in the place of the one that is open.

What is written to the one that is open is lost then, and what others write is not seen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from broker.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


class SameFile:
    """The file that stands at `path` now, which has been opened."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path.absolute()
        self._opened: Final = self._file()

    def require(self) -> None:
        """Raise `StorageError`, saying what to do, if it does not stand there any more."""
        if self._file() != self._opened:
            raise StorageError(
                f"{self._path}: is not the file any more that was opened: it was moved, removed "
                "or replaced meanwhile; start the broker anew"
            )

    def _file(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - asked often; a Path takes twice as long
        except OSError:
            return None
        return found.st_dev, found.st_ino
