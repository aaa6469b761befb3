import pytest

from proxy.core.catalog import Catalog, deployment
from tests.builders import config


def found(catalog, model):
    return [(s.config.name, s.deployment) for s in catalog.serving(model)]


def test_those_who_name_a_model_come_in_the_order_of_the_configs_then_those_who_serve_any():
    catalog = Catalog(
        [
            config("any-1"),
            config("b", supported_models=("gpt-4o",)),
            config("any-2"),
            config("a", supported_models=("o3", "gpt-4o")),
            config("other", supported_models=("o3",)),
        ]
    )
    assert [name for name, _ in found(catalog, "gpt-4o")] == ["b", "a", "any-1", "any-2"]


def test_an_unknown_model_is_served_by_those_who_serve_any():
    catalog = Catalog([config("a", supported_models=("gpt-4o",)), config("any")])
    assert found(catalog, "o3") == [("any", "o3")]


def test_nobody_serves_what_nobody_names():
    assert Catalog([config(supported_models=("gpt-4o",))]).serving("o3") == ()
    assert Catalog([]).serving("o3") == ()


@pytest.mark.parametrize("asked", ["gpt-4o", "GPT-4O", "Gpt-4o"])
def test_case_does_not_matter_and_each_instance_keeps_its_own_spelling(asked):
    catalog = Catalog(
        [
            config("a", supported_models=("gpt-4o",)),
            config("b", supported_models=("GPT-4o",)),
        ]
    )
    assert found(catalog, asked) == [("a", "gpt-4o"), ("b", "GPT-4o")]


def test_one_who_serves_any_model_gets_the_clients_spelling():
    # Names are case-sensitive to many upstreams, and nobody told us this one's.
    catalog = Catalog([config("a", supported_models=("llama-3",)), config("any")])
    assert found(catalog, "Llama-3") == [("a", "llama-3"), ("any", "Llama-3")]


@pytest.mark.parametrize(
    "asked, by",
    [
        ("gpt-4o", "lower"),
        ("GPT-4O", "upper"),
        ("Gpt-4o", "upper"),  # neither is exact: the first that it lists
    ],
)
def test_two_spellings_in_one_instance_are_two_models_with_their_own_deployments(asked, by):
    both = config(
        supported_models=("GPT-4O", "gpt-4o"),
        model_deployments={"gpt-4o": "lower", "GPT-4O": "upper"},
    )
    assert found(Catalog([both]), asked) == [("a", by)]


@pytest.mark.parametrize(
    "deployments, name",
    [
        ({}, "gpt-4o"),
        ({"gpt-4o": "east"}, "east"),
        ({"GPT-4o": "east"}, "east"),
        ({"GPT-4o": "west", "gpt-4o": "east"}, "east"),  # the exact spelling wins
        ({"gpt-4o-mini": "small"}, "gpt-4o"),  # no part of a name matches
        ({"gpt-4o": ""}, ""),
    ],
)
def test_a_deployment_has_the_models_name_unless_the_config_says_another(deployments, name):
    assert deployment(config(model_deployments=deployments), "gpt-4o") == name


def test_a_model_that_only_has_a_deployment_is_not_served_by_who_lists_others():
    listed = config(supported_models=("o3",), model_deployments={"gpt-4o": "east"})
    assert Catalog([listed]).serving("gpt-4o") == ()


def test_models_are_those_that_are_named_sorted_and_each_once():
    catalog = Catalog(
        [
            config("a", supported_models=("o3", "gpt-4o"), model_deployments={"hidden": "x"}),
            config("b", supported_models=("gpt-4o", "GPT-4o")),
            config("any", model_deployments={"llama-3": "x", "o3": "y"}),
        ]
    )
    assert catalog.models() == ["GPT-4o", "gpt-4o", "llama-3", "o3"]


def test_what_one_without_any_names_serves_nobody_knows():
    assert Catalog([config()]).models() == []


