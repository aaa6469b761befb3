"""What clients hear of the limits of their keys."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.core.allowance import Denial
from proxy.core.endpoints import ENDPOINTS
from proxy.core.prices import Price, Prices
from proxy.simulator import expected_usage
from proxy.web.limits import REMEDIES, refused
from tests.builders import MODEL
from tests.web.conftest import CHAT, STREAM

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()
USED = expected_usage(CHAT)["total_tokens"]
RATES = ("limit", "remaining", "reset")


@pytest.fixture
def limited(world, monkeypatch):
    """A function that makes the world's client one with these limits; its time stands still."""
    world.add("a", max_tpm=0)
    world.parts.clients._clock = lambda: NOW
    monkeypatch.setattr("proxy.web.limits.time.time", lambda: NOW)

    def make(**fields):
        world.client_key = world.add_client("limited", **fields)
        return world

    return make


FAMILY = "x-ratelimit-"


def rates(answer):
    """The headers about limits, without what all their names begin with."""
    return {
        name[len(FAMILY) :]: value
        for name, value in answer.headers.items()
        if name.startswith(FAMILY)
    }


def priced(world, **prices):
    """Of a million tokens: what models cost from now on."""
    table = {name: Price(each, each, each) for name, each in prices.items()}
    snapshots = world.parts.snapshots
    snapshots.current = replace(snapshots.current, prices=Prices(table))


def view(world):
    known = world.parts.snapshots.current.keys.values()
    client = next(k.client for k in known if k.client.name == "limited")
    return world.parts.clients.view(client)


# Headers.


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_every_answer_says_what_is_left_to_the_key(limited, body):
    world = limited(max_tpm=1000, max_rpm=10)
    answer = world.ask(body)
    found = rates(answer)
    left = found.pop("remaining-tokens")
    assert found == {
        "limit-requests": "10",
        "remaining-requests": "9",
        "reset-requests": "1m1s",
        "limit-tokens": "1000",
        "reset-tokens": "1m1s",
    }
    if body is CHAT:  # the head of a stream goes out before anybody knows what it used
        assert left == str(1000 - USED)
    assert rates(world.ask(body))["remaining-requests"] == "8"


@pytest.mark.parametrize("body", [CHAT, STREAM])
def test_what_the_upstream_says_of_its_limits_is_not_the_keys(limited, body):
    world = limited(max_rpm=10)
    assert rates(world.ask(body)).keys() == {f"{each}-requests" for each in RATES}


def test_without_limits_what_the_upstream_says_is_passed_on(limited):
    world = limited()
    assert rates(world.ask())["limit-tokens"] == "10000000"


@pytest.mark.parametrize(
    "ask, status",
    [
        (lambda world: world.ask(b"{"), 400),
        (lambda world: world.ask(CHAT | {"model": "x" * 300}), 400),
        (lambda world: world.client.get("/v1/models", headers=bearer(world)), 200),
        (lambda world: world.client.get("/v1/models/gpt-9", headers=bearer(world)), 200),
    ],
)
def test_also_an_answer_that_counts_as_no_call_says_what_is_left(limited, ask, status):
    world = limited(max_rpm=10)
    answer = ask(world)
    assert answer.status_code == status
    assert rates(answer)["remaining-requests"] == "10"


def bearer(world):
    return {"authorization": f"Bearer {world.client_key}"}


def test_an_error_of_the_upstream_says_what_is_left(limited):
    world = limited(max_rpm=10, max_tpm=1000)
    world.simulator["a"].faults["*"] = "content-filter"
    answer = world.ask()
    assert answer.status_code == 400
    assert rates(answer)["remaining-requests"] == "9"


def test_who_shows_no_key_hears_of_no_limits(limited):
    world = limited(max_rpm=10)
    world.client_key = "unknown"
    answer = world.ask()
    assert answer.status_code == 401
    assert rates(answer) == {}


# Refusals.


def error(answer):
    return answer.get_json()["error"]


