"""Write the request that the upstream gets: what the agent may say, then the credential.

Whatever belongs to the agent's own connection, could stand for the credential or could make an
upstream see another request than policy judged is removed first. The credential is written
last, so that nothing the agent sent (`Connection: Authorization`) can remove it again.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from broker.gateway.grammar import FIELD_NAME, FIELD_VALUE, Field
from broker.gateway.own_keys import is_key
from broker.gateway.scrub import SHORTEST, scrubber
from broker.gateway.slots import cookie_pairs
from broker.gateway.trailers import read_trailers
from broker.gateway.websocket import EXTENSIONS, REQUEST_LINES, Handshake
from broker.twins import twin
from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.gateway.authorize import Admission
    from broker.gateway.request import RequestFields
    from broker.gateway.scrub import Scrubber
    from providers.base import Injection, TokenSlot

_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"host", b"http2-settings", b"keep-alive"}
    | {b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer"}
    | {b"transfer-encoding", b"upgrade"}
)
_OVERRIDES: Final = frozenset(
    {b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-host"}
    | {b"x-original-host", b"x-original-method", b"x-original-uri", b"x-original-url"}
    | {b"x-rewrite-url", b"x-envoy-original-path", b"x-real-ip", b"x-client-ip"}
    | {b"x-cluster-client-ip", b"true-client-ip", b"forwarded", b"x-original-forwarded-for"}
    | {b"client-ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-originating-ip"}
    | {b"x-remote-ip", b"x-remote-addr", b"remote-addr", b"proxy-client-ip"}
    | {b"wl-proxy-client-ip", b"remote-user", b"x-remote-user", b"x-webauth-user"}
    | {b"x-authenticated-user", b"x-authenticated-userid", b"x-consumer-id"}
    | {b"x-consumer-username", b"x-consumer-custom-id", b"x-credential-identifier"}
    | {b"x-auth-request-user", b"x-auth-request-email", b"x-auth-request-groups"}
    | {b"x-auth-request-preferred-username", b"x-auth-couchdb-username"}
    | {b"x-auth-couchdb-roles", b"x-auth-couchdb-token", b"x-goog-authenticated-user-email"}
    | {b"x-goog-authenticated-user-id", b"x-ms-client-principal", b"x-ms-client-principal-id"}
    | {b"x-ms-client-principal-name", b"x-ms-client-principal-idp", b"x-amzn-oidc-identity"}
    | {b"x-amzn-oidc-data", b"x-amzn-oidc-accesstoken", b"cf-access-authenticated-user-email"}
    | {b"path-info", b"proxy", b"script-name", b"x-script-name"}
)
"""Fields by which some upstreams take another method, path, host or caller than was judged.

`Proxy` is where CGI programs then send requests of their own (CVE-2016-5385).
"""

_ALWAYS: Final = _OF_THE_CONNECTION | _OVERRIDES | {b"authorization"}

_TRANSFORMING: Final = frozenset(
    {b"accept-charset", b"accept-encoding", b"a-im", b"if-range", b"range", b"x-ms-range"}
    | {EXTENSIONS}
)
"""Fields by which an agent could have an echo cut to pieces or packed, past recognition."""

_RANGES: Final = frozenset({b"if-range", b"range", b"x-ms-range"})

_QUERY_PART: Final = re.compile(rb"[A-Za-z0-9._~%-]+")
_COOKIE_VALUE: Final = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
_OWN_COOKIE: Final = re.compile(b'(?:%b)?|"(?:%b)?"' % ((_COOKIE_VALUE.pattern,) * 2))
"""The value of a cookie of the agent's, in which nobody finds another one (RFC 6265, 4.1.1)."""


class Removal(NamedTuple):
    """Names of the agent's fields, cookies and query parameters that are not sent on.

    All are as the laxest upstream may read them. `parameters` are those of the service's own
    credential; the agent's (`own_keys.key_parameters`) stay out as well. `judged` are names of
    fields that go on though they are of a kind that does not, for policy has looked at them.
    """

    fields: frozenset[bytes]
    cookies: frozenset[bytes]
    parameters: frozenset[bytes]
    judged: frozenset[bytes]


