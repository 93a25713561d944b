"""Read a request's body, bounded, before anything looks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Receive

MOST_BYTES: Final = 64 * 1024


class BodyTooLarge(Exception):
    """A body of more bytes than the endpoint takes."""


class CallerGone(Exception):
    """The caller hung up before its request was complete."""


async def read_body(content_length: bytes | None, receive: Receive, limit: int) -> bytes:
    """Return the whole body.

    Raises `BodyTooLarge` as soon as the length announced, or what has arrived, is over `limit`
    bytes; `CallerGone` if the connection ends first.
    """
    if content_length is not None and not _at_most(content_length, limit):
        raise BodyTooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge
        if not message.get("more_body", False):
            return bytes(body)


def _at_most(length: bytes, limit: int) -> bool:
    return length.isdigit() and len(length) <= len(str(limit)) and int(length) <= limit
