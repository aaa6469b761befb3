import pytest

from proxy.web.ui import standing
from tests.web.ui.conftest import HURRIED


@pytest.fixture
def found(world):
    def find():
        return {s.name: s for s in standing.standings(world.parts)}

    with world.app.app_context():
        yield find


def test_a_deployment_that_rests_leaves_the_others_of_its_instance_their_budget(world, found):
    world.add("a", supported_models=["gpt-4o", "o3"], max_tpm=1000)
    world.simulator["a"].faults["gpt-4o"] = "429"
    world.ask(headers=HURRIED)
    one = found()["a"]
    assert (one.status, one.deployments) == ("rate_limited", ("gpt-4o",))
    assert one.until > 0
    budgets = {b.model: b for b in standing.budgets(world.parts, [one])}
    assert budgets["gpt-4o"].available == 0
    assert budgets["o3"].left_share == 1.0


def test_the_budget_is_what_any_limit_leaves(world, found):
    limits = {"gpt-4o": {"max_tpm": 1000}}
    world.add("a", supported_models=["gpt-4o"], max_tpm=100_000, model_limits=limits)
    world.ask()
    (budget,) = standing.budgets(world.parts, found().values())
    used = found()["a"].state["current_tpm"]
    assert used > 0
    assert (budget.max_tpm, budget.left) == (1000, 1000 - used)


def test_what_a_breaker_keeps_away_says_until_when_and_why(world, found):
    world.add("a")
    world.simulator["a"].faults["*"] = "500"
    for _ in range(5):
        world.ask()
    one = found()["a"]
    assert one.status == "error"
    assert one.reason.startswith("500: ")
    assert one.until is not None


def test_one_that_is_switched_off_is_that_first_of_all(world, found):
    world.add("a", enabled=False)
    assert (found()["a"].status, found()["a"].words) == ("disabled", "disabled")
    assert standing.of_all(list(found().values()), []).level == "bad"


def test_without_limits_that_hold_there_is_no_bar(world, found):
    world.add("a", rate_limit_enabled=False)
    assert found()["a"].max_tpm == 0
