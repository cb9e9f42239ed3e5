"""Which addresses may be sent to. Ranges: the IANA registries of special-purpose addresses."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import pytest

from alerts.addresses import AddressRefusedError, checked_addresses, is_public, reached

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    # an IPv6 way to an IPv4 address
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::"),
    *("::127.0.0.1", "::ffff:0:7f00:1"),
]
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def check(addresses: Sequence[str], allow: Sequence[str] = ()) -> list[str]:
    return checked_addresses("hook.example", 443, allow, lambda _host, _port: addresses)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="allow_networks"):
        check([address])


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_may_be_sent_to(address: str) -> None:
    assert check([address]) == [address]


def test_one_private_address_among_public_ones_refuses_them_all() -> None:
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.1"):
        check([*PUBLIC, "10.0.0.1"])


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.1.2.3", "10.0.0.0/8"), ("::1", "::1/128"), ("::ffff:10.1.2.3", "10.0.0.0/8"), ("fd00::1", "fd00::/8")],
)
def test_a_network_can_be_allowed_and_only_that(address: str, network: str) -> None:
    assert check([address], [network]) == [address]
    with pytest.raises(AddressRefusedError):
        check([address, "192.168.0.1"], [network])


def test_a_host_that_is_not_found_is_refused_with_its_name() -> None:
    def resolver(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(AddressRefusedError, match=r"hook\.example cannot be resolved.*not known"):
        checked_addresses("hook.example", 443, [], resolver)


def test_numeric_hosts_need_no_name_server() -> None:
    assert checked_addresses("127.0.0.1", 80, ["127.0.0.0/8"]) == ["127.0.0.1"]
    for other_spelling in ("2130706433", "0x7f.1", "127.1"):
        with pytest.raises(AddressRefusedError):
            checked_addresses(other_spelling, 80, [])


def test_every_private_ipv4_address_is_private_by_every_ipv6_way() -> None:
    for text in PRIVATE:
        inner = ipaddress.ip_address(text)
        if isinstance(inner, ipaddress.IPv4Address):
            ways = (
                f"::ffff:{inner}",
                f"64:ff9b::{inner}",
                str(ipaddress.IPv6Address((0x2002 << 112) | int(inner) << 80)),
            )
            assert not any(is_public(reached(ipaddress.ip_address(way))) for way in ways)
