from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.gateway import KEY
from tests.fakes.upstream import reply

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench


async def test_a_request_goes_through_with_the_credential(gateway: GatewayBench) -> None:
    gateway.upstream.answer = reply(b'{"id": 1}', "200 OK", b"X-Request-Id: r1")
    response = await gateway.call(b"GET", b"/api/v1/charges?limit=3", b"Accept: */*")
    assert (response.status, response.body) == (200, b'{"id": 1}')
    assert response.one(b"x-request-id") == b"r1"
    received = gateway.upstream.last
    assert received.line == b"GET /v1/charges?limit=3 HTTP/1.1"
    assert received.all(b"authorization") == [b"Bearer " + KEY.encode()]
    assert received.all(b"host") == [b"127.0.0.1:%d" % gateway.upstream.port]
    intent, outcome = await gateway.records()
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert intent["operation"] == outcome["operation"]
    assert outcome["status"] == 200
    assert outcome["bytes_out"] == 9
