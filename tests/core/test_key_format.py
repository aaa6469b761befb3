import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.key_format import ADMIN_PREFIX, CHARACTERS, key_of, mistake

KEY = key_of(bytes(range(32)))
randoms = st.binary(min_size=32, max_size=32)


def test_a_key_is_one_word_that_programs_recognise():
    assert re.fullmatch(r"gw_[0-9A-Za-z]{49}", KEY)
    assert len(KEY) == CHARACTERS == 52


@given(randoms, randoms)
def test_no_two_keys_are_alike(one, other):
    assert (key_of(one) == key_of(other)) is (one == other)


@pytest.mark.parametrize("random", [bytes(32), b"\xff" * 32])
def test_the_least_and_the_most_fit(random):
    key = key_of(random)
    assert len(key) == CHARACTERS
    assert mistake(key) is None


def test_it_is_made_of_all_the_bits_there_are():
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        key_of(bytes(31))


def test_the_checksum_is_the_crc32_of_what_is_random():
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for digit in KEY[-6:]:
        number = number * 62 + digits.index(digit)
    assert number == zlib.crc32(KEY[3:-6].encode())


@given(randoms)
def test_nothing_is_wrong_with_a_key(random):
    assert mistake(key_of(random)) is None


@given(randoms, st.integers(3, CHARACTERS - 1), st.sampled_from("0aZ9"))
def test_one_other_character_is_noticed(random, at, character):
    key = key_of(random)
    other = key[:at] + character + key[at + 1 :]
    assert (mistake(other) is None) is (other == key)


@given(randoms, st.integers(3, CHARACTERS - 2))
def test_two_characters_in_the_wrong_order_are_noticed(random, at):
    key = key_of(random)
    other = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    assert (mistake(other) is None) is (other == key)


@pytest.mark.parametrize(
    "text, words",
    [
        (KEY[:-1], "it is cut off: it has 51 of 52 characters"),
        (KEY[:20], "it is cut off: it has 20 of 52 characters"),
        ("gw_", "it is cut off: it has 3 of 52 characters"),
        (KEY + "x", "it is too long: it has 53 characters, and a key 52"),
        (KEY[:-1] + ".", "it has a character that no key has"),
        (KEY[:-1] + "ä", "it has a character that no key has"),
        (KEY[:10] + KEY[10].swapcase() + KEY[11:], "it is mistyped: its checksum is wrong"),
    ],
)
def test_what_is_wrong_is_told_without_quoting_the_key(text, words):
    assert mistake(text) == words


@pytest.mark.parametrize("text", ["", "sk-1234", "gw-" + "a" * 43, "GW_" + KEY[3:], " " + KEY])
def test_of_other_keys_nothing_is_known(text):
    assert mistake(text) is None


def test_an_admin_key_is_told_from_a_clients_and_checked_likewise():
    key = key_of(bytes(range(32)), ADMIN_PREFIX)
    assert re.fullmatch(r"gwa_[0-9A-Za-z]{49}", key)
    assert mistake(key, ADMIN_PREFIX) is None
    assert mistake(key) is None  # another kind of key
    assert mistake(KEY, ADMIN_PREFIX) is None
    assert mistake(key[:-1], ADMIN_PREFIX) == "it is cut off: it has 52 of 53 characters"
