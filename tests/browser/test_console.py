"""What an operator does with the console, from the first page to the last."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import PHONE, WIDE

PAGES = (
    *("", "instances", "instance?name=france", "instance/edit?name=france", "instance/new"),
    *(
        "requests",
        "keys",
        "key?name=team-a",
        "key/new",
        "config",
        "config/revision?number=1",
        "chat",
    ),
)
# Those with colours that others do not have.
BY_NIGHT = ("", "instances", "requests", "keys", "config/revision?number=1", "chat")


def status(page, name):
    return page.get_by_role("row", name=re.compile(f"^{name}")).locator(".pill")


def test_one_watches_an_instance_fail_and_recover(page, go, simulator, traffic, picture):
    go(page, "instances")
    expect(status(page, "east-us")).to_have_text("healthy")
    simulator["east-us"].faults["*"] = "500"
    simulator["france"].faults["*"] = "500"
    expect(status(page, "east-us")).to_have_text(re.compile(r"^fails"))
    expect(page.get_by_role("status").first).to_contain_text("2 of 3 instances fail")
    picture(page, "instances")
    simulator["east-us"].faults.clear()
    expect(status(page, "east-us")).to_have_text("healthy")
    page.locator("tr", has_text="france").get_by_role("button", name="Clear").click()
    simulator["france"].faults.clear()
    expect(status(page, "france")).to_have_text("healthy")
    expect(page.get_by_role("status").first).to_contain_text("All 3 instances are well")


def test_an_edit_is_shown_then_saved_then_rolled_back(page, go):
    go(page, "instances")
    page.get_by_role("link", name="sweden").click()
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Weight").fill("-1")
    page.get_by_role("button", name="Show what changes").click()
    expect(page.get_by_role("alert").last).to_contain_text("Given: -1.")
    expect(page.get_by_label("Weight")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Weight").fill("7")
    page.get_by_role("button", name="Show what changes").click()
    expect(page.locator("ins")).to_have_text("7")
    # Written on, it has to be shown again.
    page.get_by_label("Priority").fill("3")
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    page.get_by_role("button", name="Show what changes").click()
    page.get_by_label("Why").fill("it is far away")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dd", has_text=re.compile("^7 *$"))).to_be_visible()

    page.get_by_role("link", name="Config").click()
    row = page.get_by_role("row", name=re.compile("it is far away"))
    row.get_by_role("link").click()
    page.get_by_role("button", name="Back to before this").click()
    expect(page.get_by_text("0 to add, 1 to change, 0 to remove.")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status").last).to_contain_text("The config is back")
    go(page, "instance?name=sweden")
    expect(page.locator("dd", has_text=re.compile("^100 *$"))).to_be_visible()


def test_before_scripts_are_there_no_key_gets_into_an_address(chromium, gateway, signed_in):
    context = chromium.new_context(java_script_enabled=False, storage_state=signed_in)
    page = context.new_page()
    page.goto(f"{gateway.url}/admin/ui/instance/new")
    page.locator("#field-api_key").fill("planted-key-0123456789")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").last).to_contain_text("nothing was changed")
    assert "planted" not in page.url
    context.close()


def test_the_overview_charts_the_last_hour(page, go, an_hour, traffic, picture):
    go(page, "")
    expect(page.locator(".chart canvas")).to_have_count(3)
    expect(page.locator("[data-chart=tokens] .u-legend")).to_contain_text("budget")
    expect(page.locator("meter").first).to_be_visible()
    # It was asked, and says so; wait_for_function would evaluate a text, which no page allows.
    expect(page.locator("meter").first).not_to_have_js_property("value", 0)
    picture(page, "overview")


def test_a_chat_is_streamed_and_tells_how_it_went(page, go, gateway, picture):
    go(page, "chat")
    page.get_by_label("Client key").fill(gateway.client_key)
    page.get_by_label("Model").fill("gpt-4o")
    page.get_by_label("Message").fill("Say hello.")
    page.keyboard.press("Enter")
    answer = page.locator(".log .assistant")
    expect(answer).not_to_have_text("…")
    told = page.locator("#told")
    expect(told).to_contain_text("First word after")
    expect(told).to_contain_text(re.compile(r"Tokens\d+ in, 30 out"))
    expect(page.locator("#story")).to_contain_text(
        re.compile(r"(east-us|france) .* was asked: it answered 200")
    )
    picture(page, "chat")
    page.locator("#story").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("gpt-4o 200 succeeded")


def test_a_chat_reads_all_that_is_a_stream_of_events(page, go):
    piece = '{"choices": [{"delta": {"content": "%s"}}]}'
    lines = (
        *(": keep-alive", ""),
        *("event: message", "id: 7", f"data: {piece % 'Hello'}", ""),
        *("data:" + piece[:12], "data: " + piece[12:] % " there", ""),
        *("data: [DONE]", "", ""),
    )
    stream = {"status": 200, "content_type": "text/event-stream", "body": "\r\n".join(lines)}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**stream))
    go(page, "chat")
    page.get_by_label("Model").fill("gpt-4o")
    page.get_by_label("Message").fill("Say hello.")
    page.keyboard.press("Enter")
    expect(page.locator(".log .assistant")).to_have_text("Hello there")


def test_a_key_is_made_shown_once_and_rotated(page, go):
    go(page, "keys")
    page.get_by_role("link", name="Add a client").click()
    page.get_by_label("Name").fill("team b/1")
    page.get_by_label("Tokens a minute").fill("1000")
    page.get_by_role("button", name="Show what changes").click()
    page.get_by_role("button", name="Save").click()
    key = page.locator("#made-key").inner_text()
    page.get_by_role("link", name=re.compile("I have kept it")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("team b/1")
    assert key not in page.content()
    page.get_by_role("button", name="Rotate the key").click()
    expect(page.locator("#made-key")).not_to_have_text(key)


def test_a_form_that_is_sent_before_the_scripts_are_there_waits_for_them(page, gateway):
    held = []
    page.route("**/htmx.min.js", lambda route: held.append(route))
    page.goto(f"{gateway.url}/admin/ui/key/new", wait_until="commit")
    page.get_by_label("Name").fill("early")
    asked = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    for _ in range(2):
        page.get_by_role("button", name="Show what changes").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    held[0].continue_()
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    page.wait_for_load_state()
    assert len(asked) == 1


def test_a_form_that_is_sent_while_a_picture_is_loaded_is_sent_once(page, gateway):
    held = []
    page.route("**/icon.svg", lambda route: held.append(route))
    page.goto(f"{gateway.url}/admin/ui/key/new", wait_until="domcontentloaded")
    asked = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    page.get_by_label("Name").fill("early")
    page.get_by_role("button", name="Show what changes").click()
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    assert held
    page.unroute("**/icon.svg")  # they go on
    page.wait_for_load_state()
    with page.expect_response("**/key/preview"):
        page.get_by_role("button", name="Show what changes").click()
    assert len(asked) == 2


def test_without_the_scripts_a_form_says_so_and_changes_nothing(gateway, chromium, signed_in):
    context = chromium.new_context(storage_state=signed_in)
    page = context.new_page()
    page.route("**/htmx.min.js", lambda route: route.abort())
    page.goto(f"{gateway.url}/admin/ui/key/new", wait_until="commit")
    page.get_by_label("Name").fill("early")
    page.get_by_role("button", name="Show what changes").click()
    expect(page.get_by_role("alert").first).to_contain_text("Load the page again")
    context.close()


def test_a_hidden_page_asks_nothing(page, go):
    go(page, "instances")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    asked = []
    page.on("request", lambda request: "/live/" in request.url and asked.append(request.url))
    page.wait_for_timeout(1300)  # longer than between two ticks
    assert asked == []


def test_a_page_says_within_seconds_that_a_gateway_hangs(page, go):
    go(page, "instances")
    page.route("**/live/**", lambda route: None)  # neither an answer nor an end of it
    notice = page.get_by_text("The gateway does not answer")
    expect(notice).to_be_visible(timeout=15_000)


def test_people_can_use_every_page_by_day_and_night_and_on_a_phone(
    page, go, check_access, picture
):
    for path in PAGES:
        go(page, path)
        check_access(page)
        if path in BY_NIGHT:
            page.emulate_media(color_scheme="dark")
            check_access(page, "color-contrast")
            page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{path} is wider than the screen"
        if path == "instances":
            picture(page, "phone")
        page.set_viewport_size(WIDE)


def test_the_keyboard_is_enough_to_switch_an_instance_off_and_on(page, go, check_access):
    go(page, "instances")
    for to, then in (("Disable", "disabled"), ("Enable", "healthy")):
        page.locator("tr", has_text="sweden").get_by_role("button", name=to).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Save")).to_be_focused()
        check_access(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # left as it is
        expect(page.get_by_role("button", name=to).last).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("ins")).to_have_text("off" if to == "Disable" else "on")
        expect(page.get_by_role("button", name="Save")).to_be_focused()
        page.keyboard.press("Enter")
        expect(status(page, "sweden")).to_have_text(then)
        expect(page.locator("ins")).to_have_count(0)
    # The row was made anew, and the focus is where it was.
    expect(page.get_by_role("button", name="Disable").last).to_be_focused()
