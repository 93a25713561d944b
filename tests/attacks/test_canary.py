"""Nothing leaks: canaries for secrets, a storm of requests, and a search of all that comes out.

`CANARY_SECRETS` and `CANARY_REQUESTS` make the storm larger.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import string
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from ahocorasick_rs import BytesAhoCorasick

from tests.attacks.echoes import pieces
from tests.attacks.storm import Echo, Storm
from tests.components.process import serving
from tests.fakes.upstream import recording_upstream
from tests.integration.running_broker import BrokerHome

SECRETS = int(os.environ.get("CANARY_SECRETS", "10"))
REQUESTS = int(os.environ.get("CANARY_REQUESTS", "3000"))
ROOT = Path(__file__).parents[2]
KINDS: tuple[dict[str, Any], ...] = (
    {"type": "bearer"},
    {"type": "basic", "username": "account"},
    {"type": "header", "name": "X-Api-Key"},
    {"type": "header", "name": "Authorization", "prefix": "Token token="},
    {"type": "query", "name": "api_key"},
    {"type": "cookie", "name": "session"},
    {"type": "template", "header": "X-Auth", "value": "id=1 key={k}"},
)
SPOILT = "spoilt"
NOBODY = 65534
READ_ALL = """
find "/proc/$0" -type f 2>/dev/null | while read -r file; do
  head -c 1 "$file" >/dev/null 2>&1 && echo "$file" && cat "$file" 2>/dev/null
