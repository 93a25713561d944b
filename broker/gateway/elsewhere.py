"""Fields by which a request names a second place, and what policy says of that.

A rule is about the place in the request line. WebDAV's COPY and MOVE name where to as well
(RFC 4918, 10.3), and stores of objects take from a field what to copy or to rename. Unjudged, such
a field would carry what no rule allows to where a rule allows it. What S3 is told (`aws_sts`) is
looked at by its signer, for there a scope may say `copy_source: true`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.gateway.problems import Refusal
from broker.model import Allow
from broker.twins import twin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.gateway.grammar import Field
    from broker.gateway.route import Route

_DESTINATION: Final = b"destination"
_TO_A_DESTINATION: Final = frozenset({b"COPY", b"MOVE"})

_COPIED: Final = (b"GET",)
_RENAMED: Final = (b"GET", b"DELETE")
_SOURCES: Final[Mapping[bytes, tuple[bytes, ...]]] = {
    b"x-copy-from": _COPIED,  # OpenStack Swift, like the two of x-object and x-symlink
    b"x-object-manifest": _COPIED,
    b"x-symlink-target": _COPIED,
    b"x-goog-copy-source": _COPIED,
    b"x-ms-copy-source": _COPIED,
    b"x-ms-file-rename-source": _RENAMED,
    b"x-ms-rename-source": _RENAMED,
    b"x-upyun-copy-source": _COPIED,
    b"x-upyun-move-source": _RENAMED,
}
"""What must be allowed of the place that each of these fields names."""

NAMES: Final = frozenset({_DESTINATION, *_SOURCES})
"""Names of fields by which a request may name a second place."""

_BY_URL: Final = frozenset({_DESTINATION, b"x-ms-copy-source", b"x-ms-file-rename-source"})
_BY_PATH: Final = b"x-ms-rename-source"
_BY_BUCKET: Final = b"x-goog-copy-source"
_BUCKETS_IN_PATHS: Final = "storage.googleapis.com"
"""How a place is named that can be judged; in other ways some start from a container of theirs."""


def named_elsewhere(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Return the fields that may name a second place; `key` is what a CGI would make of it."""
    return tuple(
        field._replace(key=alike) for field in fields if (alike := twin(field.key)) in NAMES
    )


def why_not_elsewhere(
    named: Sequence[Field], route: Route, scopes: tuple[str, ...], method: bytes
) -> Refusal | None:
    """Return why a request may not name the places that it does, or None."""
    for field in named:
        needed = _needed(field.key, method)
        if not needed:
            continue
        place = _below(route, field)
        if place is None or not all(
            isinstance(route.judge(scopes, one, *place), Allow) for one in needed
        ):
            return _refusal(field.key, needed)
    return None


def _needed(key: bytes, method: bytes) -> tuple[bytes, ...]:
    """Return the methods that must be allowed at the place; none where it means nothing."""
    if key == _DESTINATION:
        return (method,) if method in _TO_A_DESTINATION else ()
    return _SOURCES[key]


def _below(route: Route, field: Field) -> tuple[bytes, bytes | None] | None:
    """Return path and query of the place, if it can be read as one of the service's own."""
    target, mark, query = _path(route, field).partition(b"?")
    base = route.base_path
    if not target.startswith(base + b"/") or b"#" in query:
        return None
    return target[len(base) :], query if mark else None


def _path(route: Route, field: Field) -> bytes:
    """Return the path that a field names, with its query; nothing where that cannot be told."""
    key, value = field.key, field.value
    if key == _BY_PATH:
        return value
    if key == _BY_BUCKET and route.upstream.host == _BUCKETS_IN_PATHS:
        return value if value.startswith(b"/") else b"/" + value
    if key in _BY_URL:
        for origin in route.origins:
            path = value[len(origin) :]
            if value[: len(origin)].lower() == origin and path.startswith(b"/"):
                return path
    return b""


def _refusal(key: bytes, needed: tuple[bytes, ...]) -> Refusal:
    methods = " and ".join(one.decode() for one in needed)
    return Refusal(
        "policy_denied",
        f"{key.decode()} names a second place, where no rule of the task token allows {methods}",
        remedy="name a place of the same service that the rules allow, too",
    )
