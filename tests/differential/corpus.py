"""Framings, chunks and path segments by which readers of HTTP have been known to disagree."""

from __future__ import annotations

from typing import Final

CODINGS: Final = (
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked\t", b"Transfer-Encoding:  chunked ", b"Transfer-Encoding: CHUNKED",
    b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: \x0bchunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"TE: chunked",
    b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: ",
    b"Transfer-Encoding: chun\r\n ked", b"Content-Encoding: chunked",
    b"Transfer-Encoding\x00: chunked",
    b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    b"Transfer-Encoding: chunk\xedd",
)  # fmt: skip


LENGTHS: Final = (
    b"Content-Length: %d\r\nContent-Length: %d", b"Content-Length: %d, %d", b"Content-Length: +%d",
    b"Content-Length: -%d", b"Content-Length: 0x%d", b"Content-Length: %d ", b"Content-Length: 0%d",
    b"Content-Length:\t%d", b"Content-Length: %d\t", b"Content-Length: %d.0",
    b"Content-Length: %de0",
    b"Content-Length : %d", b"Content_Length: %d", b"Content-Length: %d\x00", b"content-length:%d",
    b"Content-Length: 1%d", b"Content-Length: 9999999999999999999%d", b"Content-Length: \r\n %d",
    b"Content-Length: 0\r\nContent-Length: %d", b"Content-Length: %d\nX: y",
    b"Content-Length: %d_0",
    b"Content-Length: \xb2%d", b"Connection: Content-Length\r\nContent-Length: %d",
)  # fmt: skip


CHUNKS: Final = (
    b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n', b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5;\x00\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\r\nhello\n0\r\n\r\n",
    b"5\rhello\r0\r\r",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"\t5\r\nhello\r\n0\r\n\r\n",
    b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"7fffffffffffffff\r\nhello\r\n0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n",
    b"4\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"g\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    b"5\r\nhello\r\n00\r\n\r\n",
    b"5\r\nhello\r\n0;x\r\n\r\n", b"5\r\nhello\r\n\r\n", b"5\r\nhello\r\n0\r\n",
    b"5\r\nhello\r\n0\n\n",
    b"5_0\r\nhello\r\n0\r\n\r\n", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
    b"5\x00\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip


SEGMENTS: Final = (
    b".", b"..", b"%2e%2e", b"%2f", b"%5c", b"%252f", b"", b";x", b"..;", b"\\", b"%00", b"%c0%ae",
    b"%ef%bc%8f", b"\t", b"%09", b"#", b"%23", b"a.", b"a%20", b"%zz", b"%", b"\xff", b"%0d%0a",
    b"%E2%81%84", b"%3B", b"Admin", b"ADMIN", b"%61dmin", b"admin", b"a:b", b"*", b"~", b"a b",
)  # fmt: skip

JUDGED: Final = (
    b'{"amount": 50}', b'{"amount":5000,"note":"\\u00e9"}',
    b' {"note": {"a": [1]}, "amount": 1e2} ',
    b'{"amount": 0.5}',
)  # fmt: skip
BODIES: Final = (
    *JUDGED, b'{"amount": 5001}', b'{"amount": 50, "amount": 9999}',
    b'{"amount": 50, "Amount": 9999}',
    b'{"amount": 50, "\\u0061mount": 9999}', b'{"amount": "50"}', b'{"amount": -1}',
    b'{"amount": true}',
    b'{"amount": 50}{"amount": 9999}', b'{"amount": 50}\x00', b'\xef\xbb\xbf{"amount": 50}',
    b"[50]",
    b'{"amount": NaN}', b'{"amount": 1e999}', b'{"amount": 5000.0000000000001}', b"amount=50",
    b"{}",
    b'{"note": 1}', b'{"amount": 50, "x": 1}',
    b'{"amount": 50, "note": ' + b"[" * 30 + b"]" * 30 + b"}",
    b'{"amount": 50, "note": "' + b"n" * 400 + b'"}', b'{"amount": 50, "note": "\\ud800"}', b"",
    '{"amount": 50}'.encode("utf-16"), b"{'amount': 50}", b'{"amount": 50,}', b'{"amount": 050}',
)  # fmt: skip
TYPES: Final = (
    b"Content-Type: application/json", b"content-type:application/JSON; charset=utf-8", b"",
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: text/plain",
    b"Content-Type: application/json\r\nContent-Type: text/xml", b"Content_Type: application/json",
    b"Content-Type: application/json\r\ncontent_type: text/xml", b"Content-Type: application/xml",
    b"Content-Type: application/json\r\nContent-Encoding: gzip", b"Content-Type: application/jsonx",
    b"Content-Type: application/json\r\nConnection: Content-Type",
)  # fmt: skip

OWN_KEY: Final = b"api_key=mine&"
"""A parameter by which a request brings a key of the agent's own."""

CONTROLLED: Final = (
    b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override", b"X-Original-URL",
    b"X-Original-URI",
    b"X-Original-Host", b"X-Original-Method", b"X-Rewrite-URL", b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Forwarded-Proto", b"X-Forwarded-Anything", b"Forwarded", b"X-Real-IP", b"X-Client-IP",
    b"X-Host",
    b"True-Client-IP", b"X-Cluster-Client-IP", b"X-Envoy-Original-Path", b"Proxy-Authorization",
    b"Proxy-Connection", b"Proxy-Authenticate", b"Keep-Alive", b"TE", b"Trailer", b"HTTP2-Settings",
    b"Upgrade", b"Expect", b"Connection", b"X-Auth-Token", b"Private-Token", b"X-Consumer-ID",
    b"Impersonate-User", b"Sudo", b"Stripe-Account",
)  # fmt: skip
"""Fields that an agent may send and no service may see, however they are spelt."""

TRAILERS: Final = (
    b"X-T: 1", b"Authorization: Bearer mine", b"Content-Length: 5", b"Host: evil.test",
    b"Transfer-Encoding: chunked", b"X-Api-Key: mine", b"Trailer: x", b"X-T: \xe9", b"X_T: 1",
)  # fmt: skip

DECLARED: Final = (b"X-T", b"X-T, Authorization", b"host,X_Api_Key", b"Transfer-Encoding, x-t")


BENIGN: Final = (
    b"TE: trailers", b"TE: gzip, trailers;q=0.5",
    b"Accept: */*", b"User-Agent: agent/1.0", b"X-Request-Id: TAG", b"Accept-Language: de, en",
    b"Content-Type: application/json", b"X-Empty:", b"X-Blank: \t ", b"X-Latin: caf\xe9",
    b"Cache-Control: no-cache", b'If-None-Match: "a"', b"Origin: https://x.test",
    b"Priority: u=1",
    b"Accept-Encoding: gzip", b"Range: bytes=0-3", b"X-Colon: a: b: c", b"X-Twice: 1",
    b"X-Twice: 2", b"Cookie: c=d; e=f", b"Connection: keep-alive",
)  # fmt: skip
