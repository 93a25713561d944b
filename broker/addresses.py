"""Judge where connections may go, against server-side request forgery.

Names are no guide: a name may resolve to one address when it is checked and to another when
it is used. So what is judged is the peer of the socket that has been connected.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "168.63.129.16",  # Azure's host agent, a public address by its number
        "100.100.100.200",  # Alibaba Cloud, within the carrier-grade NAT range
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
"""Where clouds serve credentials to whoever asks, beside the link-local 169.254.169.254."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_CARRIER_GRADE_NAT: Final = ipaddress.ip_network("100.64.0.0/10")


def why_not_public(address: str, *, allow_private: bool = False) -> str | None:
    """Return why a peer at `address` must not be talked to, or None if it may.

    `address` is numeric, as `getpeername` gives it, with or without a scope (`%eth0`). Where
    IPv6 carries an IPv4 address (mapped, 6to4, NAT64), the IPv4 address is judged.
    `allow_private` admits loopback, private and carrier-grade NAT addresses; metadata,
    link-local, multicast, unspecified and reserved addresses are never admitted.
    """
    try:
        kind = _kind(_destination(ipaddress.ip_address(address.partition("%")[0])))
    except ValueError:
        return f"{address!r} is not a numeric address"
    if kind is None or (allow_private and kind in {"loopback", "private"}):
        return None
    return f"{address} is not a public address: it is {kind}"


def is_loopback_host(host: str) -> bool:
    """Tell whether a URL's host is this machine by its very name: `localhost`, 127/8, `::1`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def why_not_issuer_url(url: str) -> str | None:
    """Return why an issuer, or its keys, may not be at `url`; None if they may.

    https, or http for a host that is loopback by name; no user, query or fragment.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "it is not a URL"
    if not host or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "it is not an absolute URL of printable ASCII characters"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(host)):
        return "it is not https"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "it has a user, a query or a fragment"
    return None


def _destination(address: _Address) -> _Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _kind(address: _Address) -> str | None:
    return next((kind for kind, holds in _KINDS if holds(address)), None)


_KINDS: Final[tuple[tuple[str, Callable[[Any], bool]], ...]] = (
    ("a cloud's metadata service", lambda address: address in _METADATA),
    ("link-local", lambda address: address.is_link_local),
    ("multicast", lambda address: address.is_multicast),
    ("unspecified", lambda address: address.is_unspecified),
    ("loopback", lambda address: address.is_loopback),
    ("reserved", lambda address: address.is_reserved),
    ("private", lambda address: address.is_private or getattr(address, "is_site_local", False)),
    ("private", lambda address: address in _CARRIER_GRADE_NAT),
    ("reserved", lambda address: not address.is_global),
)
"""The first that holds counts."""
