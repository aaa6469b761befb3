import pytest

from proxy.core.config_document import OF_KIND, SECTIONS, made, placed, plain, shown
from proxy.core.types import InstanceConfig
from tests.builders import config, document, thing

SECRET = "sk-planted-secret-3f2a"
EMPTY = {"instances": [], "quota_groups": [], "clients": [], "prices": []}


def test_without_anything_it_has_all_its_sections():
    assert made([]) == EMPTY


def test_the_things_of_a_section_are_in_the_order_of_their_names():
    found = document(
        instance=[thing("instance", "b"), thing("instance", "a")],
        price=[thing("price", "gpt-4o*"), thing("price", "gpt-4")],
    )
    assert [each["name"] for each in found["instances"]] == ["a", "b"]
    assert [each["model"] for each in found["prices"]] == ["gpt-4", "gpt-4o*"]


def test_a_thing_has_the_fields_of_config_and_no_others():
    row = thing("client", "app") | {"key_hash": "ab", "number": 3, "created_at": 1.0}
    (found,) = made([("client", row)])["clients"]
    assert set(found) == set(OF_KIND["client"].fields)
    assert not {"key_hash", "number", "created_at"} & set(found)


def test_values_are_plain_and_nobody_elses():
    models = ["gpt-4o"]
    given = thing("instance", "a", supported_models=models)
    (found,) = made([("instance", given)])["instances"]
    models.append("o3")
    assert found["supported_models"] == ["gpt-4o"]
    assert plain({"a": ({"b": (1,)},)}) == {"a": [{"b": [1]}]}


def test_an_instance_that_only_says_what_it_must_has_the_defaults_of_its_type():
    section = OF_KIND["instance"]
    assert section.required == ("name", "api_base", "api_key")
    for field, default in section.defaults.items():
        assert default == plain(getattr(config("a"), field)), field
    assert set(section.fields) == set(InstanceConfig.__slots__)


@pytest.mark.parametrize("limits, count", [({}, 0), ({"max_rpm": 1}, 1)])
def test_a_quota_group_without_limits_is_none(limits, count):
    found = document(quota_group=[thing("quota_group", "east", **limits)])
    assert len(found["quota_groups"]) == count


def test_a_place_is_the_kind_and_the_name():
    found = document(
        instance=[thing("instance", "x")],
        client=[thing("client", "x")],
        price=[thing("price", "x")],
    )
    assert list(placed(found)) == [("instance", "x"), ("client", "x"), ("price", "x")]


def test_what_is_shown_has_masks_for_secrets_and_references_as_they_are():
    proxy = f"http://me:{SECRET}@proxy:3128"
    secret = thing("instance", "a", api_key=SECRET, proxy_url=proxy)
    reference = thing("instance", "b", api_key="env:B_KEY", proxy_url="file:/run/proxy")
    a, b = shown(document(instance=[secret, reference]))["instances"]
    assert (a["api_key"], a["proxy_url"]) == ("***3f2a", "http://***@proxy:3128")
    assert b == reference


def test_what_is_shown_is_plain_text_also_of_a_secret_that_could_not_be_read():
    class Unreadable(str):
        __slots__ = ()

    (found,) = shown(document(instance=[thing("instance", "a", api_key=Unreadable())]))[
        "instances"
    ]
    assert (found["api_key"], type(found["api_key"])) == ("", str)


def test_every_section_has_a_name_and_a_kind_of_its_own():
    assert len({s.name for s in SECTIONS}) == len({s.kind for s in SECTIONS}) == len(SECTIONS)
