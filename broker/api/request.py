"""Read what a request says, so that it has one reading, or refuse it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.api.body import MOST_BYTES, BodyTooLarge, read_body
from broker.api.parameters import FORM, JSON, Unparsable, media_type, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Receive, Scope

    Parameters = Mapping[str, Sequence[str]]

_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"origin",
        b"sec-fetch-site",
    }
)


BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
"""An Authorization header with a token in it (RFC 6750, 2.1)."""


class Unreadable(Exception):
    """A request that cannot be read: answer with `status` and `headers`; `cause` is one word."""

    def __init__(
        self,
        status: int,
        message: str,
        cause: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause
        self.headers = headers


def read_head(scope: Scope, method: str = "POST") -> Mapping[bytes, bytes]:
    """Return the headers of a request by `method`.

    Raises `Unreadable` for another method, and for parameters in the URL.
    """
    if scope["method"] != method:
        allowed = (b"allow", method.encode())
        raise Unreadable(405, f"only {method} is served here", "method", (allowed,))
    headers = once(scope)
    if scope["query_string"]:
        raise Unreadable(400, "parameters go in the body: a URL ends up in logs", "query_string")
    return headers


def once(scope: Scope) -> Mapping[bytes, bytes]:
    """Return the headers; raises `Unreadable` where one that must have one meaning has two."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE and name in headers:
            raise Unreadable(400, f"header {name.decode()} is given twice", "headers")
        headers[name] = value
    return headers


async def read_parameters(headers: Mapping[bytes, bytes], receive: Receive) -> Parameters:
    """Return the parameters in a request's body; raises `Unreadable`, or `CallerGone`."""
    media = media_type(headers.get(b"content-type", b""))
    if media is None:
        raise Unreadable(415, f"the content type must be {FORM} or {JSON}", "content_type")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Unreadable(415, "the body must not be compressed", "content_encoding")
    try:
        return parse(media, await read_body(headers.get(b"content-length"), receive, MOST_BYTES))
    except BodyTooLarge:
        raise Unreadable(
            413, f"the body must have at most {MOST_BYTES} bytes", "too_large"
        ) from None
    except Unparsable as error:
        raise Unreadable(400, str(error), "unparsable") from None
