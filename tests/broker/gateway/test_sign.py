"""A request that is signed: what is sent, of what head and of which body."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from broker.gateway.limits import GatewayLimits
from tests.fakes.aws_gateway import AwsBench, assert_signed, aws_bench
from tests.fakes.upstream import reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.components.tls import TestAuthority

TIGHT = GatewayLimits(whole_body_bytes=1000, whole_bodies_bytes=1500, buffer_bytes=100)


@pytest.mark.parametrize(
    ("service", "s3"), [("s3", True), ("s3plain", True), ("unscrubbed", True), ("other", False)]
)
async def test_a_request_is_sent_as_it_was_judged_with_a_signature(
    aws: AwsBench, service: str, *, s3: bool
) -> None:
    answer = await aws.call(b"GET", b"/%b/a/b?x=1&y=" % service.encode(), b"X-Amz-Meta-A:  1  2 ")
    assert (answer.status, answer.body) == (200, b"ok")
    assert aws.last.target == b"/a/b?x=1&y="
    assert_signed(aws.last, s3=s3)


async def test_the_agents_own_signature_never_goes_on(aws: AwsBench) -> None:
    own = b"AWS4-HMAC-SHA256 Credential=none/20250101/x/s3/aws4_request, SignedHeaders=host, "
    answer = await aws.call(
        b"GET",
        b"/s3plain/a?acl&X-Amz-Signature=00&x-amz-date=1&X%2dAmz-Credential=none",
        b"Authorization: " + own + b"Signature=00",
        b"X-Amz-Date: 20250101T000000Z",
        b"X_Amz_Date: 20250101T000000Z",
    )
    assert answer.status == 200
    assert aws.last.target == b"/a?acl"
    assert len(aws.last.all(b"authorization")) == len(aws.last.all(b"x-amz-date")) == 1
    assert b"none" not in aws.last.head
    assert b"x_amz_date" not in dict(aws.last.headers)
    assert_signed(aws.last, s3=True)


async def test_a_signature_in_the_query_follows_the_agents_parameters(aws: AwsBench) -> None:
    await aws.call(b"GET", b"/s3query/a?list-type=2")
    target = aws.last.target
    assert target.startswith(b"/a?list-type=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=")
    assert b"&X-Amz-Signature=" in target
    assert not aws.last.all(b"authorization")


class TestBodies:
    @pytest.mark.parametrize("size", [1, 1000])
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_one_whose_digest_is_wanted_is_sent_whole(
        self, tmp_path: Path, tls_authority: TestAuthority, size: int, *, chunked: bool
    ) -> None:
        body = b"x" * size
        lines: tuple[bytes, ...] = (b"Content-Type: text/plain",)
        sent = body
        if chunked:
            lines = (*lines, b"Transfer-Encoding: chunked")
            half = size // 2 + 1
            parts = [body[:half], body[half:]]
            sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b"") if part)
            sent += b"0\r\n\r\n"
        async with aws_bench(tmp_path / "audit", tls_authority, TIGHT) as aws:
            token = aws.gateway.token("other.all")
            async with aws.gateway.connect() as wire:
                length = () if chunked else (b"Content-Length: %d" % size,)
                head = aws.gateway.head(b"POST", b"/other/", *lines, *length, token=token)
                await wire.send(head)
                for place in range(0, len(sent), 97):
                    await wire.send(sent[place : place + 97])
                assert (await wire.response(b"POST")).status == 200
            assert aws.last.body == body
            assert aws.last.all(b"content-length") == [b"%d" % size]
            assert not aws.last.all(b"transfer-encoding")
            assert_signed(aws.last, s3=False)

    async def test_what_follows_one_is_not_sent_for_nobody_has_signed_it(
        self, aws: AwsBench
    ) -> None:
        lines = (b"Transfer-Encoding: chunked", b"Trailer: X-Amz-Copy-Source, X-Sum")
        signed = (*lines, b"X-Amz-Content-Sha256: " + hashlib.sha256(b"ok").hexdigest().encode())
        token = aws.gateway.token("s3.all")
        async with aws.gateway.connect() as wire:
            await wire.send(aws.gateway.head(b"PUT", b"/s3/a", *signed, token=token))
            await wire.send(b"2\r\nok\r\n0\r\nX-Amz-Copy-Source: /b/a\r\nX-Sum: 1\r\n\r\n")
            assert (await wire.response(b"PUT")).status == 200
        assert aws.last.body == b"ok"
        assert b"/b/a" not in aws.secure.bytes_received
        assert b"X-Sum" not in aws.secure.bytes_received

    async def test_an_empty_one_in_chunks_is_empty(self, aws: AwsBench) -> None:
        token = aws.gateway.token("other.all")
        async with aws.gateway.connect() as wire:
            head = aws.gateway.head(b"POST", b"/other/", b"Transfer-Encoding: chunked", token=token)
            await wire.send(head + b"0\r\n\r\n")
            assert (await wire.response(b"POST")).status == 200
        assert aws.last.body == b""
        assert_signed(aws.last, s3=False)

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_one_that_is_too_large_to_be_read_whole_is_refused(
        self, tmp_path: Path, tls_authority: TestAuthority, *, chunked: bool
    ) -> None:
        body, lines = b"x" * 1001, (b"Content-Length: 1001",)
        if chunked:
            body, lines = b"3e9\r\n" + body + b"\r\n0\r\n\r\n", (b"Transfer-Encoding: chunked",)
        async with aws_bench(tmp_path / "audit", tls_authority, TIGHT) as aws:
            token = aws.gateway.token("other.all")
            async with aws.gateway.connect() as wire:
                await wire.send(aws.gateway.head(b"POST", b"/other/", *lines, token=token) + body)
                answer = await wire.response(b"POST")
            assert (answer.status, answer.error) == (413, "body_too_large")
            assert not aws.requests

    async def test_s3_takes_one_that_large_unsigned_and_in_constant_memory(
        self, tmp_path: Path, tls_authority: TestAuthority
    ) -> None:
        body = b"x" * 500_000
        async with aws_bench(tmp_path / "audit", tls_authority, TIGHT) as aws:
            answer = await aws.call(b"PUT", b"/s3/a", body=body)
            assert answer.status == 200
            assert aws.last.all(b"x-amz-content-sha256") == [b"UNSIGNED-PAYLOAD"]
            assert aws.last.body == body
            assert_signed(aws.last, s3=True)

    async def test_all_together_have_bounds(
        self, tmp_path: Path, tls_authority: TestAuthority
    ) -> None:
        async with aws_bench(tmp_path / "audit", tls_authority, TIGHT) as aws:
            token = aws.gateway.token("other.all")
            head = aws.gateway.head(b"POST", b"/other/", b"Content-Length: 900", token=token)
            async with aws.gateway.connect() as first, aws.gateway.connect() as second:
                await first.send(head + b"x" * 899)
                async with asyncio.timeout(10):
                    while aws.whole_bodies != 900:  # noqa: ASYNC110 - a test's patience
                        await asyncio.sleep(0.002)
                await second.send(head + b"x" * 900)
                answer = await second.response(b"POST")
                assert (answer.status, answer.error) == (503, "overloaded")
                await first.send(b"x")
                assert (await first.response(b"POST")).status == 200
            assert aws.whole_bodies == 0

    async def test_an_agent_that_waits_is_told_to_go_on_once(self, aws: AwsBench) -> None:
        token = aws.gateway.token("other.all")
        lines = (b"Content-Length: 4", b"Expect: 100-continue")
        async with aws.gateway.connect() as wire:
            await wire.send(aws.gateway.head(b"POST", b"/other/", *lines, token=token))
            interim = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), 10)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert not aws.requests
            await wire.send(b"body")
            assert (await wire.response(b"POST")).status == 200
        assert aws.last.body == b"body"

    async def test_an_agent_that_stops_in_the_middle_has_its_room_given_back(
        self, tmp_path: Path, tls_authority: TestAuthority
    ) -> None:
        limits = GatewayLimits(whole_body_bytes=1000, body_timeout=0.3)
        async with aws_bench(tmp_path / "audit", tls_authority, limits) as aws:
            token = aws.gateway.token("other.all")
            head = aws.gateway.head(b"POST", b"/other/", b"Content-Length: 900", token=token)
            async with aws.gateway.connect() as wire:
                await wire.send(head + b"x" * 100)
                answer = await wire.response(b"POST")
                assert (answer.status, answer.error) == (408, "request_timeout")
            assert aws.whole_bodies == 0
            assert not aws.requests

    @pytest.mark.parametrize(("action", "status"), [(b"Publish", 200), (b"DeleteTopic", 403)])
    async def test_one_that_policy_has_judged_is_the_one_that_is_signed(
        self, aws: AwsBench, action: bytes, status: int
    ) -> None:
        body = b"Action=%b&Message=hello" % action
        lines = (b"Content-Type: application/x-www-form-urlencoded",)
        token = aws.gateway.token("other.publish")
        answer = await aws.gateway.call(b"POST", b"/other/", *lines, body=body, token=token)
        assert answer.status == status
        if status == 200:
            assert aws.last.body == body
            assert_signed(aws.last, s3=False)
        else:
            assert not aws.requests
        assert aws.whole_bodies == 0


class TestAnswers:
    @pytest.mark.parametrize("form", ["SECRET", "TOKEN"])
    async def test_a_part_of_the_session_never_comes_back(self, aws: AwsBench, form: str) -> None:
        from tests.fakes import aws_gateway  # noqa: PLC0415

        text: str = getattr(aws_gateway, form)
        aws.plain.answer = reply(b"<Error><Token-0>%b</Token-0></Error>" % text.encode())
        answer = await aws.call(b"GET", b"/s3plain/a")
        assert text.encode() not in answer.body
        assert answer.body.startswith(b"<Error><Token-0>")

    async def test_a_range_is_a_range(self, aws: AwsBench) -> None:
        aws.plain.answer = reply(b"bcd", "206 Partial Content", b"Content-Range: bytes 1-3/9")
        answer = await aws.call(b"GET", b"/s3plain/a", b"Range: bytes=1-3")
        assert (answer.status, answer.body) == (206, b"bcd")
        assert aws.last.all(b"range") == [b"bytes=1-3"]
        assert_signed(aws.last, s3=True)


async def test_a_stale_connection_is_replaced_and_the_request_signed_anew(aws: AwsBench) -> None:
    await aws.call(b"GET", b"/s3plain/a")
    for writer in list(aws.plain.writers):
        writer.transport.abort()
    assert (await aws.call(b"GET", b"/s3plain/b")).status == 200
    assert_signed(aws.plain.last, s3=True)


async def test_what_cannot_be_signed_is_on_record(aws: AwsBench) -> None:
    answer = await aws.call(b"GET", b"/s3plain/a?x=a+b")
    assert (answer.status, answer.error) == (400, "unsignable")
    assert "%20" in answer.problem["detail"]
    assert not aws.requests
    record = (await aws.gateway.records())[-1]
    assert (record["decision"], record["status"]) == ("error", 400)
