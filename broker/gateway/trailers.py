"""Trailers: which of the fields after a chunked body are passed on (RFC 9110, 6.5).

None are, unless the sender declared them in a `Trailer` field before the body and, for a response,
the agent said that it takes them (`TE: trailers`). A recipient may merge them into the head as if
they had stood there all along: so what frames, routes, authenticates or changes the meaning of a
message never passes after it, declared or not (RFC 9110, 6.5.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.gateway.elsewhere import NAMES
from broker.gateway.grammar import Field
from broker.policy.behalf import names_another
from broker.twins import twin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FRAMING: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"http2-settings", b"keep-alive"}
    | {b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
LEADING: Final = frozenset(
    {b"content-location", b"link", b"location"}
    # Where an operation's state is to be had (Azure), and where an upload goes (Google).
    | {b"azure-asyncoperation", b"operation-location"}
    | {b"x-goog-upload-control-url", b"x-goog-upload-url"}
)
"""Fields of an answer that say where its client goes on, which `translate` has to see."""

_ROUTING: Final = (
    frozenset({b"alt-svc", b"forwarded", b"host", b"max-forwards", b"via"}) | LEADING | NAMES
)
_AUTHENTICATION: Final = frozenset(
    {b"authentication-info", b"authorization", b"cookie", b"cookie2", b"proxy-authenticate"}
    | {b"proxy-authentication-info", b"proxy-authorization", b"set-cookie", b"set-cookie2"}
    | {b"www-authenticate"}
)
_MEANING: Final = frozenset(
    {b"age", b"broker-error", b"cache-control", b"content-encoding", b"content-range"}
    | {b"content-type", b"date", b"expires", b"if-match", b"if-modified-since", b"if-none-match"}
    | {b"if-range", b"if-unmodified-since", b"pragma", b"range", b"retry-after", b"vary"}
    | {b"warning"}
)
NEVER: Final = _FRAMING | _ROUTING | _AUTHENTICATION | _MEANING
"""Names of fields that pass in no trailer."""


def declared(fields: Iterable[Field]) -> frozenset[bytes]:
    """Return the names that the Trailer fields of a head list, in lower case, and that may pass."""
    names = {
        name.strip(b" \t").lower()
        for field in fields
        if field.key == b"trailer"
        for name in field.value.split(b",")
    }
    return frozenset(
        name for name in names if name and twin(name) not in NEVER and not names_another(name)
    )


def takes_trailers(fields: Iterable[Field]) -> bool:
    """Tell whether a request says that its sender takes trailers (RFC 9110, 10.1.4)."""
    return any(
        coding.strip(b" \t").lower() == b"trailers"
        for field in fields
        if field.key == b"te"
        for coding in field.value.split(b",")
    )


def read_trailers(lines: Iterable[bytes], names: frozenset[bytes]) -> Iterator[Field]:
    """Yield the fields of a trailer section that have one of these names."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() in names:
            yield Field(name.lower(), name, value.strip(b" \t"))


def last_chunk(section: bytes) -> bytes:
    """Return what ends a chunked body, with these field lines after it (RFC 9112, 7.1.2)."""
    return b"0\r\n%b\r\n" % section
