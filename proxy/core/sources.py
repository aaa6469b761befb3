"""Where a request comes from, and whether a client may come from there.

A proxy in front of us tells in `X-Forwarded-For` whom it speaks for, and adds that at the end;
what stands before was told to it, by anybody (RFC 7239, 8.1). So the last entry counts if the
connection comes from a proxy we trust, the one before it if that one is such a proxy too, and
so on: the first address from the right that is not trusted is the source.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAPPED_BITS = 96  # of ::ffff:0:0/96, where IPv6 keeps IPv4's addresses (RFC 4291, 2.5.5.2)
ADDRESS_CHARACTERS = 100
_MAPPED = IPv6Network("::ffff:0:0/96")


class NotANetwork(ValueError):
    """Says what is wrong, and what to write instead."""


def network(text: str) -> Network:
    """Of CIDR notation, or a single address. Raises NotANetwork."""
    try:
        if "%" in text:  # a zone: it belongs to one host, and no address comes with it
            raise ValueError
        found = ip_network(text, strict=False)
    except ValueError:
        raise NotANetwork(
            "Is no network; write one as 10.0.0.0/8 or 2001:db8::/32, or a single address."
        ) from None
    if ip_address(text.partition("/")[0]) != found.network_address:
        raise NotANetwork(f"Has bits set behind its mask; write {found}.")
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.ipv4_mapped
        return IPv4Network(f"{mapped}/{found.prefixlen - MAPPED_BITS}")
    return found


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Of texts that were checked."""
    return tuple(map(network, texts))


def is_in(address: Address | None, among: Iterable[Network]) -> bool:
    """An address that nobody knows is in no network."""
    return address is not None and any(address in one for one in among)


def comes_from(
    allowed: tuple[str, ...], peer: str, forwarded_for: str, trusted: Sequence[Network]
) -> bool:
    """Whether the source is in one of these networks, in texts that were checked."""
    if trusted and forwarded_for:
        return is_in(source(peer, forwarded_for, trusted), ready(allowed))
    return _is_peer_in(allowed, peer)


@lru_cache(maxsize=4096)  # most clients call from few hosts
def _is_peer_in(allowed: tuple[str, ...], peer: str) -> bool:
    return is_in(_address(peer), ready(allowed))


@lru_cache(maxsize=1024)
def ready(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """As `networks`, for whoever asks again and again."""
    return networks(texts)


def source(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> Address | None:
    """Who asks: `peer`, the other end of the connection, or whom it is trusted to speak for.

    None if that is no address: a trusted proxy did not know it, or hides it. If all are
    trusted, the first of them.
    """
    found = _address(peer)
    rest = forwarded_for
    while rest and is_in(found, trusted):
        rest, _, last = rest.rpartition(",")
        found = _address(last.strip())
    return found


def _address(text: str) -> Address | None:
    # Longer ones are none, and must not fill the memory.
    return _parsed(text) if len(text) <= ADDRESS_CHARACTERS else None


@lru_cache(maxsize=1024)  # most requests come from few
def _parsed(text: str) -> Address | None:
    """Some proxies add the port: 192.0.2.1:4711, [2001:db8::1]:4711."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
