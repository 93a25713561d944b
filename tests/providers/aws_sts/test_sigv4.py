"""Signatures as AWS makes them: its own test suite, and its own SDK over random requests."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from providers.aws_sts.sigv4 import (
    EMPTY,
    S3_PATHS,
    Clock,
    Keys,
    PathRules,
    SigV4,
    Target,
    canonical_path,
    canonical_query,
    moment,
)
from providers.base import Secret
from tests.fakes import sigv4_suite as suite

if TYPE_CHECKING:
    from tests.fakes.sigv4_suite import Case

HOST: Final = b"example.amazonaws.com"
LIFETIME: Final = 3600


def _target(case: Case, *own: tuple[bytes, bytes]) -> Target:
    path, mark, query = case.target.partition(b"?")
    body = hashlib.sha256(case.body).hexdigest().encode()
    fields = ((b"host", HOST), *case.fields, *own)
    return Target(case.method, path, query if mark else None, fields, body)


def _signer(case: Case) -> SigV4:
    keys = Keys(suite.KEY_ID, Secret(suite.SECRET), case.token)
    rules = PathRules(normalized=case.normalized)
    return SigV4(keys, suite.REGION, suite.SERVICE, rules)


IN_HEADER: Final = [case for case in suite.CASES if case.in_header]
IN_QUERY: Final = [case for case in suite.CASES if case.in_query]


@pytest.mark.parametrize("case", IN_HEADER, ids=lambda case: case.name)
def test_each_case_of_the_public_suite_as_a_header(case: Case) -> None:
    own = [(b"x-amz-date", b"20150830T123600Z")]
    own += [(b"x-amz-security-token", case.token)] if case.token else []
    value, signature = _signer(case).authorization(_target(case, *own), moment(suite.AT))
    assert signature.decode() == case.in_header
    names = sorted({b"host", *(name for name, _ in (*case.fields, *own))})
    assert value == (
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        b"SignedHeaders=%b, Signature=%b" % (b";".join(names), signature)
    )


@pytest.mark.parametrize("case", IN_QUERY, ids=lambda case: case.name)
def test_each_case_of_the_public_suite_as_a_query(case: Case) -> None:
    made = _signer(case).query(_target(case), moment(suite.AT), LIFETIME)
    told, _, signature = made.rpartition(b"&X-Amz-Signature=")
    assert signature.decode() == case.in_query
    assert told.startswith(
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256"
        b"&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request"
        b"&X-Amz-Date=20150830T123600Z&X-Amz-Expires=3600&X-Amz-SignedHeaders="
    )


def test_the_suite_is_whole() -> None:
    assert len({case.name for case in suite.CASES}) == len(suite.CASES) == 42
    assert len(IN_QUERY) == 33


# No "/": whether `%2F` in a path is one, S3 and its SDK do not agree. The gateway refuses it.
NAMES: Final = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=9)
VALUES: Final = st.text(st.characters(codec="utf-8"), max_size=20)
FIELD: Final = st.tuples(
    st.sampled_from(["x-amz-acl", "x-amz-meta-a", "range", "content-type", "if-match", "my-own"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30),
)
REQUESTS: Final = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
        "segments": st.lists(NAMES, max_size=4),
        "slash": st.booleans(),
        "query": st.dictionaries(NAMES, VALUES, max_size=5),
        "fields": st.lists(FIELD, max_size=5, unique_by=lambda field: field[0]),
        "body": st.binary(max_size=50),
        "at": st.integers(946_684_800, 4_102_444_800),
        "token": st.none() | st.from_regex(r"[A-Za-z0-9+/]{16,80}={0,2}", fullmatch=True),
    }
)


@pytest.fixture(scope="module")
def frozen() -> Any:
    """Have botocore sign at a time of our choosing."""
    patch = pytest.MonkeyPatch()
    at = [0]
    patch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(at[0], UTC))
    yield at
    patch.undo()


def _path(asked: dict[str, Any]) -> str:
    segments = [quote(one, safe="") for one in asked["segments"] if one not in {".", ".."}]
    return "/" + "/".join(segments) + ("/" if asked["slash"] and segments else "")


@given(asked=REQUESTS, s3=st.booleans())
def test_signatures_are_those_of_the_sdk(
    *, frozen: list[int], asked: dict[str, Any], s3: bool
) -> None:
    frozen[0] = asked["at"]
    path, body = _path(asked), hashlib.sha256(asked["body"]).hexdigest()
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in asked["query"].items()
    )
    url = f"https://{HOST.decode()}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(asked["method"], url, dict(asked["fields"]), asked["body"])
    own = Credentials("AKID", "a-secret", asked["token"])
    sdk = (botocore.auth.S3SigV4Auth if s3 else botocore.auth.SigV4Auth)(own, "s3", "eu-west-1")
    sdk.add_auth(request)

    stamp = request.headers["X-Amz-Date"]
    fields = [(b"host", HOST), (b"x-amz-date", stamp.encode())]
    fields += [(name.encode(), value.encode()) for name, value in asked["fields"]]
    if s3:
        fields.append((b"x-amz-content-sha256", body.encode()))
    if asked["token"]:
        fields.append((b"x-amz-security-token", asked["token"].encode()))
    keys = Keys(b"AKID", Secret(b"a-secret"), asked["token"] and asked["token"].encode())
    ours = SigV4(keys, "eu-west-1", "s3", S3_PATHS if s3 else PathRules())
    target = Target(
        asked["method"].encode(), path.encode(), query.encode(), tuple(fields), body.encode()
    )
    value, _ = ours.authorization(target, moment(asked["at"]))
    assert value.decode() == request.headers["Authorization"]


@given(REQUESTS)
def test_presigned_requests_are_those_of_the_sdk(frozen: list[int], asked: dict[str, Any]) -> None:
    frozen[0] = asked["at"]
    path = _path(asked)
    url = f"https://{HOST.decode()}{path}"
    request = AWSRequest(asked["method"], url, {})
    own = Credentials("AKID", "a-secret", asked["token"])
    botocore.auth.SigV4QueryAuth(own, "sqs", "eu-west-1", expires=60).add_auth(request)

    keys = Keys(b"AKID", Secret(b"a-secret"), asked["token"] and asked["token"].encode())
    target = Target(asked["method"].encode(), path.encode(), None, ((b"host", HOST),), EMPTY)
    made = SigV4(keys, "eu-west-1", "sqs", PathRules()).query(target, moment(asked["at"]), 60)
    assert sorted(made.decode().split("&")) == sorted(
        (request.url or "").partition("?")[2].split("&")
    )


class TestCanonicalForms:
    @pytest.mark.parametrize(
        ("path", "ours", "s3"),
        [
            (b"/", b"/", b"/"),
            (b"/a%20b", b"/a%2520b", b"/a%20b"),
            (b"/a+b", b"/a%2Bb", b"/a%2Bb"),
            (b"/a%2Bb", b"/a%252Bb", b"/a%2Bb"),
            (b"/a:b", b"/a%3Ab", b"/a%3Ab"),
            (b"/a*b", b"/a%2Ab", b"/a%2Ab"),
            (b"/%e1%88%b4", b"/%25e1%2588%25b4", b"/%E1%88%B4"),
            (b"/a//b", b"/a/b", b"/a//b"),
            (b"/a/./b/../c/", b"/a/c/", b"/a/./b/../c/"),
            (b"/.hidden/..a", b"/.hidden/..a", b"/.hidden/..a"),
        ],
    )
    def test_a_path_is_encoded_once_for_s3_and_twice_for_others(
        self, path: bytes, ours: bytes, s3: bytes
    ) -> None:
        assert canonical_path(path, PathRules()) == ours
        assert canonical_path(path, S3_PATHS) == s3

    @pytest.mark.parametrize(
        ("query", "canonical"),
        [
            (None, b""),
            (b"", b""),
            (b"acl", b"acl="),
            (b"b=2&a=1", b"a=1&b=2"),
            (b"a=2&a=1", b"a=1&a=2"),
            (b"a=b=c", b"a=b%3Dc"),
            (b"prefix=x/y", b"prefix=x%2Fy"),
            (b"prefix=x%2fy", b"prefix=x%2Fy"),
        ],
    )
    def test_a_query_is_sorted_and_encoded_alike(self, query: bytes, canonical: bytes) -> None:
        assert canonical_query(query) == canonical


def test_a_key_is_derived_anew_for_each_day() -> None:
    signer = SigV4(Keys(b"AKID", Secret(b"s")), "eu-west-1", "s3", S3_PATHS)
    text = b"AWS4-HMAC-SHA256\n"
    today = signer.sign(text, moment(1_440_938_160))
    tomorrow = signer.sign(text, moment(1_440_938_160 + 86_400))
    assert today != tomorrow
    assert signer.sign(text, moment(1_440_938_160)) == today
    key = b"AWS4s"
    for part in (b"20150830", b"eu-west-1", b"s3", b"aws4_request"):
        key = hmac.new(key, part, hashlib.sha256).digest()
    assert today.decode() == hmac.new(key, text, hashlib.sha256).hexdigest()


def test_a_clock_writes_whole_seconds() -> None:
    now = [1_440_938_160.0]
    clock = Clock(lambda: now[0])
    assert clock().stamp == b"20150830T123600Z"
    now[0] += 0.9
    assert clock().stamp == b"20150830T123600Z"
    now[0] += 0.2
    assert clock() == (b"20150830T123601Z", b"20150830")


def test_a_signer_shows_no_key() -> None:
    signer = SigV4(Keys(b"AKID", Secret(b"a-secret"), b"a-token"), "eu-west-1", "s3", S3_PATHS)
    assert repr(signer) == "SigV4(hidden)"
    assert hashlib.sha256(b"").hexdigest().encode() == EMPTY
