"""Somebody who signed in to the console."""

import re

import pytest

from proxy.store import admin_keys
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN_KEY

HOME = "/admin/ui/"
SIGN_IN = "/admin/ui/sign-in"
FRAGMENT = {"HX-Request": "true"}
# Of a client that does not wait for room.
HURRIED = {"x-request-timeout-ms": "100"}


class Browser:
    """What a browser does with pages: it keeps cookies, and sends forms with their token."""

    def __init__(self, app):
        self.client = app.test_client()
        self.token = ""

    def get(self, path="", **arguments):
        answer = self.client.get(HOME + path, **arguments)
        found = re.search(r'name="csrf_token" value="([^"]+)"', answer.text)
        self.token = found[1] if found else self.token
        return answer

    def post(self, path, token=None, headers=None, **form):
        return self.client.post(
            HOME + path,
            data=form,
            headers={"X-CSRF-Token": self.token if token is None else token} | (headers or {}),
        )

    def act(self, path, **form):
        """As a part of the page does it."""
        return self.post(path, headers=FRAGMENT, **form)

    def sign_in(self, key=ADMIN_KEY, **form):
        self.get("sign-in")
        answer = self.post("sign-in", key=key, **form)
        if answer.status_code == 303:
            self.get()
        return answer

    @property
    def cookie(self):
        return self.client.get_cookie("gateway_console", path="/admin/ui")


@pytest.fixture
def browser(world):
    return Browser(world.app)


@pytest.fixture
def signed_in(world):
    """A function that gives a browser of whoever has a key of this role."""

    def sign_in(role="admin"):
        with world.parts.database.session() as session:
            key = admin_keys.add(session, f"the {role}", role, author=AUTHOR)
        world.parts.snapshots.reload()
        browser = Browser(world.app)
        assert browser.sign_in(key).status_code == 303
        return browser

    return sign_in


@pytest.fixture
def operator(signed_in):
    return signed_in("operator")


@pytest.fixture
def admin(signed_in):
    return signed_in("admin")
