"""Chunks signed as AWS signs them, from chunks that somebody else signed."""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.aws_sts.chunked import CHECKSUMS, CHUNK, Rechunked, Unchunked, signed_length
from providers.aws_sts.sigv4 import S3_PATHS, Keys, SigV4, Target, moment
from providers.base import Secret
from providers.signing import Unsignable

AT: Final = moment(1_369_353_600)  # 2013-05-24T00:00:00Z, as in AWS's own example
KEYS: Final = Keys(b"AKIAIOSFODNN7EXAMPLE", Secret(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
CRC: Final = b"x-amz-checksum-crc32c"
FALSE: Final = b"0" * 64


def signer() -> SigV4:
    return SigV4(KEYS, "us-east-1", "s3", S3_PATHS)


def framed(*parts: bytes, signed: bool = True, trailer: bytes = b"") -> bytes:
    """Return what a client sends that signs with a key of its own."""
    mark = b";chunk-signature=" + FALSE if signed else b""
    return b"".join(
        b"%x%b\r\n%b" % (len(part), mark, part + b"\r\n" if part else b"") for part in (*parts, b"")
    ) + (trailer + b"\r\n")


def whole(coder: Rechunked, sent: bytes) -> bytes:
    """Return what a body becomes that comes in one piece."""
    return coder.add(sent) + coder.end()


def example(trailer: bytes | None) -> bytes:
    """Return the seed signature of AWS's own example."""
    fields = {
        b"content-encoding": b"aws-chunked",
        b"host": b"s3.amazonaws.com",
        b"x-amz-content-sha256": b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        b"x-amz-date": AT.stamp,
        b"x-amz-decoded-content-length": b"66560",
        b"x-amz-storage-class": b"REDUCED_REDUNDANCY",
    }
    if trailer is None:
        fields[b"content-length"] = b"66824"
    else:
        fields[b"x-amz-content-sha256"] += b"-TRAILER"
        fields[b"x-amz-trailer"] = trailer
    path, payload = b"/examplebucket/chunkObject.txt", fields[b"x-amz-content-sha256"]
    target = Target(b"PUT", path, None, tuple(fields.items()), payload)
    return signer().authorization(target, AT)[1]


def test_the_example_of_aws_without_a_trailer() -> None:
    seed = example(None)
    assert seed == b"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    coder = Rechunked(signer(), AT, seed, 66_560, None)
    content = b"a" * 66_560
    made = coder.add(framed(content)) + coder.end()
    assert coder.length == len(made) == 66_824
    first, second, last = (
        b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    )
    assert made == (
        b"10000;chunk-signature=%b\r\n%b\r\n400;chunk-signature=%b\r\n%b\r\n"
        b"0;chunk-signature=%b\r\n\r\n" % (first, b"a" * 65_536, second, b"a" * 1024, last)
    )


def test_the_example_of_aws_with_a_trailer() -> None:
    seed = example(CRC)
    assert seed == b"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    coder = Rechunked(signer(), AT, seed, 66_560, CRC)
    sent = framed(b"a" * 66_560, trailer=CRC + b":sOO8/Q==\r\n")
    made = coder.add(sent) + coder.end()
    assert coder.length == len(made)
    for signature in (
        b"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ):
        assert b";chunk-signature=" + signature in made
    assert made.endswith(
        b"\r\nx-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:"
        b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(
    sizes=st.lists(st.integers(1, 3 * CHUNK), max_size=4),
    cuts=st.lists(st.integers(0, 4 * CHUNK), max_size=8),
    with_trailer=st.booleans(),
)
def test_however_it_is_cut_the_content_is_the_same_and_the_length_foretold(
    *, sizes: list[int], cuts: list[int], with_trailer: bool
) -> None:
    parts = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    trailer = CRC if with_trailer else None
    sent = framed(*parts, trailer=CRC + b":AAAAAA==\r\n" if with_trailer else b"")
    coder = Rechunked(signer(), AT, FALSE, sum(sizes), trailer)
    made = b"".join(coder.add(piece) for piece in _cut(sent, cuts)) + coder.end()
    assert len(made) == coder.length == signed_length(sum(sizes), trailer)
    again = Unchunked()
    assert again.feed(made) == b"".join(parts)
    assert again.done
    assert [name for name, _ in again.trailers] == (
        [CRC, b"x-amz-trailer-signature"] if with_trailer else []
    )
    assert sum(sizes) == 0 or FALSE not in made


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"5;chunk-signature=xyz\r\nhello\r\n", "does not begin with its size"),
        (b"5; chunk-signature=%b\r\nhello\r\n" % FALSE, "does not begin with its size"),
        (b"+5\r\nhello\r\n", "does not begin with its size"),
        (b"0x5\r\nhello\r\n", "does not begin with its size"),
        (b"5\nhello\n", "too long|before its last"),
        (b"4\r\nhello\r\n", "not followed by CRLF"),
        (b"5\r\nhello\r\n", "before its last chunk"),
        (b"5\r\nhello\r\n0\r\n", "before its last chunk"),
        (framed(b"hell"), "shorter"),
        (framed(b"hello!"), "longer"),
        (framed(b"hello") + b"x", "goes on after its end"),
        (framed(b"hello", trailer=CRC + b":AAAAAA==\r\n"), "x-amz-trailer does not"),
        (framed(b"hello", trailer=b"a b:c\r\n"), "not one checksum"),
        (b"f" * 600, "too long"),
    ],
)
def test_what_is_not_clear_is_not_signed(sent: bytes, problem: str) -> None:
    with pytest.raises(Unsignable, match=problem):
        whole(Rechunked(signer(), AT, FALSE, 5, None), sent)


@pytest.mark.parametrize(
    ("trailer", "problem"),
    [
        (b"", "not the one in x-amz-trailer"),
        (b"x-amz-checksum-crc32:AAAAAA==\r\n", "not the one in x-amz-trailer"),
        (CRC + b":AAAA\r\n", "length of its checksum"),
        (CRC + b":AAAAAA==\r\n" + CRC + b":AAAAAA==\r\n", "not the one"),
        ((CRC + b":AAAAAA==\r\n") * 3, "not one checksum"),
    ],
)
def test_a_trailer_is_the_one_that_was_announced(trailer: bytes, problem: str) -> None:
    with pytest.raises(Unsignable, match=problem):
        whole(Rechunked(signer(), AT, FALSE, 5, CRC), framed(b"hello", trailer=trailer))


def test_an_empty_body_has_one_last_chunk() -> None:
    coder = Rechunked(signer(), AT, FALSE, 0, None)
    made = coder.add(framed()) + coder.end()
    assert made.startswith(b"0;chunk-signature=")
    assert len(made) == coder.length


def test_the_checksums_are_of_the_length_of_theirs() -> None:
    sizes = {b"crc32": 4, b"crc32c": 4, b"crc64nvme": 8, b"sha1": 20, b"sha256": 32}
    assert {
        b"x-amz-checksum-" + name: len(b64encode(bytes(size))) for name, size in sizes.items()
    } == CHECKSUMS
