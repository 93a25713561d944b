from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.settings import values

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: tuple[Callable[[object], object], ...] = (
    values.duration,
    values.size,
    values.count,
    values.processes,
    values.port,
    values.text,
    values.path,
    values.url,
    values.redis_url,
    values.flag,
    values.one_of("file", "keyring"),
)


@pytest.mark.parametrize(
    ("read", "given_value", "expected"),
    [
        (values.duration, "30s", 30),
        (values.duration, "15m", 900),
        (values.duration, "1h", 3600),
        (values.duration, "2d", 172800),
        (values.duration, 45, 45),
        (values.duration, "45", 45),
        (values.size, "64MiB", 64 << 20),
        (values.size, "512KiB", 512 << 10),
        (values.size, "1GiB", 1 << 30),
        (values.size, 100, 100),
        (values.count, "12", 12),
        (values.port, "0", 0),
        (values.port, 65535, 65535),
        (values.text, "acme", "acme"),
        (values.path, "/srv/broker", Path("/srv/broker")),
        (values.url, "https://broker.example.com", "https://broker.example.com"),
        (values.url, "https://broker.example.com/a/", "https://broker.example.com/a"),
        (values.url, "http://127.0.0.1:8700", "http://127.0.0.1:8700"),
        (values.url, "http://localhost:8700", "http://localhost:8700"),
        (values.url, "http://[::1]:8700", "http://[::1]:8700"),
        (values.redis_url, "redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
        (values.redis_url, "redis://counts.example", "redis://counts.example"),
        (values.redis_url, "rediss://[::1]:6380/", "rediss://[::1]:6380"),
        (values.redis_url, "unix:///run/redis.sock", "unix:///run/redis.sock"),
        (values.flag, True, True),
        (values.flag, "true", True),
        (values.flag, "false", False),
        (values.one_of("file", "keyring"), "file", "file"),
    ],
)
def test_reads(read: Callable[[object], object], given_value: object, expected: object) -> None:
    assert read(given_value) == expected


@pytest.mark.parametrize(
    ("read", "refused"),
    [
        (values.duration, "15 minutes"),
        (values.duration, "0s"),
        (values.duration, "-1m"),
        (values.duration, True),
        (values.duration, 1.5),
        (values.duration, "\u0661m"),
        (values.size, "64MB"),
        (values.size, "0"),
        (values.size, None),
        (values.count, 0),
        (values.count, "1e3"),
        (values.port, 65536),
        (values.port, -1),
        (values.port, True),
        (values.port, "80 "),
        (values.text, ""),
        (values.text, "a\nb"),
        (values.text, "\x1b[31m"),
        (values.text, 7),
        (values.path, "relative/path"),
        (values.path, ""),
        (values.url, "broker.example.com"),
        (values.url, "http://broker.example.com"),
        (values.url, "http://127.0.0.1.example.com"),
        (values.url, "https://user@broker.example.com"),
        (values.url, "https://broker.example.com?x=1"),
        (values.url, "https://broker.example.com#x"),
        (values.url, "https://broker.example.com:99999"),
        (values.url, "https://[::1"),
        (values.url, "https://"),
        (values.url, "ftp://broker.example.com"),
        (values.redis_url, "127.0.0.1:6379"),
        (values.redis_url, "redis://"),
        (values.redis_url, "redis://host:0"),
        (values.redis_url, "redis://host:99999"),
        (values.redis_url, "redis://host/name"),
        (values.redis_url, "redis://host/1/2"),
        (values.redis_url, "redis://host?db=1"),
        (values.redis_url, "redis://host#x"),
        (values.redis_url, "redis://:password@host"),
        (values.redis_url, "redis://user@host"),
        (values.redis_url, "redis+cluster://host:1,host:2"),
        (values.redis_url, "unix://run/redis.sock"),
        (values.redis_url, "unix:"),
        (values.redis_url, "https://host"),
        (values.redis_url, 6379),
        (values.flag, "True"),
        (values.flag, 1),
        (values.flag, ["true"]),
        (values.one_of("file", "keyring"), "File"),
        (values.one_of("file", "keyring"), ["file"]),
    ],
)
def test_refuses_and_says_what_is_expected(
    read: Callable[[object], object], refused: object
) -> None:
    with pytest.raises(ValueError, match=r"^(an? |one of )"):
        read(refused)


def test_one_of_names_the_nearest_word() -> None:
    with pytest.raises(ValueError, match="did you mean 'keyring'"):
        values.one_of("file", "keyring")("keyrng")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
def test_a_reader_raises_nothing_but_value_error(value: object) -> None:
    for read in READERS:
        with suppress(ValueError):
            read(value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - judged, not bound
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert values.is_loopback(host) is expected


def test_authority_puts_brackets_around_ipv6() -> None:
    assert values.authority("::1", 80) == "[::1]:80"
    assert values.authority("127.0.0.1", 80) == "127.0.0.1:80"
