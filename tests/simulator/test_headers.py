import pytest

from proxy.simulator.headers import marks, rejection, room
from proxy.simulator.limits import Limits


def test_a_clients_request_id_comes_back():
    assert (
        marks("East US", "d", {"x-ms-client-request-id": "7"})["x-ms-client-request-id"] == "7"
    )
    assert marks("East US", "d", {})["x-ms-client-request-id"] == "Not-Set"


def test_two_answers_have_different_request_ids():
    first, second = (marks("East US", "d", {})["apim-request-id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("name", ["gpt é", "a\r\nx-evil: 1", "a/b"])
def test_any_deployment_name_makes_a_sound_header(name):
    value = marks("East US", name, {})["x-ms-deployment-name"]
    assert value.isascii()
    assert value.isprintable()


def test_the_room_left_counts_the_request_itself():
    assert room(Limits(1000, 600).admit(300, now=0)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-remaining-tokens": "700",
    }


@pytest.mark.parametrize(
    "limits, now, wait_ms, wait, named",
    [
        (Limits(tokens_per_minute=1000), 58.7501, "1250", "2", "Token"),
        # The refused request counts, so the window begins again with it.
        (Limits(requests_per_minute=70), 5.0, "10286", "11", "Call"),
    ],
)
def test_a_rejection_names_the_limit_and_rounds_the_wait_up(limits, now, wait_ms, wait, named):
    for _ in range(12):
        limits.admit(1000 // 12 + 1, now=0)
    for _ in range(12):
        refused = limits.admit(1000, now)
    headers = rejection(refused)
    assert (headers["retry-after-ms"], headers["retry-after"]) == (wait_ms, wait)
    assert headers["policy-id"] == f"DeploymentRatelimit-{named}"
    kind = {"Token": "tokens", "Call": "requests"}[named]
    assert headers[f"x-ratelimit-reset-{kind}"] == wait
