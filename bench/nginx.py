"""nginx, as the upstream and as the proxy that the gateway is measured against."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trustme

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
    listen 127.0.0.1:{port} backlog=4096{tls};
    {certificate}
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
      proxy_pass {scheme}://service/;
      proxy_buffering {buffering};
      {trust}
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {key}";
    }}
  }}
"""


@dataclass(frozen=True)
class Certificate:
    """A server's certificate and key, and the authority that vouches for it, as PEM files."""

    authority: Path
    chain: Path
    key: Path


def certificate(folder: Path) -> Certificate:
    """Issue a certificate for this machine, by an authority of its own."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificate(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(made.authority)
    made.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    made.key.touch(0o600)
    issued.private_key_pem.write_to_path(made.key)
    return made


@contextmanager
def nginx_upstream(
    folder: Path, core: int, files: Mapping[str, bytes] = {}, tls: Certificate | None = None
) -> Iterator[int]:
    """Answer every request with 1 KB, but for `files` under /v1/files/; yield the port."""
    port, root = free_port(), folder / "root"
    (root / "v1" / "files").mkdir(parents=True)
    for name, content in files.items():
        (root / "v1" / "files" / name).write_bytes(content)
    proof = f"ssl_certificate {tls.chain}; ssl_certificate_key {tls.key};" if tls else ""
    config = _UPSTREAM.format(
        port=port, body=BODY, root=root, tls=" ssl" if tls else "", certificate=proof
    )
    with _nginx(folder / "upstream", config, port, core):
        yield port


@contextmanager
def nginx_proxy(  # noqa: PLR0913 - where, to whom, with what, and how
    folder: Path,
    core: int,
    upstream: int,
    key: str,
    *,
    tls: Certificate | None = None,
    buffering: bool = True,
) -> Iterator[tuple[int, int]]:
    """Swap the Authorization header and pass on; yield the port and the process id."""
    port = free_port()
    # It does not compare addresses with a certificate, so it is told the name.
    trust = "proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {};"
    content = _PROXY.format(
        port=port,
        upstream=upstream,
        key=key,
        scheme="https" if tls else "http",
        trust=trust.format(tls.authority) if tls else "",
        buffering="on" if buffering else "off",
    )
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
