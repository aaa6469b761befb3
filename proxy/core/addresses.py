"""Which hosts are no upstreams: where machines tell secrets to whoever asks from inside.

A cloud's metadata service gives credentials to every program on a host. An upstream's address
comes from outside, and what it answers may be shown: without this, whoever may name one could
read them. Other private addresses are usual for upstreams (private endpoints), and loopback is.
"""

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local; the metadata services of AWS, Azure, Google and others
        "fe80::/10",
        "fd00:ec2::/32",  # AWS: metadata, DNS, time, credentials of pods
        "fd20:ce::254/128",  # Google Cloud
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's host, seen from its machines
        "192.0.0.192/32",  # Oracle Cloud
    )
)
# What the first of them are called from inside; a name that is not here is known by its address
# when it is connected to.
_NAMES = frozenset(
    "metadata metadata.google.internal metadata.goog instance-data"
    " instance-data.ec2.internal metadata.tencentyun.com".split()
)

# IPv6 addresses that stand for the IPv4 address in their last 32 bits (RFC 4291, 2.5.5;
# RFC 2765, 2.1; RFC 6052, 2.1; RFC 8215). Two more have properties of their own.
_HOLD_IPV4 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)

_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def refused(host: str) -> str | None:
    """What about the host of a URL, or an address that was looked up, keeps us from asking it,
    as words for "leads to ..."; None if nothing does."""
    name = _ascii(host).lower().removesuffix(".")
    if name in _NAMES:
        return f"{name}, a name of a cloud's metadata service"
    address = _address(name)
    if address is None:
        return None
    for each in (address, *_inner(address)):
        if any(each.version == n.version and each in n for n in _NETWORKS):
            return f"{each}, a link-local or metadata address"
    return None


def _ascii(host: str) -> str:
    """As the resolver gets it: full-width digits and dots become plain ones there."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:  # it can be looked up no more than it can be written
        return host


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return _short_ipv4(name)


def _short_ipv4(name: str) -> ipaddress.IPv4Address | None:
    """As inet_aton reads it, and so the resolver: one to four numbers, the last of which fills
    what is left; each may be decimal, octal (0...) or hexadecimal (0x...)."""
    parts = name.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):
        return None
    try:
        *first, last = [_number(part) for part in parts]
    except ValueError:
        return None
    if any(n > 255 for n in first) or last >= 256 ** (4 - len(first)):
        return None
    value = last
    for place, number in enumerate(first):
        value += number << 8 * (3 - place)
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int:
    """Raises ValueError."""
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    # More digits than any address has: Python takes its time with thousands.
    if len(text) > 64:
        raise ValueError
    return int(text, 8 if text.startswith("0") else 10)


def _inner(address: Address) -> list[Address]:
    """The addresses of the older kind to which one of the newer may lead."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [a for a in (address.sixtofour, *(address.teredo or ())) if a]
    if any(address in network for network in _HOLD_IPV4):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return found
