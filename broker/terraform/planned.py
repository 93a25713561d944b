"""What this run of Terraform is about to set, so that the API can judge it together.

Terraform asks for each resource by itself, those that others refer to first. The API knows the
policy as it is; a scope whose service is only planned would look wrong by itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.terraform.client import AdminClient


class Planned:
    """The entries that have been planned so far, by section and name; safe among threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._bodies: Final[dict[tuple[str, str], Mapping[str, Any] | None]] = {}

    def add(self, section: str, name: str, body: Mapping[str, Any] | None) -> None:
        """Note an entry; without a body, one that cannot be told yet."""
        with self._lock:
            self._bodies[section, name] = body

    def holds(self, section: Any, name: Any) -> bool:
        """Say whether an entry has been planned."""
        return (section, name) in self._bodies

    def problems(self, client: AdminClient) -> Sequence[Mapping[str, Any]]:
        """Return why the policy would not load with all that has been planned; may raise."""
        with self._lock:
            bodies = dict(self._bodies)
        edits = [
            {"section": section, "name": name, "body": body, "expected": None}
            for (section, name), body in bodies.items()
            if body is not None
        ]
        assume = [
            {"section": section, "name": name}
            for (section, name), body in bodies.items()
            if body is None
        ]
        return client.check(edits, assume)
