import pytest

from tests.builders import MODEL
from tests.web.conftest import ADMIN, CHAT, STREAM


@pytest.fixture
def recent(world):
    """A function that reads /admin/requests, when all that was told has been written."""

    def read(path="", **query):
        world.parts.log_writer.stop()
        answer = world.client.get(f"/admin/requests{path}", query_string=query, headers=ADMIN)
        return answer.get_json()

    return read


def test_a_call_is_shown_with_its_way_and_without_what_was_said(world, recent):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "429"
    world.ask(headers={"x-request-id": "mine"})
    (found,) = recent()["requests"]
    assert (found["id"], found["client"], found["model"]) == ("mine", "app", MODEL)
    assert (found["instance"], found["outcome"], found["status"]) == ("b", "succeeded", 200)
    first, second = found["attempts"]
    assert (first["instance"], first["status"], first["outcome"]) == ("a", 429, "throttled")
    assert first["rest_ms"] > 0
    assert (second["instance"], second["status"]) == ("b", 200)
    assert found["upstream_id"] == second["upstream_id"]
    assert "hello" not in str(found)


def test_why_there_was_no_room_is_told_in_the_words_of_the_client(world, recent):
    world.add("a", enabled=False)
    told = world.ask().get_json()["error"]["message"]
    (found,) = recent()["requests"]
    assert (found["status"], found["said"]) == (503, told)
    assert "out of service" in told


def test_what_may_quote_the_client_is_not_told(world, recent):
    assert "quoted" in world.ask({"model": ["quoted"]}).text
    (found,) = recent()["requests"]
    assert "said" not in found


def test_a_stream_counts_what_was_sent_and_when_it_said_something(world, recent):
    world.add("a")
    body = world.ask(STREAM).data
    (found,) = recent()["requests"]
    assert (found["stream"], found["response_bytes"]) == (True, len(body))
    assert 0 <= found["first_byte_ms"] <= found["ms"]


def test_who_rested_is_told_as_passed_over(world, recent):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "401"
    world.ask()
    world.ask()
    newest, _ = recent()["requests"]
    (passed,) = newest["passed_over"]
    assert (passed["instance"], passed["reason"]) == ("a", "misconfigured")
    assert 290_000 < passed["wait_ms"] <= 300_000


def test_a_refused_call_is_shown_with_the_code_of_its_error(world, recent):
    world.add("a", supported_models=["other"])
    world.ask(CHAT)
    (found,) = recent(outcome="refused")["requests"]
    assert (found["status"], found["error"]) == (404, "model_not_found")


def test_a_call_that_could_not_be_read_is_a_refused_one(world, recent):
    world.ask(b"not json")
    world.ask(b"{}")
    assert [each["status"] for each in recent(outcome="refused")["requests"]] == [400, 400]


def test_only_calls_of_known_clients_are_kept(world, recent):
    world.add("a")
    world.client.post("/v1/chat/completions", json=CHAT)
    world.client.get("/v1/models", headers={"api-key": world.client_key})
    world.client.get("/health")
    assert recent() == {"requests": []}


def test_one_of_them_tells_its_story(world, recent):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "500"
    world.ask(headers={"x-request-id": "mine"})
    told = recent("/mine")["story"]
    assert told[0].startswith(f"app asked for {MODEL} (chat/completions, ")
    assert "it answered 500 in" in told[1]
    assert told[1].partition(". ")[0].endswith("it failed; so the next was tried")
    assert told[-1].startswith("It used 3 tokens of the prompt and 20 of the answer: ")


def test_they_are_kept_where_the_log_has_no_line_of_them(make_world):
    world = make_world(log_level="error")
    world.add("a")
    world.ask(headers={"x-request-id": "mine"})
    world.parts.log_writer.stop()
    assert world.client.get("/admin/requests/mine", headers=ADMIN).get_json()["id"] == "mine"


def test_a_question_that_cannot_be_meant_is_refused(world, recent):
    assert recent(limit=1001)["error"]["param"] == "limit"
    assert recent(nope=1)["error"]["param"] == "nope"


def test_one_that_is_not_there_is_said_to_be_in_the_log(world, recent):
    error = recent("/gone")["error"]
    assert error["code"] == "request_not_found"
    assert "flask logs explain gone" in error["message"]
