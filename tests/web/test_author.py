import pytest
from flask import Flask, g

from proxy.errors import Unprocessable
from proxy.store.revisions import Author
from proxy.web.author import REASON_HEADER, author


@pytest.fixture
def asked():
    """The author of a request with this reason."""
    app = Flask("test")

    def ask(reason=None):
        headers = {} if reason is None else {REASON_HEADER: reason}
        with app.test_request_context(headers=headers):
            g.admin_name, g.request_id = "ops", "request-1"
            return author()

    return ask


def test_it_is_the_admins_name_and_the_requests_id(asked):
    assert asked() == Author("ops", None, "request-1")


def test_a_reason_is_kept_without_the_space_around_it(asked):
    assert asked("  key of east rotated ").reason == "key of east rotated"
    assert asked("  ").reason is None


def test_a_reason_that_is_utf_8_is_read_as_such(asked):
    assert asked("Schlüssel".encode().decode("latin-1")).reason == "Schlüssel"
    assert asked("Schl\xfcssel").reason == "Schlüssel"  # and one that is Latin-1 as that


@pytest.mark.parametrize("reason", ["x" * 501, "a\x07b"])
def test_a_reason_that_cannot_be_kept_is_refused(asked, reason):
    with pytest.raises(Unprocessable, match="at most 500 printable") as caught:
        asked(reason)
    assert caught.value.param == REASON_HEADER
