from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker.addresses import why_not_public
from broker.gateway.guard import Connector
from broker.gateway.problems import Refusal
from providers.base import Upstream
from tests.components.process import free_port
from tests.components.tls import TestAuthority
from tests.fakes.upstream import recording_upstream

if TYPE_CHECKING:
    from pathlib import Path


def upstream(port: int, host: str = "127.0.0.1", **fields: Any) -> Upstream:
    given: dict[str, Any] = {"scheme": "http", "allow_private": True, "connect_timeout": 5.0}
    return Upstream(host=host, port=port, **(given | fields))


class Spoken(asyncio.Protocol):
    """A protocol that hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@dataclass
class Names:
    """Answer each look-up with the next list of addresses, and in the end with the last."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        assert port
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


async def refused(where: Upstream, connector: Connector | None = None) -> Refusal:
    result = await (connector or Connector(lambda: ())).open(where, Spoken)
    assert isinstance(result, Refusal), result
    return result


async def opened(where: Upstream, connector: Connector | None = None) -> None:
    assert isinstance(await (connector or Connector(lambda: ())).open(where, Spoken), Spoken)


async def test_a_service_inside_needs_leave() -> None:
    async with recording_upstream() as server:
        await opened(upstream(server.port))
        refusal = await refused(upstream(server.port, allow_private=False))
        assert refusal.code == "upstream_forbidden"
        assert "127.0.0.1" not in refusal.detail
        assert "127.0.0.1" in str(refusal.note)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "127.0.0.1", "0.0.0.0"),  # noqa: S104
        *("169.254.169.254", "168.63.129.16", "224.0.0.1", "::1", "fd00::1", "fe80::1", "::"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
async def test_addresses_that_no_name_may_lead_to(address: str) -> None:
    connector = Connector(lambda: (), Names([[address]]).resolve)
    refusal = await refused(upstream(80, "api.test", allow_private=False), connector)
    assert refusal.code == "upstream_forbidden"


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"])
async def test_metadata_services_stay_out_of_reach(address: str) -> None:
    connector = Connector(lambda: (), Names([[address]]).resolve)
    assert (await refused(upstream(80, "api.test"), connector)).code == "upstream_forbidden"


async def test_a_name_is_resolved_once() -> None:
    async with recording_upstream() as server:
        names = Names([["127.0.0.1"], ["169.254.169.254"]])
        await opened(upstream(server.port, "api.test"), Connector(lambda: (), names.resolve))
        assert names.asked == ["api.test"]


async def test_the_peer_of_the_socket_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(address: str, *, allow_private: bool) -> str | None:
        unspecified = address == "0.0.0.0"  # noqa: S104 - whose peer is this machine
        return None if unspecified else why_not_public(address, allow_private=allow_private)

    monkeypatch.setattr("broker.gateway.guard.why_not_public", lenient)
    async with recording_upstream() as server:
        connector = Connector(lambda: (), Names([["0.0.0.0"]]).resolve)  # noqa: S104
        refusal = await refused(upstream(server.port, "a.test", allow_private=False), connector)
        assert refusal.code == "upstream_forbidden"
        assert "127.0.0.1" in str(refusal.note)


async def test_the_next_address_is_tried() -> None:
    async with recording_upstream() as server:
        names = Names([["169.254.1.1", "127.0.0.2", "127.0.0.1"]])
        await opened(upstream(server.port, "api.test"), Connector(lambda: (), names.resolve))


async def test_a_forbidden_address_is_what_is_told() -> None:
    connector = Connector(lambda: (), Names([["169.254.1.1", "127.0.0.1"]]).resolve)
    refusal = await refused(upstream(free_port(), "api.test"), connector)
    assert refusal.code == "upstream_forbidden"


@pytest.mark.parametrize("protected", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
async def test_the_brokers_own_listeners_are_out_of_reach(protected: str) -> None:
    async with recording_upstream() as server:
        refusal = await refused(
            upstream(server.port), Connector(lambda: ((protected, server.port),))
        )
        assert refusal.code == "upstream_forbidden"
        assert "the broker itself" in str(refusal.note)
        other = free_port()
        await opened(upstream(server.port), Connector(lambda: ((protected, other),)))


async def test_a_protected_name_is_looked_up_where_the_port_is_the_same() -> None:
    async with recording_upstream() as server:
        names = Names([["127.0.0.1"]])
        protected = (("vault", server.port), ("database", 1))
        connector = Connector(lambda: protected, names.resolve)
        refusal = await refused(upstream(server.port, "api.test"), connector)
        assert refusal.code == "upstream_forbidden"
        assert names.asked == ["api.test", "vault"]


async def test_u6_a_protected_place_stays_out_of_reach_however_its_address_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As it is with a place on another machine.
    monkeypatch.setattr("broker.gateway.guard._is_local", lambda _: False)
    async with recording_upstream() as server:
        names = Names([["::ffff:127.0.0.1"], ["127.0.0.1"]])
        connector = Connector(lambda: (("vault", server.port),), names.resolve)
        refusal = await refused(upstream(server.port, "api.test"), connector)
    assert refusal.code == "upstream_forbidden"
    assert names.asked == ["api.test", "vault"]


async def test_names_that_lead_nowhere() -> None:
    refusal = await refused(upstream(80, "no-such-host.invalid"))
    assert refusal.code == "upstream_unreachable"
    nothing = Connector(lambda: (), Names([[]]).resolve)
    assert (await refused(upstream(80, "api.test"), nothing)).code == "upstream_unreachable"


async def test_nobody_listens() -> None:
    assert (await refused(upstream(free_port()))).code == "upstream_unreachable"


def tls(port: int, ca_file: Path | None, patience: float = 10.0) -> Upstream:
    trusted = None if ca_file is None else str(ca_file)
    return upstream(port, "localhost", scheme="https", ca_file=trusted, connect_timeout=patience)


async def test_tls_is_verified(tls_authority: TestAuthority) -> None:
    context = tls_authority.certificate("localhost").context()
    async with recording_upstream(context) as server:
        await opened(tls(server.port, tls_authority.ca_file))
        stranger = await refused(tls(server.port, None))
        assert stranger.code == "upstream_unreachable"
        assert "not trusted" in stranger.detail


async def test_a_certificate_for_another_name_is_refused(tls_authority: TestAuthority) -> None:
    context = tls_authority.certificate("other.test").context()
    async with recording_upstream(context) as server:
        refusal = await refused(tls(server.port, tls_authority.ca_file))
        assert "not trusted" in refusal.detail
        assert server.bytes_received == b""


async def test_a_handshake_that_never_ends_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refusal = await refused(tls(silent.getsockname()[1], None, 1.0))
        assert refusal.code == "upstream_timeout"


async def test_a_renewed_ca_file_is_read_again(
    tls_authority: TestAuthority, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    context = tls_authority.certificate("localhost").context()
    connector = Connector(lambda: ())
    async with recording_upstream(context) as server:
        where = tls(server.port, ca_file)
        assert "No such file" in (await refused(where, connector)).detail
        ca_file.write_bytes(TestAuthority(tmp_path).ca_file.read_bytes())
        assert "not trusted" in (await refused(where, connector)).detail
        ca_file.write_bytes(tls_authority.ca_file.read_bytes())
        await opened(where, connector)
