"""Attacks on the audit trail (group A)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.audit.chain import digest
from broker.audit.head import Anchor
from broker.audit.journal import Journal
from broker.audit.query import Filter, Log, Reader
from broker.audit.render import event_line
from broker.audit.segment import list_segments, segment_path
from broker.audit.trail import AuditTrail
from broker.errors import AuditUnavailable, ConfigurationError
from broker.files import create_private
from tests.broker.audit.samples import CREDENTIALS
from tests.broker.audit.trails import (
    NOON,
    check,
    lines,
    open_journal,
    record,
    records,
    signing_key,
    trusted,
    write,
)
from tests.fakes.vendor_api import VendorApi, vendor_api
from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.components.tls import TestAuthority

ROOT: Final = Path(__file__).resolve().parents[2]
KEY: Final = "sk_test_the_vendor_key_that_no_agent_may_see"

POLICY: Final = """
services:
  stripe:
    provider: http_api
    base_url: {vendor}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, secret: "file:{key_file}"}}
scopes:
  stripe.refund:
    service: stripe
    allow: ["GET /v1/charges", "POST /v1/refunds"]
agents:
  release-bot:
    trust: [{{source: local, claims: {{sub: release-bot}}}}]
    scopes: [stripe.refund]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


# A1


@pytest.mark.parametrize(
    ("reason", "stored"),
    [
        ("ok\r\n2026-01-01T00:00:00Z | agent:x | y | GET / | 200", "ok\\r\\n2026-01-01T00:00"),
        ('","decision":"allow","x":"', '","decision":"allow","x":"'),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("pay \u202e001 EUR\u202c", "pay \\u202e001 EUR\\u202c"),
        ("in\u200bvis\u2060ible\ufeff", "in\\u200bvis\\u2060ible\\ufeff"),
        ("next\u2028line\u2029\x85\x0b\x0c", "next\\u2028line\\u2029\\x85\\x0b\\x0c"),
        ("half \udfff", "half \\udfff"),
        ("nul \x00 del \x7f", "nul \\x00 del \\x7f"),
    ],
)
def test_a1_a_hostile_reason_stands_on_one_line(directory: Path, reason: str, stored: str) -> None:
    write(directory, [record(decision="deny", reason=reason, detail=reason)])
    first = lines(directory)[0]
    assert json.loads(first)["reason"].startswith(stored)
    assert first.decode().splitlines(keepends=True) == [first.decode()]
    (event,) = Log(directory, Filter()).history()
    line = event_line(event)
    assert line.isprintable()
    assert line.startswith("2026-03-15T10:23:45Z | agent:release-bot | stripe | GET /v1/charges | ")
    assert check(directory).whole


def test_a1_ten_megabytes_are_cut_with_a_digest(directory: Path) -> None:
    reasons = ["x" * 10_000_000, "x" * 9_999_999 + "y"]
    write(directory, [record(reason=reason) for reason in reasons])
    stored = [item["reason"] for item in records(directory)[:2]]
    for reason in stored:
        assert reason.startswith("x" * 1024 + "… [cut: 10000000 characters, sha256:")
        assert len(reason) < 1200
    assert stored[0] != stored[1], "the digest is of the whole"
    assert check(directory).whole


# A2


def fill(directory: Path) -> Path:
    """Take all space of the file system that holds `directory`."""
    path = directory.parent / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a file system of 256 KiB; skip where that is not ours to do."""
    place.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place / "audit"
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def refused(trail: AuditTrail, count: int = 20) -> None:
    waiting = [asyncio.ensure_future(trail.record(record())) for _ in range(count)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results
    assert all(isinstance(result, AuditUnavailable) for result in results), results


async def heals(trail: AuditTrail) -> None:
    for _ in range(3000):
        if trail.failure is None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the trail did not recover within 30 s")


async def acknowledged(trail: AuditTrail, count: int) -> list[str]:
    """Write records until one is refused; return the operations that were acknowledged."""
    done = []
    for _ in range(count):
        item = record()
        try:
            await trail.record(item)
        except AuditUnavailable:
            break
        done.append(item.operation)
    return done


async def survives(
    directory: Path, break_it: Callable[[Journal], Any], mend_it: Callable[[Any], object]
) -> None:
    """Let writing fail and work again: what was acknowledged is there, what was not is not."""
    journal = Journal(directory, signing_key(), trusted(), clock=lambda: NOON)
    trail = AuditTrail(journal)
    await trail.start()
    before = await acknowledged(trail, 5)
    broken = break_it(journal)
    between = await acknowledged(trail, 5000)
    assert len(between) < 5000, "it did not break"
    await refused(trail)
    mend_it(broken)
    await heals(trail)
    after = await acknowledged(trail, 5)
    assert len(after) == 5
    await trail.close()
    stored = [item["operation"] for item in records(directory) if "operation" in item]
    assert stored == [*before, *between, *after]
    assert any("records were refused" in item.get("detail", "") for item in records(directory))
    assert check(directory).whole


async def test_a2_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as directory:
        await survives(directory, lambda _: fill(directory), lambda filler: filler.unlink())


async def test_a2_a_file_that_may_not_grow(directory: Path) -> None:
    """The limit lets a part of a record through: a torn line, taken back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def break_it(journal: Journal) -> None:
        assert journal._segment is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal._segment.durable + 1000, before[1]))

    try:
        await survives(
            directory,
            break_it,
            lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, before),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["full", "read-only", "closed"])
