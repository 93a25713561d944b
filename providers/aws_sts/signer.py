"""Sign an agent's requests with the session of its grant: exactly, or not at all.

What an agent's own client has signed with made-up keys is taken off, and the request signed
anew as it leaves. A request that AWS could read in another way than it is signed is refused.

Of the body AWS wants the digest. An agent's client that has worked it out says so in
`X-Amz-Content-Sha256`, and the body streams: S3 itself checks it. Where nobody has, the body is
read whole first. `UNSIGNED-PAYLOAD`, in one piece or in chunks with a checksum after them, is
let through over TLS alone; chunks that the client has signed are signed anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from providers.aws_sts.chunked import CHECKSUMS, Rechunked
from providers.aws_sts.sigv4 import EMPTY, S3_PATHS, UNSIGNED, PathRules, SigV4, Target
from providers.signing import Signature, Unsignable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from providers.aws_sts.api import Api
    from providers.aws_sts.sigv4 import Clock, Keys
    from providers.signing import Outgoing

PRESIGNED_FOR: Final = 60
"""Seconds that a request signed in its query is good for; it is sent at once."""

S3_FAMILY: Final = frozenset({"s3", "s3-outposts", "s3-object-lambda"})
"""Services, by the name they are signed with, that sign paths and bodies as S3 does."""

_DIGEST: Final = b"x-amz-content-sha256"
_DATE: Final = b"x-amz-date"
_TOKEN: Final = b"x-amz-security-token"
_SIGNED_CHUNKS: Final = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_TRAILER: Final = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_UNSIGNED_TRAILER: Final = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SOURCES: Final = frozenset({b"x-amz-copy-source", b"x-amz-rename-source"})
_LEFT_OUT: Final = frozenset(
    {b"accept-encoding", b"cookie", b"traceparent", b"tracestate", b"user-agent"}
    | {b"via", b"x-amzn-trace-id"}
)
"""Fields that proxies on the way may rewrite, and that mean nothing to AWS's services."""

_HEX: Final = re.compile(rb"[0-9A-Fa-f]{64}").fullmatch
_NUMBER: Final = re.compile(rb"[0-9]{1,15}").fullmatch
_PLAIN_QUERY: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$'()*,;:@/?=-]|%[0-9A-Fa-f]{2})+"
    rb"(?:&(?:[A-Za-z0-9._~!$'()*,;:@/?=-]|%[0-9A-Fa-f]{2})+)*+"
).fullmatch


