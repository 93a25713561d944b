"""Scrub a websocket on its way from a service to an agent, frame by frame (RFC 6455, 5).

What a service sends is not masked, so its messages can be searched; and as what is found is
overwritten in place, the frames stay as long as they say. A message is held back no longer than
until it is complete, so that neither side waits for the other; between the fragments of one, the
bytes wait that may be the beginning of a secret.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.gateway.grammar import Malformed
from broker.gateway.scrubbing import Scrubbing

if TYPE_CHECKING:
    from broker.gateway.scrub import Scrubber

_CONTINUATION: Final = 0
_DATA: Final = frozenset({1, 2})
_CONTROL: Final = frozenset({8, 9, 10})

_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_LONGEST_SHORT: Final = 125
_LENGTH_BYTES: Final = {126: 2, 127: 8}
_TWO_BYTES_END: Final = 1 << 16
_LENGTH_END: Final = 1 << 63

_MOST_BETWEEN: Final = 16 << 10
"""Bytes of frames without content that may stand where a secret could go on."""


class _Frame(NamedTuple):
    """A frame's head: `size` is its own in bytes, `length` that of the content after it."""

    final: bool
    opcode: int
    size: int
    length: int


class FrameScrubbing(Scrubbing):
    """Scrub the frames of one connection as they come; `found` says whether that was needed.

    Raises `Malformed` for what is no frame of a service without extensions.
    """

    __slots__ = ("_between", "_left", "_open", "_passed", "_pending", "_waiting")

    def __init__(self, by: Scrubber) -> None:
        super().__init__(by)
        self._pending = b""  # the beginning of a frame whose head is cut
        self._left = 0  # bytes to come of the content of the current frame
        self._open = False  # whether the current message goes on after the current frame
        self._passed = 0  # how many bytes of content have been let through
        # What stands where in all the content, of which some bytes are held back before it.
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._between = 0  # how many bytes these are

    def content(self, content: bytes, *, done: bool) -> bytes:
        """Return what may be let through now; the connection ends here if `done`."""
        data, self._pending = self._pending + content, b""
        position, size = 0, len(data)
        passed: list[bytes] = []
        while position < size:
            if self._left:
                taken = min(self._left, size - position)
                self._left -= taken
                self._content(data[position : position + taken], passed)
                position += taken
                continue
            frame = _read(data, position)
            if frame is None:
                self._pending = data[position:]
                break
            self._begin(frame, data, position, passed)
            position += frame.size + (frame.length if frame.opcode in _CONTROL else 0)
        if done:
            # A message that its connection cuts short, and of the last frame what there is.
            self._weave(super().content(b"", done=True), passed)
            passed.append(self._scrubber.scrub(self._pending))
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _begin(self, frame: _Frame, data: bytes, position: int, passed: list[bytes]) -> None:
        content = position + frame.size
        if frame.opcode in _CONTROL:
            told = data[content : content + frame.length]
            scrubbed = self._scrubber.scrub(told)
            self.found |= scrubbed is not told
            self._place(data[position:content] + scrubbed, passed)
            return
        if (frame.opcode == _CONTINUATION) is not self._open:
            raise Malformed("the fragments of two messages are mixed")
        self._open = not frame.final
        self._place(data[position:content], passed)
        self._left = frame.length
        if not frame.length and frame.final:
            self._content(b"", passed)

    def _content(self, piece: bytes, passed: list[bytes]) -> None:
        complete = not self._left and not self._open
        self._weave(super().content(piece, done=complete), passed)

    def _place(self, between: bytes, passed: list[bytes]) -> None:
        """Put what is no content where it stands: after the content that is held back."""
        if not self._held:
            passed.append(between)
            return
        self._between += len(between)
        if self._between > _MOST_BETWEEN:
            raise Malformed("too much stands between the fragments of a message")
        self._waiting.append((self._passed + len(self._held), between))

    def _weave(self, content: bytes, passed: list[bytes]) -> None:
        """Let content through, and with it what stands in it or at its end."""
        start, done, waiting = self._passed, 0, self._waiting
        self._passed = end = start + len(content)
        while waiting and waiting[0][0] <= end:
            place, between = waiting.popleft()
            passed += (content[done : place - start], between)
            self._between -= len(between)
            done = place - start
        passed.append(content[done:] if done else content)


def _read(data: bytes, start: int) -> _Frame | None:
    """Return the frame that begins at `start`; None if its head, or a control frame, is cut."""
    available = len(data) - start
    if available < 2:  # noqa: PLR2004 - the least a head has
        return None
    first, second = data[start], data[start + 1]
    opcode, final = first & 0x0F, bool(first & _FINAL)
    if first & _RESERVED or opcode not in _DATA | _CONTROL | {_CONTINUATION}:
        raise Malformed("a frame uses an extension, and none was agreed on")
    if second & _MASKED:
        raise Malformed("a frame of the service is masked")
    size, length = 2, second
    if opcode in _CONTROL:
        if not final or length > _LONGEST_SHORT:
            raise Malformed("a control frame is too long, or in fragments")
        needed = size + length
    else:
        needed = size = size + _LENGTH_BYTES.get(second, 0)
    if available < needed:
        return None
    if second > _LONGEST_SHORT:
        length = _long(data[start + 2 : start + size])
    return _Frame(final, opcode, size, length)


def _long(written: bytes) -> int:
    length = int.from_bytes(written, "big")
    least = _TWO_BYTES_END if len(written) > 2 else _LONGEST_SHORT + 1  # noqa: PLR2004 - bytes
    if not least <= length < _LENGTH_END:
        raise Malformed("the length of a frame is not written as it must be")
    return length
