"""Tell whether a text can be a secret reference, without looking for the secret."""

from __future__ import annotations

from typing import Final

from broker.errors import ConfigurationError, did_you_mean

SCHEMES: Final = {
    "vault": "vault:<mount>/<path>#<field>",
    "embedded": "embedded:<name>",
    "env": "env:<NAME>",
    "file": "file:<path>",
}


def check_reference(reference: str) -> None:
    """Raise `ConfigurationError` unless the reference's scheme is known and something follows.

    The text never repeats the reference: it may be the secret itself.
    """
    scheme, colon, rest = reference.partition(":")
    if scheme in SCHEMES and rest:
        return
    near = did_you_mean(scheme, SCHEMES) if colon and scheme not in SCHEMES else ""
    raise ConfigurationError(
        f"not a secret reference{near}; write one of {', '.join(SCHEMES.values())}"
    )
