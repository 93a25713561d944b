"""git itself, with the broker as its credential helper, cloning and pushing over https.

Behind the TLS is git's own `git http-backend`; who may pass is decided by what GitHub says of
the token that was shown: whether it is good now, for which repositories, and what for.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.process import wait_until
from tests.integration.github_broker import github_home
from tests.integration.running_broker import COMMAND, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.components.gate import Gate
    from tests.components.github import AppKey, GithubContract
    from tests.components.tls import TestAuthority
    from tests.fakes.github import FakeGithub

_NEEDED: Final = {"git-upload-pack": {"read", "write"}, "git-receive-pack": {"write"}}


@dataclass
class Forge:
    """Bare repositories under `root`, as `acme/shop.git`."""

    git: str
    root: Path
    github: FakeGithub
    url: str = ""
    tokens: set[str] = field(default_factory=set)

    def lets_in(self, path: str, query: str, authorization: str) -> bool:
        """Say whether a request may pass."""
        scheme, _, coded = authorization.partition(" ")
        if scheme != "Basic":
            return False
        _, _, token = base64.b64decode(coded).decode().partition(":")
        known = self.github.live.get(token)
        if known is None:
            return False
        self.tokens.add(token)
        owner, name = path.strip("/").split("/")[:2]
        names = [one["full_name"] for one in known["repositories"]]
        service = path.rpartition("/")[2]
        if service == "refs":
            service = query.partition("service=")[2]
        right = known["permissions"].get("contents")
        return f"{owner}/{name.removesuffix('.git')}" in names and right in _NEEDED[service]

    def answer(self, request: Mapping[str, str], body: bytes) -> tuple[list[str], bytes]:
        """Return header lines and body that git's own CGI program answers (RFC 3875)."""
        own = {"GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1"}
        done = subprocess.run(
            [self.git, "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={"PATH": os.environ["PATH"], "REMOTE_USER": "x-access-token", **own, **request},
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        return head.decode().split("\r\n"), content


@contextmanager
def serving_forge(forge: Forge, authority: TestAuthority) -> Iterator[Forge]:
    """Serve over TLS until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            path, _, query = self.path.partition("?")
            body = self._body()
            if not forge.lets_in(path, query, self.headers.get("Authorization", "")):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="GitHub"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            lines, content = forge.answer(
                {
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
                body,
            )
            fields = dict(line.split(": ", 1) for line in lines)
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in {**fields, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_any  # noqa: N815 - the base class's names

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = (
        authority.certificate("127.0.0.1")
        .context()
        .wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    )
    forge.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Clone:
    """Where git works, with the broker as its only helper."""

    forge: Forge
    broker: RunningBroker
    directory: Path
    ca_file: Path

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run git; raise if it fails, unless that is what is looked for."""
        place = self.forge.url
        helper = f"!{COMMAND} credential git repo.write --host {place.removeprefix('https://')}"
        options = {f"credential.{place}.helper": helper, "http.sslCAInfo": str(self.ca_file)}
        options |= {"user.name": "Task", "user.email": "task@example.com"}
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        done = subprocess.run(
            [self.forge.git, *given, *arguments],
            cwd=self.directory,
            env={
                **self.broker.home.environment,
                "HOME": str(self.directory),
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_CONFIG_NOSYSTEM": "1",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done


@pytest.fixture
def clone(
    component: Gate,
    github_contract: GithubContract,
    app_key: AppKey,
    tls_authority: TestAuthority,
    tmp_path: Path,
) -> Iterator[Clone]:
    git = component.program("git", "apt-get install git")
    for name in ("shop", "bank"):
        place = tmp_path / "repositories" / "acme" / f"{name}.git"
        subprocess.run([git, "init", "-q", "--bare", "-b", "main", place], check=True)
    (tmp_path / "work").mkdir()
    with (
        github_home(tmp_path, github_contract, app_key) as (home, github),
        serving_forge(Forge(git, tmp_path / "repositories", github), tls_authority) as forge,
        running_broker(home) as broker,
    ):
        yield Clone(forge, broker, tmp_path / "work", tls_authority.ca_file)


@pytest.mark.timeout(120)
def test_git_clones_and_pushes_with_tokens_minted_for_it(clone: Clone) -> None:
    url = f"{clone.forge.url}/acme/shop.git"
    clone.run("clone", "-q", url, ".")
    (clone.directory / "README").write_text("written by a task\n")
    clone.run("add", "README")
    clone.run("commit", "-qm", "Say who was here")
    clone.run("push", "-q", "origin", "HEAD:main")
    pushed = clone.run("ls-remote", "origin", "refs/heads/main").stdout.split()[0]
    assert pushed == clone.run("rev-parse", "HEAD").stdout.strip()
    assert clone.forge.tokens
    told = clone.run("ls-remote", f"{clone.forge.url}/acme/bank.git", check=False)
    assert told.returncode != 0  # the scope names one repository
    clone.broker.home.run("revoke", "--all", "--yes")
    wait_until(lambda: not clone.forge.github.live, "every token to be revoked", 30)
