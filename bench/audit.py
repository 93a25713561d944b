"""What a record costs: `python -m bench.audit`.

On one core: the processor time to make a record, to hand it to the trail, to encode and chain
it; then records a second and processor time for each when so many callers wait for durability.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

from broker.audit.chain import Chain
from broker.audit.journal import Journal
from broker.audit.redaction import redact_path
from broker.audit.statement import TrustedKeys
from broker.audit.trail import AuditTrail
from broker.audit.verify import verify
from broker.keys.jwk import verify_es256
from broker.keys.signing import FileSigningKey
from broker.model import AuditRecord
from broker.repeated import RecordTemplate, RepeatedRecord

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING: Final = (1, 8, 32, 256)
ROUNDS: Final = 20

_numbers = count()


def make() -> AuditRecord:
    """Return a record as the gateway makes it: by position."""
    return AuditRecord(
        time.time(), "proxy.request", "intent", f"5f1c-{next(_numbers):x}", "allow",
        "release-bot", "https://token.actions.githubusercontent.com",
        "repo:acme/app:ref:refs/heads/main", "0b2f4c1e9d3a4e5f", "publish the release", None,
        "stripe", "stripe.read", "GET /v1/**", "GET", "/v1/charges/ch_3MmlLrLkdIwHu7ix0snN0B15",
        None, None, None, None, "low", f"sha256:{'ab' * 32}", "127.0.0.1",
    )  # fmt: skip


def cost(work: Callable[[], object], times: int = 2000) -> float:
    """Return the least processor time of one call, in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - start)
    return best / times * 1e6


async def durable(trail: AuditTrail, waiting: int, total: int) -> tuple[float, float]:
    """Return records a second and processor microseconds each, with so many callers waiting."""
    left = total
    done = asyncio.get_running_loop().create_future()

    def again(error: Exception | None) -> None:
        nonlocal left
        left -= 1
        if error is not None or left == 0:
            if not done.done():
                done.set_result(error)
        elif left >= waiting:
            trail.append(make(), again)

    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(waiting):
        trail.append(make(), again)
    if error := await done:
        raise error
    return (
        total / (time.perf_counter() - wall),
        (time.process_time() - processor) / total * 1e6,
    )


async def measure(directory: Path, trusted: TrustedKeys, key: FileSigningKey, total: int) -> None:
    """Print what durable records cost."""
    trail = AuditTrail(Journal(directory, key, trusted))
    await trail.start()
    print(f"\n{'waiting':>8} {'records/s':>10} {'us/record':>10}")
    for waiting in WAITING:
        rate, each = await durable(trail, waiting, total // 10 if waiting == 1 else total)
        print(f"{waiting:>8} {rate:>10.0f} {each:>10.2f}")
    record = make()
    start = time.process_time()
    for _ in range(8000):
        trail.append(record)
    print(f"\nhand a record to the trail  {(time.process_time() - start) / 8000 * 1e6:8.2f} us")
    await trail.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit", description=__doc__)
    parser.add_argument("--records", type=int, default=50_000, help="in each durable run")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    chain, record = Chain("main"), make()
    made = cost(make)
    print(f"make a record               {made:8.2f} us")
    print(f"encode and chain a record   {cost(partial(chain.add, record)):8.2f} us")
    repeated = RepeatedRecord(time.time(), RecordTemplate(record), "5f1c-1", 200, 1.234, 0, 1024)
    print(f"the same, if it is repeated {cost(partial(chain.add, repeated)):8.2f} us")
    known = b"/v1/charges/ch_3MmlLrLkdIwHu7ix0snN0B15"
    print(f"redact a path seen before   {cost(partial(redact_path, known)):8.2f} us")
    fresh = (known + b"%d" % number for number in count())
    print(f"redact a new path           {cost(lambda: redact_path(next(fresh))):8.2f} us")
    key = FileSigningKey(ec.generate_private_key(ec.SECP256R1()))
    trusted = TrustedKeys((key.public_jwk(),), verify_es256)
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        directory = Path(folder) / "audit"
        uvloop.run(measure(directory, trusted, key, arguments.records))
        start = time.perf_counter()
        report = verify(directory, trusted)
        seconds = time.perf_counter() - start
        print(f"verify                      {report.writers[0].records / seconds:8.0f} records/s")


if __name__ == "__main__":
    main()
