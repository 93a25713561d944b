"""Readers: each turns a value from TOML or the environment into what a setting holds.

A reader raises `ValueError` with what it expected, to be put after "expected".
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION: Final = re.compile(r"(\d{1,9})(s|m|h|d)?", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12})(B|KiB|MiB|GiB)?", re.ASCII)
_SECONDS: Final = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LARGEST_PORT: Final = 65535
_MOST_PROCESSES: Final = 64


def duration(value: object) -> int:
    """Return seconds from `"15m"`, `"900s"`, `"1h"`, `"2d"` or a whole number of seconds."""
    match = _DURATION.fullmatch(_number_or_text(value))
    if match is None or int(match[1]) == 0:
        raise ValueError('a duration such as "30s", "15m" or "1h"')
    return int(match[1]) * _SECONDS[match[2]]


def size(value: object) -> int:
    """Return bytes from `"64MiB"`, `"512KiB"` or a whole number of bytes."""
    match = _SIZE.fullmatch(_number_or_text(value))
    if match is None or int(match[1]) == 0:
        raise ValueError('a size such as "512KiB" or "64MiB"')
    return int(match[1]) * _BYTES[match[2]]


def count(value: object) -> int:
    """Return a whole number of at least 1."""
    if not re.fullmatch(r"[1-9]\d{0,8}", _number_or_text(value), re.ASCII):
        raise ValueError("a whole number of at least 1")
    return int(str(value))


def processes(value: object) -> int:
    """Return a whole number from 1 to 64."""
    digits = _number_or_text(value)
    if not re.fullmatch(r"[1-9]\d?", digits, re.ASCII) or int(digits) > _MOST_PROCESSES:
        raise ValueError(f"a whole number from 1 to {_MOST_PROCESSES}")
    return int(digits)


def port(value: object) -> int:
    """Return a TCP port; 0 asks the system for a free one."""
    digits = _number_or_text(value)
    if not re.fullmatch(r"\d{1,5}", digits, re.ASCII) or int(digits) > _LARGEST_PORT:
        raise ValueError(f"a port from 0 to {_LARGEST_PORT}")
    return int(digits)


def text(value: object) -> str:
    """Return a string that is not empty and stands on one line."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a string on one line")
    return value


def path(value: object) -> Path:
    """Return an absolute path, `~` expanded."""
    expanded = Path(text(str(value) if isinstance(value, Path) else value)).expanduser()
    if not expanded.is_absolute():
        raise ValueError("an absolute path")
    return expanded


def url(value: object) -> str:
    """Return an https URL, or an http one on loopback, without query, fragment or final `/`."""
    expected = "a URL such as https://broker.example.com (http on loopback only)"
    try:
        parts = urlsplit(text(value))
        usable = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        raise ValueError(expected) from None
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not usable or not (parts.scheme == "https" or plain) or parts.query or parts.fragment:
        raise ValueError(expected)
    return text(value).rstrip("/")


def redis_url(value: object) -> str:
    """Return the URL of a Redis or Valkey server; it holds no password."""
    expected = "a URL such as redis://127.0.0.1:6379/0, rediss://host:6379 or unix:///path"
    try:
        parts = urlsplit(text(value))
        local, remote = parts.scheme == "unix", parts.scheme in {"redis", "rediss"}
        usable = parts.port != 0 and bool(parts.path if local else parts.hostname)
    except ValueError:
        raise ValueError(expected) from None
    if "@" in parts.netloc:
        raise ValueError(f"{expected}, with username and password_file beside it")
    if not (local or remote) or not usable or parts.query or parts.fragment:
        raise ValueError(expected)
    if local and (parts.netloc or not parts.path.startswith("/")):
        raise ValueError(expected)
    if remote and not re.fullmatch(r"/?\d{0,4}", parts.path, re.ASCII):
        raise ValueError(f"{expected}: after the port stands the database's number alone")
    return text(value).rstrip("/")


def flag(value: object) -> bool:
    """Return a boolean: TOML's own, or the word `true` or `false` from the environment."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in {"true", "false"}:
        raise ValueError("one of true, false")
    return value == "true"


def one_of(*words: str) -> Callable[[object], str]:
    """Return a reader that accepts these words alone."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"one of {', '.join(words)}{did_you_mean(str(value), words)}")
        return value

    return read


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine's loopback, by name or address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authority(host: str, port_number: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port_number}" if ":" in host else f"{host}:{port_number}"


def _number_or_text(value: object) -> str:
    return "" if isinstance(value, bool) else str(value)
