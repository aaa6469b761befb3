import re

from tests.web.ui.conftest import HURRIED


def test_the_first_page_says_in_one_sentence_how_it_is(world, admin):
    assert "No instance is enabled: nobody can be served." in admin.get().text
    world.add("a", supported_models=["gpt-4o"])
    world.add("b", supported_models=["o3"])
    world.simulator["b"].faults["*"] = "429"
    world.ask({"model": "o3", "messages": []}, headers=HURRIED)
    text = admin.get().text
    assert "1 of 2 instances rests; nobody can be asked for o3 now." in text
    assert text.index(">b</a>") < text.index(">a</a>"), "the worst is first"


def test_what_a_person_should_look_at_is_told_as_health_tells_it(world, admin):
    world.parts.syncer.synced_at = 1.0
    assert "State was last synced" in admin.get("live/overview").text


def test_charts_show_minutes_that_are_over_and_the_budget_of_all(world, admin):
    world.add("a", max_tpm=1000)
    world.add("b", max_tpm=500)
    found = admin.get("live/traffic").get_json()
    assert len(found["at"]) == len(found["requests"]) == len(found["upstream_5xx"]) == 60
    assert found["budget"] == 1500
    world.add("c", max_tpm=0)
    world.parts.fragments.forget()
    assert admin.get("live/traffic").get_json()["budget"] is None


def test_the_last_minutes_are_told_of_all(world, admin):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "500"
    tokens = world.ask().get_json()["usage"]["total_tokens"]
    world.ask(b"{")
    world.parts.syncer.sync()
    world.parts.fragments.forget()
    text = re.sub(r"<[^>]+>", " ", admin.get("live/overview").text)
    assert re.search(r"Requests in 15 minutes +2 +1 answered", text)
    assert re.search(rf"Tokens in 15 minutes +{tokens} ", text)
    # What b made good is no error of a request.
    assert re.search(r"Errors +0 % +5xx: 1 · client&#39;s: 1", text)