class Credential:
    """A provider's injection as bytes for the wire, and what makes room for it.

    `fresh_until` is in seconds of the monotonic clock; `scrubber` finds the credential in
    responses, unless `scrub` is false; `signer` signs each request, if that is how the
    credential is used; `judged` are fields that go on, see `Removal`. Raises `ProviderError` for an
    injection that would not stay within the place it is written to, or that could not be told
    from other content.
    """

    __slots__ = (
        "_values",
        "cookies",
        "fresh_until",
        "lines",
        "query",
        "removal",
        "scrubber",
        "signer",
    )

    def __init__(
        self,
        injection: Injection,
        slots: tuple[TokenSlot, ...],
        fresh_until: float,
        *,
        scrub: bool = True,
        judged: frozenset[bytes] = frozenset(),
    ) -> None:
        for name, value in injection.headers:
            reserved = twin(name.lower()) in _OF_THE_CONNECTION
            _require(FIELD_NAME, name, fits=not reserved)
            _require(FIELD_VALUE, value.reveal())
        for name, value in injection.cookies:
            _require(FIELD_NAME, name)
            _require(_COOKIE_VALUE, value.reveal())
        for name, value in injection.query:
            _require(_QUERY_PART, name)
            _require(_QUERY_PART, value.reveal())
        written = (*injection.headers, *injection.cookies, *injection.query)
        # The key alone is what must not be seen: without its scheme, its prefix, its user name.
        values = {value.reveal().rpartition(b" ")[2] for _, value in written}
        values |= {value.reveal() for value in injection.secrets}
        self._values = tuple(values | set(map(unquote_to_bytes, values)) - {b""})
        self.fresh_until = fresh_until
        self.signer = signer = injection.signer
        self.scrubber = _scrubber(injection) if scrub else None
        self.lines = b"".join(b"%b: %b\r\n" % (n, v.reveal()) for n, v in injection.headers)
        if scrub:
            self.lines += b"Accept-Encoding: identity\r\n"
        self.cookies = b"; ".join(b"%b=%b" % (n, v.reveal()) for n, v in injection.cookies)
        self.query = b"&".join(b"%b=%b" % (n, v.reveal()) for n, v in injection.query)
        self.removal = Removal(
            fields=frozenset(
                [twin(name.lower()) for name, _ in injection.headers]
                + [twin(slot.name) for slot in slots if slot.kind != "cookie"]
                + [twin(name) for name in (signer.fields if signer else ())]
            )
            | _transforming(scrub=scrub, signs=signer is not None),
            cookies=frozenset(
                [_parameter(name) for name, _ in injection.cookies]
                + [_parameter(slot.name) for slot in slots if slot.kind == "cookie"]
            ),
            parameters=frozenset(
                _parameter(name)
                for name in (
                    *(name for name, _ in injection.query),
                    *(signer.parameters if signer else ()),
                )
            ),
            judged=judged,
        )

    def __repr__(self) -> str:
        return "Credential(hidden)"

    def shows(self, text: bytes) -> bool:
        """Tell whether `text`, as it is or percent-decoded, holds a value of the credential."""
        plain = unquote_to_bytes(text)
        return any(value in text or value in plain for value in self._values)

    def is_shown_in(self, fields: Sequence[Field]) -> bool:
        """Tell whether one of these fields of a response shows a value of the credential.

        That is an echo, too, if it is left out of the head or of a URL in it.
        """
        return bool(fields) and any(self.shows(field.value) for field in fields)


def _transforming(*, scrub: bool, signs: bool) -> frozenset[bytes]:
    if not scrub:
        return frozenset()
    # A secret that only signs does not travel: no part of an answer can hold a part of an echo.
    return _TRANSFORMING - _RANGES if signs else _TRANSFORMING


def _scrubber(injection: Injection) -> Scrubber | None:
    """Return what finds the secrets of an injection; all that is written, if it names none."""
    headers = [value.reveal() for _, value in injection.headers]
    others = [value.reveal() for _, value in (*injection.cookies, *injection.query)]
    basic = [value[6:] for value in headers if value[:6].lower() == b"basic "]
    secrets = [value.reveal() for value in injection.secrets] or [
        *(value.rpartition(b" ")[2] for value in headers),
        *(unquote_to_bytes(value) for value in others),
        *(part for value in basic for part in _user_and_password(value)),
    ]
    if any(len(secret) < SHORTEST for secret in secrets):
        raise ProviderError(
            f"a secret of the service has less than {SHORTEST} bytes, so that it could not be told "
            "from ordinary content if the service echoed it: use a longer one, or say scrub: off"
        )
    return scrubber([*secrets, *(value for value in basic if len(value) >= SHORTEST)])


def _user_and_password(basic: bytes) -> list[bytes]:
    """Return the password, or the user name if there is no password (RFC 7617)."""
    try:
        user, _, password = base64.b64decode(basic, validate=True).partition(b":")
    except ValueError:
        return []
    return [password or user]


Forwarded = tuple[Removal, bytes]
"""A head up to its credential, and what was removed from it: all that the next one repeats."""


class _Fields(NamedTuple):
    lines: bytes
    cookies: bytes


