"""Docker and skopeo, with the broker as their credential helper, before a registry that asks.

What Docker does here (`docker manifest inspect`) is its client's own work: no daemon is needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.gate import Gate
from tests.integration.github_broker import github_home
from tests.integration.running_broker import COMMAND, running_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.components.github import AppKey, GithubContract
    from tests.components.tls import TestAuthority
    from tests.fakes.github import FakeGithub

_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG: Final = b"{}"
_MANIFEST: Final = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": _TYPE,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(_CONFIG),
            "digest": f"sha256:{hashlib.sha256(_CONFIG).hexdigest()}",
        },
        "layers": [],
    }
).encode()


class Registry:
    """A registry of one image, for whoever has a token of this GitHub that is good now."""

    def __init__(self) -> None:
        self.github: FakeGithub | None = None
        self.name = ""
        self.users: list[str] = []

    def lets_in(self, authorization: str) -> bool:
        """Say whether a request may pass."""
        scheme, _, coded = authorization.partition(" ")
        if scheme != "Basic" or self.github is None:
            return False
        user, _, password = base64.b64decode(coded).decode().partition(":")
        self.users.append(user)
        rights = self.github.live.get(password, {}).get("permissions", {})
        return bool(rights.get("packages") == "read")


@contextmanager
def serving_registry(authority: TestAuthority) -> Iterator[Registry]:
    """Serve over TLS until the block ends."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not registry.lets_in(self.headers.get("Authorization", "")):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = _MANIFEST if "/manifests/" in self.path else _CONFIG
            self.send_response(200)
            self.send_header("Content-Type", _TYPE if body is _MANIFEST else "application/json")
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = (
        authority.certificate("127.0.0.1")
        .context()
        .wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    )
    registry.name = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _docker(program: str, config: Path, image: str) -> list[str]:
    return [program, "--config", str(config), "manifest", "inspect", image]


def _skopeo(program: str, config: Path, image: str) -> list[str]:
    login = f"--authfile={config / 'config.json'}"
    return [program, "inspect", "--raw", login, f"docker://{image}"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("client", "inspect", "remedy"),
    [
        ("docker", _docker, "Docker's command line; Debian has none without its daemon"),
        ("skopeo", _skopeo, "apt-get install skopeo"),
    ],
    ids=["docker", "skopeo"],
)
def test_an_image_is_read_with_a_token_minted_for_it(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    client: str,
    inspect: Callable[[str, Path, str], list[str]],
    remedy: str,
) -> None:
    component: Gate = request.getfixturevalue("component")
    # Only skopeo can be had everywhere: what Docker itself does is shown where it is.
    gate = component if client == "skopeo" else Gate(strict=False)
    program = gate.program(client, remedy)
    contract: GithubContract = request.getfixturevalue("github_contract")
    key: AppKey = request.getfixturevalue("app_key")
    tls: TestAuthority = request.getfixturevalue("tls_authority")
    config = tmp_path / "login"
    config.mkdir()
    with (
        serving_registry(tls) as registry,
        github_home(tmp_path, contract, key, registry.name) as (home, github),
        running_broker(home),
    ):
        registry.github = github
        environment = {
            **home.environment,
            "PATH": f"{COMMAND.rpartition('/')[0]}:{home.environment['PATH']}",
            "SSL_CERT_FILE": str(tls.ca_file),
        }

        def read() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                inspect(program, config, f"{registry.name}/shop:1"),
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        helpers = {"credHelpers": {registry.name: "broker"}}
        (config / "config.json").write_text(json.dumps(helpers))
        seen = read()
        assert seen.returncode == 0, seen.stderr
        assert json.loads(seen.stdout)["mediaType"] == _TYPE
        assert set(registry.users) == {"x-access-token"}
        (config / "config.json").write_text("{}")
        assert read().returncode != 0  # without the helper it is out
