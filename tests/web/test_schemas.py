from dataclasses import MISSING, fields

import pytest

from proxy.core.masking import masked
from proxy.core.types import InstanceConfig
from proxy.errors import Unprocessable
from proxy.web import schemas
from tests.builders import config

FEWEST = {"name": "a", "api_base": "https://h", "api_key": "k"}
GIVEN = ("name", "api_base", "api_key")


def loaded(**changes):
    return schemas.checked(schemas.InstanceSchema(), FEWEST | changes)


def refused(schema, data, **arguments):
    with pytest.raises(Unprocessable) as caught:
        schemas.checked(schema, data, **arguments)
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
    shown = {f.name for f in fields(InstanceConfig)} | schemas.READ_ONLY
    assert set(schemas.InstanceConfigSchema().fields) == shown


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
    change = schemas.InstanceChangeSchema(partial=True)
    values = schemas.checked(change, {"provider_type": "generic"}, partial=True)
    assert values == {"provider_type": "openai"}


def test_a_change_has_no_defaults():
    change = schemas.InstanceChangeSchema(partial=True)
    assert schemas.checked(change, {}, partial=True) == {}


def test_what_is_only_shown_may_come_back_without_effect():
    read_only = {"api_key_set": False, "revision": "x", "created_at": None, "updated_at": []}
    assert loaded(**read_only) == loaded()


@pytest.mark.parametrize("data", [None, [], "a", 5, True])
def test_only_an_object_can_be_read(data):
    error = refused(schemas.InstanceSchema(), data)
    assert (error.message, error.param) == ("A JSON object is needed.", None)
    assert refused(schemas.InstanceSchema(), data, at="3.").message.startswith("3: A JSON")


def test_a_value_is_shown_where_it_stands():
    deployments = {"gpt-4.1": "east", "x": [1, {"y": 2}]}
    error = refused(schemas.InstanceSchema(), FEWEST | {"model_deployments": deployments})
    assert error.param == "model_deployments.x.value"
    assert error.message.endswith('Given: [1,{"y":2}].')


def test_of_a_long_value_the_beginning_is_shown():
    error = refused(schemas.InstanceSchema(), FEWEST | {"api_version": "x" * 10_000})
    assert len(error.message) < 200


def test_a_missing_field_shows_nothing_else():
    body = {"name": "a", "api_key": "planted"}
    error = refused(schemas.InstanceSchema(), body)
    assert error.message == "api_base: Missing data for required field."


def test_all_that_is_wrong_is_told_the_first_as_the_errors_own():
    body = FEWEST | {"api_key": "", "max_tpm": -1, "timeout_seconds": "soon", "prority": 3}
    error = refused(schemas.InstanceSchema(), body)
    assert error.param == "api_key"
    assert error.message.startswith("api_key: Length must be between 1 and 4000.")
    assert " Besides, max_tpm: Must be " in error.message
    assert " Given: -1. Besides, timeout_seconds: Not a valid number." in error.message
    assert error.message.endswith(' Unknown besides: "prority".')


def test_of_much_that_is_wrong_some_is_told():
    names = ("max_tpm", "max_rpm", "priority", "timeout_seconds", "enabled", "max_input_tokens")
    error = refused(schemas.InstanceSchema(), FEWEST | {key: [] for key in ("name", *names)})
    assert error.message.count(" Besides, ") == schemas.MAX_BESIDES


def test_a_secret_that_is_wrong_besides_is_not_shown():
    body = FEWEST | {"max_tpm": -1, "proxy_url": "ftp://user:planted@h", "api_key": ["planted"]}
    error = refused(schemas.InstanceSchema(), body)
    assert "api_key" in error.message
    assert "proxy_url" in error.message
    assert "planted" not in error.message


def test_what_is_misspelt_is_told_with_what_is_missing():
    body = {"name": "a", "api_key": "planted", "api_bas": "https://planted.example"}
    error = refused(schemas.InstanceSchema(), body)
    missing = "api_base: Missing data for required field."
    assert (error.param, error.message) == (
        "api_base",
        f'{missing} Unknown besides: "api_bas".',
    )


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
    assert schemas.without_masks(given, present) == kept


def test_what_marks_a_masked_secret_is_what_masking_writes():
    assert masked("api_key", "a-key-of-0123456789").startswith(schemas.MASK)
    assert masked("proxy_url", "http://u:p@h") == f"http://{schemas.MASK}@h"


def test_numbers_without_sense_do_not_pass_as_floats():
    for value in (float("nan"), float("inf"), True, "3"):
        field = schemas.StrictFloat()
        with pytest.raises(schemas.ValidationError):
            field.deserialize(value)


def test_without_an_app_the_settings_say_whether_a_metadata_address_is_allowed(monkeypatch):
    """An import by a migration has none."""
    values = FEWEST | {"api_base": "http://169.254.169.254"}
    config, wrong = schemas.checked_instance(values)
    assert (config, [path for _, path in wrong]) == ({}, [["api_base"]])
    monkeypatch.setenv("PROXY_ALLOW_PRIVATE_UPSTREAMS", "true")
    assert schemas.checked_instance(values)[1] == []


# How an instance knows us.

BY_TOKEN = {"name": "a", "api_base": "https://h", "auth": "entra"}


def test_an_instance_with_a_token_of_entra_id_needs_no_key():
    values = schemas.checked(schemas.InstanceSchema(), BY_TOKEN)
    assert (values["auth"], values["api_key"]) == ("entra", "NONE")


def test_it_may_have_one_all_the_same():
    values = schemas.checked(schemas.InstanceSchema(), BY_TOKEN | {"api_key": "k"})
    assert values["api_key"] == "k"


@pytest.mark.parametrize("auth", [{}, {"auth": "key"}])
def test_any_other_needs_a_key(auth):
    without = {k: v for k, v in FEWEST.items() if k != "api_key"}
    error = refused(schemas.InstanceSchema(), without | auth)
    assert (error.param, error.message) == (
        "api_key",
        "api_key: Missing data for required field.",
    )


@pytest.mark.parametrize("auth", ["entra", "key"])
def test_a_change_of_auth_alone_leaves_the_key_alone(auth):
    schema = schemas.InstanceChangeSchema(partial=True)
    assert schemas.checked(schema, {"auth": auth}, partial=True) == {"auth": auth}


@pytest.mark.parametrize("auth", ["", "Entra", "token", None, 1])
def test_another_auth_is_refused(auth):
    assert refused(schemas.InstanceSchema(), FEWEST | {"auth": auth}).param == "auth"
