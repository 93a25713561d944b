"""Write the head of a request that a credential signs, instead of travelling in it.

What is signed is what is sent: the path that was judged, the fields that go on, and of the body
its digest, or the promise that the signer makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from broker.gateway.inject import may_pass, upstream_head, without_parameters
from broker.gateway.problems import Refusal, too_large, unsignable
from broker.gateway.websocket import REQUEST_LINES, Handshake
from providers.signing import Outgoing, Unsignable

if TYPE_CHECKING:
    from broker.gateway.authorize import Admission
    from broker.gateway.inject import Credential, Removal
    from broker.gateway.request import RequestFields
    from broker.gateway.upload import Upload
    from broker.gateway.works import Works
    from providers.signing import BodyCoder, Signer


class _Signable(NamedTuple):
    """What header fields come to, for every request that repeats them."""

    lines: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    said: tuple[tuple[bytes, bytes], ...]


def collect(
    works: Works, admission: Admission, credential: Credential, upload: Upload | None
) -> Refusal | None:
    """Have the body read whole, if the signer wants it; return why that cannot be, if so."""
    signer, most = credential.signer, works.limits.whole_body_bytes
    if signer is None or upload is None:
        return None
    try:
        wanted = signer.wants_body(outgoing(admission, credential, signer, upload), most)
    except Unsignable as error:
        return unsignable(error)
    if not wanted:
        return None
    length = admission.request.fields.length
    if (length or upload.size) > most:
        return too_large(most)
    room = most if length is None else length
    if not works.whole_bodies.take(admission.grant.agent, room):
        return Refusal("overloaded", "too many bodies are being read to be signed", final=True)
    upload.collect(most, room)
    return None


def written_head(
    admission: Admission, credential: Credential, upload: Upload | None
) -> tuple[bytes, BodyCoder | None]:
    """Return the head that is sent, and what becomes of the body; raises `Unsignable`."""
    if credential.signer is None:
        return upstream_head(admission, credential), None
    return signed_head(admission, credential, credential.signer, upload)


def outgoing(
    admission: Admission, credential: Credential, signer: Signer, upload: Upload | None
) -> Outgoing:
    """Return what a request will be but for its signature, as far as its body is known."""
    request, removal = admission.request, credential.removal
    signable = _signable(request.fields, removal, signer)
    query = request.query
    if query:
        query = without_parameters(query, removal.parameters | admission.route.keys) or None
    length, digest = request.fields.length, None
    if upload is None:
        length = 0
    elif upload.whole and upload.done:
        length, digest = upload.size, upload.digest()
    return Outgoing(
        method=request.method,
        path=admission.route.base_path + admission.path,
        query=query,
        host=admission.route.host,
        fields=signable.fields,
        said=signable.said,
        length=length,
        digest=digest,
    )


def signed_head(
    admission: Admission, credential: Credential, signer: Signer, upload: Upload | None
) -> tuple[bytes, BodyCoder | None]:
    """Return the head of a request that is signed, and what becomes of its body."""
    request = outgoing(admission, credential, signer, upload)
    signature = signer.sign(request)
    query = b"&".join(filter(None, (request.query, signature.query)))
    target = request.path
    if query or request.query is not None:
        target = b"%b?%b" % (target, query)
    route = admission.route
    head = b"%b %b HTTP/1.1\r\n%b%b%b%b%b\r\n" % (
        *(request.method, target, route.host_line),
        _signable(admission.request.fields, credential.removal, signer).lines + route.via,
        _framing(admission.request.fields, upload, signature.body),
        b"".join([b"%b: %b\r\n" % header for header in signature.headers]),
        credential.lines,
    )
    return head, signature.body


def _framing(fields: RequestFields, upload: Upload | None, coder: BodyCoder | None) -> bytes:
    length = fields.length
    if coder is not None:
        length = coder.length
    elif upload is not None and upload.whole:
        length = upload.size
    elif fields.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    return b"" if length is None else b"Content-Length: %d\r\n" % length


def _signable(fields: RequestFields, removal: Removal, signer: Signer) -> _Signable:
    key = (removal, "signed")
    known: _Signable | None = fields.derived.get(key)
    if known is None:
        kept = [field for field in fields.fields if may_pass(field, fields.options, removal)]
        switch = REQUEST_LINES if isinstance(fields.handshake, Handshake) else b""
        known = fields.derived[key] = _Signable(
            b"".join([field.line() for field in kept]) + switch,
            tuple((field.key, field.value) for field in kept),
            tuple((field.key, field.value) for field in fields.fields if field.key in signer.reads),
        )
    return known
