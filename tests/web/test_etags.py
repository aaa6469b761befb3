import pytest
from flask import Flask

from proxy.errors import PreconditionFailed
from proxy.web.etags import etag, if_match


def asked(header):
    headers = {} if header is None else {"If-Match": header}
    with Flask("etags").test_request_context(headers=headers):
        return if_match()


@pytest.mark.parametrize(
    "header, revision",
    [(None, None), ("*", None), (' "7" ', 7), (f'"{"9" * 18}"', 10**18 - 1)],
)
def test_the_version_a_client_means(header, revision):
    assert asked(header) == revision


@pytest.mark.parametrize("header", ["7", '"x"', 'W/"7"', '"7", "8"', '""', f'"{"9" * 19}"'])
def test_what_cannot_be_ours_is_no_version(header):
    with pytest.raises(PreconditionFailed, match="not an ETag of ours"):
        asked(header)


def test_what_is_shown_names_its_version():
    assert etag(7) == {"ETag": '"7"'}