async def test_a2_a_descriptor_that_fails(directory: Path, kind: str) -> None:
    def break_it(journal: Journal) -> None:
        assert journal._segment is not None
        descriptor = journal._segment._descriptor
        if kind == "closed":
            os.close(descriptor)
            return
        path, flags = ("/dev/full", os.O_WRONLY) if kind == "full" else ("/dev/null", os.O_RDONLY)
        device = os.open(path, flags)
        os.dup2(device, descriptor)
        os.close(device)

    await survives(directory, break_it, lambda _: None)


def test_a2_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as directory:
        write(directory, 2)
        remount = ["mount", "-o", "remount,ro", str(directory.parent)]
        subprocess.run(remount, check=True)
        trail = AuditTrail(Journal(directory, signing_key(), trusted()))
        with pytest.raises((AuditUnavailable, ConfigurationError), match="Read-only file system"):
            asyncio.run(trail.start())
        with pytest.raises(AuditUnavailable):
            trail.append(record())


@pytest.fixture(scope="module")
def vendor(tls_authority: TestAuthority) -> Iterator[VendorApi]:
    with vendor_api(KEY, tls_authority.certificate("127.0.0.1")) as api:
        yield api


@pytest.fixture(scope="module")
def broker(
    vendor: VendorApi, tls_authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    home = BrokerHome.create(tmp_path_factory.mktemp("audit") / "home")
    key_file = home.path / "vendor.key"
    create_private(key_file, KEY.encode())
    home.policy(POLICY.format(ca_file=tls_authority.ca_file, vendor=vendor.url, key_file=key_file))
    home.run("agents", "enroll", "release-bot")
    with running_broker(home) as running:
        yield running


def task_token(broker: RunningBroker) -> str:
    arguments = ("token", "--agent", "release-bot", "--scope", "stripe.refund")
    return broker.home.run(*arguments).strip()


def refund(broker: RunningBroker, token: str) -> httpx.Response:
    return broker.call(token, "POST", "/stripe/v1/refunds", data={"charge": "ch_1", "amount": "1"})


def charges(broker: RunningBroker, token: str) -> httpx.Response:
    return broker.call(token, "GET", "/stripe/v1/charges", params={"limit": "1"})


def broker_process() -> int:
    """Return the process id of the broker that this test run started."""
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return int(child)
    pytest.fail("no broker is running")


def test_a2_no_upstream_effect_without_a_durable_intent(
    broker: RunningBroker, vendor: VendorApi
) -> None:
    token = task_token(broker)
    assert refund(broker, token).status_code == httpx.codes.OK
    audit = broker.home.path / "data" / "audit"
    process = broker_process()
    unlimited = resource.prlimit(process, resource.RLIMIT_FSIZE)
    # The last record may be written and not durable yet: that it is cut off must make no room.
    size = list_segments(audit, "main")[-1].path.read_bytes().rfind(b"\n", 0, -1) + 1
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size + 10, unlimited[1]))
    try:
        effects = len(vendor.requests)
        for ask in [refund, charges] * 5:
            answer = ask(broker, token)
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert answer.headers["Broker-Error"]
        writes = [request for request in vendor.requests[effects:] if request.method != "GET"]
        assert writes == []
        status = broker.http.get(f"{broker.home.control_url}/readyz").status_code
        assert status == httpx.codes.SERVICE_UNAVAILABLE
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, unlimited)
    deadline = time.monotonic() + 30
    while refund(broker, token).status_code != httpx.codes.OK:
        assert time.monotonic() < deadline, "the broker did not recover within 30 s"
        time.sleep(0.05)
    assert "The trail is whole." in broker.home.run("audit", "verify")
    assert "records were refused" in broker.home.run("logs")


@pytest.mark.timeout(120)
def test_a2_kill_9_loses_nothing_that_was_acknowledged(directory: Path) -> None:
    key = signing_key()._private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    told: set[str] = set()
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.audit_writer", directory, f"run{attempt}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(key)
            process.stdin.close()
            told.add(process.stdout.readline().decode().strip())
            time.sleep(random.uniform(0.01, 0.3))  # noqa: S311 - any moment will do
            process.kill()
            rest = process.stdout.read().decode()
            told.update(rest.splitlines()[: rest.count("\n")])
        report = check(directory)
        assert report.whole, report.findings
        stored = {item.get("operation") for item in Reader(directory).read()}
        assert told <= stored
    assert len(told) > 100
    actions = [item["action"] for item in records(directory)]
    assert actions.count("audit.recover") >= 4
    write(directory, 1)
    assert check(directory).whole


