"""Base64url as JOSE writes it: no padding, one spelling for each value (RFC 7515, 2)."""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    """Return `data` in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes that `text` encodes; raise `ValueError` for any spelling but `encode`'s."""
    try:
        decoded = base64.urlsafe_b64decode(text + "==")
    except ValueError:  # binascii.Error is one
        raise ValueError("it is not base64url") from None
    # Encoding it again finds what the decoder passes over: foreign characters, padding, and
    # unused bits that are set.
    if encode(decoded) != text:
        raise ValueError("it is not canonical base64url")
    return decoded