class SessionSigner:
    """Sign for one session, towards one service (`providers.signing.Signer`)."""

    fields: Final = frozenset({b"authorization", _DATE, _DIGEST, _TOKEN})
    parameters: Final = frozenset(
        {b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-Expires"}
        | {b"X-Amz-Security-Token", b"X-Amz-Signature", b"X-Amz-SignedHeaders"}
    )
    reads: Final = frozenset({_DIGEST})

    __slots__ = ("_clock", "_copies", "_in_query", "_s3", "_sigv4", "_tls", "_token")

    def __init__(self, keys: Keys, api: Api, region: str, clock: Clock, *, copies: bool) -> None:
        name = api.name_to_sign
        self._s3: Final = name in S3_FAMILY
        rules = S3_PATHS if self._s3 else PathRules()
        self._sigv4: Final = SigV4(keys, api.region_to_sign(region), name, rules)
        self._token: Final = keys.token
        self._tls: Final = api.tls
        self._in_query: Final = api.signature == "query"
        self._clock: Final = clock
        self._copies: Final = copies

    def __repr__(self) -> str:
        return "SessionSigner(hidden)"

    def wants_body(self, request: Outgoing, most: int) -> bool:
        """Tell whether the body's digest is wanted and nobody has worked it out."""
        if request.length == 0:
            return False
        word = _said(request)
        if word is None:
            if self._s3 and self._tls and self._in_query:
                return False
            whole = request.length is None or request.length <= most
            return whole or not (self._s3 and self._tls)
        return word == UNSIGNED and not self._tls

    def sign(self, request: Outgoing) -> Signature:
        """Return the header fields, or query parameters, that sign a request."""
        self._check(request)
        word = _said(request)
        payload = self._payload(request, word)
        at = self._clock()
        own: list[tuple[bytes, bytes]] = []
        if self._in_query and self._s3 and self._tls and word is None:
            payload = UNSIGNED  # which S3 takes it for where nothing is said
        elif self._s3 or word is not None:
            own.append((_DIGEST, payload))
        if self._in_query:
            fields = (*_signed(request), *own)
            target = Target(request.method, request.path, request.query, fields, payload)
            return Signature(tuple(own), self._sigv4.query(target, at, PRESIGNED_FOR))
        own.append((_DATE, at.stamp))
        if self._token is not None:
            own.append((_TOKEN, self._token))
        target = Target(
            request.method, request.path, request.query, (*_signed(request), *own), payload
        )
        value, seed = self._sigv4.authorization(target, at)
        own.append((b"authorization", value))
        if payload not in {_SIGNED_CHUNKS, _SIGNED_TRAILER}:
            return Signature(tuple(own))
        size, trailer = _announced(request, trailer=payload == _SIGNED_TRAILER)
        return Signature(tuple(own), body=Rechunked(self._sigv4, at, seed, size, trailer))

    def _check(self, request: Outgoing) -> None:
        query = request.query
        if query and not _PLAIN_QUERY(query):
            raise Unsignable(
                "the query could be signed in more than one way: write a space as %20, a plus as "
                "%2B, other characters as %XX, and leave no parameter empty"
            )
        if not self._copies and not _SOURCES.isdisjoint(_named(request)):
            raise Unsignable(
                "the request would copy from a place that no rule has judged; whoever keeps the "
                "policy can say copy_source: true in the scope"
            )

    def _payload(self, request: Outgoing, word: bytes | None) -> bytes:
        if request.digest is not None:
            return request.digest
        if word is None:
            if request.length == 0:
                return EMPTY
            if self._s3 and self._tls:
                return UNSIGNED
            raise Unsignable("the body's digest is not known")
        if _HEX(word):
            return word.lower()
        if request.length == 0:
            if word == UNSIGNED:
                return EMPTY
            raise Unsignable("x-amz-content-sha256 speaks of chunks, and there is no body")
        return self._by_word(word)

    def _by_word(self, word: bytes) -> bytes:
        if word in {_SIGNED_CHUNKS, _SIGNED_TRAILER}:
            if self._in_query:
                raise Unsignable("chunks cannot be signed where the signature is in the query")
            return word
        if word in {UNSIGNED, _UNSIGNED_TRAILER}:
            if self._tls:
                return word
            raise Unsignable(
                "a body that is not signed is sent over TLS alone; have the client sign it (boto3: "
                "payload_signing_enabled), or send no x-amz-content-sha256"
            )
        raise Unsignable("x-amz-content-sha256 is neither a SHA-256 in hex nor a known word")


def _named(request: Outgoing) -> Iterable[bytes]:
    """Yield the names of fields and parameters as the laxest server reads them."""
    # Some read x_amz_copy_source as the same name.
    for name, _ in request.fields:
        yield name.replace(b"_", b"-")
    if request.query:
        # What an SDK presigns it writes there, and S3 takes it from there as if from the head.
        for part in request.query.split(b"&"):
            yield unquote_to_bytes(part.partition(b"=")[0]).lower().replace(b"_", b"-")


def _said(request: Outgoing) -> bytes | None:
    said = [value for name, value in request.said if name == _DIGEST]
    if len(said) > 1:
        raise Unsignable("x-amz-content-sha256 is there more than once")
    return said[0] if said else None


def _signed(request: Outgoing) -> Iterable[tuple[bytes, bytes]]:
    yield b"host", request.host
    for field in request.fields:
        if field[0] not in _LEFT_OUT:
            yield field


def _announced(request: Outgoing, *, trailer: bool) -> tuple[int, bytes | None]:
    """Return the size of the content and the name of its trailer, as the head says them."""
    sizes = [value for name, value in request.fields if name == b"x-amz-decoded-content-length"]
    if len(sizes) != 1 or not _NUMBER(sizes[0]):
        raise Unsignable("chunks that are signed need one x-amz-decoded-content-length")
    names = [value.lower() for name, value in request.fields if name == b"x-amz-trailer"]
    if not trailer:
        return int(sizes[0]), None
    if len(names) != 1 or names[0] not in CHECKSUMS:
        raise Unsignable("x-amz-trailer is not one of " + b", ".join(sorted(CHECKSUMS)).decode())
    return int(sizes[0]), names[0]