def test_a_minute_that_is_full_says_when_it_has_room(limited, monkeypatch):
    world = limited(max_rpm=1)
    monkeypatch.setattr("proxy.web.limits.time.time", lambda: NOW + 0.25)
    assert world.ask().status_code == 200
    answer = world.ask()
    assert answer.status_code == 429
    assert (error(answer)["type"], error(answer)["code"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert error(answer)["message"] == (
        "This key may make 1 request a minute (max_rpm), and made 1. Try again in 60.8 s."
    )
    assert (answer.headers["retry-after-ms"], answer.headers["retry-after"]) == ("60750", "61")
    assert "x-should-retry" not in answer.headers
    assert rates(answer) == {
        "limit-requests": "1",
        "remaining-requests": "0",
        "reset-requests": "1m1s",
    }
    assert world.asked() == (1, 0)


def test_what_can_never_fit_is_not_to_be_tried_again(limited):
    answer = limited(max_tpm=100).ask(CHAT | {"max_tokens": 200})
    assert answer.status_code == 429
    assert error(answer)["code"] == "rate_limit_exceeded"
    assert "no more than 100 tokens a minute (max_tpm)" in error(answer)["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


def test_a_budget_that_is_spent_is_there_again_tomorrow(limited):
    world = limited(max_tokens_per_day=USED + 30)
    assert world.ask().status_code == 200
    answer = world.ask(CHAT | {"max_tokens": 31})
    assert answer.status_code == 429
    assert error(answer)["type"] == error(answer)["code"] == "insufficient_quota"
    assert error(answer)["message"].endswith(
        " Ask for less: a shorter prompt, or fewer max_completion_tokens."
        " The budget begins anew at 2026-12-01 00:00 UTC."
    )
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["retry-after"] == str(12 * 3600)


@pytest.mark.parametrize("budget", ["max_tokens_per_day", "max_cost_per_month"])
def test_a_request_that_no_budget_would_cover_is_told_so_and_spends_nothing(budget, limited):
    world = limited(**{budget: 5 if "tokens" in budget else 0.00001})
    priced(world, **{MODEL: 10.0})
    answer = world.ask()
    assert answer.status_code == 429
    assert error(answer)["code"] == "rate_limit_exceeded"
    assert "it can never fit" in error(answer)["message"]
    assert "0.00001 a month" in error(answer)["message"] or "cost" not in budget
    assert answer.headers["x-should-retry"] == "false"


def test_money_is_a_budget_by_the_prices_of_the_model(limited):
    world = limited(max_cost_per_month=0.001)
    priced(world, **{MODEL: 10.0})
    assert world.ask().status_code == 200
    assert view(world).cost_today == USED * 10 / 1_000_000
    answer = world.ask(CHAT | {"max_tokens": 90})
    assert error(answer)["code"] == "insufficient_quota"
    assert "0.001 a month (max_cost_per_month)" in error(answer)["message"]


def test_only_so_many_calls_of_a_key_are_open_at_a_time(limited):
    world = limited(max_parallel_requests=1)
    first = world.ask(STREAM, buffered=False)
    answer = world.ask()
    assert answer.status_code == 429
    assert error(answer)["message"].startswith(
        "This key may have 1 request at a time (max_parallel_requests), and that is open."
    )
    assert (answer.headers["retry-after-ms"], rates(answer)) == ("1000", {})
    assert first.data.endswith(b"data: [DONE]\n\n")
    assert world.ask().status_code == 200


@pytest.mark.parametrize(
    "denial, words",
    [
        (
            Denial("max_tpm", 100, 70, 40, NOW + 2.0),
            "This key may use 100 tokens a minute (max_tpm); 70 are used, and this request may"
            " need 40. Try again in 2.0 s.",
        ),
        (
            Denial("max_tokens_per_month", 100, 70, 40, NOW + 1.0),
            "Requests that are still open may leave some of it: try again soon.",
        ),
        (
            Denial("max_tokens_per_day", 100, 100, 40, 1_900_000_000.0, True),
            "100 are used, and this request may need 40. The budget begins anew at 2030-03-17",
        ),
        (Denial("max_rpm", 1, 1, 1, NOW - 0.01), "Try again in 0.0 s."),
        (
            Denial("max_cost_per_day", 1_500_000_000, 0, 2_000_000_000, None, True),
            "This request may need 2, and this key may use no more than 1.5 a day"
            " (max_cost_per_day): it can never fit.",
        ),
    ],
)
def test_a_refusal_names_the_limit_and_what_is_used_of_it(denial, words):
    assert words in refused(denial, NOW, "chat/completions").message


@pytest.mark.parametrize(
    "endpoint, remedy",
    [
        ("chat/completions", "a shorter prompt, or fewer max_completion_tokens."),
        ("images/edits", "fewer images (n), a lower quality, or a shorter prompt."),
        ("audio/translations", "a shorter recording, or one that is compressed more."),
        ("audio/speech", "a shorter input."),
        ("embeddings", "a shorter input."),
    ],
)
def test_of_one_that_can_never_fit_it_says_what_is_to_be_less(endpoint, remedy):
    denial = Denial("max_tpm", 100, 0, 200, None, True)
    assert refused(denial, NOW, endpoint).message.endswith(f"Ask for less: {remedy}")


def test_what_answers_are_made_of_has_each_its_remedy():
    assert {e.answer for e in ENDPOINTS.values()} == set(REMEDIES)


# What is counted.


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_call_is_settled_with_what_it_used(limited, body):
    world = limited(max_tpm=1000, max_tokens_per_day=1000)
    assert world.ask(body | {"max_tokens": 500}).status_code == 200
    found = view(world)
    assert (found.current_tpm, found.current_rpm, found.in_flight) == (USED, 1, 0)
    assert (found.tokens_today, found.last_used_at) == (USED, NOW)


def test_a_call_that_another_instance_answered_counts_once(limited):
    world = limited(max_tpm=1000)
    world.add("b", max_tpm=0)
    world.simulator["a"].faults["*"] = "500"
    assert world.ask().status_code == 200
    assert world.asked() == (1, 1)
    found = view(world)
    assert (found.current_tpm, found.current_rpm, found.tokens_today) == (USED, 1, USED)


@pytest.mark.parametrize("fault", ["500", "429", "404"])
def test_what_nobody_answered_gives_its_tokens_back_and_counts_as_a_request(limited, fault):
    world = limited(max_tpm=1000)
    world.simulator["a"].faults["*"] = fault
    assert world.ask().status_code >= 400
    found = view(world)
    assert (found.current_tpm, found.current_rpm, found.in_flight) == (0, 1, 0)


def test_a_client_that_leaves_pays_for_what_came_and_no_more(limited):
    world = limited(max_tpm=1000, max_parallel_requests=1)
    answer = world.ask(STREAM | {"max_tokens": 500}, buffered=False)
    assert view(world).current_tpm >= 500
    answer.close()
    found = view(world)
    assert found.in_flight == 0
    assert 0 < found.current_tpm < 100


def test_a_body_that_cannot_be_read_takes_no_ticket(limited):
    world = limited(max_rpm=1)
    assert world.ask(b"{").status_code == 400
    assert world.ask().status_code == 200


def test_costs_are_kept_by_minute_and_client(limited):
    world = limited()
    priced(world, **{MODEL: 10.0})
    assert world.ask().status_code == 200
    counts = world.parts.state.take().usage
    ((*_, name),) = counts.keys()
    (found,) = counts.values()
    assert (name, found["cost_nano"]) == ("limited", USED * 10_000)


def test_asking_for_models_is_a_use_of_the_key(limited):
    world = limited()
    assert world.client.get("/v1/models", headers=bearer(world)).status_code == 200
    assert view(world).last_used_at == NOW
