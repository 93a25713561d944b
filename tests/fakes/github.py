"""A GitHub on 127.0.0.1 that does what `emulate` does not: end tokens, limit, refuse, go wrong.

Nothing passes in or out that GitHub's published contract does not describe.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from tests.components.github import AppKey, GithubContract

Document = dict[str, Any]

_LEVELS: Final = {"read": 1, "write": 2, "admin": 3}
_LIFE: Final = 3600


@dataclass
class Reply:
    """An answer; `body` is a document, bytes that are none, or nothing."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def refused(status: int, **headers: str) -> Reply:
    """Return an error whose text nobody should see again."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"message": "SECRET TEXT", "documentation_url": "https://x"}, names)


@dataclass
class Installation:
    """Where the App is installed, and what it may do there."""

    id: int
    account: str
    kind: str
    permissions: dict[str, str]
    repositories: dict[str, int]
    suspended_at: str | None = None


@dataclass
class FakeGithub:
    """The server's books. `alter` changes answers that hold a token; `replies` go before others.

    `calls` are all requests; `live` the tokens that would be accepted, and what they can do.
    """

    contract: GithubContract
    key: AppKey
    clock: Callable[[], float]
    app_id: str = "12345"
    url: str = ""
    installations: list[Installation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    live: dict[str, Document] = field(default_factory=dict)
    replies: dict[str, list[Reply]] = field(default_factory=lambda: defaultdict(list))
    alter: Callable[[Document], Document] = dict
    problems: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def orders(self) -> list[Document]:
        """What tokens were asked for."""
        return [call.body for call in self.calls if call.path.endswith("/access_tokens")]

    def answer(self, call: Call) -> Reply:
        """Do what is asked, if GitHub would."""
        self.calls.append(call)
        for method, end in (("POST", "access_tokens"), ("DELETE", "token"), ("GET", "")):
            if call.method == method and call.path.endswith(end) and self.replies[method]:
                return self.replies[method].pop(0)
        if call.headers.get("x-github-api-version") != "2022-11-28":
            return refused(400)
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        if call.path == "/installation/token":
            return Reply(204) if self.live.pop(bearer, None) else refused(401)
        if call.path == "/installation/repositories":
            return self._repositories(bearer)
        return self._answer_app(call) if self._is_app(bearer) else refused(401)

    def _answer_app(self, call: Call) -> Reply:
        *place, last = call.path.strip("/").split("/")
        if last == "access_tokens":
            return self._mint(self._find(place), call.body)
        found = self._find([*place, last])
        return Reply(200, self._described(found)) if found else refused(404)

    def _repositories(self, token: str) -> Reply:
        """List what a token can be used on."""
        if token not in self.live:
            return refused(401)
        listed = self.live[token].get("repositories", [])
        return Reply(200, {"total_count": len(listed), "repositories": listed})

    def _is_app(self, bearer: str) -> bool:
        now = self.clock()
        try:
            claims = jwt.decode(
                bearer,
                self.key.public,
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            return False
        in_time = claims["iat"] <= now < claims["exp"] <= now + 600
        return bool(in_time and claims["iss"] == self.app_id)

    def _find(self, place: list[str]) -> Installation | None:
        kind, *names = place
        for one in self.installations:
            by_owner = names[0].lower() == one.account.lower()
            if (
                (kind == "app" and names[-1] == str(one.id))
                or (kind == "orgs" and by_owner and one.kind == "Organization")
                or (kind == "users" and by_owner and one.kind == "User")
                or (kind == "repos" and by_owner and names[1] in one.repositories)
            ):
                return one
        return None

    def _described(self, one: Installation) -> Document:
        described = self.contract.example("installation")
        described["account"] |= {"login": one.account, "type": one.kind}
        return described | {
            "id": one.id,
            "permissions": one.permissions,
            "suspended_at": one.suspended_at,
        }

    def _mint(self, one: Installation | None, body: Document) -> Reply:
        if one is None:
            return refused(404)
        if one.suspended_at is not None:
            return refused(403)
        names = {number: name for name, number in one.repositories.items()}
        wanted = list(body.get("repository_ids", []))
        wanted += [one.repositories.get(name, 0) for name in body.get("repositories", [])]
        rights = body.get("permissions", one.permissions)
        if not all(number in names for number in wanted) or any(
            _LEVELS[level] > _LEVELS.get(one.permissions.get(name, ""), 0)
            for name, level in rights.items()
        ):
            return refused(422)
        token = f"ghs_{self.app_id}_{'x' * 300}.{next(self._numbers)}.y-_"
        document: Document = {
            "token": token,
            "expires_at": _time(self.clock() + _LIFE),
            "permissions": {"metadata": "read", **rights},
            "repository_selection": "selected" if wanted else "all",
        }
        if wanted:
            document["repositories"] = [
                self.repository(one.account, names[number], number) for number in wanted
            ]
        document = self.live[token] = self.alter(document)
        return Reply(201, document)

    def repository(self, owner: str, name: str, number: int) -> Document:
        """Return a repository as answers hold it."""
        (example,) = self.contract.example("installation-token")["repositories"]
        named = {"id": number, "name": name, "full_name": f"{owner}/{name}"}
        described: Document = example | named
        return described

    def check(self, call: Call, reply: Reply) -> None:
        """Note what breaks GitHub's contract; bytes that are no document do so on purpose."""
        try:
            self.contract.check_request(call.method, call.path, call.body)
            if not isinstance(reply.body, bytes):
                self.contract.check_answer(call.method, call.path, reply.status, reply.body)
        except AssertionError as problem:
            self.problems.append(str(problem))


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    github: FakeGithub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet: the record of calls is what tests read."""

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = urlsplit(self.path).path.removeprefix("/api/v3")
        call = Call(self.command, path, headers, json.loads(content) if content else None)
        github = self.server.github
        reply = github.answer(call)
        github.check(call, reply)
        self._send(reply)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _send(self, reply: Reply) -> None:
        given = reply.body
        content = b"" if given is None else given
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(reply.status)
        if content:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving_github(github: FakeGithub, tls: ssl.SSLContext | None = None) -> Iterator[FakeGithub]:
    """Serve until the block ends; then whatever broke the contract fails the test."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.github = github
    github.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not github.problems, github.problems
