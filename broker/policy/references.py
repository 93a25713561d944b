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

KEPT: Final = "api"
"""Where entries that programs have set are said to stand: `api:scopes/stripe.read`."""

_THIS_MACHINE: Final = frozenset({"env", "file"})


def is_kept(place: str) -> bool:
    """Say whether a document holds an entry that a program has set, and not a person in a file."""
    return place.startswith(f"{KEPT}:")


def check_kept_reference(reference: str) -> None:
    """Raise `ConfigurationError` for a reference that may stand in policy files alone.

    Files and variables of the broker's machine hold its own keys, too. Whoever may set policy from
    elsewhere could otherwise have them sent to a service of their own.
    """
    scheme = reference.partition(":")[0]
    if scheme in _THIS_MACHINE:
        raise ConfigurationError(
            f"{scheme}: leads to the broker's own machine, and may stand in policy files alone; "
            "use vault: or embedded:"
        )


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
