"""nginx, as the upstream and as the proxy that the gateway is measured against."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.processes import free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BODY: Final = "x" * 1024

_COMMON: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  {content}
}}
"""
_UPSTREAM: Final = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    location / {{ return 200 "{body}"; }}
    location /v1/files/ {{ root {root}; }}
  }}
"""
_PROXY: Final = """
  upstream service {{
    server 127.0.0.1:{upstream};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location /api/ {{
      proxy_pass http://service/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {key}";
    }}
  }}
"""


@contextmanager
def nginx_upstream(folder: Path, core: int, files: Mapping[str, bytes] = {}) -> Iterator[int]:
    """Answer every request with 1 KB, but for `files` under /v1/files/; yield the port."""
    port, root = free_port(), folder / "root"
    (root / "v1" / "files").mkdir(parents=True)
    for name, content in files.items():
        (root / "v1" / "files" / name).write_bytes(content)
    with _nginx(folder / "upstream", _UPSTREAM.format(port=port, body=BODY, root=root), port, core):
        yield port


@contextmanager
def nginx_proxy(folder: Path, core: int, upstream: int, key: str) -> Iterator[tuple[int, int]]:
    """Swap the Authorization header and pass on; yield the port and the process id."""
    port = free_port()
    content = _PROXY.format(port=port, upstream=upstream, key=key)
    with _nginx(folder / "proxy", content, port, core) as pid:
        yield port, pid


@contextmanager
def _nginx(folder: Path, content: str, port: int, core: int) -> Iterator[int]:
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(_COMMON.format(folder=folder, content=content))
    command = [program("nginx"), "-c", str(config), "-p", str(folder), "-e", "stderr"]
    with running(command, port, core) as pid:
        yield pid
