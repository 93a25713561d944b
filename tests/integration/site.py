"""A broker as people run it, an upstream that remembers what it saw, and traffic between them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import httpx

from broker.audit.query import Reader
from broker.files import create_private
from broker.identity.local import client_assertion
from providers.base import Secret
from tests.components.process import serving
from tests.fakes.token_bench import client
from tests.fakes.upstream import recording_upstream, reply
from tests.fakes.wire import wire
from tests.integration.running_broker import COMMAND, BrokerHome

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.fakes.upstream import Received, Upstream

KEY: Final = "key-of-the-service-that-no-agent-may-see"
POLICY: Final = """
services:
  api:
    provider: http_api
    base_url: http://127.0.0.1:{port}
    insecure_http: true
    allow_private: true
    credential: {{type: bearer, secret: "file:{key}"}}
scopes:
  api.all: {{service: api, allow: ["* /v1/**"]}}
  api.read: {{service: api, allow: ["GET /v1/**"]}}
agents:
  my-agent:
    trust: [{{source: local, claims: {{sub: my-agent}}}}]
    scopes: [api.all, api.read]
    max_ttl: 1h
"""


@dataclass
class Seen:
    """What the upstream saw first of a request, and whether an unsafe one was on record then."""

    method: str
    path: str
    recorded: bool | None


@dataclass
class Site:
    """A broker's home and its one upstream; `seen` is in order of arrival."""

    home: BrokerHome
    upstream: Upstream
    seen: list[Seen] = field(default_factory=list)
    _recorded: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._reader = Reader(self.home.path / "data" / "audit")

    @property
    def unrecorded(self) -> list[Seen]:
        """What the upstream saw before there was a record of it: unsafe methods alone.

        Of a safe method the response waits for the record, and not the request.
        """
        return [one for one in self.seen if one.recorded is False]

    @property
    def log(self) -> str:
        """What brokers have printed here."""
        path = self.home.path.parent / "output.log"
        return path.read_text() if path.exists() else ""

    @property
    def port(self) -> int:
        """The gateway's."""
        return int(self.home.environment["BROKER_GATEWAY_PORT"])

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """Run `broker serve` until the block ends."""
        before = self.log.count("ready: ")
        process = serving(
            [COMMAND, "serve"],
            lambda: self.log.count("ready: ") > before,
            directory=self.home.path.parent,
            environment=self.home.environment,
        )
        # In threads: the upstream lives in this one's event loop.
        running = await asyncio.to_thread(process.__enter__)
        try:
            yield running
        finally:
            await asyncio.to_thread(process.__exit__, None, None, None)

    async def token(self, scope: str = "api.all", ttl: str = "1h") -> str:
        """Return a task token."""
        arguments = ("token", "--scope", scope, "--ttl", ttl)
        return (await asyncio.to_thread(self.home.run, *arguments)).strip()

    def limit(self, limits: str) -> None:
        """Add a scope `api.few` with limits, before the broker is run."""
        policy = self.home.path / "policies" / "integration.yaml"
        few = f'  api.few: {{service: api, allow: ["* /v1/**"], limits: {{{limits}}}}}\n'
        text = policy.read_text().replace("scopes:\n", f"scopes:\n{few}", 1)
        policy.write_text(text.replace("[api.all, ", "[api.few, api.all, "))

    def proof(self) -> str:
        """Return a fresh proof of `my-agent`, by this process's clock."""
        key = Secret((self.home.path / "agents/my-agent.pem").read_bytes())
        return client_assertion(key, "my-agent", self.home.control_url)

    async def present(self, proof: str) -> int:
        """Offer a proof for a task token; return the answer's status."""
        fields = {name: values[0] for name, values in client(proof, scope="api.all").items()}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            return (await http.post(f"{self.home.control_url}/token", data=fields)).status_code

    def head(self, token: str, method: str, path: str, *lines: str) -> bytes:
        """Return the head of a request through the gateway."""
        first = (f"{method} /api{path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}")
        return "\r\n".join((*first, *lines, "", "")).encode()

    async def call(self, token: str, method: str, path: str) -> tuple[int, str | None]:
        """Send one request on a connection of its own; return its status and `Broker-Error`."""
        async with wire(self.port) as connection:
            await connection.send(self.head(token, method, path, "Content-Length: 0"))
            response = await connection.response(method.encode())
            return response.status, response.error

    async def until(self, condition: Any, what: str, patience: float = 30.0) -> None:
        """Poll a coroutine function, or a function, until it says yes."""
        deadline = time.monotonic() + patience
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {patience:.0f} s")
            await asyncio.sleep(0.02)

    def records(self) -> list[dict[str, Any]]:
        """Return what is in the trail's files now, without asking a broker."""
        return list(Reader(self.home.path / "data" / "audit").read())

    def verify(self) -> dict[str, Any]:
        """Return what `broker audit verify` says of the trail, which must be whole."""
        report: dict[str, Any] = json.loads(self.home.run("audit", "verify", "--json"))
        assert report["whole"], report["findings"]
        return report

    def get(self, page: str) -> httpx.Response:
        """Ask the control plane for a page, on a connection of its own."""
        return httpx.get(f"{self.home.control_url}{page}", trust_env=False, timeout=30)

    def intends(self, path: str) -> bool:
        """Say whether the trail has, now, an intent to send a request on."""
        return self._is_recorded(path, "intent")

    def tells_of(self, path: str, method: str) -> bool:
        """Say whether the trail has, now, what must be durable before an agent gets an answer.

        That is an intent, or of a safe request that went well its outcome.
        """
        return self.intends(path) or (method == "GET" and self._is_recorded(path, "outcome"))

    def _is_recorded(self, path: str, phase: str) -> bool:
        if not self._read_on(path, phase):
            # A trail that could not be written was cut back to what is durable: begin again.
            self._reader = Reader(self.home.path / "data" / "audit")
            return self._read_on(path, phase)
        return True

    def _read_on(self, path: str, phase: str) -> bool:
        for record in self._reader.read():
            if record.get("action") == "proxy.request" and record["decision"] == "allow":
                self._recorded.add((record["path"], record["phase"]))
        return (path, phase) in self._recorded


