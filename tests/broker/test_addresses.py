from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.addresses import is_loopback_host, why_not_issuer_url, why_not_public

NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",  # noqa: S104 - an address to be refused, not one to bind to
    "::",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "64:ff9b:1::7f00:1",
    "::127.0.0.1",
    "localhost",
    "127.0.0.1:80",
    "0x7f000001",
    "",
]
PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "::ffff:127.0.0.1",
    "2002:7f00:1::1",
    "64:ff9b::10.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd12:3456::1",
    "fec0::1",
    "2001:0:1::1",
]
PUBLIC = ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize("address", NEVER)
def test_what_nobody_may_open_stays_closed(address: str) -> None:
    assert why_not_public(address)
    assert why_not_public(address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_leave(address: str) -> None:
    assert why_not_public(address)
    assert why_not_public(address, allow_private=True) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open(address: str) -> None:
    assert why_not_public(address) is None


def test_the_reason_names_address_and_kind() -> None:
    assert why_not_public("10.0.0.1") == "10.0.0.1 is not a public address: it is private"


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_whatever_form_it_is_carried(
    address: ipaddress.IPv4Address,
) -> None:
    plain = why_not_public(str(address)) is None
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | int(address))
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(address))
    assert (why_not_public(str(mapped)) is None) == plain
    assert (why_not_public(str(nat64)) is None) == plain


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["localhost.", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", "0"]
)
def test_hosts_that_only_look_like_loopback(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.test",
        "//issuer.test",
        "https://",
        "https:///path",
        "http://issuer.test",
        "http://localhost.issuer.test",
        "http://127.0.0.1.issuer.test",
        "http://10.0.0.1",
        "HTTPS ://issuer.test",
        "ftp://issuer.test",
        "file:///etc/passwd",
        "https://user@issuer.test",
        "https://user:pass@issuer.test",
        "https://issuer.test?",
        "https://issuer.test/?a=b",
        "https://issuer.test#",
        "https://issuer.test:99999",
        "https://issuer.test:port",
        "https://[::1",
        "https://issuer.test\\@evil.test",
        "https://issuer test",
        "https://issuer.test/\n",
        "https://\u0456ssuer.test",
        "https://issuer.test/\0",
    ],
)
def test_urls_where_no_issuer_may_be(url: str) -> None:
    assert why_not_issuer_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.test",
        "https://issuer.test:8443/realms/a",
        "https://127.0.0.1:1",
        "http://localhost:8080",
        "http://127.0.0.1:8080/x",
        "http://[::1]:8080",
    ],
)
def test_urls_where_an_issuer_may_be(url: str) -> None:
    assert why_not_issuer_url(url) is None
