from ipaddress import ip_address

import pytest

from proxy.core.sources import NotANetwork, comes_from, is_in, network, networks, source

TRUSTED = networks(["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        # IPv4 in IPv6's clothes: sources are compared without them.
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ],
)
def test_a_network_is_written_as_cidr_or_a_single_address(text, canonical):
    assert str(network(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.256", "010.0.0.1", "1/8"),
        *("10.0.0.0/8 ", " 10.0.0.1", "10.0.0.0/8/8", "*", "10.*", "::g", "fe80::1%eth0"),
        "localhost",
    ],
)
def test_anything_else_is_none_and_the_message_says_how_to_write_one(text):
    with pytest.raises(NotANetwork, match=r"write one as 10\.0\.0\.0/8"):
        network(text)


@pytest.mark.parametrize(
    "text, meant",
    [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")],
)
def test_bits_behind_the_mask_are_a_mistake_and_the_message_says_what_was_meant(text, meant):
    with pytest.raises(NotANetwork, match=f"write {meant}"):
        network(text)


@pytest.mark.parametrize(
    "peer, forwarded_for, found",
    [
        # Nobody who is not trusted is believed.
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        # A trusted proxy tells who asked it.
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        # What stood there before comes from the client itself, who may write anything.
        ("10.0.0.1", "10.9.9.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.7, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "nonsense, 198.51.100.1", "198.51.100.1"),
        # A row of trusted proxies.
        ("10.0.0.1", "198.51.100.1, 10.0.0.3,10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.7, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        # All of them trusted: the first asked.
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        # Some add the port.
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("2001:db8:ffff::1", "2001:db8::1", "2001:db8::1"),
        # IPv4 as a socket of IPv6 shows it.
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("fe80::1%eth0", "198.51.100.1", "fe80::1"),
        # A proxy that does not know, or does not tell: RFC 7239's words for it.
        ("10.0.0.1", "unknown", None),
        ("10.0.0.1", "198.51.100.1, _hidden", None),
        ("10.0.0.1", "198.51.100.1,", None),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2.5", None),
        # A Unix socket has no address.
        ("", "198.51.100.1", None),
    ],
)
def test_the_source_is_the_first_address_from_the_right_that_is_not_trusted(
    peer, forwarded_for, found
):
    assert source(peer, forwarded_for, TRUSTED) == (found and ip_address(found))


def test_without_trusted_proxies_the_header_means_nothing():
    assert source("10.0.0.1", "198.51.100.1", ()) == ip_address("10.0.0.1")


def test_a_long_header_is_read_no_further_than_it_is_trusted():
    forged = ", ".join(["192.0.2.7"] * 100_000)
    assert source("10.0.0.1", f"{forged}, 198.51.100.1", TRUSTED) == ip_address("198.51.100.1")


def test_who_is_not_known_is_in_no_network():
    everywhere = networks(["0.0.0.0/0", "::/0"])
    assert not is_in(None, everywhere)
    assert is_in(ip_address("192.0.2.1"), everywhere)
    assert is_in(ip_address("::1"), everywhere)
    assert not is_in(ip_address("::1"), networks(["0.0.0.0/0"]))


@pytest.mark.parametrize(
    "peer, forwarded_for, is_home",
    [
        ("172.16.9.9", "", True),
        ("192.168.1.7", "", True),
        ("192.168.1.8", "", False),
        ("192.168.1.8", "172.16.9.9", False),  # says somebody whom nobody trusts
        ("10.9.9.9", "172.16.9.9", True),
        ("10.9.9.9", "172.16.9.9, 192.168.1.8", False),
        ("10.9.9.9", "", False),
        ("10.9.9.9", "hidden", False),
        ("::ffff:172.16.9.9", "", True),
        ("", "", False),
    ],
)
def test_a_client_comes_from_its_networks_or_does_not(peer, forwarded_for, is_home):
    home = ("172.16.0.0/12", "192.168.1.7")
    for _ in range(2):  # what was found is remembered
        assert comes_from(home, peer, forwarded_for, TRUSTED) == is_home
    assert comes_from(("10.0.0.0/8",), "10.9.9.9", "", TRUSTED)


def test_where_nobody_is_trusted_a_client_is_where_its_connection_is():
    home = ("172.16.0.0/12",)
    assert comes_from(home, "172.16.9.9", "192.0.2.1", ())
    assert not comes_from(home, "192.0.2.1", "172.16.9.9", ())
