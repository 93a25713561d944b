"""Send cases to a gateway, have what it sends on read by three servers, and judge.

A round is a gateway, an upstream and some thousand cases, of which many are under way at once.
"""

from __future__ import annotations

import asyncio
import base64
import math
import socket
import struct
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from broker.gateway.limits import GatewayLimits
from broker.repeated import RepeatedRecord
from tests.differential.cases import make
from tests.differential.policy import KEYS, SCOPES, policy_text
from tests.differential.readers import BAD_REQUEST, nginx_reader, read_with_h11
from tests.differential.upstream import raw_upstream
from tests.differential.verdict import (
    Findings,
    compare_readers,
    hold_against_trail,
    judge_requests,
    number_of,
)
from tests.fakes.gateway import GatewayBench, Store, Values, open_trail, policy
from tests.fakes.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from broker.audit.trail import AuditTrail
    from broker.model import AuditRecord
    from tests.differential.cases import Case
    from tests.differential.readers import Logged, Nginx
    from tests.differential.upstream import RecordedConnection

AT_ONCE: Final = 128
_TICK: Final = 0.05
_QUIET: Final = 8
"""Ticks without a byte after which the gateway waits for more than the case has."""

_RESET: Final = struct.pack("ii", 1, 0)


@dataclass
class Outcome:
    """What a round came to: by kind, how many cases there were and of how many one was sent on."""

    cases: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    untraced: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take another round's figures in."""
        self.cases += other.cases
        self.admitted += other.admitted
        self.refusals += other.refusals
        self.requests += other.requests
        self.untraced += other.untraced
        self.problems += other.problems

    @property
    def share(self) -> float:
        """How many of the cases had a request of theirs sent on."""
        return self.admitted.total() / max(1, self.cases.total())

    def lines(self) -> Iterator[str]:
        """Say it in a table."""
        yield f"{'kind':24} {'cases':>9} {'sent on':>9}"
        for kind, count in sorted(self.cases.items()):
            yield f"{kind:24} {count:9} {self.admitted[kind]:9}"
        yield f"{'all':24} {self.cases.total():9} {self.admitted.total():9} ({self.share:.0%})"
        yield f"requests at the upstream: {self.requests}; {self.untraced} cannot be traced"
        yield "refusals: " + ", ".join(f"{n} {word}" for word, n in self.refusals.most_common())


