from dataclasses import MISSING, fields

import pytest

from proxy.core.types import InstanceConfig
from proxy.errors import Unprocessable
from proxy.web.schemas import checked
from proxy.web.schemas_fields import READ_ONLY
from proxy.web.schemas_instances import (
    InstanceChangeSchema,
    InstanceConfigSchema,
    InstanceSchema,
    checked_old_instance,
    without_masks,
)
from tests.builders import config

FEWEST = {"name": "a", "api_base": "https://h", "api_key": "k"}
GIVEN = ("name", "api_base", "api_key")


def loaded(**changes):
    return checked(InstanceSchema(), FEWEST | changes)


def refused(schema, data, **arguments):
    with pytest.raises(Unprocessable) as caught:
        checked(schema, data, **arguments)
    return caught.value


def test_the_schema_has_the_fields_and_defaults_of_a_config():
    values = loaded()
    assert set(values) == {f.name for f in fields(InstanceConfig)}
    for field in fields(InstanceConfig):
        if field.name in GIVEN:
            continue
        made = field.default_factory is not MISSING
        default = field.default_factory() if made else field.default
        value = values[field.name]
        assert (tuple(value) if isinstance(value, list) else value) == default, field.name


def test_what_a_config_shows_is_all_in_its_schema():
    shown = {f.name for f in fields(InstanceConfig)} | READ_ONLY
    assert set(InstanceConfigSchema().fields) == shown


def test_each_new_config_has_its_own_empty_lists():
    assert loaded()["model_deployments"] is not loaded()["model_deployments"]
    assert loaded()["supported_models"] is not loaded()["supported_models"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "x" * 100),
        ("name", "Azure East US/1"),
        ("name", "new york"),
        ("name", "a/new/b"),
        ("name", "config/a"),
        ("name", "...a"),
        ("name", "a.b"),
        ("name", "名前"),
        ("api_key", "NONE"),
        ("api_key", "!~" * 2000),
        ("api_base", "http://127.0.0.1:65535/path"),
        ("api_base", "https://[::1]:8443"),
        ("api_base", "http://10.0.0.4"),
        ("proxy_url", "http://192.168.0.1:3128"),
        ("api_base", "HTTPS://res.openai.azure.com/"),
        ("api_version", "2024-10-21-preview"),
        ("api_version", "preview"),
        ("proxy_url", "http://user:p%40ss@h:8080"),
        ("proxy_url", "http://üser:pässwörd@h"),
        ("proxy_url", "http://***:x@h"),
        ("proxy_url", None),
        ("priority", -(2**31 - 1)),
        ("priority", 2**31 - 1),
        ("weight", 0),
        ("max_tpm", 2**31 - 1),
        ("retry_count", 100),
        ("timeout_seconds", 3600),
        ("timeout_seconds", 0.001),
        ("supported_models", []),
        ("supported_models", ["gpt-4o", "GPT-4o"]),
        ("model_deployments", {"a/b c": "x" * 200}),
        ("enabled", False),
    ],
)
def test_what_can_be_used_is_kept_as_it_is(field, value):
    assert loaded(**{field: value})[field] == value


def test_the_old_name_of_a_provider_means_the_new_one():
    assert loaded(provider_type="generic")["provider_type"] == "openai"
    change = InstanceChangeSchema(partial=True)
    values = checked(change, {"provider_type": "generic"}, partial=True)
    assert values == {"provider_type": "openai"}


def test_a_change_has_no_defaults():
    change = InstanceChangeSchema(partial=True)
    assert checked(change, {}, partial=True) == {}


def test_what_is_only_shown_may_come_back_without_effect():
    read_only = {"api_key_set": False, "revision": "x", "created_at": None, "updated_at": []}
    assert loaded(**read_only) == loaded()


@pytest.mark.parametrize(
    "given, kept",
    [
        ({"api_key": "***6789"}, {}),
        ({"proxy_url": "http://***@h:1"}, {}),
        ({"api_key": "***1234"}, {"api_key": "***1234"}),
        ({"api_key": "new"}, {"api_key": "new"}),
        ({"proxy_url": "http://h:1"}, {"proxy_url": "http://h:1"}),
        ({"proxy_url": None}, {"proxy_url": None}),
        ({"priority": 1, "api_key": "***6789"}, {"priority": 1}),
    ],
)
def test_a_secret_that_comes_back_as_it_was_shown_is_no_change(given, kept):
    present = config(api_key="a-key-of-0123456789", proxy_url="http://u:p@h:1")
    assert without_masks(given, present) == kept


def test_without_an_app_the_settings_say_whether_a_metadata_address_is_allowed(monkeypatch):
    """An import by a migration has none."""
    values = FEWEST | {"api_base": "http://169.254.169.254"}
    config, wrong = checked_old_instance(values)
    assert (config, [path for _, path in wrong]) == ({}, [["api_base"]])
    monkeypatch.setenv("PROXY_ALLOW_PRIVATE_UPSTREAMS", "true")
    assert checked_old_instance(values)[1] == []


# How an instance knows us.

BY_TOKEN = {"name": "a", "api_base": "https://h", "auth": "entra"}


def test_an_instance_with_a_token_of_entra_id_needs_no_key():
    values = checked(InstanceSchema(), BY_TOKEN)
    assert (values["auth"], values["api_key"]) == ("entra", "NONE")


def test_it_may_have_one_all_the_same():
    values = checked(InstanceSchema(), BY_TOKEN | {"api_key": "k"})
    assert values["api_key"] == "k"


@pytest.mark.parametrize("auth", [{}, {"auth": "key"}])
def test_any_other_needs_a_key(auth):
    without = {k: v for k, v in FEWEST.items() if k != "api_key"}
    error = refused(InstanceSchema(), without | auth)
    assert (error.param, error.message) == (
        "api_key",
        "api_key: Missing data for required field.",
    )


@pytest.mark.parametrize("auth", ["entra", "key"])
def test_a_change_of_auth_alone_leaves_the_key_alone(auth):
    schema = InstanceChangeSchema(partial=True)
    assert checked(schema, {"auth": auth}, partial=True) == {"auth": auth}


@pytest.mark.parametrize("auth", ["", "Entra", "token", None, 1])
def test_another_auth_is_refused(auth):
    assert refused(InstanceSchema(), FEWEST | {"auth": auth}).param == "auth"


@pytest.mark.parametrize("key", ["$AZURE_KEY", "${AZURE_KEY}"])
def test_a_key_that_names_a_variable_is_refused_but_where_an_older_program_left_it(key):
    error = refused(InstanceSchema(), FEWEST | {"api_key": key})
    assert error.param == "api_key"
    assert "env:NAME" in error.message
    assert key not in error.message
    assert "env:NAME" in refused(InstanceChangeSchema(partial=True), {"api_key": key}).message
    config, wrong = checked_old_instance(FEWEST | {"api_key": key})
    assert (config["api_key"], wrong) == (key, [])
