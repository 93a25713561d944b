"""Find the data files that ship with the broker, from a checkout or from a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker.errors import ConfigurationError

_PACKAGED: Final = Path(__file__).resolve().parent / "_data"
_CHECKOUT: Final = Path(__file__).resolve().parent.parent / "policies"


def data_path(name: str) -> Path:
    """Return where a shipped file or folder is, such as `catalogue`.

    `name` is relative to `policies/` in a checkout, which a wheel carries as `broker/_data`.
    Raise `ConfigurationError` where it is in neither.
    """
    for root in (_PACKAGED, _CHECKOUT):
        path = root / name
        if path.exists():
            return path
    raise ConfigurationError(
        f"{name!r} is not among the broker's data files in {_PACKAGED} or {_CHECKOUT}; "
        "install the broker again"
    )
