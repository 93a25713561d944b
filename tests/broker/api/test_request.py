from __future__ import annotations

from typing import Any

import pytest

from broker.api.body import MOST_BYTES, CallerGone
from broker.api.request import Unreadable, read_head, read_parameters

FORM = (b"content-type", b"application/x-www-form-urlencoded")


def _scope(
    *headers: tuple[bytes, bytes], method: str = "POST", query: bytes = b""
) -> dict[str, Any]:
    return {"type": "http", "method": method, "headers": headers, "query_string": query}


def _body(content: bytes, kind: str = "http.request") -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": kind, "body": content}

    return receive


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "post"])
def test_only_post(method: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        read_head(_scope(method=method))
    assert (refusal.value.status, refusal.value.cause) == (405, "method")
    assert refusal.value.headers == ((b"allow", b"POST"),)


@pytest.mark.parametrize(
    "name", [b"authorization", b"content-type", b"content-length", b"content-encoding"]
)
def test_what_matters_is_said_once(name: bytes) -> None:
    with pytest.raises(Unreadable) as refusal:
        read_head(_scope((name, b"a"), (name, b"a")))
    assert (refusal.value.status, refusal.value.cause) == (400, "headers")


def test_other_headers_may_repeat() -> None:
    assert read_head(_scope((b"accept", b"a"), (b"accept", b"b")))


def test_nothing_is_read_from_the_url() -> None:
    with pytest.raises(Unreadable) as refusal:
        read_head(_scope(query=b"scope=a"))
    assert refusal.value.cause == "query_string"


@pytest.mark.parametrize(
    ("headers", "content", "status", "cause"),
    [
        ({}, b"", 415, "content_type"),
        ({b"content-type": b"text/plain"}, b"", 415, "content_type"),
        (dict([FORM]) | {b"content-encoding": b"gzip"}, b"", 415, "content_encoding"),
        (dict([FORM]), b"a=%zz", 400, "unparsable"),
        (dict([FORM]), b"a" * (MOST_BYTES + 1), 413, "too_large"),
        (dict([FORM]) | {b"content-length": b"9" * 40}, b"", 413, "too_large"),
    ],
)
async def test_what_cannot_be_read(
    headers: dict[bytes, bytes], content: bytes, status: int, cause: str
) -> None:
    with pytest.raises(Unreadable) as refusal:
        await read_parameters(headers, _body(content))
    assert (refusal.value.status, refusal.value.cause) == (status, cause)


async def test_forms_and_json_are_read() -> None:
    assert await read_parameters(dict([FORM]), _body(b"scope=a&scope=b")) == {"scope": ["a", "b"]}
    json = {b"content-type": b"application/json"}
    assert await read_parameters(json, _body(b'{"scope": "a"}')) == {"scope": ["a"]}


async def test_a_caller_that_hangs_up() -> None:
    with pytest.raises(CallerGone):
        await read_parameters(dict([FORM]), _body(b"", "http.disconnect"))
