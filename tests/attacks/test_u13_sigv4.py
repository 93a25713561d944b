"""U13: what an AWS session signs is exactly what arrives, or nothing arrives at all."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.aws_gateway import KEY_ID, SECRET, TOKEN, AwsBench, assert_signed

if TYPE_CHECKING:
    from tests.fakes.upstream import Received
    from tests.fakes.wire import Response

REFUSED: Final = {"path_not_canonical", "unsignable", "malformed_request", "policy_denied"}
PATHS: Final = (
    b"/",
    b"//",
    b"/a//b",
    b"/a/",
    b"/.",
    b"/..",
    b"/a/./b",
    b"/a/../private/b",
    b"/%2e%2e/private/b",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a%252Fb",
    b"/a%5cb",
    b"/a\\b",
    b"/a%00b",
    b"/a%zzb",
    b"/a;b",
    b"/a%3Bb",
    b"/a b",
    b"/a%20b",
    b"/a+b",
    b"/a%2Bb",
    b"/a~b",
    b"/a%7Eb",
    b"/a:b=c@d,e!f$g'h(i)j*k",
    b"/\xc3\xa9",
    b"/%C3%A9",
    b"/%c3%a9",
    b"/e%CC%81",
    b"/%C0%AF",
    b"/%EF%BC%8F",
    b"/private%2Fb",
)


def _signature(request: Received, *, s3: bool) -> tuple[bytes, dict[str, str]]:
    """Return the signature that AWS works out of a request, and what its header says.

    A server knows a path by what it decodes to; S3 encodes that once, others what was sent.
    """
    value = dict(request.headers)[b"authorization"].decode()
    told = dict(re.findall(r"(\w+)=([^, ]+)", value))
    names = told["SignedHeaders"].split(";")
    path, _, query = request.target.partition(b"?")
    path = quote_from_bytes(unquote_to_bytes(path) if s3 else path, safe="/~").encode()
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    pairs = sorted((_encoded(name), _encoded(value)) for name, _, value in parts)
    stamp = dict(request.headers)[b"x-amz-date"]
    payload = dict(request.headers).get(
        b"x-amz-content-sha256", hashlib.sha256(request.body).hexdigest().encode()
    )
    fields = b"".join(
        b"%b:%b\n" % (name.encode(), b",".join(request.all(name.encode()))) for name in names
    )
    made = b"&".join(b"%b=%b" % pair for pair in pairs)
    method, signed = request.line.split(b" ")[0], told["SignedHeaders"].encode()
    canonical = b"\n".join((method, path, made, fields, signed, payload))
    scope = told["Credential"].split("/", 1)[1].encode()
    digest = hashlib.sha256(canonical).hexdigest().encode()
    text = b"\n".join((b"AWS4-HMAC-SHA256", stamp, scope, digest))
    return _hmac(scope, text), told


def _encoded(text: bytes) -> bytes:
    return quote_from_bytes(unquote_to_bytes(text), safe="").encode()


def _hmac(scope: bytes, text: bytes) -> bytes:
    key = b"AWS4" + SECRET.encode()
    for part in scope.split(b"/"):
        key = hmac.new(key, part, hashlib.sha256).digest()
    return hmac.new(key, text, hashlib.sha256).hexdigest().encode()


def _exact_or_refused(aws: AwsBench, answer: Response, target: bytes, *, s3: bool) -> None:
    if answer.status == 200:
        request = aws.requests[-1]
        assert request.target == target
        made, told = _signature(request, s3=s3)
        assert made.decode() == told["Signature"]
    else:
        assert answer.error in REFUSED
        assert not aws.requests
    aws.plain.requests.clear()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("service", [b"s3plain", b"other"])
async def test_u13_a_path_is_signed_exactly_or_refused(
    aws: AwsBench, service: bytes, path: bytes
) -> None:
    answer = await aws.call(b"GET", b"/" + service + path)
    _exact_or_refused(aws, answer, path, s3=service == b"s3plain")


PARTS: Final = (
    *(b"a", b"b=", b"=c", b"%C3%A9=1", b"a+b", b"%zz", b"%2B", b"", b"=", b"p=a/b", b"a=b=c"),
    *(b"X-Amz-Signature=0", b"x-amz-date=0", b"acl", b"A=2", b"a-b=1", b"a=%20", b"a=;", b"z=~"),
)
QUERIES: Final = st.lists(st.sampled_from(PARTS), max_size=4).map(b"&".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES, s3=st.booleans())
async def test_u13_a_query_is_signed_exactly_or_refused(
    *, aws: AwsBench, query: bytes, s3: bool
) -> None:
    answer = await aws.call(b"GET", b"/%b/k?%b" % (b"s3plain" if s3 else b"other", query))
    kept = b"&".join(part for part in query.split(b"&") if b"amz" not in part.lower())
    targets = {b"/k?" + query, b"/k?" + kept, b"/k"}
    target = aws.requests[-1].target if answer.status == 200 else b""
    assert not target or target in targets
    assert b"amz" not in target.lower()
    _exact_or_refused(aws, answer, target, s3=s3)


class TestPayload:
    async def test_u13_what_is_not_signed_goes_over_tls_alone(self, aws: AwsBench) -> None:
        unsigned = b"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"
        assert (await aws.call(b"PUT", b"/s3/k", unsigned, body=b"body")).status == 200
        assert aws.secure.last.all(b"x-amz-content-sha256") == [b"UNSIGNED-PAYLOAD"]
        assert_signed(aws.secure.last, s3=True)
        assert (await aws.call(b"PUT", b"/s3plain/k", unsigned, body=b"body")).status == 200
        digest = hashlib.sha256(b"body").hexdigest().encode()
        assert aws.plain.last.all(b"x-amz-content-sha256") == [digest]
        assert_signed(aws.plain.last, s3=True)

    async def test_u13_a_checksum_after_unsigned_chunks_passes_as_it_is(
        self, aws: AwsBench
    ) -> None:
        body = b"4\r\nbody\r\n0\r\nx-amz-checksum-crc32:1D7w5g==\r\n\r\n"
        lines = (
            b"X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            b"X-Amz-Trailer: x-amz-checksum-crc32",
            b"X-Amz-Decoded-Content-Length: 4",
            b"Content-Encoding: aws-chunked",
        )
        assert (await aws.call(b"PUT", b"/s3/k", *lines, body=body)).status == 200
        assert aws.last.body == body
        assert_signed(aws.last, s3=True)
        answer = await aws.call(b"PUT", b"/s3plain/k", *lines, body=body)
        assert (answer.status, answer.error) == (400, "unsignable")
        assert not aws.plain.requests

    async def test_u13_a_digest_that_the_agent_tells_is_signed_as_it_is(
        self, aws: AwsBench
    ) -> None:
        digest = hashlib.sha256(b"body").hexdigest().encode()
        line = b"X-Amz-Content-Sha256: " + digest.upper()
        assert (await aws.call(b"PUT", b"/s3plain/k", line, body=b"body")).status == 200
        assert aws.last.all(b"x-amz-content-sha256") == [digest]
        assert_signed(aws.last, s3=True)

    @pytest.mark.parametrize(
        "word", [b"", b"unsigned", b"e3b0", b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"]
    )
    async def test_u13_any_other_word_is_refused(self, aws: AwsBench, word: bytes) -> None:
        answer = await aws.call(b"PUT", b"/s3/k", b"X-Amz-Content-Sha256: " + word, body=b"body")
        assert (answer.status, answer.error) == (400, "unsignable")
        assert not aws.requests


SIGNED_CHUNKS: Final = (
    b"X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    b"Content-Encoding: aws-chunked",
)


def _chunked(content: bytes, size: int = 10_000) -> bytes:
    """Return a body as a client sends it that has signed it with a key of its own."""
    parts = [content[place : place + size] for place in range(0, len(content), size)]
    mark = b";chunk-signature=" + b"a" * 64
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), mark, part) for part in (*parts, b""))


class TestChunks:
    @pytest.mark.parametrize("service", [b"s3", b"s3plain"])
    async def test_u13_signed_chunks_are_signed_anew(self, aws: AwsBench, service: bytes) -> None:
        content = bytes(range(256)) * 600
        length = b"X-Amz-Decoded-Content-Length: %d" % len(content)
        answer = await aws.call(
            b"PUT", b"/%b/k" % service, *SIGNED_CHUNKS, length, body=_chunked(content)
        )
        assert answer.status == 200
        request = aws.last
        assert_signed(request, s3=True)
        assert request.all(b"content-length") == [b"%d" % len(request.body)]
        made, told = _signature(request, s3=True)
        assert self._verified(request, made, told["Credential"].split("/", 1)[1]) == content

    def _verified(self, request: Received, seed: bytes, scope: str) -> bytes:
        """Return the content of chunks whose signatures all follow from the request's own."""
        last, rest, content, chunk = seed, request.body, b"", b"some"
        stamp, nothing = dict(request.headers)[b"x-amz-date"], hashlib.sha256(b"").hexdigest()
        while rest:
            head, _, rest = rest.partition(b"\r\n")
            size, _, signature = head.partition(b";chunk-signature=")
            chunk, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            digest = hashlib.sha256(chunk).hexdigest().encode()
            told = (b"AWS4-HMAC-SHA256-PAYLOAD", stamp, scope.encode(), last, nothing.encode())
            last = _hmac(scope.encode(), b"\n".join((*told, digest)))
            assert signature == last
            content += chunk
        assert chunk == b""
        return content

    @pytest.mark.parametrize(
        ("length", "body"),
        [
            (b"5", _chunked(b"content")),
            (b"9", _chunked(b"content")),
            (b"7", _chunked(b"content")[:-2]),
            (b"7", _chunked(b"content") + b"more"),
            (b"7", b"content"),
            (b"7", b"7\r\ncontent0\r\n\r\n"),
            (b"7", b"-7\r\ncontent\r\n0\r\n\r\n"),
            (b"7, 7", _chunked(b"content")),
            (b"", _chunked(b"content")),
        ],
    )
    async def test_u13_what_is_not_what_its_head_says_is_never_whole(
        self, aws: AwsBench, length: bytes, body: bytes
    ) -> None:
        line = b"X-Amz-Decoded-Content-Length: " + length
        answer = await aws.call(b"PUT", b"/s3plain/k", *SIGNED_CHUNKS, line, body=body)
        assert (answer.status, answer.error) == (400, "unsignable")
        assert not aws.requests