def upstream_head(admission: Admission, credential: Credential) -> bytes:
    """Return the head that is sent: the path that was judged, byte for byte, and its fields."""
    removal = credential.removal
    known = admission.forwarded
    if known is not None and known[0] is removal:
        return known[1] + credential.lines + b"\r\n"
    request, route = admission.request, admission.route
    fields = request.fields.derived.get(removal)
    if fields is None:
        fields = request.fields.derived[removal] = _forwarded(request.fields, removal)
    target = route.base_path + admission.path
    query = request.query
    if query:
        query = without_parameters(query, removal.parameters | route.keys) or None
    if credential.query:
        query = b"&".join(filter(None, (query, credential.query)))
    if query is not None:
        target = b"%b?%b" % (target, query)
    lines = route.host_line + fields.lines + route.via
    head = b"%b %b HTTP/1.1\r\n%b" % (request.method, target, lines)
    if removal.cookies:
        cookies = b"; ".join(filter(None, (fields.cookies, credential.cookies)))
        if cookies:
            head += b"Cookie: %b\r\n" % cookies
    elif not credential.query:
        admission.forwarded = (removal, head)  # which holds no secret, then
    return head + credential.lines + b"\r\n"


def _forwarded(fields: RequestFields, removal: Removal) -> _Fields:
    lines = [field.line() for field in fields.fields if may_pass(field, fields.options, removal)]
    if fields.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif fields.length is not None:
        lines.append(b"Content-Length: %d\r\n" % fields.length)
    if isinstance(fields.handshake, Handshake):
        lines.append(REQUEST_LINES)
    elif fields.takes_trailers:
        lines.append(b"TE: trailers\r\nConnection: TE\r\n")
    trailers = sorted(_trailers(fields, removal))
    if trailers:
        lines.append(b"Trailer: %b\r\n" % b", ".join(trailers))
    pairs = (
        pair
        for field in fields.fields
        if field.key == b"cookie" and removal.cookies and b"cookie" not in fields.options
        for pair in cookie_pairs(field.value)
    )
    kept = [b"%b=%b" % pair for pair in pairs if _may_stay(*pair, removal)]
    return _Fields(b"".join(lines), b"; ".join(kept))


def _may_stay(name: bytes, content: bytes, removal: Removal) -> bool:
    """Tell whether a cookie of the agent's goes on, beside the one that the gateway writes."""
    plain = FIELD_NAME.fullmatch(name) and _OWN_COOKIE.fullmatch(content)
    return bool(plain) and not is_named(name, removal.cookies)


def passing_trailers(admission: Admission, credential: Credential, lines: Sequence[bytes]) -> bytes:
    """Return those lines of a request's trailer section that are sent on.

    What the agent declared, and could have sent in the head; without its task token. None are
    where requests are signed, for no signature is over what comes after the body.
    """
    if credential.signer is not None:
        return b""
    names = _trailers(admission.request.fields, credential.removal)
    names = frozenset(name for name in names if twin(name) not in admission.route.behalf.listed)
    token = admission.claim.token if admission.claim is not None else None
    return b"".join(
        field.line()
        for field in read_trailers(lines, names)
        if token is None or token not in field.value
    )


def _trailers(fields: RequestFields, removal: Removal) -> frozenset[bytes]:
    return frozenset(
        name
        for name in fields.trailers
        if may_pass(Field(name, name, b""), fields.options, removal)
    )


def may_pass(field: Field, options: frozenset[bytes], removal: Removal) -> bool:
    """Tell whether a field of the agent's goes on; `options` are those of its Connection field."""
    alike = twin(field.key)
    if alike in removal.fields:
        return False
    if alike in removal.judged:
        return True  # even if the agent says that it is of the connection: it was judged as sent
    return not (
        alike in _ALWAYS
        or alike.startswith(b"x-forwarded-")
        or is_key(alike)
        or field.key in options
        or (alike == b"cookie" and removal.cookies)
    )


def without_parameters(query: bytes, names: frozenset[bytes]) -> bytes:
    """Return a query string without the parameters of these names, however they are spelt."""
    return b"&".join(part for part in query.split(b"&") if not _names(part, names))


def _names(part: bytes, removed: frozenset[bytes]) -> bool:
    # Some upstreams separate parameters by `;` as well.
    return any(_parameter(piece.partition(b"=")[0]) in removed for piece in part.split(b";"))


def is_named(name: bytes, removed: frozenset[bytes]) -> bool:
    """Tell whether a cookie has one of these names of a `Removal`, however it is spelt."""
    return _parameter(name) in removed


def _parameter(name: bytes) -> bytes:
    """Return the name of a parameter or cookie as the laxest upstream may read it.

    `API.Key[]` is `api_key`.
    """
    plain = unquote_to_bytes(name.replace(b"+", b" ")).partition(b"[")[0]
    plain = plain.partition(b"\0")[0].strip().lower()
    return plain.replace(b".", b"_").replace(b" ", b"_").replace(b"-", b"_")


def _require(form: re.Pattern[bytes], text: bytes, *, fits: bool = True) -> None:
    if not fits or not form.fullmatch(text) or text != text.strip():
        raise ProviderError("the provider's credential is not fit for its place in a request")
