from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from broker.app.logs import RedactingFormatter, configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_an_entry_has_time_level_and_origin() -> None:
    record = logging.LogRecord("broker.x", logging.WARNING, "", 0, "took %d s", (3,), None)
    record.created = 0.0
    assert RedactingFormatter().format(record) == "1970-01-01T00:00:00Z WARNING broker.x: took 3 s"


def test_one_of_several_processes_is_named() -> None:
    record = logging.LogRecord("broker.x", logging.INFO, "", 0, "up", (), None)
    assert RedactingFormatter("worker 2").format(record).endswith(" INFO broker.x [worker 2]: up")


def test_what_looks_like_a_secret_is_taken_out_of_entries_and_tracebacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("debug")
    log = logging.getLogger("broker.somewhere")
    log.debug("Authorization: Bearer %s", SECRET)
    try:
        int(SECRET)
    except ValueError:
        log.exception("it failed")
    printed = capsys.readouterr()
    assert SECRET not in printed.err
    assert "ValueError" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("library", ["httpx", "httpcore.http11", "hvac", "urllib3", "asyncio"])
def test_libraries_do_not_tell_what_they_send(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug")
    logging.getLogger(library).debug("send_request_headers")
    logging.getLogger(library).info("HTTP Request")
    logging.getLogger(library).warning("something is wrong")
    assert capsys.readouterr().err.count("\n") == 1


def test_the_level_is_that_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("broker").info("quiet")
    assert capsys.readouterr().err == ""