def test_the_catalog_reads_its_configs_once():
    catalog = Catalog(c for c in (config("a", supported_models=("o3",)), config("any")))
    assert found(catalog, "o3") == [("a", "o3"), ("any", "o3")]


def test_a_known_model_is_looked_up_and_not_searched_for():
    catalog = Catalog([config(supported_models=("gpt-4o",))])
    assert catalog.pool("gpt-4o") is catalog.pool("gpt-4o")


def test_a_pool_has_those_who_serve_the_model():
    catalog = Catalog([config("a", supported_models=("o3",)), config("any")])
    assert catalog.pool("o3").servings == catalog.serving("o3")


def test_pools_of_models_that_clients_invent_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr("proxy.core.catalog.MAX_POOLS", 3)
    catalog = Catalog([config()])
    for number in range(20):
        assert catalog.serving(f"model-{number}")
    assert len(catalog._pools) <= 4


def test_parts_for_clients_are_not_kept_for_ever_either(monkeypatch):
    monkeypatch.setattr("proxy.core.catalog.MAX_PARTS", 3)
    catalog = Catalog([config("a")])
    for number in range(20):
        assert catalog.pool(f"model-{number}", ("a",)).servings
    assert len(catalog._parts) <= 3


def test_of_a_pool_there_may_be_a_part_that_knows_who_is_left_out():
    a, b, other = (config(n, supported_models=("gpt-4o",)) for n in ("a", "b", "other"))
    catalog = Catalog([a, b, other, config("o", supported_models=("o3",))])
    part = catalog.pool("gpt-4o", ("b", "a", "unknown"))
    assert [s.config.name for s in part.servings] == ["a", "b"]
    assert part.barred == {"other"}
    assert [s.config.name for s in catalog.pool("gpt-4o").servings] == ["a", "b", "other"]
    assert catalog.pool("gpt-4o").barred == frozenset()
    assert (catalog.pool("o3", ("a",)).servings, catalog.pool("o3", ("a",)).barred) == (
        (),
        {"o"},
    )


def test_a_part_is_made_once_too_and_for_others_with_the_same_restriction():
    catalog = Catalog([config("a"), config("b")])
    part = catalog.pool("gpt-4o", ("a",))
    assert catalog.pool("gpt-4o", ("a",)) is part
    assert catalog.pool("gpt-4o", ("b",)) is not part
    assert catalog.pool("o3", ("a",)) is not part
    assert catalog.pool("gpt-4o", ("a",)).servings[0] is catalog.pool("gpt-4o").servings[0]


def test_models_are_those_of_the_instances_that_may_be_used():
    catalog = Catalog(
        [
            config("a", supported_models=("gpt-4o", "o3")),
            config("b", supported_models=("o3", "o1")),
            config("any", model_deployments={"llama": "llama-deployment"}),
        ]
    )
    assert catalog.models(("b",)) == ["o1", "o3"]
    assert catalog.models(("any", "b")) == ["llama", "o1", "o3"]
    assert catalog.models(("unknown",)) == []


@pytest.mark.parametrize("asked", ["gpt-4o", "GPT-4O", "Gpt-4o"])
@pytest.mark.parametrize("order", [1, -1])
def test_usage_of_a_model_is_kept_under_one_name_however_it_is_spelt(asked, order):
    both = [
        config("a", supported_models=("gpt-4o",)),
        config("b", supported_models=("GPT-4o",)),
    ]
    assert Catalog(both[::order]).spelling(asked) == "gpt-4o"


def test_two_models_whose_names_differ_by_case_are_kept_apart():
    catalog = Catalog([config("a", supported_models=("m", "M"))])
    assert (catalog.spelling("m"), catalog.spelling("M")) == ("m", "M")


def test_a_config_names_models_and_deployments():
    named = config("a", model_deployments={"GPT-4o": "Prod", "o3": "gpt-4O"})
    catalog = Catalog([named, config("any")])
    assert [catalog.spelling(m) for m in ("gpt-4o", "prod", "o1")] == ["GPT-4o", "Prod", None]
