import pytest

from proxy.core.config_document import shown
from proxy.errors import Unprocessable
from proxy.settings import ROOT
from proxy.web.config_import import HINTED, SHOWN_PROBLEMS, ConfigRefused, wanted
from proxy.web.config_text import from_yaml
from tests.builders import document, thing

KEY = "sk-planted-secret-3f2a"
PROXY = f"http://me:{KEY}@proxy:3128"
A = thing("instance", "a", api_key=KEY, proxy_url=PROXY, weight=7)
B = thing("instance", "b")
APP, GROUP, PRICE = (
    thing("client", "app", max_rpm=3),
    thing("quota_group", "east", max_rpm=7),
    thing("price", "gpt-4o*"),
)
ALL = document(instance=[A, B], client=[APP], quota_group=[GROUP], price=[PRICE])


def meant(given, present=ALL, *, prune=False):
    return wanted(given, present, prune=prune)[0]


def refused(given, present=ALL):
    with pytest.raises(ConfigRefused) as caught:
        wanted(given, present, prune=True)
    return caught.value


@pytest.mark.parametrize("prune", [True, False])
def test_sections_that_are_left_out_stay(prune):
    assert meant({}, prune=prune) == ALL
    (app,) = meant({"clients": [{"name": "app", "max_rpm": 4}]}, prune=prune)["clients"]
    assert app == APP | {"max_rpm": 4}
    without = meant({"clients": [{"name": "app", "max_rpm": 4}]}, prune=prune)
    assert without | {"clients": [APP]} == ALL


@pytest.mark.parametrize("prune, names", [(False, ["a", "b"]), (True, ["a"])])
def test_things_that_are_left_out_stay_unless_pruned(prune, names):
    found = meant({"instances": [{"name": "a"}]}, prune=prune)
    assert [each["name"] for each in found["instances"]] == names


def test_an_empty_section_that_is_pruned_is_emptied():
    assert meant({"clients": []}) == ALL
    assert meant({"clients": []}, prune=True) == ALL | {"clients": []}


def test_fields_that_are_left_out_stay_as_they_are():
    found = meant({"instances": [{"name": "a", "priority": 3}]})
    assert found["instances"] == [A | {"priority": 3}, B]


def test_of_what_is_new_they_are_the_defaults():
    given = {
        "instances": [{"name": "c", "api_base": "https://c", "api_key": "k"}],
        "quota_groups": [{"name": "west", "max_tpm": 5}],
        "clients": [{"name": "new"}],
        "prices": [PRICE | {"model": "o3"}],
    }
    assert meant(given, document()) == document(
        instance=[thing("instance", "c", api_base="https://c", api_key="k")],
        quota_group=[thing("quota_group", "west", max_tpm=5)],
        client=[thing("client", "new")],
        price=[thing("price", "o3")],
    )


def test_what_is_exported_is_what_is_there():
    for present in (ALL, document()):
        assert wanted(shown(present), present, prune=True) == (present, [])


def test_what_the_admin_api_shows_may_come_in():
    read_only = {"revision": 3, "created_at": 1.0, "updated_at": 2.0}
    given = {
        "instances": [{"name": "a", "api_key_set": True} | read_only],
        "quota_groups": [{"name": "east", "instances": ["a"]} | read_only],
        "clients": [{"name": "app"} | read_only],
        "prices": [PRICE | {"revision": 3, "updated_at": 2.0}],
    }
    assert meant(given) == ALL


def test_values_are_made_uniform_as_the_admin_api_does():
    given = {"instances": [{"name": "b", "provider_type": "generic", "proxy_url": ""}]}
    b = meant(given)["instances"][1]
    assert (b["provider_type"], b["proxy_url"]) == ("openai", None)
    ends = {"clients": [{"name": "app", "expires_at": "2030-01-31"}]}
    assert meant(ends)["clients"][0]["expires_at"] == 1_896_048_000.0


def test_a_masked_secret_stays_what_it_is():
    given = {
        "instances": [{"name": "a", "api_key": "***3f2a", "proxy_url": "http://***@proxy:3128"}]
    }
    assert wanted(given, ALL, prune=False) == (ALL, [])