done
true
"""

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Search:
    """Look for canaries in bytes, however they are written."""

    def __init__(self, canaries: Mapping[str, bytes]) -> None:
        known = {one: name for name, canary in canaries.items() for one in pieces(canary)}
        self._names = list(known.values())
        self._needles = BytesAhoCorasick(known)
        self.seen = 0
        self.found: set[tuple[str, str]] = set()

    def __call__(self, data: bytes, where: str) -> None:
        self.seen += len(data)
        for number, _, _ in self._needles.find_matches_as_indexes(data.lower()):
            self.found.add((where, self._names[number]))


def policy(port: int, references: Mapping[str, str]) -> str:
    services = {}
    for number, (name, reference) in enumerate(references.items()):
        kind = KINDS[number % len(KINDS)]
        secret = {"secrets": {"k": reference}} if "value" in kind else {"secret": reference}
        services[name] = {
            "provider": "http_api",
            "base_url": f"http://127.0.0.1:{port}",
            "insecure_http": True,
            "allow_private": True,
            "credential": {**kind, **secret},
        }
    scopes = {f"{name}.all": {"service": name, "allow": ["* /v1/**"]} for name in references}
    trust = [{"source": "local", "claims": {"sub": "my-agent"}}]
    agents = {"my-agent": {"trust": trust, "scopes": list(scopes), "max_ttl": "1h"}}
    return json.dumps({"services": services, "scopes": scopes, "agents": agents})


def store(home: BrokerHome, canaries: Mapping[str, bytes]) -> dict[str, str]:
    """Put the canaries where secrets are kept; return their references."""
    references = {}
    for number, (name, canary) in enumerate(canaries.items()):
        if number % 2 or name == SPOILT:
            home.run("secret", "put", name, stdin=canary.decode())
            references[name] = f"embedded:{name}"
        else:
            file = home.path.parent / f"{name}.key"
            file.touch(mode=0o600)
            file.write_bytes(canary)
            references[name] = f"file:{file}"
    return references


@pytest.mark.timeout(120 + REQUESTS // 50)
async def test_no_canary_comes_out(tmp_path: Path) -> None:
    random = Random(4711)  # noqa: S311 - the same storm each time
    letters = string.ascii_letters + string.digits
    canaries = {f"s{i}": "".join(random.choices(letters, k=32)).encode() for i in range(SECRETS)}
    canaries[SPOILT] = b"\x01" + random.choice(list(canaries.values()))[::-1]
    search = Search(canaries)
    home = BrokerHome.create(tmp_path / "broker" / "home", log_level="debug")
    references = store(home, canaries)
    async with recording_upstream() as upstream:
        upstream.answer = Echo(random)
        home.policy(policy(upstream.port, references))
        with (
            cores_allowed(),
            serving(
                [sys.executable, "-m", "tests.attacks.faulty_broker", "serve"],
                lambda: ready(home),
                directory=tmp_path / "broker",
                environment={**home.environment, "PYTHONPATH": str(ROOT)},
            ) as process,
        ):
            tokens = [
                (name, home.run("token", "--scope", f"{name}.all", "--ttl", "1h").strip())
                for name in references
            ]
            storm = Storm(
                int(home.environment["BROKER_GATEWAY_PORT"]),
                tokens,
                random,
                lambda data: search(data, "an answer"),
            )
            await storm.run(REQUESTS)
            look_at_process(process, search)
            look_as_another_user(process, search)
            for page in ("/readyz", "/.well-known/jwks.json"):
                search(get(home, page), page)
            metrics = get(home, "/metrics")
            search(metrics, "/metrics")
            die(process)
    for path in (tmp_path / "broker").rglob("*"):
        if path.is_file() and path.suffix != ".key":
            search(path.read_bytes(), str(path.relative_to(tmp_path)))
    for command in ("logs", "sessions"):
        search(home.run(command, "--json").encode(), command)
    assert search.found == set()
    assert search.seen > 100 * REQUESTS
    assert_stormy(storm, metrics.decode(), (tmp_path / "broker" / "output.log").read_text())


def assert_stormy(storm: Storm, metrics: str, log: str) -> None:
    """See that there was something to find: successes, refusals, echoes, defects."""
    assert {200, 302, 400, 401, 403, 404, 500, 502} <= storm.statuses.keys()
    assert sum(storm.statuses.values()) > REQUESTS / 2
    echoes = [line for line in metrics.splitlines() if line.startswith("broker_gateway_echoes_t")]
    assert sum(float(line.rpartition(" ")[2]) for line in echoes) > REQUESTS / 10
    assert "reading a response failed with RuntimeError" in log
    assert "supplying a credential failed with RuntimeError" in log


def get(home: BrokerHome, page: str) -> bytes:
    return httpx.get(home.control_url + page, trust_env=False).content


def ready(home: BrokerHome) -> bool:
    try:
        return httpx.get(home.control_url + "/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def look_as_another_user(process: subprocess.Popen[bytes], search: Search) -> None:
    """Search all of `/proc` about the broker that somebody else on the machine can read."""
    if os.geteuid() != 0:
        return  # nobody can look as another user; CI can
    read = subprocess.run(
        ["/bin/sh", "-c", READ_ALL, str(process.pid)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"/proc/%d/cmdline" % process.pid in read.stdout, "it has looked"
    for forbidden in (b"/environ", b"/mem\n", b"/maps", b"/fd/"):
        assert b"/proc/%d%b" % (process.pid, forbidden) not in read.stdout
    search(read.stdout, "/proc, as another user sees it")


def die(process: subprocess.Popen[bytes]) -> None:
    """Have the broker die as by a defect in native code; the search of its folder finds a core."""
    process.send_signal(signal.SIGSEGV)
    assert process.wait(60) == -signal.SIGSEGV


@contextmanager
def cores_allowed() -> Iterator[None]:
    """Let programs that are started meanwhile leave cores as large as they like."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def look_at_process(process: subprocess.Popen[bytes], search: Search) -> None:
    """Search what `/proc` tells of the broker and its threads."""
    proc = Path(f"/proc/{process.pid}")
    for name in ("cmdline", "environ", "comm", "status", "maps", "mountinfo"):
        search((proc / name).read_bytes(), f"/proc/PID/{name}")
    for task in (proc / "task").iterdir():
        search((task / "comm").read_bytes(), "a thread's name")


def test_the_search_finds_what_is_there() -> None:
    search = Search({"one": b"Abcdefghijklmnop"})
    search(b"nothing", "here")
    assert not search.found
    search(b"x 6162636465666768696A x", "there")
    assert search.found == {("there", "one")}
