"""A process that records without end and says on stdout what it was told is durable."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_der_private_key

from broker.audit.journal import Journal, Rotation
from broker.audit.statement import TrustedKeys
from broker.audit.trail import AuditTrail
from broker.keys.jwk import verify_es256
from broker.keys.signing import FileSigningKey
from tests.broker.audit.trails import record

WAITING = 200


async def main(directory: Path, name: str) -> None:
    private = load_der_private_key(sys.stdin.buffer.read(), password=None)
    key = FileSigningKey(private)  # type: ignore[arg-type]  # the parent made it of this kind
    trusted = TrustedKeys((key.public_jwk(),), verify_es256)
    trail = AuditTrail(Journal(directory, key, trusted, rotation=Rotation(size=100_000)))
    await trail.start()
    free = asyncio.Semaphore(WAITING)

    def acknowledge(operation: str, error: Exception | None) -> None:
        free.release()
        if error is None:
            os.write(1, f"{operation}\n".encode())

    for number in count():
        await free.acquire()
        operation = f"{name}-{number}"
        trail.append(record(operation=operation), partial(acknowledge, operation))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
