"""A Kubernetes API server on 127.0.0.1, as far as a secrets engine and kubectl need one.

Service accounts, role bindings and their tokens (TokenRequest) are made and deleted; a token is
good for its namespace until it expires or its service account is gone, and so is a client
certificate of an authority that it trusts.
"""

from __future__ import annotations

import json
import secrets
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.tls import TestAuthority

Document = dict[str, Any]

_PROTOBUF: Final = b"k8s\x00"
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_PODS: Final = {"name": "pods", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}


@dataclass
class FakeKubernetes:
    """What the cluster holds; `admin` is the token that may make accounts."""

    url: str = ""
    ca_file: str = ""
    admin: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    accounts: set[tuple[str, str]] = field(default_factory=set)
    bindings: set[tuple[str, str]] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, bearer: str, body: Document) -> tuple[int, Document]:
        """Return the status and the document that answer a request."""
        path = path.partition("?")[0]
        self.calls.append(f"{method} {path}")
        if path in {"/version", "/api", "/apis", "/api/v1"}:
            return 200, _discovery(path)
        parts = path.strip("/").split("/")
        namespace, rest = parts[parts.index("namespaces") + 1], parts[-2:]
        if rest[-1] == "pods":
            return self._pods(namespace, bearer)
        if bearer != self.admin:
            return _status(403, "Forbidden")
        if method == "DELETE":
            known = self.bindings if "rolebindings" in parts else self.accounts
            known.discard((namespace, parts[-1]))
            return _status(200, "Success")
        if rest[-1] == "token":
            return 201, self._token(namespace, rest[0], body)
        name = body["metadata"].get("name") or body["metadata"]["generateName"]
        known = self.bindings if "rolebindings" in parts else self.accounts
        known.add((namespace, name))
        return 201, {**body, "metadata": {**body["metadata"], "name": name, "uid": "1"}}

    def _token(self, namespace: str, account: str, body: Document) -> Document:
        life = int(body.get("spec", {}).get("expirationSeconds", 3600))
        ends = int(time.time()) + life
        claims = {
            "iat": int(time.time()),
            "exp": ends,
            "aud": ["https://kubernetes"],
            "sub": f"{namespace}:{account}",
        }
        moment = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": jwt.encode(claims, _KEY, "ES256"), "expirationTimestamp": moment}
        return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": status}

    def who(self, bearer: str) -> tuple[str, str] | None:
        """Return the namespace and the service account of a token that is good now."""
        try:
            claims = jwt.decode(bearer, _KEY.public_key(), ["ES256"], audience="https://kubernetes")
        except jwt.PyJWTError:
            return None
        namespace, _, account = claims["sub"].partition(":")
        return (namespace, account) if (namespace, account) in self.accounts else None

    def _pods(self, namespace: str, bearer: str) -> tuple[int, Document]:
        who = self.who(bearer) if not bearer.startswith("CN=") else (namespace, bearer)
        if who is None:
            return _status(401, "Unauthorized")
        if who[0] != namespace:
            return _status(403, "Forbidden")
        pod = {"metadata": {"name": f"seen-by-{who[1]}"[:60], "namespace": namespace}}
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}


def _unpacked(content: bytes) -> Document:
    """Return what is needed of an object in protobuf, as Go clients send it."""
    raw = _messages(content.removeprefix(_PROTOBUF))[2]
    fields = _messages(raw)
    metadata = _messages(fields.get(1, b""))
    life = _messages(fields.get(2, b"")).get(4)  # of a TokenRequest's spec
    return {
        "metadata": {"name": metadata.get(1, b"").decode(), "generateName": "sa"},
        "spec": {"expirationSeconds": life} if isinstance(life, int) else {},
    }


def _messages(data: bytes) -> dict[int, Any]:
    """Return the fields of a protobuf message by number: bytes, or numbers."""
    found: dict[int, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        else:
            size = number()
            found[tag >> 3] = data[at : at + size]
            at += size
    return found


def _discovery(path: str) -> Document:
    documents: dict[str, Document] = {
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_PODS]},
    }
    return documents[path]


def _status(code: int, reason: str) -> tuple[int, Document]:
    told = "Success" if code < 300 else "Failure"
    body = {"kind": "Status", "apiVersion": "v1", "status": told, "reason": reason, "code": code}
    return code, body


def _common_name(connection: Any) -> str | None:
    """Return who the client's certificate, if it showed one, says it is."""
    shown = connection.getpeercert(binary_form=True)
    if shown is None:
        return None
    (name,) = x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(
        NameOID.COMMON_NAME
    )
    return str(name.value)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    cluster: FakeKubernetes

    def handle_error(self, *_: object) -> None:
        """Whoever refuses our certificate is what some tests are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        packed = content.startswith(_PROTOBUF)
        body = _unpacked(content) if packed else json.loads(content or b"{}")
        bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        name = _common_name(self.connection)
        bearer = bearer if name is None else f"CN={name}"
        self._send(*self.server.cluster.answer(self.command, self.path, bearer, body))

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the base class's names

    def _send(self, status: int, document: Document) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving_kubernetes(
    authority: TestAuthority, client_ca: Path | None = None
) -> Iterator[FakeKubernetes]:
    """Serve over TLS until the block ends; clients may show certificates of `client_ca`."""
    context = authority.certificate("127.0.0.1", "localhost").context()
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.cluster = FakeKubernetes(
        f"https://127.0.0.1:{server.server_port}", str(authority.ca_file)
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
