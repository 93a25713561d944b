"""How services write what they echo, and how to know it again, in words of the tests' own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

Write = Callable[[bytes], bytes]


def pieces(secret: bytes) -> set[bytes]:
    """Every run of eight bytes of the secret, however a service may write it, in lower case."""
    runs = {secret[i : i + 8] for i in range(len(secret) - 7)}
    found = set()
    for run in runs:
        found |= {run, run.hex().encode(), quote(run, safe="").encode()}
        for offset in range(3):
            whole = base64.b64encode(bytes(offset) + run)
            found.add(whole[-(-offset * 8 // 6) : (offset + len(run)) * 8 // 6])
        found |= {escaped(run, form) for form in ("%{:02x}", "\\u{:04x}", "&#{};", "&#x{:x};")}
    return {one.lower() for one in found}


def escaped(text: bytes, form: str) -> bytes:
    return "".join(form.format(byte) for byte in text).encode()


WRITE: dict[str, Write] = {
    "raw": bytes,
    "bearer": lambda secret: b"Authorization: Bearer " + secret,
    "basic": lambda secret: base64.b64encode(b"account:" + secret),
    "base64": base64.b64encode,
    "base64, one byte before": lambda secret: base64.b64encode(b"a" + secret),
    "base64, two bytes before": lambda secret: base64.b64encode(b"ab" + secret + b"c"),
    "base64 of a header": lambda secret: base64.b64encode(b"Authorization: Bearer " + secret),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(b"?>" + secret).rstrip(b"="),
    "base64 in JSON of PHP": lambda s: base64.b64encode(b"??>" + s).replace(b"/", b"\\/"),
    "hex": lambda secret: secret.hex().encode(),
    "HEX": lambda secret: secret.hex().upper().encode(),
    "percent": lambda secret: escaped(secret, "%{:02x}"),
    "PERCENT": lambda secret: escaped(secret, "%{:02X}"),
    "percent, first alone": lambda secret: b"%%%02x" % secret[0] + secret[1:],
    "percent, last alone": lambda secret: secret[:-1] + b"%%%02x" % secret[-1],
    "JSON": lambda secret: json.dumps({"a": secret.decode("latin-1")}).encode(),
    "JSON \\u": lambda secret: escaped(secret, "\\u{:04x}"),
    "JSON \\U": lambda secret: escaped(secret, "\\u{:04X}"),
    "JSON, some alone": lambda s: b"".join(
        b"\\u%04x" % c if i % 3 else b"%c" % c for i, c in enumerate(s)
    ),
    "HTML": lambda secret: escaped(secret, "&#{};"),
    "HTML, hex": lambda secret: escaped(secret, "&#x{:X};"),
}
