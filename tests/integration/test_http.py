"""HTTP/1.1 as others speak it: curl and Node in front of the gateway, nginx and Node behind it."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.attacks.gateway_process import GatewayProcess, gateway_process
from tests.components.process import free_port, listening, serving, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate

SCRIPTS = Path(__file__).parents[1] / "components"
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; gzip on; gzip_types *;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  log_format seen '$request_method $status "$http_range" "$http_accept_encoding" $connection';
  server {{
    listen 127.0.0.1:{port}; root {folder}/files;
    access_log {folder}/seen.log seen;
    location /put/ {{ client_max_body_size 64m; dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""
CONTENT = os.urandom(3_000_000)


@dataclass(frozen=True)
class Files:
    """nginx with a file, behind a gateway."""

    gateway: GatewayProcess
    folder: Path
    curl: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}/api/file.bin"

    def fetch(self, *arguments: str, status: int = 0) -> bytes:
        """Run curl; return what it says."""
        token = self.gateway.token.decode()
        command = [self.curl, "-sS", "-H", f"Authorization: Bearer {token}", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout

    def seen(self) -> list[str]:
        return (self.folder / "seen.log").read_text().splitlines()


@contextmanager
def files(component: Gate, folder: Path, fields: str) -> Iterator[Files]:
    nginx = component.program("nginx", "apt-get install nginx-light")
    curl = component.program("curl", "apt-get install curl")
    (folder / "files" / "put").mkdir(parents=True)
    (folder / "files" / "file.bin").write_bytes(CONTENT)
    folder.chmod(0o755)
    port = free_port()
    configuration = NGINX.format(folder=folder, port=port)
    if os.geteuid() == 0:
        configuration = "user root;" + configuration
    (folder / "nginx.conf").write_text(configuration)
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (
        serving(command, lambda: listening(port), directory=folder, environment={}),
        gateway_process(port, folder / "audit", fields) as gateway,
    ):
        yield Files(gateway, folder, curl)


@pytest.fixture
def unscrubbed(component: Gate, tmp_path: Path) -> Iterator[Files]:
    with files(component, tmp_path, ", scrub: off") as found:
        yield found


@pytest.fixture
def scrubbed(component: Gate, tmp_path: Path) -> Iterator[Files]:
    with files(component, tmp_path, "") as found:
        yield found


def test_ranges_where_nothing_is_scrubbed(unscrubbed: Files, tmp_path: Path) -> None:
    url, fetch = unscrubbed.url, unscrubbed.fetch
    assert fetch("-r", "10-19", url) == CONTENT[10:20]
    assert fetch("-r", "-5", url) == CONTENT[-5:]
    head = fetch("-r", "10-19", "-I", url).decode()
    assert head.startswith("HTTP/1.1 206 ")
    assert f"Content-Range: bytes 10-19/{len(CONTENT)}" in head
    several = fetch("-r", "0-9,100-109", "-i", url)
    assert b"multipart/byteranges" in several
    assert CONTENT[:10] in several
    assert CONTENT[100:110] in several
    assert b"416" in fetch("-r", f"{len(CONTENT)}-", "-i", url).split(b"\r\n")[0]
    # An interrupted download goes on where it was.
    half = tmp_path / "half.bin"
    half.write_bytes(CONTENT[:1_000_000])
    fetch("-C", "-", "-o", str(half), url)
    assert half.read_bytes() == CONTENT
    wait_until(lambda: 'GET 206 "bytes=1000000-"' in unscrubbed.seen()[-1], "nginx to log it")
    # And it does not where the file is another by now.
    stale = fetch("-r", "0-9", "-H", 'If-Range: "another"', "-i", url)
    assert stale.startswith(b"HTTP/1.1 200 ")


def test_no_ranges_where_answers_are_searched(scrubbed: Files, tmp_path: Path) -> None:
    url, fetch = scrubbed.url, scrubbed.fetch
    assert fetch("-r", "10-19", "--compressed", url) == CONTENT
    half = tmp_path / "half.bin"
    half.write_bytes(CONTENT[:1000])
    fetch("-C", "-", "-o", str(half), url, status=33)  # curl: the server takes no ranges
    assert half.read_bytes() == CONTENT[:1000]
    assert {line.split(" ", 1)[1][:19] for line in scrubbed.seen()} == {'200 "-" "identity" '}


def test_conditions_and_head(unscrubbed: Files) -> None:
    url = unscrubbed.url
    headers = {"Authorization": f"Bearer {unscrubbed.gateway.token.decode()}"}
    with httpx.Client(headers=headers, trust_env=False) as client:
        for _ in range(3):
            head = client.head(url)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(CONTENT))
            unchanged = client.get(url, headers={"If-None-Match": head.headers["etag"]})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert client.get(url).content == CONTENT
            assert client.get(url + "x").status_code == 404
            assert client.head(url + "x").content == b""
    # One connection to nginx served it all, and whoever comes next.
    unscrubbed.fetch(url)
    assert len({line.rsplit(" ", 1)[1] for line in unscrubbed.seen()}) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_uploads_wait_for_100_continue(unscrubbed: Files, tmp_path: Path, *, chunked: bool) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    target = unscrubbed.url.replace("file.bin", "put/copy.bin")
    framing = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    expect = ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]
    answer = unscrubbed.fetch("-i", "-T", str(source), *expect, *framing, target)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")
    assert (unscrubbed.folder / "files" / "put" / "copy.bin").read_bytes() == CONTENT
    # What is refused is not sent at all.
    refused = unscrubbed.fetch(
        "-i", "-T", str(source), *expect, *framing, target.replace("/put/", "/admin/")
    )
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in refused


@dataclass(frozen=True)
class NodePair:
    """Node before the gateway and behind it."""

    gateway: GatewayProcess
    node: str

    def ask(self, method: str, *more: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.gateway.port}/api/x"
        command = [self.node, str(SCRIPTS / "http_client.mjs"), url, self.gateway.token.decode()]
        done = subprocess.run(
            [*command, method, *more], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def node(component: Gate, tmp_path: Path) -> Iterator[NodePair]:
    program = component.program("node", "apt-get install nodejs npm")
    port = free_port()
    command = [program, str(SCRIPTS / "http_service.mjs"), str(port)]
    with (
        serving(command, lambda: listening(port), directory=tmp_path, environment={}),
        gateway_process(port, tmp_path / "audit") as gateway,
    ):
        yield NodePair(gateway, program)


@pytest.mark.parametrize("takes", [True, False])
def test_trailers_of_node(node: NodePair, *, takes: bool) -> None:
    found = node.ask("GET", *(["TE"] if takes else []))
    assert found["interim"] == []  # Early Hints are kept back
    for answer in found["answers"]:
        seen = json.loads(answer["body"])
        assert seen["te"] == ("trailers" if takes else None)
        assert answer["trailers"] == ({"x-sum": str(len(answer["body"]))} if takes else {})
        assert answer["headers"].get("trailer") == ("x-sum" if takes else None)
    assert len({answer["port"] for answer in found["answers"]}) == 1


def test_expectations_and_trailers_of_a_request_of_node(node: NodePair) -> None:
    found = node.ask("POST", "TE")
    assert found["interim"].count("continue") == 2
    for answer in found["answers"]:
        seen = json.loads(answer["body"])
        assert (seen["method"], seen["body"]) == ("POST", "hello world")
        assert seen["trailers"] == {"x-mine": "1"}


def test_head_of_a_service_that_answers_in_chunks(node: NodePair) -> None:
    found = node.ask("HEAD")
    for answer in found["answers"]:
        assert (answer["status"], answer["body"]) == (200, "")
        assert answer["headers"]["x-method"] == "HEAD"
        assert "transfer-encoding" not in answer["headers"]
