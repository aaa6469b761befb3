import pytest

from proxy.simulator.faults import FAULTS, Faults, of_name, parsed


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_chosen_by_a_deployments_name(name):
    assert of_name(f"gpt-4o-fault-{name}") is FAULTS[name]
    assert of_name(f"fault-{name}-eu") is FAULTS[name]


@pytest.mark.parametrize(
    "name", ["gpt-4o", "429", "default-500", "fault-unheard-of", "fault-5000"]
)
def test_other_names_mean_nothing(name):
    assert of_name(name) is None


@pytest.mark.parametrize(
    "text, expected",
    [("500", ("500", None)), ("500*2", ("500", 2)), ("429-ms*1", ("429-ms", 1))],
)
def test_a_fault_may_say_how_often(text, expected):
    assert parsed(text) == expected


@pytest.mark.parametrize("text", ["", "nonsense", "500*", "500*0", "500*-1", "500*x", "*2"])
def test_a_fault_nobody_knows_is_refused(text):
    with pytest.raises(ValueError, match=r"no fault named|after the \* comes"):
        Faults()["gpt-4o"] = text


def test_the_refusal_names_the_faults_there_are():
    with pytest.raises(ValueError, match=r"no fault named 'nonsense'; there are 429, .*hang.*"):
        Faults()["gpt-4o"] = "nonsense"


def test_a_counted_fault_removes_itself():
    faults = Faults()
    faults["gpt-4o"] = "500*2"
    assert faults.take("gpt-4o") is FAULTS["500"]
    assert faults["gpt-4o"] == "500*1"
    assert faults.take("gpt-4o") is FAULTS["500"]
    assert faults.take("gpt-4o") is None
    assert dict(faults) == {}


def test_what_was_set_wins_over_the_star_and_that_over_the_name():
    faults = Faults()
    faults["*"] = "hang"
    faults["a-fault-401"] = "500*1"
    taken = [faults.take("a-fault-401") for _ in range(2)]
    del faults["*"]
    assert [*taken, faults.take("a-fault-401")] == [
        FAULTS["500"],
        FAULTS["hang"],
        FAULTS["401"],
    ]


def test_another_deployments_fault_is_no_concern():
    faults = Faults()
    faults["a"] = "500*1"
    assert faults.take("b") is None
    assert len(faults) == 1


def test_clear_takes_them_all_away():
    faults = Faults()
    faults.update({"a": "500", "*": "hang*3"})
    faults.clear()
    assert faults.take("a") is None
