"""What follows `vault:` in a secret reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from broker.errors import ConfigurationError

_SEGMENT: Final = r"[A-Za-z0-9_.-]+"
_REFERENCE: Final = re.compile(
    rf"(?P<path>{_SEGMENT}(?:/{_SEGMENT})+)"
    r"(?:@(?P<version>[1-9][0-9]{0,8}))?"
    r"#(?P<field>[A-Za-z0-9_.-]{1,128})",
    re.ASCII,
)
_MAX_PATH: Final = 512


@dataclass(frozen=True, slots=True)
class KvReference:
    """A field of a secret; `path` begins with the mount, `version` is None for the current."""

    path: str
    field: str
    version: int | None = None


def parse(rest: str) -> KvReference:
    """Return what `<mount>/<path>[@<version>]#<field>` refers to.

    The characters are those that need no encoding in a URL, so that what is written here is
    what is asked for.

    Raises:
        ConfigurationError: it is of another form; the text is not quoted.
    """
    match = _REFERENCE.fullmatch(rest)
    if match is None or len(rest) > _MAX_PATH or {".", ".."} & {*match["path"].split("/")}:
        raise ConfigurationError(
            "expected vault:<mount>/<path>#<field> or vault:<mount>/<path>@<version>#<field>, "
            "of letters, digits, '_', '.' and '-'"
        )
    version = match["version"]
    return KvReference(match["path"], match["field"], int(version) if version else None)