async def test_u13_the_time_that_is_signed_is_the_brokers(aws: AwsBench) -> None:
    await aws.call(b"GET", b"/s3plain/k", b"X-Amz-Date: 20200101T000000Z")
    assert aws.last.all(b"x-amz-date") == [b"20250615T150640Z"]
    assert_signed(aws.last, s3=True)


async def test_u13_a_presigned_url_of_the_agents_holds_no_task_token(aws: AwsBench) -> None:
    token = aws.gateway.token("s3plain.all")
    target = b"/s3plain/k?X-Amz-Security-Token=%b&X-Amz-Signature=00" % token
    answer = await aws.gateway.call(b"GET", target, token=b"")
    assert (answer.status, answer.error) == (401, "token_missing")
    answer = await aws.gateway.call(b"GET", target, token=token)
    assert (answer.status, answer.error) == (400, "token_misplaced")
    assert not aws.requests


async def test_u13_connection_options_take_no_part_of_the_signature_away(aws: AwsBench) -> None:
    names = b"Connection: Authorization, X-Amz-Date, X-Amz-Security-Token, X-Amz-Meta-A, Host"
    await aws.call(b"GET", b"/s3plain/k", names, b"X-Amz-Meta-A: 1", b"X-Amz-Meta-B: 2")
    assert not aws.last.all(b"x-amz-meta-a")
    assert_signed(aws.last, s3=True)


