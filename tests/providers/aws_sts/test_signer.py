"""What is signed, what is refused, and what becomes of the agent's own signature."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import pytest

from providers.aws_sts.api import Api
from providers.aws_sts.chunked import signed_length
from providers.aws_sts.signer import SessionSigner
from providers.aws_sts.sigv4 import EMPTY, S3_PATHS, Clock, Keys, PathRules, SigV4, Target, moment
from providers.base import Secret
from providers.signing import Outgoing, Unsignable

AT: Final = 1_750_000_000
KEYS: Final = Keys(b"ASIAKEY", Secret(b"a-secret"), b"a-token")
DIGEST: Final = hashlib.sha256(b"body").hexdigest().encode()
SHA: Final = b"x-amz-content-sha256"
MOST: Final = 1000


def signer(
    service: str = "s3", *, copies: bool = False, tls: bool = True, **api: Any
) -> SessionSigner:
    place = {} if tls else {"base_url": "http://127.0.0.1:1", "insecure_http": True}
    made = Api.model_validate({"service": service, **place, **api})
    return SessionSigner(KEYS, made, "eu-west-1", Clock(lambda: AT), copies=copies)


def request(**changes: Any) -> Outgoing:
    known: dict[str, Any] = {
        "method": b"PUT",
        "path": b"/bucket/key",
        "query": None,
        "host": b"s3.eu-west-1.amazonaws.com",
        "fields": ((b"content-type", b"text/plain"),),
    }
    return Outgoing(**known | changes)


def said(word: bytes) -> dict[str, Any]:
    return {"said": ((SHA, word),), "length": 4}


def signed(made: SessionSigner, asked: Outgoing) -> dict[bytes, bytes]:
    return dict(made.sign(asked).headers)


def refused(made: SessionSigner, asked: Outgoing) -> str:
    with pytest.raises(Unsignable) as caught:
        made.sign(asked)
    assert "a-secret" not in str(caught.value)
    return str(caught.value)


class TestHeader:
    def test_it_holds_all_that_goes_on_and_the_sessions_token(self) -> None:
        fields = (
            (b"content-type", b"text/plain"),
            (b"range", b"bytes=0-1"),
            (b"user-agent", b"agent/1"),
            (b"accept-encoding", b"gzip"),
            (b"x-amz-meta-a", b"1"),
        )
        headers = signed(signer(), request(fields=fields))
        assert headers[b"x-amz-date"] == b"20250615T150640Z"
        assert headers[b"x-amz-security-token"] == b"a-token"
        assert headers[SHA] == EMPTY
        assert (
            b"SignedHeaders=content-type;host;range;x-amz-content-sha256;x-amz-date;x-amz-meta-a;"
            b"x-amz-security-token, " in headers[b"authorization"]
        )
        assert b"ASIAKEY/20250615/eu-west-1/s3/aws4_request" in headers[b"authorization"]

    @pytest.mark.parametrize(("service", "rules"), [("s3", S3_PATHS), ("execute-api", PathRules())])
    def test_paths_are_signed_by_the_services_rules(self, service: str, rules: PathRules) -> None:
        asked = request(path=b"/a%20b/", fields=(), length=4, digest=DIGEST)
        headers = signed(signer(service), asked)
        own = tuple((name, value) for name, value in headers.items() if name != b"authorization")
        target = Target(b"PUT", b"/a%20b/", None, ((b"host", asked.host), *own), DIGEST)
        plain = SigV4(KEYS, "eu-west-1", service, rules)
        assert headers[b"authorization"] == plain.authorization(target, moment(AT))[0]

    def test_only_s3_is_told_the_digest_unless_the_agent_tells_it(self) -> None:
        assert SHA not in signed(signer("sqs"), request(length=4, digest=DIGEST))
        assert signed(signer("sqs"), request(**said(DIGEST)))[SHA] == DIGEST

    def test_what_the_agent_may_not_send_is_named(self) -> None:
        made = signer()
        assert {b"authorization", b"x-amz-date", b"x-amz-security-token", SHA} == made.fields
        assert b"X-Amz-Signature" in made.parameters
        assert made.reads == {SHA}
        assert repr(made) == "SessionSigner(hidden)"


class TestQuery:
    def test_a_presigned_request_is_good_for_a_minute(self) -> None:
        made = signer("sqs", signature="query").sign(request(query=b"a=1", fields=()))
        assert not made.headers
        assert made.query.startswith(
            b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAKEY%2F"
        )
        assert b"&X-Amz-Expires=60&X-Amz-SignedHeaders=host&" in made.query
        assert b"&X-Amz-Security-Token=a-token&X-Amz-Signature=" in made.query

    def test_s3_takes_a_body_for_unsigned_of_which_nothing_is_said(self) -> None:
        made = signer(signature="query")
        for length in (0, 4, MOST + 1, None):
            asked = request(length=length)
            assert not made.wants_body(asked, MOST)
            assert not made.sign(asked).headers
        assert dict(made.sign(request(**said(DIGEST))).headers) == {SHA: DIGEST}
        plain = signer(signature="query", tls=False)
        assert plain.wants_body(request(length=4), MOST)

    def test_chunks_cannot_be_signed_there(self) -> None:
        asked = request(**said(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
        assert "in the query" in refused(signer(signature="query"), asked)


class TestBody:
    @pytest.mark.parametrize(
        ("service", "tls", "fields", "wants"),
        [
            ("s3", True, {"length": 0}, False),
            ("s3", True, {"length": 4}, True),
            ("s3", True, {"length": None}, True),
            ("s3", True, {"length": MOST + 1}, False),
            ("s3", False, {"length": MOST + 1}, True),
            ("sqs", True, {"length": 4}, True),
            ("sqs", True, {"length": MOST + 1}, True),
            ("s3", True, said(DIGEST), False),
            ("sqs", True, said(DIGEST), False),
            ("s3", True, said(b"UNSIGNED-PAYLOAD"), False),
            ("s3", False, said(b"UNSIGNED-PAYLOAD"), True),
            ("s3", True, said(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"), False),
            ("s3", False, said(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), False),
        ],
    )
    def test_it_is_read_whole_where_nobody_knows_its_digest(
        self, service: str, fields: dict[str, Any], *, tls: bool, wants: bool
    ) -> None:
        assert signer(service, tls=tls).wants_body(request(**fields), MOST) is wants

    @pytest.mark.parametrize(
        ("service", "tls", "fields", "payload"),
        [
            ("s3", True, {"length": 4, "digest": DIGEST}, DIGEST),
            ("s3", True, said(DIGEST.upper()), DIGEST),
            ("s3", True, {"length": MOST + 1}, b"UNSIGNED-PAYLOAD"),
            ("s3", True, said(b"UNSIGNED-PAYLOAD"), b"UNSIGNED-PAYLOAD"),
            ("s3", False, {**said(b"UNSIGNED-PAYLOAD"), "digest": DIGEST}, DIGEST),
            ("s3", False, {**said(b"UNSIGNED-PAYLOAD"), "length": 0}, EMPTY),
            ("s3", True, said(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"), None),
        ],
    )
    def test_what_stands_for_it(
        self, service: str, fields: dict[str, Any], payload: bytes | None, *, tls: bool
    ) -> None:
        made = signer(service, tls=tls).sign(request(**fields))
        expected = payload or fields["said"][0][1]
        assert dict(made.headers)[SHA] == expected
        assert made.body is None

    @pytest.mark.parametrize(
        ("word", "trailer"),
        [
            (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", None),
            (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", b"x-amz-checksum-crc32"),
        ],
    )
    def test_chunks_are_signed_anew(self, word: bytes, trailer: bytes | None) -> None:
        fields = [(b"x-amz-decoded-content-length", b"5000")]
        fields += [(b"x-amz-trailer", trailer)] if trailer else []
        asked = request(**said(word) | {"fields": tuple(fields), "length": 5200})
        made = signer(tls=False).sign(asked)
        assert dict(made.headers)[SHA] == word
        assert made.body is not None
        assert made.body.length == signed_length(5000, trailer)

    @pytest.mark.parametrize(
        ("service", "tls", "fields", "problem"),
        [
            ("sqs", True, {"length": 4}, "digest is not known"),
            ("s3", False, {"length": 4}, "digest is not known"),
            ("s3", False, said(b"UNSIGNED-PAYLOAD"), "over TLS alone"),
            ("s3", False, said(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"), "over TLS alone"),
            ("s3", True, said(b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), "known word"),
            ("s3", True, said(b"unsigned-payload"), "known word"),
            ("s3", True, said(DIGEST[:-1]), "known word"),
            ("s3", True, said(b""), "known word"),
            ("s3", True, {"length": 4, "said": ((SHA, DIGEST),) * 2}, "more than once"),
            ("s3", True, said(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER") | {"length": 0}, "no body"),
            ("s3", True, said(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), "decoded-content-length"),
        ],
    )
    def test_what_is_not_clear_is_refused(
        self, service: str, fields: dict[str, Any], problem: str, *, tls: bool
    ) -> None:
        assert problem in refused(signer(service, tls=tls), request(**fields))

    @pytest.mark.parametrize("trailers", [(), (b"x-amz-meta-a",), (b"x-amz-checksum-crc32",) * 2])
    def test_a_trailer_is_one_checksum(self, trailers: tuple[bytes, ...]) -> None:
        fields = [(b"x-amz-decoded-content-length", b"5")]
        fields += [(b"x-amz-trailer", name) for name in trailers]
        word = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
        asked = request(**said(word) | {"fields": tuple(fields)})
        assert "x-amz-trailer is not one of" in refused(signer(), asked)


class TestWhatIsNotSigned:
    @pytest.mark.parametrize(
        "query",
        [
            b"a=b+c",
            b"a=%zz",
            b"a=%2",
            b"a=1&&b=2",
            b"&a=1",
            b"a=1&",
            b"a=\xc3\xa9",
            b"a=<b>",
            b"a=%",
        ],
    )
    def test_a_query_that_can_be_read_in_two_ways(self, query: bytes) -> None:
        assert "write a space as %20" in refused(signer(), request(query=query))

    @pytest.mark.parametrize("query", [None, b"", b"acl", b"a=b=c", b"prefix=a/b%20c&delimiter=/"])
    def test_one_that_cannot_is(self, query: bytes | None) -> None:
        assert signed(signer(), request(query=query))

    @pytest.mark.parametrize("name", [b"x-amz-copy-source", b"x-amz-rename-source"])
    def test_a_source_that_no_rule_has_judged(self, name: bytes) -> None:
        asked = request(fields=((name, b"/other/secret"),))
        assert "copy_source: true" in refused(signer(), asked)
        assert signed(signer(copies=True), asked)

    @pytest.mark.parametrize(
        "name",
        [
            *(b"x-amz-copy-source", b"X-Amz-Copy-Source", b"x%2Damz%2dcopy-sourc%65"),
            *(b"x_amz_copy_source", b"x-amz-rename-source"),
        ],
    )
    def test_a_source_in_the_query_where_s3_reads_it_too(self, name: bytes) -> None:
        asked = request(query=b"partNumber=1&%b=/other/secret" % name)
        assert "copy_source: true" in refused(signer(), asked)
        assert signed(signer(copies=True), asked)
        assert signed(signer(), request(query=b"prefix=x-amz-copy-source"))
