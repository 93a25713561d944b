"""Take secrets and personal data out of text, before it is stored or printed.

Shapes alone are known here (see `broker.audit.patterns`): a password without a name in front
of it looks like any other word, and a key made of hexadecimal digits like any other digest.
That is why records hold no bodies, no header values and no query values in the first place.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import unquote_to_bytes

from broker.audit.patterns import (
    ASSIGNMENT,
    CARD,
    EMAIL,
    HEADER,
    HEADER_VALUE,
    OPAQUE,
    PHONE,
    PRIVATE_KEY,
    SENSITIVE,
    SHAPE,
    SLACK_WEBHOOK,
    URL_PASSWORD,
    VALUE,
    WORD,
    is_card,
    is_opaque,
    kind_at,
)

LINE_LIMIT: Final = 1024
"""How many characters `safe_line` keeps, unless told otherwise."""

_CACHED_PATHS: Final = 4096
_CACHED_PATH_LENGTH: Final = 512

# Too short for any of the shapes, or an identifier of a form that opens nothing.
_PLAIN_SEGMENT: Final = re.compile(
    rb"[A-Za-z][A-Za-z0-9._~-]{0,14}|[0-9]{0,9}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rb"|(?!sk|rk|pk|hf|gh|r8|gl)[a-z]{2,4}_[A-Za-z0-9]{10,24}"
)

_DIGITS: Final = re.compile(r"\d[\d ().-]{5,}\d")


def redact_text(text: str) -> str:
    """Return `text` with credentials and personal data replaced by `[redacted:<kind>]`.

    Personal data are e-mail addresses, telephone numbers and payment card numbers.
    """
    text = redact_principal(text)
    text = OPAQUE.sub(lambda match: "[redacted:token]" if is_opaque(match[0]) else match[0], text)
    if "@" in text or "%40" in text:
        text = EMAIL.sub("[redacted:email]", text)
    if _DIGITS.search(text):
        text = PHONE.sub("[redacted:phone]", text)
        text = CARD.sub(lambda match: "[redacted:card]" if is_card(match[0]) else match[0], text)
    return text


def redact_principal(text: str) -> str:
    """Return the name of an agent, issuer or subject with credentials of known kinds replaced.

    E-mail addresses stay, since a trail must say who acted, and so do long random names: some
    issuers' subjects are.
    """
    if "PRIVATE KEY" in text:
        text = PRIVATE_KEY.sub("[redacted:private-key]", text)
    if "://" in text:
        text = URL_PASSWORD.sub("[redacted:url-password]@", text)
    if "/services/T" in text:
        text = SLACK_WEBHOOK.sub("/services/[redacted:slack-webhook]", text)
    if "=" in text or ":" in text:
        text = _redact_named(text)
    return SHAPE.sub(lambda match: f"[redacted:{kind_at(text, match.start())}]", text)


def _redact_named(text: str) -> str:
    """Replace the values of names such as `password`, `api_key` and `authorization`."""
    kept: list[str] = []
    position = 0
    for match in ASSIGNMENT.finditer(text):
        if match.start() < position:
            continue
        if HEADER.fullmatch(match["name"]):
            value = HEADER_VALUE.match(text, match.end())
        elif SENSITIVE.search(match["name"]):
            value = VALUE.match(text, match.end())
            if value and match[0].endswith(":") and WORD.fullmatch(value[0]):
                continue
        else:
            continue
        if value:
            kept += text[position : match.end()], "[redacted:value]"
            position = value.end()
    kept.append(text[position:])
    return "".join(kept)


def redact_path(path: bytes) -> str:
    """Return a request target's path and query as the trail may keep it.

    Query values are always replaced by `…`, whatever they are. Accepts any bytes: those that
    are not printable ASCII are escaped. Results for short paths are cached.
    """
    if len(path) <= _CACHED_PATH_LENGTH:
        return _redact_cached(path)
    return _redact_path(path)


def safe_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Return `text` as one printable line of about `limit` characters.

    Control characters, line ends, bidirectional and zero-width characters and lone surrogates
    become their escapes. A longer text is cut and ends in its length and SHA-256 digest, so
    that whoever has the whole text can prove that it is the one. Redact first: a digest is
    taken of what is given.
    """
    if len(text) <= limit and text.isprintable():
        return text
    line = _escape(text[:limit])
    if len(text) <= limit and len(line) <= limit:
        return line
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{line[:limit]}… [cut: {len(text)} characters, sha256:{digest}]"


def _escape(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _redact_path(path: bytes) -> str:
    resource, question, query = path.partition(b"?")
    redacted = "/".join(map(_redact_segment, resource.split(b"/")))
    if "/services/T" in redacted:
        redacted = redact_principal(redacted)
    if question:
        redacted += "?" + "&".join(map(_redact_parameter, query.split(b"&")))
    return safe_line(redacted)


_redact_cached = lru_cache(maxsize=_CACHED_PATHS)(_redact_path)


def _redact_segment(segment: bytes) -> str:
    if _PLAIN_SEGMENT.fullmatch(segment):
        return segment.decode("ascii")
    if b"%" in segment:
        decoded = unquote_to_bytes(segment).decode("utf-8", "backslashreplace")
        redacted = redact_text(decoded)
        if redacted != decoded:
            return redacted
    return redact_text(segment.decode("ascii", "backslashreplace"))


def _redact_parameter(parameter: bytes) -> str:
    name, equals, _ = parameter.partition(b"=")
    return _redact_segment(name) + ("=…" if equals else "")