def test_the_mask_of_another_key_keeps_the_present_one_and_says_so():
    document, notes = wanted(
        {"instances": [{"name": "a", "api_key": "***9999"}]}, ALL, prune=False
    )
    assert document == ALL
    assert notes == [
        "instance 'a': the masked api_key is of another key than the present one, which stays."
    ]


def test_a_masked_url_with_another_host_is_refused():
    error = refused({"instances": [{"name": "a", "proxy_url": "http://***@other:3128"}]})
    assert error.param == "instances[0].proxy_url"


@pytest.mark.parametrize(
    "field, value", [("api_key", "***3f2a"), ("proxy_url", "http://***@proxy:3128")]
)
def test_of_what_is_new_no_secret_could_be_kept(field, value):
    given = {"name": "c", "api_base": "https://c", "api_key": "k"} | {field: value}
    error = refused({"instances": [given]})
    assert error.message == (
        f"instances[0].{field}: Is masked, and there is none that could be kept; write it, or a"
        " reference such as env:NAME."
    )


def test_a_reference_passes_as_it_is():
    a, _ = meant({"instances": [{"name": "a", "api_key": "env:A_KEY"}]})["instances"]
    assert a["api_key"] == "env:A_KEY"


def test_everything_that_is_wrong_is_said_at_once():
    error = refused(
        {
            "instances": [
                {"name": "a", "weight": -1, "wieght": 3},
                {"name": "c", "api_base": "ftp://c"},
                "d",
                {"weight": 1},
                {"name": 7},
            ],
            "quota_groups": [{"name": "east", "model_limits": {"m": {"max_tpm": True}}}],
            "clients": [{"name": "app", "allowed_networks": ["10.0.0.0/8", "10.0.0.1/8"]}],
            "prices": {"model": "x"},
            "admins": [],
        }
    )
    assert error.status == 422
    assert error.param == "instances[0].weight"
    assert error.message.splitlines() == [
        "instances[0].weight: Must be greater than or equal to 0 and less than or equal to"
        " 2147483647. Given: -1.",
        "instances[0].wieght: Unknown field. Did you mean 'weight'?",
        'instances[1].api_base: Must be http:// or https:// and a host. Given: "ftp://c".',
        "instances[1].api_key: Missing data for required field.",
        "instances[2]: Must be a mapping of fields to values.",
        "instances[3].name: Is needed, and must be text.",
        "instances[4].name: Is needed, and must be text.",
        "quota_groups[0].model_limits.m.value.max_tpm: Not a valid integer.",
        "clients[0].allowed_networks.1: Has bits set behind its mask; write 10.0.0.0/8."
        ' Given: "10.0.0.1/8".',
        "prices: Must be a list.",
        "admins: Is no section; there are instances, quota_groups, clients, prices.",
    ]


def test_what_is_nearly_a_name_that_there_is_is_told_with_that():
    error = refused({"instnaces": [], "quota_groups": [{"name": "g", "max_tmp": 5}]})
    assert error.message.splitlines() == [
        "instnaces: Is no section; there are instances, quota_groups, clients, prices."
        " Did you mean 'instances'?",
        "quota_groups[0].max_tmp: Unknown field. Did you mean 'max_tpm'?",
    ]
    limits = {"model_limits": {"m": {"max_tmp": 5}}}
    error = refused({"quota_groups": [{"name": "g", **limits}]})
    assert error.message == (
        "quota_groups[0].model_limits.m.value.max_tmp: Unknown field. Did you mean 'max_tpm'?"
    )
    error = refused({"clients": [{"name": "app", "allowed_instances": ["bb"]}]})
    assert error.message == (
        'clients: "app" is to use "bb", and there is no such instance. Did you mean \'b\'?'
    )


def test_only_the_first_of_many_names_are_told_with_what_was_meant():
    wrong = [f"b{number}" for number in range(20)]
    error = refused({"clients": [{"name": "app", "allowed_instances": wrong}]})
    assert error.message.count("there is no such instance") == 20
    assert error.message.count("Did you mean 'b'?") == HINTED


