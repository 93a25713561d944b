"""Sync a file by the kernel and print how that ended; run with the faults of a test."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from broker.audit.sync import KernelSync, SyncUnavailable


async def main(path: Path) -> str:
    """Write to the file, have it synced, and return what was told of that."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[OSError | None] = loop.create_future()
    with path.open("wb", buffering=0) as file:
        file.write(b"to be synced")
        try:
            KernelSync(loop).begin(file.fileno(), told.set_result)
        except SyncUnavailable as error:
            return str(error)
        failure = await told
    return "done" if failure is None else f"{failure.errno} {failure.strerror}"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(Path(sys.argv[1]))))
