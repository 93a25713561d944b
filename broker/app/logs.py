"""The log: what the broker tells whoever runs it, on stderr, redacted."""

from __future__ import annotations

import logging
import time
from typing import Final

from broker.audit.redaction import redact_text

_QUIET: Final = (
    "asyncio",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "hvac",
    "urllib3",
    "uvicorn",
    "watchfiles",
)
"""Libraries whose lesser lines show requests and headers, or say what the broker says itself."""


class RedactingFormatter(logging.Formatter):
    """Format records as `2026-03-15T10:23:45Z INFO broker.app: ...`, tracebacks included.

    What looks like a credential, an address or a card number is taken out, whoever logged it.
    """

    converter = time.gmtime  # type: ignore[assignment]  # the stub allows one form of two

    def __init__(self, process: str | None = None) -> None:
        who = f" [{process}]" if process else ""
        line = f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s"
        super().__init__(line, "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole entry, redacted."""
        return redact_text(super().format(record))


def configure_logging(level: str, process: str | None = None) -> None:
    """Send log records of `level` (`debug`, `info`, `warning`, `error`) and above to stderr.

    `process` is how this one of several is called there. Libraries are held at warnings, whatever
    the level.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
