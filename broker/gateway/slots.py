"""Find the task token in the place where an agent's client puts what it takes for its key."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, NamedTuple

from providers.base import TokenSlot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.gateway.request import RequestFields

BEARER: Final = (TokenSlot("bearer", b"authorization", b"Bearer "),)
"""Where every agent may put its task token, whatever the service (RFC 6750, 2.1)."""

_JWT_START: Final = b"eyJ"
_MOST_COOKIES: Final = 256


class Presented(NamedTuple):
    """A task token as presented; `misplaced` if it also stands where it would be sent on."""

    token: bytes
    misplaced: bool


def find_token(fields: RequestFields, slots: tuple[TokenSlot, ...]) -> Presented | None:
    """Return the token in the first of `slots` that holds one, unverified."""
    token = next(filter(None, (_in_slot(fields, slot) for slot in slots)), None)
    if token is None:
        return None
    return Presented(token, any(token in text for text in _outside(fields, slots)))


def _outside(fields: RequestFields, slots: tuple[TokenSlot, ...]) -> Iterator[bytes]:
    headers = {slot.name for slot in slots if slot.kind != "cookie"}
    cookies = {slot.name for slot in slots if slot.kind == "cookie"}
    for field in fields.fields:
        yield field.name
        if field.key == b"cookie":
            for name, content in cookie_pairs(field.value):
                yield name  # which is all of a pair that has no `=`
                if name not in cookies:
                    yield content
        elif field.key not in headers:
            yield field.value


def _in_slot(fields: RequestFields, slot: TokenSlot) -> bytes | None:
    for field in fields.fields:
        if slot.kind == "cookie":
            if field.key == b"cookie":
                token = dict(cookie_pairs(field.value)).get(slot.name)
                if token:
                    return token
        elif field.key == slot.name:
            token = _in_value(field.value, slot)
            if token:
                return token
    return None


def _in_value(value: bytes, slot: TokenSlot) -> bytes | None:
    if slot.kind == "basic":
        return _in_basic(value)
    size = len(slot.prefix)
    # A scheme's name is not case-sensitive (RFC 9110, 11.1).
    if value[:size].lower() == slot.prefix.lower():
        return value[size:].strip(b" ")
    return None


def _in_basic(value: bytes) -> bytes | None:
    if value[:6].lower() != b"basic ":
        return None
    try:
        user, _, password = base64.b64decode(value[6:].strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    # Clients differ in which half is the key; the other may be empty or filled in.
    halves = [half for half in (password, user) if half]
    return next((half for half in halves if half.startswith(_JWT_START)), next(iter(halves), None))


def cookie_pairs(value: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and values of a Cookie field (RFC 6265, 4.2.1).

    Of one that has more than anybody's, the last of them holds the whole rest.
    """
    pairs = (pair.partition(b"=") for pair in value.split(b";", _MOST_COOKIES - 1))
    return [(name.strip(b" \t"), content.strip(b" \t")) for name, _, content in pairs]
