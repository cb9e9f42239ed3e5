"""Which addresses a message may be sent to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


class AddressRefusedError(Exception):
    """A host cannot be found, or may not be sent to."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order to try them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def checked_addresses(host: str, port: int, allow_networks: Sequence[str], resolver: Resolver = resolve) -> list[str]:
    """The addresses of a host, when every one of them may be sent to.

    Public addresses may, and others only inside ``allow_networks``. To be safe against a name that changes its
    address, connect to what this gives and resolve nothing again. Raises AddressRefusedError.
    """
    try:
        found = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise AddressRefusedError(f"{host} cannot be resolved: {error}") from None
    allowed = [ipaddress.ip_network(network) for network in allow_networks]
    for text in found:
        address = reached(ipaddress.ip_address(text))
        if not is_public(address) and not any(address in network for network in allowed):
            raise AddressRefusedError(
                f"{host} is at {text}, which is no public address; if that is meant, add its network to allow_networks"
            )
    return list(found)


def is_public(address: Address) -> bool:
    """It belongs to one host on the internet at large.

    >>> [is_public(ipaddress.ip_address(a)) for a in ("93.184.215.14", "10.0.0.1", "169.254.169.254", "224.0.0.1")]
    [True, False, False, False]
    """
    unicast = isinstance(address, ipaddress.IPv4Address) or address in GLOBAL_UNICAST
    return unicast and address.is_global and not address.is_multicast


def reached(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, where it is of such a kind; else the address itself.

    >>> reached(ipaddress.ip_address("::ffff:127.0.0.1"))
    IPv4Address('127.0.0.1')
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
