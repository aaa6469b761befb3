import base64
import time
from dataclasses import replace

import pytest

from proxy import create_app
from proxy.core.sources import networks
from proxy.store import admin_keys
from proxy.store.db import StoreUnavailable
from proxy.web.ui import session
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN_KEY, log_kept
from tests.web.ui.conftest import Browser


def is_in(browser):
    return browser.get().status_code == 200


def change_key(world, change, *arguments, **named):
    with world.parts.database.session() as db:
        change(db, *arguments, author=AUTHOR, is_first_set=True, **named)
    world.parts.snapshots.reload()


def test_who_has_no_session_is_sent_to_the_door_and_back(browser):
    answer = browser.get("instances?x=1")
    assert answer.status_code == 302
    assert answer.location == "/admin/ui/sign-in?back=/admin/ui/instances?x%3D1"
    browser.get("sign-in")
    answer = browser.post("sign-in", key=ADMIN_KEY, back="/admin/ui/instances?x=1")
    assert answer.location == "/admin/ui/instances?x=1"


@pytest.mark.parametrize(
    "back", ["https://elsewhere.example", "//elsewhere.example", "/admin/ui/\\elsewhere", ""]
)
def test_nobody_is_sent_elsewhere(browser, back):
    assert browser.sign_in(back=back).location == "/admin/ui/"


def test_the_cookie_is_for_the_server_alone_and_holds_no_key(browser):
    assert browser.sign_in().status_code == 303
    cookie = browser.cookie
    assert (cookie.http_only, cookie.same_site, cookie.path) == (True, "Strict", "/admin/ui")
    assert not cookie.secure
    payload = cookie.value.partition(".")[0]
    assert ADMIN_KEY not in base64.urlsafe_b64decode(payload + "===").decode("latin-1")


def test_behind_a_trusted_proxy_with_tls_the_cookie_is_secure(make_world):
    world = make_world(trusted_proxies=networks(["127.0.0.1"]))
    https = {"X-Forwarded-Proto": "https"}
    assert (
        "Secure" in world.client.get("/admin/ui/sign-in", headers=https).headers["Set-Cookie"]
    )


def test_anybody_can_say_that_it_was_tls_but_is_not_believed(browser):
    browser.get("sign-in", headers={"X-Forwarded-Proto": "https"})
    assert not browser.cookie.secure


def test_a_wrong_key_is_told_and_many_are_slowed_as_in_the_admin_api(browser):
    answers = [browser.sign_in("wrong") for _ in range(30)]
    assert answers[0].status_code == 401
    assert "opens nothing here" in answers[0].text
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert not is_in(browser)


def test_the_session_of_another_key_is_signed_out_when_that_is_removed(world, operator):
    assert is_in(operator)
    change_key(world, admin_keys.remove, "the operator")
    assert not is_in(operator)


def test_a_session_ends_when_its_key_has_another_role(world, operator):
    change_key(world, admin_keys.change, "the operator", {"role": "viewer"})
    assert not is_in(operator)


def test_a_session_ends_when_its_key_expires(world, operator):
    change_key(world, admin_keys.change, "the operator", {"expires_at": time.time() - 1})
    assert not is_in(operator)


def test_a_session_of_the_setting_ends_when_that_is_another(world, browser, monkeypatch):
    browser.sign_in()
    assert is_in(browser)
    other = replace(world.parts, settings=replace(world.parts.settings, admin_api_key="other"))
    world.app.extensions["proxy"] = other
    assert not is_in(browser)


def test_a_session_is_over_after_a_day_of_work(world, browser, monkeypatch):
    monkeypatch.setattr(session, "LONGEST_SECONDS", 60)
    browser.sign_in()
    assert is_in(browser)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert not is_in(browser)


def test_a_session_outlives_a_restart_and_is_known_to_each_worker(world, browser):
    browser.sign_in()
    with log_kept():
        other = create_app(world.parts.settings)
    parts = other.extensions["proxy"]
    parts.snapshots.reload()
    again = Browser(other)
    again.client.set_cookie("gateway_console", browser.cookie.value, path="/admin/ui")
    assert is_in(again)
    parts.database.dispose()


def test_a_cookie_that_was_changed_is_none(browser):
    browser.sign_in()
    value = browser.cookie.value
    browser.client.set_cookie("gateway_console", "A" + value[1:], path="/admin/ui")
    assert not is_in(browser)


def test_who_signed_out_is_out(browser):
    browser.sign_in()
    assert browser.post("sign-out").status_code == 303
    assert not is_in(browser)


def test_a_copy_of_the_cookie_of_who_signed_out_opens_nothing(world, browser):
    browser.sign_in()
    copied, another = Browser(world.app), Browser(world.app)
    another.sign_in()
    copied.client.set_cookie("gateway_console", browser.cookie.value, path="/admin/ui")
    assert copied.get("live/instances").status_code == 200
    browser.post("sign-out")
    another.get("live/instances")  # it is made again for somebody, and the copy is known
    assert copied.get("live/instances").status_code == 302
    assert not is_in(copied)
    assert is_in(another)


def test_a_session_that_was_ended_is_so_for_each_worker_and_after_a_restart(world, browser):
    browser.sign_in()
    cookie = browser.cookie.value
    browser.post("sign-out")
    with log_kept():
        other = create_app(world.parts.settings)
    parts = other.extensions["proxy"]
    parts.snapshots.reload()
    copied = Browser(other)
    copied.client.set_cookie("gateway_console", cookie, path="/admin/ui")
    assert not is_in(copied)
    parts.database.dispose()


def test_while_the_database_is_away_who_is_in_stays_in(world, browser, monkeypatch):
    browser.sign_in()

    def away(*_):
        raise StoreUnavailable("The database is away.")

    monkeypatch.setattr(session.signed_out, "has", away)
    assert is_in(browser)


@pytest.mark.parametrize("path", ["sign-out", "instance/clear?name=a"])
def test_no_post_counts_without_the_token_of_its_session(world, browser, path):
    world.add("a")
    browser.sign_in()
    for token in ("", "wrong", Browser(world.app).token):
        answer = browser.post(path, token=token)
        assert answer.status_code == 403
        assert "did not come from a page of your session" in answer.text
    assert is_in(browser)


class Unread:
    """A body that nobody is to take."""

    def read(self, *_):
        raise AssertionError("read")

    readline = readlines = __iter__ = read


def send_unread(client, size, kind):
    said = {"CONTENT_LENGTH": str(size), "CONTENT_TYPE": kind, "wsgi.input": Unread()}
    return client.post("/admin/ui/sign-in", environ_overrides=said)


def test_of_who_was_never_here_no_form_is_read(world):
    form = "application/x-www-form-urlencoded"
    assert send_unread(world.client, 1000, form).status_code == 403


def test_a_form_that_is_larger_than_any_is_not_taken(browser):
    browser.get("sign-in")
    answer = send_unread(browser.client, 60_000_000, "multipart/form-data; boundary=x")
    assert answer.status_code == 413
    assert "at most 262,144 bytes" in answer.text


def test_signing_in_needs_a_token_too(world, browser):
    assert browser.post("sign-in", key=ADMIN_KEY).status_code == 403
    browser.get("sign-in")
    assert browser.post("sign-in", token="wrong", key=ADMIN_KEY).status_code == 403
