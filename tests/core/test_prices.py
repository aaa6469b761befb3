import pytest

from proxy.core.prices import NO_PRICES, Price, Prices, cost_nano, find
from proxy.core.types import Usage

CHEAP, USUAL, DEAR = Price(1, 0.5, 2), Price(2.5, 1.25, 10), Price(15, 7.5, 60)


@pytest.mark.parametrize(
    "model, price",
    [
        ("gpt-4o", DEAR),  # the very name, before any beginning
        ("gpt-4o-mini", USUAL),  # the longest beginning
        ("gpt-4o-mini-2024-07-18", USUAL),
        ("gpt-4.1", CHEAP),
        ("gpt-4", CHEAP),  # nothing is a beginning, too
        ("GPT-4O", DEAR),  # as models are found: without regard to case
        ("o3", None),
        ("my-gpt-4o", None),
        ("", None),
    ],
)
def test_a_model_has_the_price_of_its_name_or_of_the_longest_beginning(model, price):
    prices = Prices({"gpt-4*": CHEAP, "gpt-4o-*": USUAL, "GPT-4o": DEAR})
    assert find(prices, model) == price


def test_a_star_alone_is_the_price_of_all_others():
    prices = Prices({"*": CHEAP, "o3": DEAR})
    assert (find(prices, "o3"), find(prices, "gpt-4o")) == (DEAR, CHEAP)
    assert find(NO_PRICES, "o3") is None
    assert Prices({"*": CHEAP})


@pytest.mark.parametrize(
    "names, price",
    [
        (("my-4o", "gpt-4o"), DEAR),  # the star is for those that have none
        (("gpt-4o", "o3"), DEAR),
        (("prod-4o", "gpt-4o"), USUAL),  # who prices a deployment means it
        (("my-o3", "o3"), CHEAP),
    ],
)
def test_of_several_names_the_first_that_has_a_price_decides(names, price):
    prices = Prices({"*": CHEAP, "prod-*": USUAL, "gpt-4o": DEAR})
    assert find(prices, *names) == price


@pytest.mark.parametrize(
    "usage, nano",
    [
        (Usage(1_000_000, 0), 2_500_000_000),
        (Usage(0, 1_000_000), 10_000_000_000),
        (Usage(1000, 100), 3_500_000),
        (Usage(1000, 0, cached_tokens=600), 1_750_000),
        (Usage(1000, 0, cached_tokens=1000), 1_250_000),
        # An upstream that counts oddly gives nothing back.
        (Usage(1000, 0, cached_tokens=5000), 1_250_000),
        (Usage(1, 0), 2_500),
        (Usage(), 0),
    ],
)
def test_a_call_costs_what_its_tokens_cost_each_kind_at_its_price(usage, nano):
    assert cost_nano(USUAL, usage) == nano


def test_a_cost_is_a_whole_number_of_billionths():
    assert cost_nano(Price(0.0001, 0, 0), Usage(1, 0)) == 0
    assert cost_nano(Price(0.0006, 0, 0), Usage(1, 0)) == 1