async def test_u13_several_values_are_one_in_their_order(aws: AwsBench) -> None:
    lines = (b"X-Amz-Meta-A: b", b"X-Amz-Meta-B: x", b"x-amz-meta-a: a")
    await aws.call(b"GET", b"/s3plain/k", *lines)
    assert aws.last.all(b"x-amz-meta-a") == [b"b", b"a"]
    assert_signed(aws.last, s3=True)


@pytest.mark.parametrize(
    "name", [b"X-Amz-Copy-Source", b"x_amz_copy_source", b"X-Amz-Rename-Source"]
)
async def test_u13_no_request_reads_from_where_no_rule_has_judged(
    aws: AwsBench, name: bytes
) -> None:
    answer = await aws.call(b"PUT", b"/s3plain/out", name + b": /private/secret")
    assert (answer.status, answer.error) == (400, "unsignable")
    assert not aws.requests


async def test_u13_no_agent_sees_a_key_whatever_comes_back(aws: AwsBench) -> None:
    async def echo(request: Received, writer: object) -> None:
        body = request.head + SECRET.encode()
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))  # type: ignore[attr-defined]

    aws.plain.answer = echo
    answer = await aws.call(b"GET", b"/s3plain/k")
    assert answer.status == 403
    assert KEY_ID.encode() in answer.body  # which opens nothing
    for secret in (SECRET, TOKEN):
        assert secret.encode() not in answer.head + answer.body
