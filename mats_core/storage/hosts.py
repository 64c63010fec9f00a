"""Hosts that a file or a redirect must never lead to: this machine itself, its links, and where clouds keep secrets."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from mats_core.errors import StorageError

_METADATA = frozenset({"169.254.169.254", "100.100.100.200", "fd00:ec2::254"})  # of clouds, with keys in it
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_near(host: str) -> bool:
    """Whether a host as a URL writes it (a name, or an address in any notation) is loopback, link-local, unspecified or
    a metadata service, by what is written alone."""
    host = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 2130706433, 0x7f.1, 0177.0.0.1, 127.1
        except (OSError, ValueError, UnicodeError):
            return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _NAT64 or int(address) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and is_near(str(inner)):
            return True
    zero = isinstance(address, ipaddress.IPv4Address) and int(address) >> 24 == 0  # 0.0.0.0/8 is this host
    return zero or address.is_loopback or address.is_link_local or address.is_unspecified or str(address) in _METADATA


def resolves_near(host: str) -> bool:
    """As `is_near`, of any address that the name has; False for a name that has none."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError):
        return is_near(host)
    return is_near(host) or any(is_near(str(each[4][0])) for each in found)


async def refuse_redirect(session: Any, context: Any, asked: Any) -> None:
    """For aiohttp's `on_request_redirect`: StorageError refused where a server elsewhere sends on to a host near."""
    import asyncio

    target = asked.url.join(type(asked.url)(asked.response.headers.get("Location", "")))
    if is_near(asked.url.host or "") or not target.host:
        return
    loop = asyncio.get_running_loop()
    if await loop.run_in_executor(None, resolves_near, target.host):
        raise StorageError(
            "refused", f"{asked.url.host} sends on to {target.host}, which is this machine or its network"
        )
