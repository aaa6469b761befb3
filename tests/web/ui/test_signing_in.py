from tests.web.ui.conftest import Browser


def test_who_is_in_is_not_asked_again(browser):
    browser.sign_in()
    assert browser.get("sign-in").location == "/admin/ui/"


def test_the_door_shows_nothing_of_the_gateway(world, browser):
    world.add("a")
    answer = browser.get("sign-in")
    assert answer.status_code == 200
    assert "<nav" not in answer.text


def test_a_mistaken_key_is_not_shown_again(browser):
    answer = browser.sign_in("planted-mistake-0123456789")
    assert answer.status_code == 401
    assert "planted-mistake" not in answer.text


def test_while_the_admin_api_is_closed_so_is_the_console(make_world):
    browser = Browser(make_world(admin_api_key="").app)
    answer = browser.sign_in("any")
    assert answer.status_code == 403
    assert "The admin API is closed" in answer.text
