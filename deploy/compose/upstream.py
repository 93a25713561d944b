"""The demo API over TLS: it answers whoever has its key, which the agent never sees."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

from broker.cli.demo_api import DemoServer

FILES = Path("/files/upstream")
PORT = 8443


def main() -> None:
    """Serve, or with --check say by the exit status whether somebody does."""
    if "--check" in sys.argv:
        socket.create_connection(("127.0.0.1", PORT), 2).close()
        return
    # Every address: it has a network of its own, on which there is the broker alone.
    server = DemoServer((FILES / "api-key").read_text(), ("0.0.0.0", PORT))  # noqa: S104
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FILES / "cert.pem", FILES / "key.pem")
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