def test_a_field_with_marshmallows_name_for_the_whole_is_unknown_as_others_are():
    error = refused({"instances": [{"name": "a", "_schema": 1}]})
    assert (error.param, error.message) == ("instances[0]", "instances[0]: Unknown field.")


def test_a_name_that_stands_twice_is_refused():
    error = refused({"clients": [{"name": "app"}, {"name": "app"}]})
    assert error.message == 'clients[1].name: "app" stands twice in clients.'


@pytest.mark.parametrize("given", [None, [], "instances", 7])
def test_what_is_no_document_is_refused(given):
    error = refused(given)
    assert error.message.startswith(
        "A mapping with any of these sections is needed: instances,"
    )
    assert error.param is None


def test_a_section_without_a_value_is_not_an_empty_one():
    assert refused({"clients": None}).message == "clients: Must be a list."


@pytest.mark.parametrize("cached", [{}, {"cached_per_million": None}])
def test_tokens_from_the_cache_cost_what_others_do_unless_it_is_said(cached):
    given = {"model": "o3", "prompt_per_million": 4.0, "completion_per_million": 8.0} | cached
    (found,) = meant({"prices": [given]}, document())["prices"]
    assert found == given | {"cached_per_million": 4.0}
    stays = meant({"prices": [{"model": "gpt-4o*", "prompt_per_million": 4.0}]})["prices"]
    assert stays == [PRICE | {"prompt_per_million": 4.0}]


def test_a_client_is_not_to_use_an_instance_that_there_is_not():
    error = refused({"clients": [{"name": "app", "allowed_instances": ["b", "misspelt"]}]})
    assert error.message == (
        'clients: "app" is to use "misspelt", and there is no such instance.'
    )
    new = {"name": "c", "api_base": "https://c", "api_key": "k"}
    both = {"instances": [new], "clients": [{"name": "app", "allowed_instances": ["c"]}]}
    assert meant(both)["clients"][0]["allowed_instances"] == ["c"]
    # What was so before is left alone.
    gone = document(client=[thing("client", "app", allowed_instances=["gone"])])
    assert meant(shown(gone), gone, prune=True) == gone


def test_one_model_has_one_price_however_it_is_spelt():
    error = refused({"prices": [PRICE, PRICE | {"model": "GPT-4o*"}]})
    assert error.message == 'prices: "GPT-4o*" and "gpt-4o*" are the same model.'
    renamed = meant({"prices": [PRICE | {"model": "GPT-4o*"}]}, prune=True)
    assert [price["model"] for price in renamed["prices"]] == ["GPT-4o*"]


def test_a_key_that_is_no_text_is_refused():
    assert refused({"clients": [{"name": "app", 1: 2}]}).param == "clients[0]"


def test_of_very_many_errors_the_first_are_said():
    given = {"clients": [{"name": f"c{n}", "max_rpm": -1} for n in range(SHOWN_PROBLEMS + 5)]}
    lines = refused(given).message.splitlines()
    assert (len(lines), lines[-1]) == (SHOWN_PROBLEMS + 1, "And 5 more.")


def test_no_secret_is_in_an_error():
    given = {
        "name": "c",
        "api_key": f" {KEY}",
        "api_base": f"https://u:{KEY}@h",
        "proxy_url": KEY,
    }
    error = refused({"instances": [given | {"api-key": KEY}]})
    assert isinstance(error, Unprocessable)
    assert len(error.message.splitlines()) == 4
    assert KEY not in error.message


def test_the_present_document_is_left_as_it_was():
    before = document(instance=[A, B], client=[APP], quota_group=[GROUP], price=[PRICE])
    meant({"instances": [{"name": "a", "weight": 1}], "clients": []}, prune=True)
    assert before == ALL


def test_the_example_in_the_readme_is_one():
    example = (ROOT / "README.md").read_text().split("```yaml\ninstances:")[1].split("```")[0]
    found = meant(from_yaml(b"instances:" + example.encode()), document())
    counts = {name: len(things) for name, things in found.items()}
    assert counts == {"instances": 2, "quota_groups": 1, "clients": 1, "prices": 1}
