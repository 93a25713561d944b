"""Names of header fields that different programs take for the same."""

from __future__ import annotations

from typing import Final

_ALIKE: Final = bytes(one if bytes([one]).isalnum() else ord("-") for one in range(256))


def twin(key: bytes) -> bytes:
    """Return a field's name as CGI and many frameworks tell it: `x_api.key` is `x-api-key`."""
    return key.translate(_ALIKE)
