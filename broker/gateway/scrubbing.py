"""Scrub one response on its way, of which only what may be the beginning of a secret waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.gateway.scrub import Scrubber


class Scrubbing:
    """Scrub one response as it streams; `found` says whether there was anything to scrub."""

    __slots__ = ("_alphabet", "_held", "_needles_in", "_scrubber", "found")

    def __init__(self, by: Scrubber) -> None:
        self._scrubber = by
        self._needles_in = by.needles_in
        self._alphabet = by.alphabet
        self._held = b""
        self.found = False

    def head(self, lines: bytes) -> bytes:
        """Return the response's head, scrubbed."""
        scrubbed = self._scrubber.scrub_head(lines)
        self.found |= scrubbed is not lines
        return scrubbed

    def fields(self, lines: bytes) -> bytes:
        """Return lines of the response's trailer section, scrubbed."""
        scrubbed = self._scrubber.scrub_fields(lines)
        self.found |= scrubbed != lines
        return scrubbed

    def content(self, content: bytes, *, done: bool) -> bytes:
        """Return what may be let through now of the body, which ends here if `done`."""
        if self._held:
            content = self._held + content
        elif (done or (content and content[-1] not in self._alphabet)) and not self._needles_in(
            content
        ):
            return content  # as nearly all answers and events are
        if done:
            scrubbed, self._held = self._scrubber.scrub(content), b""
        else:
            scrubbed, self._held = self._scrubber.sift(content)
        self.found |= scrubbed is not content and not content.startswith(scrubbed)
        return scrubbed