# A3


def _content(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _replace(path: Path, content: list[bytes]) -> None:
    path.write_bytes(b"".join(content))


def _delete(directory: Path) -> None:
    path = segment_path(directory, "main", 1)
    content = _content(path)
    _replace(path, content[:2] + content[3:])


def _reorder(directory: Path) -> None:
    path = segment_path(directory, "main", 1)
    content = _content(path)
    _replace(path, [*content[:2], content[3], content[2], *content[4:]])


def _edit(directory: Path) -> None:
    path = segment_path(directory, "main", 1)
    content = _content(path)
    content[2] = content[2].replace(b"release-bot", b"harmless-ai")
    _replace(path, content)


def _cut(directory: Path) -> None:
    path = segment_path(directory, "main", 1)
    _replace(path, _content(path)[:2])


def _swap(directory: Path) -> None:
    one, other = segment_path(directory, "main", 1), segment_path(directory, "cli", 1)
    mine, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(mine)


def _remove_all(directory: Path) -> None:
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("tamper", "record_named"),
    [(_delete, 3), (_reorder, 3), (_edit, 3), (_cut, 2), (_swap, 1), (_remove_all, None)],
)
def test_a3_tampering_is_detected_and_placed(
    directory: Path, tamper: Callable[[Path], None], record_named: int | None
) -> None:
    write(directory, 4)
    write(directory, 2, writer="cli")
    assert check(directory).whole
    tamper(directory)
    report = check(directory)
    assert not report.whole
    assert report.findings[-1].seq == record_named


def test_a3_putting_an_old_state_back_is_detected_by_what_was_kept_elsewhere(
    directory: Path, tmp_path: Path
) -> None:
    write(directory, 2)
    shutil.copytree(directory, tmp_path / "old")
    write(directory, [record(decision="deny")])
    anchor = Anchor("main", len(lines(directory)), digest(lines(directory)[-1]))
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "old", directory)
    assert not check(directory, [anchor]).whole


def test_a3_a_cut_that_the_next_start_finds_is_not_covered_up(directory: Path) -> None:
    write(directory, 4)
    _cut(directory)
    write(directory, 2)
    report = check(directory)
    assert not report.whole
    assert "3 to 5, are missing" in report.findings[0].problem
    assert "audit.break" in [item["action"] for item in records(directory)]


# A4


def test_a4_refusals_failed_logins_and_changes_are_recorded(
    broker: RunningBroker, vendor: VendorApi
) -> None:
    del vendor
    token = task_token(broker)
    answers = [
        broker.exchange("not.a.proof", "stripe.refund"),
        broker.call("not-a-token", "GET", "/stripe/v1/charges"),
        broker.call(token, "DELETE", "/stripe/v1/charges"),
        broker.call(token, "GET", "/stripe/v1/%2e%2e/x"),
        broker.call(token, "GET", "/nowhere/x"),
    ]
    assert all(answer.is_client_error for answer in answers)
    denied = [item for item in broker.home.records() if item.get("decision") == "deny"]
    assert {item["action"] for item in denied} >= {"token.exchange", "proxy.request"}
    assert len(denied) >= len(answers)
    assert all(item["detail"] for item in denied)
    assert "policy.load" in [item["action"] for item in broker.home.records()]


# A5


def test_a5_nothing_short_of_entropy_is_kept_in_the_clear_or_hashed(directory: Path) -> None:
    """A hash of a PIN or a card number is as good as the number: try them all."""
    pin, card, password = "4711", "4111" + "111111111111", "hunter2"
    reason = f"pin={pin} card {card} password: {password}, mail jane@example.com"
    write(directory, [record(reason=reason, detail=reason, task=reason)])
    stored = b"".join(lines(directory)).decode()
    for secret in (pin, card, password, "jane@example.com"):
        assert secret not in stored
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            assert hashlib.new(algorithm, secret.encode()).hexdigest() not in stored


def test_a5_no_credential_of_any_kind_is_kept(directory: Path) -> None:
    write(directory, [record(reason=f"with {sample}") for sample in CREDENTIALS.values()])
    stored = b"".join(lines(directory)).decode()
    for sample in CREDENTIALS.values():
        assert json.dumps(sample)[1:-1] not in stored
    assert "swordfish" not in stored


# A6


def test_a6_a_clock_that_steps_back_leaves_the_order(directory: Path) -> None:
    times = [NOON, NOON - 7200, NOON - 3600, NOON - 86400, NOON + 5]
    journal = open_journal(directory, clock=lambda: NOON - 200_000)
    for number, moment in enumerate(times):
        journal.add([record(time=moment, operation=f"op{number}")])
        journal.commit()
        journal.tend()
    journal.close()
    assert check(directory).whole
    shown = [event.fields["operation"] for event in Log(directory, Filter()).history()]
    assert shown == [f"op{number}" for number in range(len(times))]
    sequence = [item["seq"] for item in Reader(directory).read()]
    assert sequence == sorted(sequence)
