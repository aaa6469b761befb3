import pytest

from proxy.core.masking import masked, masked_key, masked_url


@pytest.mark.parametrize(
    "key, shown",
    [
        ("0123456789abcdef", "***cdef"),  # 16: the shortest of which something is shown
        ("0123456789abcde", "***"),
        ("x", "***"),
        ("sk-" + "a" * 100 + "3f2a", "***3f2a"),
        ("", ""),
        ("NONE", "NONE"),  # says that there is no key
    ],
)
def test_of_a_key_only_the_end_is_shown(key, shown):
    assert masked_key(key) == shown


@pytest.mark.parametrize(
    "url, shown",
    [
        ("http://user:secret@proxy:3128", "http://***@proxy:3128"),
        ("http://user@proxy:3128/path", "http://***@proxy:3128/path"),
        ("HTTPS://user:s%40cret@proxy", "HTTPS://***@proxy"),
        ("socks5h://user:secret@proxy", "socks5h://***@proxy"),
        ("http://user:s@cret@proxy", "http://***@proxy"),  # the last @ ends the password
        # No URL in the strict sense, a password all the same.
        ("user:secret@proxy:3128", "***@proxy:3128"),
        ("http://user:se/cret@proxy", "http://***@proxy"),
        ("http://user:se?cr#et@proxy", "http://***@proxy"),
        ("http://user:[secret@proxy", "http://***@proxy"),
        ("http://user:sec\nret@proxy", "http://***@proxy"),
        # Nothing to hide.
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("http://[bad", "http://[bad"),
        ("", ""),
        (None, None),
    ],
)
def test_of_a_url_everything_but_the_credentials_is_shown(url, shown):
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    "field, value, shown",
    [
        ("api_key", "0123456789abcdef", "***cdef"),
        ("proxy_url", "http://user:secret@proxy", "http://***@proxy"),
        ("proxy_url", None, None),
        ("api_base", "https://a@b", "https://a@b"),
        ("weight", 3, 3),
        ("supported_models", ("gpt-4o",), ("gpt-4o",)),
    ],
)
def test_only_secret_fields_are_masked(field, value, shown):
    assert masked(field, value) == shown