class TappedTrail:
    """A trail whose records can be looked at while it is written."""

    def __init__(self, trail: AuditTrail) -> None:
        self._records: list[AuditRecord | RepeatedRecord] = []
        self._waiting: dict[int, float] = {}
        self._trail = trail

    @property
    def records(self) -> list[AuditRecord]:
        """The records, as they are by now."""
        return [
            record.whole() if isinstance(record, RepeatedRecord) else record
            for record in self._records
        ]

    @property
    def waits_since(self) -> float:
        """When the first of the records was made that is not durable yet."""
        return next(iter(self._waiting.values()), math.inf)

    def append(
        self,
        record: AuditRecord | RepeatedRecord,
        durable: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self._records.append(record)
        self._trail.append(record, None if durable is None else self._awaited(durable))

    def append_beside(
        self, record: RepeatedRecord, durable: Callable[[Exception | None], None]
    ) -> None:
        self._records.append(record)
        self._trail.append_beside(record, self._awaited(durable))

    def press(self, record: RepeatedRecord) -> None:
        self._trail.press(record)

    def _awaited(
        self, durable: Callable[[Exception | None], None]
    ) -> Callable[[Exception | None], None]:
        number = len(self._records)

        def on_disk(error: Exception | None) -> None:
            del self._waiting[number]
            durable(error)

        self._waiting[number] = asyncio.get_running_loop().time()
        return on_disk

    async def record(self, record: AuditRecord) -> None:
        self._records.append(record)
        await self._trail.record(record)


class Sender(asyncio.Protocol):
    """One case on its connection; `done` once the gateway has closed, or stays quiet."""

    def __init__(self, parts: list[bytes]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.get_running_loop().time()
        self.sent = False
        self.quiet = 0
        self._parts = parts
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        # So that a closed connection leaves its port at once, of which there are but so many.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._write()

    def _write(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(self._parts.pop(0))
        if self._parts:
            asyncio.get_running_loop().call_later(0.001, self._write)
        else:
            self.sent = True
        self._note()

    def _note(self) -> None:
        self.heard = asyncio.get_running_loop().time()
        self.quiet = 0

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._note()

    def eof_received(self) -> None:
        self.end()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.end()

    def end(self) -> None:
        """Close, whatever is still to come."""
        if self._transport is not None:
            self._transport.abort()
        if not self.done.done():
            self.done.set_result(None)


async def _send_all(port: int, sent: Sequence[list[bytes]], trail: TappedTrail) -> None:
    loop = asyncio.get_running_loop()
    waiting = iter(sent)
    senders: set[Sender] = set()

    async def worker() -> None:
        for parts in waiting:
            _, sender = await loop.create_connection(partial(Sender, parts), "127.0.0.1", port)
            senders.add(sender)
            await sender.done
            senders.discard(sender)

    async def end_the_quiet() -> None:
        while True:
            await asyncio.sleep(_TICK)
            for sender in [one for one in senders if one.sent]:
                sender.quiet += 1
                # A slow disk is no reason to hang up: what was asked is still on its way then.
                if sender.quiet >= _QUIET and trail.waits_since > sender.heard + _TICK:
                    sender.end()

    watch = loop.create_task(end_the_quiet())
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    watch.cancel()


async def run_round(
    folder: Path, nginx: str, cases: Sequence[Case], *, seed: int | None = None
) -> Outcome:
    """Run the cases; raises for nothing that they come to: see `Outcome.problems`."""
    async with AsyncExitStack() as stack:
        port, connections = await stack.enter_async_context(raw_upstream())
        journal = open_trail(folder / "audit")
        await journal.start()
        stack.push_async_callback(journal.close)
        trail = TappedTrail(journal)
        bench = GatewayBench(
            upstream=Upstream(port),
            store=Store(policy(policy_text(), port)),
            secrets=Values(dict(KEYS)),
            trail=trail,
            audit_directory=folder / "audit",
            limits=GatewayLimits(linger=0.5),
        )
        await bench.start()
        token = bench.token(*SCOPES)
        basic = base64.b64encode(b"user:" + token)
        parts = [case.parts(token, basic) for case in cases]
        await _send_all(bench.port, [list(one) for one in parts], trail)
        await bench.server.close(5.0)
        findings = Findings()
        sent = {
            case.number: (case, b"".join(pieces)) for case, pieces in zip(cases, parts, strict=True)
        }
        refusals = await _judge(findings, connections, sent, trail.records, (nginx, folder))
        for seen in (seen for one in connections for seen in one.seen):
            # What stands in a body is the agent's own to say.
            if any(token in text for text in (seen.target, *(value for _, value in seen.headers))):
                findings.add("the task token is sent on", number_of(seen.target))
        return _outcome(findings, cases, refusals, seed)


async def _judge(
    findings: Findings,
    connections: Sequence[RecordedConnection],
    sent: dict[int, tuple[Case, bytes]],
    records: Sequence[AuditRecord],
    nginx: tuple[str, Path],
) -> Counter[str]:
    program, folder = nginx
    place = folder / "nginx"
    place.mkdir()
    with nginx_reader(program, place) as reader:
        logs = await _replayed(reader, connections)
    for connection, logged in zip(connections, logs, strict=True):
        if connection.error is not None:
            findings.add(f"httptools refuses what was sent on: {connection.error}")
        others, error = read_with_h11(bytes(connection.stream))
        if error is not None and connection.whole == len(connection.stream):
            findings.add(f"h11 refuses what was sent on: {error}")
        compare_readers(findings, connection.seen, others, logged)
    begun = [seen for one in connections for seen in one.seen if seen.begun]
    asked = judge_requests(findings, begun, sent)
    return hold_against_trail(findings, asked, records)


async def _replayed(reader: Nginx, connections: Sequence[RecordedConnection]) -> list[list[Logged]]:
    """Return what nginx reads; after a request that it refuses it is given the rest anew."""
    logs: list[list[Logged]] = [[] for _ in connections]
    pending = {index: 0 for index, one in enumerate(connections) if one.stream}
    while pending:
        wholes = {
            index: bytes(connections[index].stream[start : connections[index].whole])
            for index, start in pending.items()
        }
        read = await reader.read([(one, True) for one in wholes.values()])
        for index, found in zip(wholes, read, strict=True):
            logs[index] += found
        pending = {
            index: connections[index].starts[len(logs[index])]
            for index in wholes
            if logs[index]
            and logs[index][-1].status == BAD_REQUEST
            and len(logs[index]) < len(connections[index].starts)
            and connections[index].starts[len(logs[index])] < connections[index].whole
        }
    broken = {i: bytes(one.stream[one.whole :]) for i, one in enumerate(connections)}
    parts = {index: part for index, part in broken.items() if part}
    read = await reader.read([(part, False) for part in parts.values()])
    for index, found in zip(parts, read, strict=True):
        logs[index] += found
    return logs


def _outcome(
    findings: Findings, cases: Sequence[Case], refusals: Counter[str], seed: int | None
) -> Outcome:
    kinds = {case.number: case.kind for case in cases}
    by_number = {case.number: case for case in cases}
    outcome = Outcome(
        cases=Counter(kinds.values()),
        admitted=Counter(kinds[number] for number in findings.admitted),
        refusals=refusals,
        requests=findings.requests,
        untraced=findings.untraced,
    )
    for text, number in findings.found:
        case = by_number.get(number) if number is not None else None
        outcome.problems.append(f"{text}\n{_shown(case, seed)}" if case else f"{text}; seed {seed}")
    return outcome


def _shown(case: Case, seed: int | None) -> str:
    """Say how to have the case again; it holds no token, but a placeholder."""
    made = f"seed {seed}, case {case.number} ({case.kind})"
    return f"  {made}:\n  Case({case.number}, {case.kind!r}, {case.data!r}, {case.cuts!r})"


def cases_of(seed: int, count: int) -> list[Case]:
    """Return the cases of a seed."""
    return [make(seed, number) for number in range(count)]
