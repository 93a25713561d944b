"""The agent's side of SPOP, HAProxy's protocol for asking about streams (its SPOE.txt, 3).

The one library for Python is of 2020 and starts a task for each frame; measured with it, HAProxy
would look worse than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HAPROXY_HELLO: Final = 1
HAPROXY_DISCONNECT: Final = 2
NOTIFY: Final = 3
AGENT_HELLO: Final = 101
AGENT_DISCONNECT: Final = 102
ACK: Final = 103

_LENGTH: Final = 4
_FINAL: Final = b"\0\0\0\1"
_STRING: Final = 8
_TRUE: Final = 0x11
_SET_VAR: Final = b"\1\3\2"
"""The action, how many things it takes, and that the variable is the transaction's."""

_SHORT: Final = 240
_MORE: Final = 128

Value = str | int | bool | None


class Frame(NamedTuple):
    """A frame; `stream` and `own`, its number there, go into its answer."""

    kind: int
    stream: int
    own: int
    payload: bytes


def number(value: int) -> bytes:
    """Return a number as SPOP writes it."""
    if value < _SHORT:
        return bytes((value,))
    written = bytearray((value & 0x0F | _SHORT,))
    value = (value - _SHORT) >> 4
    while value >= _MORE:
        written.append(value & 0x7F | _MORE)
        value = (value - _MORE) >> 7
    written.append(value)
    return bytes(written)


def read_number(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that stands at a place, and where it ends; IndexError if it is cut."""
    value, shift = data[place], 4
    place += 1
    if value >= _SHORT:
        more = _MORE
        while more >= _MORE:
            more = data[place]
            value += more << shift
            place, shift = place + 1, shift + 7
    return value, place


def text(value: str) -> bytes:
    """Return a string as SPOP writes it."""
    encoded = value.encode()
    return number(len(encoded)) + encoded


def frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames at the beginning of `data`, and the rest."""
    found, place = [], 0
    while len(data) >= place + _LENGTH:
        start = place + _LENGTH
        end = start + int.from_bytes(data[place:start], "big")
        if end > len(data):
            break
        stream, after = read_number(data, start + 5)
        own, after = read_number(data, after)
        found.append(Frame(data[start], stream, own, data[after:end]))
        place = end
    return found, data[place:]


def frame(kind: int, payload: bytes, stream: int = 0, own: int = 0) -> bytes:
    """Return a frame with its length before it."""
    content = bytes((kind,)) + _FINAL + number(stream) + number(own) + payload
    return len(content).to_bytes(_LENGTH, "big") + content


def pairs(payload: bytes, place: int = 0) -> Iterator[tuple[str, Value]]:
    """Yield the names and values of a list; those of kinds that are not known here as None."""
    while place < len(payload):
        name, place = _read_text(payload, place)
        kind = payload[place]
        place += 1
        if kind & 0x0F == _STRING:
            value, place = _read_text(payload, place)
            yield name, value
        elif kind & 0x0F in {2, 3, 4, 5}:
            amount, place = read_number(payload, place)
            yield name, amount
        else:  # nothing, true or false
            yield name, (kind == _TRUE if kind & 0x0F == 1 else None)


def asked(payload: bytes) -> dict[str, Value]:
    """Return the arguments of the one message of a NOTIFY frame."""
    _, place = _read_text(payload, 0)
    return dict(pairs(payload, place + 1))


def hello(most: int) -> bytes:
    """Return the agent's answer to HAProxy's first frame, which takes frames of so many bytes."""
    told = text("version") + bytes((_STRING,)) + text("2.0")
    told += text("max-frame-size") + b"\3" + number(most)
    told += text("capabilities") + bytes((_STRING,)) + text("pipelining")
    return frame(AGENT_HELLO, told)


def setting(name: str, value: str) -> bytes:
    """Return the action that sets a variable of the transaction."""
    return _SET_VAR + text(name) + bytes((_STRING,)) + text(value)


def goodbye() -> bytes:
    """Return the agent's last frame: it goes without an error."""
    told = text("status-code") + b"\3" + number(0)
    return frame(AGENT_DISCONNECT, told + text("message") + bytes((_STRING,)) + text("done"))


def _read_text(data: bytes, place: int) -> tuple[str, int]:
    size, place = read_number(data, place)
    return data[place : place + size].decode("latin-1"), place + size
