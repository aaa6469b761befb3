import socket

import pytest

from proxy.core.addresses import refused

METADATA = "169.254.169.254"

SPELLINGS = [
    METADATA,
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "2852039166",
    "0251.0376.0251.0376",
    "0251.00376.000251.0000376",
    "0251.0376.0124776",
    "0xA9.0xFE.0xA9.0xFE",
    "0xa9.0xfea9fe",
    "169.254.43518",
    "169.16689662",
    "1６9．254．169．254",  # noqa: RUF001  # the resolver makes plain digits and dots of these
    "169。254。169。254",
    "169.254.169\u00ad.254",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_an_address_of_the_metadata_service_is_known_however_it_is_spelled(host):
    assert refused(host) == f"{METADATA}, a link-local or metadata address"


@pytest.mark.parametrize("host", SPELLINGS[:13])
def test_the_resolver_reads_them_so_too(host):
    found = socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
    assert found[0][-1][0] == METADATA


@pytest.mark.parametrize(
    "host",
    [
        "169.254.0.1",
        "169.254.255.255",
        "169.254.169.254.",
        "fe80::1",
        "fe80::1%eth0",
        "febf:ffff::1",
        "fd00:ec2::254",
        "FD00:EC2::23",
        "fd20:ce::254",
        "100.100.100.200",
        "1684301000",  # the same
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "192.0.0.192",
        # Teredo, which holds the other's address with each bit turned.
        "2001:0:4136:e378:8000:63bf:5601:5601",
    ],
)
def test_so_are_other_link_local_and_metadata_addresses(host):
    assert str(refused(host)).endswith(", a link-local or metadata address")


@pytest.mark.parametrize(
    "host",
    [
        "metadata.google.internal",
        "METADATA.Google.Internal",
        "metadata.google.internal.",
        "metadata。google。internal",
        "metadata",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.tencentyun.com",
    ],
)
def test_so_are_the_names_it_has_inside_of_clouds(host):
    assert str(refused(host)).endswith(", a name of a cloud's metadata service")


@pytest.mark.parametrize(
    "host",
    [
        "res.openai.azure.com",
        "res.privatelink.openai.azure.com",
        "metadata.example.com",
        "127.0.0.1",
        "localhost",
        "::1",
        "0.0.0.0",
        "10.0.0.4",
        "172.16.0.1",
        "192.168.1.1",
        "fd12:3456::1",
        "100.64.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "100.100.100.201",
        "168.63.129.17",
        "fec0::1",
        "2002:a00:1::1",
        "64:ff9b::10.0.0.1",
        "::ffff:10.0.0.1",
    ],
)
def test_everybody_else_may_be_asked(host):
    assert refused(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a.b",
        "0x",
        "0xg",
        "08.8.8.8",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "4294967296",
        "9" * 5000,
        "0" * 5000 + "1",
        "0x" + "f" * 5000,
        "1..2",
        "-1",
        "+1",
        "1_0",
        "fe80::1%",
        "ä" * 100,
        "\ud800",
        "xn--",
    ],
)
def test_what_is_no_address_is_left_to_who_looks_it_up(host):
    assert refused(host) is None


def test_numbers_are_read_as_the_resolver_reads_them():
    """Or else one that it takes for another address would pass."""
    cases = ("1", "1.2", "1.2.3", "010.1", "0x10.010.8", "169.254", "0x7f.1", "127.65535")
    for text in cases:
        found = socket.getaddrinfo(text, 80, flags=socket.AI_NUMERICHOST)[0][-1][0]
        assert refused(text) == refused(found)
    assert refused("169.254") is None  # 169.0.0.254