class Traffic:
    """Agents that send numbered requests, GET and POST by turns, each on a kept connection.

    `answered` has each number's status and `Broker-Error`. A connection that breaks is made anew.
    `rate` is in requests per second, all agents together; `seconds` is how long they have sent.
    """

    def __init__(self, site: Site, token: str, *, rate: float = 200.0, agents: int = 8) -> None:
        self._site = site
        self._token = token
        self._pause = agents / rate
        self.agents = agents
        self._numbers = itertools.count(1)
        self.answered: dict[int, tuple[int, str | None]] = {}
        self.broken = 0
        self.seconds = 0.0

    @staticmethod
    def path(number: int) -> str:
        """Return the path that only this request has."""
        return f"/v1/x/{number}"

    @staticmethod
    def method(number: int) -> str:
        """Return the request's method."""
        return "POST" if number % 2 else "GET"

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send requests until the block ends."""
        agents = [asyncio.create_task(self._agent()) for _ in range(self.agents)]
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begin
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)

    async def _agent(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with wire(self._site.port) as connection:
                    due = time.monotonic()
                    while True:
                        number = next(self._numbers)
                        method = self.method(number)
                        head = self._site.head(
                            self._token, method, self.path(number), "Content-Length: 0"
                        )
                        await connection.send(head)
                        response = await connection.response(method.encode())
                        self.answered[number] = response.status, response.error
                        if response.one(b"connection") == b"close":
                            break
                        due += self._pause
                        await asyncio.sleep(due - time.monotonic())
            self.broken += 1
            await asyncio.sleep(self._pause)


@asynccontextmanager
async def site(
    directory: Path, *, workers: int = 1, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Site]:
    """Make a home and an upstream, to be used by one agent, `my-agent`.

    The broker and every command run with `environment` besides their own.
    """
    async with recording_upstream() as upstream:
        home = await asyncio.to_thread(
            BrokerHome.create, directory / "broker" / "home", workers=str(workers)
        )
        home = replace(home, environment={**home.environment, **(environment or {})})
        key = directory / "service.key"
        create_private(key, KEY.encode())
        home.policy(POLICY.format(port=upstream.port, key=key))
        made = Site(home, upstream)

        async def note(received: Received, _: asyncio.StreamWriter) -> None:
            method, target, _version = received.line.decode().split(" ")
            safe = method in {"GET", "HEAD"}
            made.seen.append(Seen(method, target, None if safe else made.intends(target)))

        upstream.on_head = note
        upstream.answer = reply()
        yield made
