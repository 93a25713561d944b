"""AWS Signature Version 4, made by hand because each request through the gateway needs one.

The steps are those of AWS's "Create a signed AWS API request": a canonical form of the request,
its digest in a string to sign, and the HMAC of that under a key derived from the secret, the
day, the region and the service. Nothing here decides what may be signed; see `signer`.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from providers.base import Secret

ALGORITHM: Final = b"AWS4-HMAC-SHA256"
EMPTY: Final = sha256(b"").hexdigest().encode()
"""The digest of no body."""

UNSIGNED: Final = b"UNSIGNED-PAYLOAD"
"""What stands for the digest of a body that is not signed."""

_PLAIN_PATH: Final = re.compile(rb"[A-Za-z0-9._~/-]+").fullmatch
_SPACES: Final = re.compile(rb"[ \t]+")


@dataclass(frozen=True, slots=True)
class Keys:
    """A session's three parts; long-lived keys have no token."""

    id: bytes
    secret: Secret
    token: bytes | None = None


@dataclass(frozen=True, slots=True)
class PathRules:
    """How a service writes a path before it signs it.

    All but S3 encode what is sent once more, and resolve `.`, `..` and `//` before that.
    """

    twice: bool = True
    normalized: bool = True


S3_PATHS: Final = PathRules(twice=False, normalized=False)


class Moment(NamedTuple):
    """A time as signatures have it: `stamp` to the second, and its `day`."""

    stamp: bytes
    day: bytes


def moment(now: float) -> Moment:
    """Return a time in seconds since the epoch as signatures write it."""
    stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now)).encode()
    return Moment(stamp, stamp[:8])


def canonical_path(path: bytes, rules: PathRules) -> bytes:
    """Return a raw path as it is signed."""
    if rules.normalized and (b"//" in path or b"/." in path):
        path = _normalized(path)
    if _PLAIN_PATH(path):
        return path
    return _quoted(path if rules.twice else unquote_to_bytes(path), b"/")


def _normalized(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in {b"", b"."}:
            kept.append(segment)
    open_ended = kept and segments[-1] in {b"", b".", b".."}
    return b"/" + b"/".join(kept) + (b"/" if open_ended else b"")


def canonical_query(query: bytes | None) -> bytes:
    """Return a raw query string as it is signed: each part encoded alike, in order."""
    if not query:
        return b""
    pairs = sorted(
        (_quoted(unquote_to_bytes(name)), _quoted(unquote_to_bytes(value)))
        for name, _, value in (part.partition(b"=") for part in query.split(b"&") if part)
    )
    return b"&".join(b"%b=%b" % pair for pair in pairs)


def canonical_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return header fields as they are signed, and the list of their names.

    Names are in lower case. Values of one name are joined in the order they came in.
    """
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        plain = value.strip()
        if b"  " in plain or b"\t" in plain:
            plain = _SPACES.sub(b" ", plain)
        values[name] = b"%b,%b" % (values[name], plain) if name in values else plain
    names = sorted(values)
    return b"".join([b"%b:%b\n" % (name, values[name]) for name in names]), b";".join(names)


def _quoted(text: bytes, safe: bytes = b"") -> bytes:
    return quote_from_bytes(text, safe=safe).encode()


class Target(NamedTuple):
    """A request as it is signed; `payload` stands for its body, in hex or as a word."""

    method: bytes
    path: bytes
    query: bytes | None
    fields: tuple[tuple[bytes, bytes], ...]
    payload: bytes


class SigV4:
    """Sign for one session, region and service. Keys derived for a day are kept."""

    __slots__ = ("_keys", "_place", "_rules", "_signing")

    def __init__(self, keys: Keys, region: str, service: str, rules: PathRules) -> None:
        self._keys: Final = keys
        self._place: Final = (region.encode(), service.encode())
        self._rules: Final = rules
        self._signing: tuple[bytes, bytes] = (b"", b"")

    def __repr__(self) -> str:
        return "SigV4(hidden)"

    def scope(self, at: Moment) -> bytes:
        """Return what a signature is good for: a day, a region, a service."""
        return b"%b/%b/%b/aws4_request" % (at.day, *self._place)

    def authorization(self, target: Target, at: Moment) -> tuple[bytes, bytes]:
        """Return the value of an Authorization header, and the signature in it.

        `target.fields` hold all that is to be signed, date and token included.
        """
        fields, names = canonical_fields(target.fields)
        signature = self._signature(target, target.query, fields, names, at)
        value = b"%b Credential=%b/%b, SignedHeaders=%b, Signature=%b" % (
            *(ALGORITHM, self._keys.id, self.scope(at)),
            *(names, signature),
        )
        return value, signature

    def query(self, target: Target, at: Moment, lifetime: int) -> bytes:
        """Return the parameters that presign a request for `lifetime` seconds."""
        fields, names = canonical_fields(target.fields)
        credential = _quoted(b"%b/%b" % (self._keys.id, self.scope(at)))
        parameters = (
            b"X-Amz-Algorithm=%b&X-Amz-Credential=%b&X-Amz-Date=%b&X-Amz-Expires=%d"
            b"&X-Amz-SignedHeaders=%b"
        ) % (ALGORITHM, credential, at.stamp, lifetime, _quoted(names))
        if self._keys.token is not None:
            parameters += b"&X-Amz-Security-Token=" + _quoted(self._keys.token)
        whole = b"&".join(filter(None, (target.query, parameters)))
        signature = self._signature(target, whole, fields, names, at)
        return b"%b&X-Amz-Signature=%b" % (parameters, signature)

    def sign(self, text: bytes, at: Moment) -> bytes:
        """Return the signature of a string to sign, in hex."""
        day, key = self._signing
        if day != at.day:
            key = self._derived(at.day)
            self._signing = (at.day, key)
        return hmac.digest(key, text, "sha256").hex().encode()

    def _signature(
        self, target: Target, query: bytes | None, fields: bytes, names: bytes, at: Moment
    ) -> bytes:
        path = canonical_path(target.path, self._rules)
        canonical = b"%b\n%b\n%b\n%b\n%b\n%b" % (
            *(target.method, path, canonical_query(query)),
            *(fields, names, target.payload),
        )
        digest = sha256(canonical).hexdigest().encode()
        return self.sign(b"%b\n%b\n%b\n%b" % (ALGORITHM, at.stamp, self.scope(at), digest), at)

    def _derived(self, day: bytes) -> bytes:
        key = b"AWS4" + self._keys.secret.reveal()
        for part in (day, *self._place, b"aws4_request"):
            key = hmac.digest(key, part, "sha256")
        return key


class Clock:
    """The wall clock as `Moment`s, written anew once a second."""

    __slots__ = ("_last", "_now", "_second")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now: Final = now
        self._second = -1
        self._last = Moment(b"", b"")

    def __call__(self) -> Moment:
        """Return what time it is."""
        second = int(self._now())
        if second != self._second:
            self._second, self._last = second, moment(second)
        return self._last
