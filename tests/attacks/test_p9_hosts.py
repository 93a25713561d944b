"""P9: a credential goes only to hosts where its own policy is enforced (onecli#438)."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from broker.errors import PolicyError
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.reload import PolicyStore
from providers.http_api import PLUGIN as HTTP_API
from tests.fakes.gateway import AGENT, gateway_bench
from tests.fakes.upstream import recording_upstream

if TYPE_CHECKING:
    from pathlib import Path

ONE: Final = b"key-of-one-111"
TWO: Final = b"key-of-two-222"

POLICY: Final = f"""
identity_sources: {{laptop: {{type: local}}}}
services:
  one:
    provider: http_api
    base_url: http://127.0.0.1:PORT/one
    insecure_http: true
    allow_private: true
    credential: {{type: bearer, secret: "env:ONE"}}
  two:
    provider: http_api
    base_url: http://127.0.0.1:OTHER/two
    insecure_http: true
    allow_private: true
    credential: {{type: header, name: X-Api-Key, secret: "env:TWO"}}
scopes:
  one.use: {{service: one, allow: ["* /**"], deny: ["* /one/**", "* /two/**"]}}
  two.use: {{service: two, allow: ["GET /v1/**"]}}
agents:
  {AGENT}:
    trust: [{{source: laptop, claims: {{sub: {AGENT}}}}}]
    scopes: [one.use, two.use]
"""


async def test_p9_each_credential_goes_to_its_own_host_alone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(recording_upstream())
        text = POLICY.replace("OTHER", str(other.port))
        bench = await stack.enter_async_context(gateway_bench(tmp_path / "audit", text=text))
        bench.secrets.values |= {"env:ONE": ONE, "env:TWO": TWO}
        token = bench.token("one.use", "two.use")
        hosts = [
            b"127.0.0.1:%d" % bench.upstream.port,
            b"127.0.0.1:%d" % other.port,
            *(b"gateway.test", b"two", b"one.gateway.test"),
        ]
        for host in hosts:
            for path in (b"/one/v1/x", b"/two/v1/x"):
                for target in (path, b"http://" + host + path):
                    for line in (b"X: y", b"X-Forwarded-Host: " + host, b"X-Host: " + host):
                        head = b"\r\n".join(
                            [
                                b"GET " + target + b" HTTP/1.1",
                                b"Host: " + host,
                                b"Authorization: Bearer " + token,
                                *(line, b"Connection: close", b"", b""),
                            ]
                        )
                        assert b" 200 " in (await bench.talk(head)).split(b"\r\n")[0], head
        seen = (bench.upstream.requests, other.requests)
        assert [len(requests) for requests in seen] == [30, 30]
        assert {request.target for request in seen[0]} == {b"/one/v1/x"}
        assert {request.target for request in seen[1]} == {b"/two/v1/x"}
        assert TWO not in bench.upstream.bytes_received
        assert ONE not in other.bytes_received


async def test_p9_what_one_service_may_the_other_may_not(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(recording_upstream())
        text = POLICY.replace("OTHER", str(other.port))
        bench = await stack.enter_async_context(gateway_bench(tmp_path / "audit", text=text))
        bench.secrets.values |= {"env:ONE": ONE, "env:TWO": TWO}
        both = bench.token("one.use", "two.use")
        assert (await bench.call(b"DELETE", b"/one/v1/x", token=both)).status == 200
        assert (await bench.call(b"DELETE", b"/two/v1/x", token=both)).status == 403
        first = bench.token("one.use")
        assert (await bench.call(b"GET", b"/two/v1/x", token=first)).status == 403
        for path in (b"/one/one/x", b"/one/two/v1/x", b"/one//two/v1/x", b"/one/../two/v1/x"):
            assert (await bench.call(b"GET", path, token=first)).status in {400, 403}
        assert not other.requests


def test_p9_a_provider_that_injects_under_no_rules_does_not_load(tmp_path: Path) -> None:
    lawless = replace(HTTP_API, kind="lawless", http_rules=False)
    text = (
        "identity_sources: {laptop: {type: local}}\n"
        "services:\n"
        "  api:\n"
        "    provider: lawless\n"
        "    base_url: https://api.example.com\n"
        '    credential: {type: bearer, secret: "env:KEY"}\n'
    )
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PolicyError) as refused:  # and so a broker does not start
        PolicyStore(tmp_path, load=partial(load_policy, plugins={"lawless": lawless}))
    assert (
        "p.yaml:4:15: service 'api': provider 'lawless' would have its credential sent to "
        "api.example.com under no rules"
    ) in str(refused.value)


def test_p9_a_secret_that_goes_to_a_second_host_is_pointed_out() -> None:
    text = (
        "services:\n"
        "  one:\n"
        "    provider: http_api\n"
        "    base_url: https://one.example.com\n"
        '    credential: {type: bearer, secret: "env:KEY"}\n'
        "  same:\n"
        "    provider: http_api\n"
        "    base_url: https://one.example.com/v2\n"
        '    credential: {type: bearer, secret: "env:KEY"}\n'
        "  two:\n"
        "    provider: http_api\n"
        "    base_url: https://two.example.com\n"
        '    credential: {type: bearer, secret: "env:KEY"}\n'
    )
    warnings = [str(one) for one in load_policy([Document("p.yaml", text)]).warnings]
    assert [one for one in warnings if "another host" in one] == [
        (
            "p.yaml:13:40: service 'two' sends a secret of service 'one' to another host: "
            "the rules for one.example.com:443 do not bind what two.example.com:443 can do with it"
        )
    ]
