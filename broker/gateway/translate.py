"""Translate what a response says of the upstream's address and sessions to the gateway's.

A redirect is returned, never followed. One that leads back to the same service leads through
the gateway again, so that the agent does not take its task token to the upstream itself, and so
does each place where a client goes on: the next page, an upload, an operation that is under way.
A cookie is bound to the service's own path, so that a client does not carry it to another.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.gateway.inject import is_named, without_parameters

if TYPE_CHECKING:
    from broker.gateway.authorize import Admission
    from broker.gateway.grammar import Field
    from broker.gateway.inject import Credential
    from broker.gateway.response import ResponseHead
    from broker.gateway.route import Route

_TRANSLATED: Final = frozenset({b"domain", b"path"})
_RELATIVE: Final = frozenset({b"content-location", b"location"})
"""Fields that every client resolves against the address that it has asked."""

_TARGET: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|<([^<>"]*+)>', re.DOTALL)
"""A quoted string, closed or not, or the target of a link (RFC 8288, 3)."""


def translate(fields: tuple[Field, ...], route: Route, credential: Credential) -> bytes:
    """Return the lines of the fields that speak of the upstream, as the agent may see them."""
    lines = []
    for field in fields:
        value: bytes | None
        if field.key == b"set-cookie":
            value = _cookie(field.value, route, credential)
        elif field.key == b"link":
            value = _TARGET.sub(partial(_link, route, credential), field.value)
        else:
            value = _reference(field.value, route, credential, whole=field.key not in _RELATIVE)
        # What shows the credential even so is for nobody's eyes.
        if value is not None and not credential.shows(value):
            lines.append(field._replace(value=value).line())
    return b"".join(lines)


def agent_lines(
    head: ResponseHead, admission: Admission, credential: Credential, *, chunks: bool
) -> bytes:
    """Return the head's lines as the agent may see them; `chunks` says how its body leaves."""
    lines = head.start
    if head.translated:
        lines += translate(head.translated, admission.route, credential)
    if chunks:
        lines += b"Transfer-Encoding: chunked\r\n"
        if head.trailers and admission.request.fields.takes_trailers:
            lines += b"Trailer: %b\r\n" % b", ".join(sorted(head.trailers))
    return lines


def _link(route: Route, credential: Credential, match: re.Match[bytes]) -> bytes:
    target: bytes | None = match[1]
    if target is None:
        return match[0]
    return b"<%b>" % _reference(target, route, credential, whole=True)


def _reference(value: bytes, route: Route, credential: Credential, *, whole: bool) -> bytes:
    """Return where a URI-reference of the upstream leads from the agent.

    What names the upstream's origin names the gateway's, if it should be `whole`; otherwise it is
    a path, so that it holds whatever name the agent has for the gateway.
    """
    target, hash_mark, fragment = value.partition(b"#")
    path, mark, query = target.partition(b"?")
    if mark and credential.removal.parameters:
        query = without_parameters(query, credential.removal.parameters)
        mark = b"?" if query else b""
    local = _without_origin(path, route)
    origin = route.origin if whole and local is not path else b""
    if local.startswith(b"/") and not local.startswith(b"//"):
        path = _through_gateway(local, route, origin)
    return path + mark + query + hash_mark + fragment


def _through_gateway(path: bytes, route: Route, origin: bytes = b"") -> bytes:
    base = route.base_path
    if path.startswith(base) and path[len(base) : len(base) + 1] in {b"", b"/"}:
        return origin + route.prefix + (path[len(base) :] or b"/")
    # Beyond the service's base path: the agent is told where, and has no way there.
    return route.origins[0] + path


def _without_origin(path: bytes, route: Route) -> bytes:
    for origin in route.origins:
        rest = path[len(origin) :]
        if path[: len(origin)].lower() == origin and rest[:1] in {b"", b"/"}:
            return rest or b"/"
    return path


def _cookie(value: bytes, route: Route, credential: Credential) -> bytes | None:
    pair, *attributes = value.split(b";")
    if is_named(pair.partition(b"=")[0], credential.removal.cookies):
        return None  # the service's own session, renewed
    kept = [pair.strip()]
    path = route.prefix + b"/"
    for attribute in attributes:
        name, _, told = attribute.partition(b"=")
        name, told = name.strip().lower(), told.strip()
        if name not in _TRANSLATED:
            kept.append(attribute.strip())
        elif name == b"path" and told.startswith(b"/") and told.startswith(route.base_path):
            path = _through_gateway(told, route)
    # The upstream's Domain would make a client drop the cookie.
    return b"; ".join([*kept, b"Path=" + path])
