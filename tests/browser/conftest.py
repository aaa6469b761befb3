"""The console in a real browser, before a real gateway with two workers.

Apart from the other tests: `pytest tests/browser`. Debian's chromium is driven; without it they
are skipped. With CONSOLE_SCREENSHOTS=docs/images they renew the pictures of the documentation.
"""

import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from proxy.core.deltas import Deltas
from proxy.simulator import Resource, Simulator
from proxy.store import usage
from proxy.store.db import Database
from tests.builders import VAULT
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
NO_ANSWER = ("htmx:timeout", "htmx:afterRequest")  # what htmx says of one that did not come
WAIT_MS = 15_000
SERIOUS = ("serious", "critical")
WIDE, PHONE = {"width": 1280, "height": 700}, {"width": 390, "height": 844}


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        skip = pytest.mark.skip(reason="there is no chromium here: apt-get install chromium")
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def simulator():
    resources = [
        Resource(name, api_key=f"planted-key-of-{name}", tokens=30, event_interval_ms=10)
        for name in ("east-us", "france", "sweden")
    ]
    with Simulator(resources) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, simulator):
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), free_port())
    gateway.start()
    for number, resource in enumerate(simulator.resources.values()):
        models = ["gpt-4o", "gpt-4o-mini"][: 1 + number % 2]
        add_instance(
            gateway,
            resource,
            supported_models=models,
            max_tpm=20_000 * (number + 1),
            priority=1 + number // 2,
        )
    yield gateway
    gateway.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def signed_in(chromium, gateway):
    """The cookie of somebody who signed in with the first admin's key."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{gateway.url}/admin/ui/config")
    page.get_by_label("Admin key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("opens nothing here")
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.keyboard.press("Enter")
    page.get_by_role("navigation").wait_for()
    assert page.url.endswith("/admin/ui/config")
    yield context.storage_state()
    context.close()


@pytest.fixture
def page(chromium, gateway, signed_in):
    """Of somebody who signed in. What its console says, and whom it asks besides the gateway,
    fails the test."""
    wrong = []

    def note(request):
        if not request.url.startswith((gateway.url, "data:")):
            wrong.append(f"asks {request.url}")

    def hear(said):
        # Of a mistake in a form the browser says so, too, and of an answer that does not come.
        is_told = any(words in said.text for words in ("status of 422", *NO_ANSWER))
        if said.type in ("error", "warning") and not is_told:
            wrong.append(said.text)

    context = chromium.new_context(
        viewport=WIDE, reduced_motion="reduce", storage_state=signed_in
    )
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page = context.new_page()
    page.on("request", note)
    page.on("pageerror", lambda error: wrong.append(f"raises {error}"))
    page.on("console", hear)
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def traffic(gateway):
    """Somebody who asks without end, while the test runs."""
    is_over = threading.Event()

    def ask():
        while not is_over.is_set():
            gateway.chat(stream=True, model="gpt-4o").close()
            is_over.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    is_over.set()
    thread.join()


@pytest.fixture(scope="session")
def an_hour(gateway):
    """What charts show, as if the gateway had served for an hour."""
    minute = int(time.time()) // 60 * 60
    deltas = Deltas()
    for number in range(1, 61):
        many = int(60 + 35 * math.sin(number / 8) + 7 * math.sin(number * 1.7))
        failed = 9 if 20 <= number < 24 else 0
        throttled = number % 4 if many > 70 else 0
        counts = {
            "requests": many,
            "attempts": many + failed + throttled,
            "succeeded": many,
            "throttled": throttled,
            "failed": failed,
            "first_byte_upto_500_ms": many - many // 9,
            "first_byte_upto_1500_ms": many // 9,
            "prompt_tokens": 300 * many,
            "completion_tokens": 300 * many,
        }
        deltas.add_usage((minute - 60 * number, "east-us", "gpt-4o", "team-a"), counts)
    database = Database(f"sqlite:///{gateway.database}", VAULT)
    with database.write() as connection:
        usage.add(connection, deltas)
    database.dispose()


@pytest.fixture
def go(gateway):
    """A function that brings a page to a path of the console."""
    return lambda page, path: page.goto(f"{gateway.url}/admin/ui/{path}")


@pytest.fixture
def check_access():
    """A function that fails for what keeps people from using a page, as axe-core finds it."""
    source = AXE.read_text()

    def check(page, *rules):
        """All rules, unless some are named."""
        page.evaluate(source)
        found = page.evaluate(
            "rules => axe.run(document, {resultTypes: ['violations'],"
            " ...(rules.length ? {runOnly: rules} : {})})",
            list(rules),
        )
        assert [
            (v["id"], n["target"], n["failureSummary"])
            for v in found["violations"]
            if v["impact"] in SERIOUS
            for n in v["nodes"]
        ] == []

    return check


@pytest.fixture
def picture(tmp_path):
    """A function that keeps how a page looks."""
    folder = Path(os.environ.get("CONSOLE_SCREENSHOTS") or tmp_path)

    def keep(page, name):
        page.mouse.move(0, 0)
        page.screenshot(path=folder / f"console-{name}.png")

    return keep
