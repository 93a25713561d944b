"""What three servers' parsers read in the bytes that the gateway sent on.

httptools (llhttp, as in Node) reads them while they come; h11 and a real nginx get the bytes of
each connection afterwards.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import geteuid
from pwd import getpwuid
from typing import TYPE_CHECKING, Any, Final

import h11

from tests.components.process import free_port, listening, serving, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Headers = list[tuple[bytes, bytes]]

BAD_REQUEST: Final = 400

_BLOCK: Final = 1 << 16


@dataclass
class Seen:
    """A request as a parser reads it: names in lower case, the body without its framing.

    `begun` once its head is read, `complete` once its body is.
    """

    method: bytes = b""
    target: bytes = b""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    begun: bool = False
    complete: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """The values of the fields of one name."""
        return [value for key, value in self.headers if key == name]


def read_with_h11(stream: bytes) -> tuple[list[Seen], str | None]:
    """Return what h11 reads, and what it said if it could not go on."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    seen: list[Seen] = []
    blocks = [stream[i : i + _BLOCK] for i in range(0, len(stream), _BLOCK)]
    try:
        for block in [*blocks, b""]:
            connection.receive_data(block)
            while _step(connection, seen):
                pass
    except h11.RemoteProtocolError as error:
        return seen, str(error)
    return seen, None


def _step(connection: h11.Connection, seen: list[Seen]) -> bool:
    event = connection.next_event()
    if isinstance(event, h11.Request):
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        seen.append(Seen(bytes(event.method), bytes(event.target), headers, begun=True))
    elif isinstance(event, h11.Data):
        seen[-1].body += bytes(event.data)
    elif isinstance(event, h11.EndOfMessage):
        seen[-1].complete = True
        seen[-1].trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            raise h11.RemoteProtocolError("it was asked to close")
        connection.start_next_cycle()
    else:
        return False
    return True


NAMES: Final = (
    *("host", "authorization", "x-api-key", "cookie", "content-length", "transfer-encoding"),
    *("connection", "upgrade", "te", "expect", "forwarded", "x-forwarded-for", "x-forwarded-host"),
    *("x-http-method-override", "x-original-url", "x-rewrite-url", "proxy-authorization"),
    *("x-nominated", "x-request-id", "accept", "accept-encoding", "x-value", "x-fold"),
)
"""Fields that nginx is asked about; it takes `_` in a name for `-`."""

_CONFIGURATION: Final = """
daemon off;
user {user};
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 60;
  client_header_buffer_size 64k;
  large_client_header_buffers 8 64k;
  client_body_buffer_size 1m;
  client_max_body_size 1m;
  underscores_in_headers on;
  log_format seen escape=json '{{"of": $connection, "method": "$request_method", '
    '"target": "$request_uri", "path": "$uri", "status": $status, '
    '"body": "$request_body", {fields}}}';
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    access_log seen.log seen;
    location / {{
      proxy_pass http://unix:{folder}/sink;
      proxy_http_version 1.1;
      proxy_pass_request_body off;
      proxy_pass_request_headers off;
      proxy_set_header Content-Length "";
      proxy_ignore_client_abort on;
      proxy_method GET;
    }}
  }}
  server {{
    listen unix:{folder}/sink;
    access_log off;
    location / {{ return 204; }}
  }}
}}
"""


@dataclass
class Logged:
    """A request as nginx logged it; fields of one name are joined, `_` in names is `-`.

    `path` is what it made of the target: decoded, and in its own normal form.
    """

    method: bytes
    target: bytes
    body: bytes
    status: int
    fields: dict[str, bytes]
    path: bytes = b""


class Nginx:
    """A running nginx, to which the bytes of connections are given once more."""

    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self._log = log
        self._position = 0
        self._number = 0

    async def read(self, streams: Sequence[tuple[bytes, bool]]) -> list[list[Logged]]:
        """Return what it reads in each stream; with each comes whether it ends in a request's end.

        Each stream stands between two requests of ours. The second shows that nginx takes all
        before it for whole requests; a stream that breaks off in one cannot have it, and neither
        can one with a request that nginx refuses, for nginx closes then.
        """
        numbers = range(self._number, self._number + len(streams))
        self._number += len(streams) + 1
        for number, (stream, whole) in zip(numbers, streams, strict=True):
            await self._send(number, stream, whole=whole)
        await self._send(numbers.stop, b"", whole=True)
        last = b'"/ours/%d"' % numbers.stop
        await asyncio.to_thread(wait_until, lambda: last in self._tail(), "nginx's last log line")
        with self._log.open("rb") as file:
            file.seek(self._position)
            found = _by_first(file.read().splitlines())
            self._position = file.tell()
        return [
            _without_ours(found.get(b"/ours/%d" % number, []), whole=whole)
            for number, (_, whole) in zip(numbers, streams, strict=True)
        ]

    def _tail(self) -> bytes:
        with self._log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            return file.read()

    async def _send(self, number: int, stream: bytes, *, whole: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        reading = asyncio.create_task(reader.read())
        last = _ours(number, close=True) if whole else b""
        writer.write(_ours(number, close=False) + stream + last)
        if not whole:
            writer.write_eof()
        async with asyncio.timeout(60):
            with suppress(ConnectionError):  # which is what is left unread when it closes
                await reading
        writer.transport.abort()


def _ours(number: int, *, close: bool) -> bytes:
    ending = b"Connection: close\r\n\r\n" if close else b"\r\n"
    return b"GET /ours/%d HTTP/1.1\r\nHost: ours\r\n%b" % (number, ending)


def _by_first(lines: list[bytes]) -> dict[bytes, list[Logged]]:
    """Return what nginx logged, connection by connection, by the target of the first request."""
    connections: dict[int, list[Logged]] = {}
    for line in lines:
        entry: dict[str, Any] = {
            name: value.encode("latin-1") if isinstance(value, str) else value
            for name, value in json.loads(line.decode("latin-1")).items()
        }
        fields = {name: entry[name] for name in NAMES}
        logged = Logged(
            entry["method"], entry["target"], entry["body"], entry["status"], fields, entry["path"]
        )
        connections.setdefault(entry["of"], []).append(logged)
    return {requests[0].target: requests for requests in connections.values()}


def _without_ours(logged: list[Logged], *, whole: bool) -> list[Logged]:
    assert logged, "nginx has not logged our own request"
    ours, *requests = logged
    if not whole or (requests and requests[-1].status == BAD_REQUEST):
        return requests
    if requests and requests[-1].target == ours.target:
        return requests[:-1]
    lost = Logged(b"", b"(the request after it is lost)", b"", 0, dict.fromkeys(NAMES, b""))
    return [*requests, lost]


@contextmanager
def nginx_reader(program: str, folder: Path) -> Iterator[Nginx]:
    """Run nginx in a folder of its own."""
    port = free_port()
    fields = ", ".join(f'"{name}": "$http_{name.replace("-", "_")}"' for name in NAMES)
    configuration = folder / "nginx.conf"
    user = getpwuid(geteuid()).pw_name  # else root's nginx could not reach its own socket
    configuration.write_text(
        _CONFIGURATION.format(port=port, folder=folder, fields=fields, user=user)
    )
    command = [
        program,
        "-p",
        str(folder),
        "-c",
        str(configuration),
        "-e",
        str(folder / "error.log"),
    ]
    with serving(command, lambda: listening(port), directory=folder, environment={}):
        yield Nginx(port, folder / "seen.log")
