import pytest

from proxy.errors import Unprocessable
from proxy.web.schemas import MAX_BESIDES, checked
from proxy.web.schemas_config import DiffQuerySchema
from proxy.web.schemas_instances import InstanceSchema

FEWEST = {"name": "a", "api_base": "https://h", "api_key": "k"}


def refused(schema, data, **arguments):
    with pytest.raises(Unprocessable) as caught:
        checked(schema, data, **arguments)
    return caught.value


@pytest.mark.parametrize("data", [None, [], "a", 5, True])
def test_only_an_object_can_be_read(data):
    error = refused(InstanceSchema(), data)
    assert (error.message, error.param) == ("A JSON object is needed.", None)
    assert refused(InstanceSchema(), data, at="3.").message.startswith("3: A JSON")


def test_a_value_is_shown_where_it_stands():
    deployments = {"gpt-4.1": "east", "x": [1, {"y": 2}]}
    error = refused(InstanceSchema(), FEWEST | {"model_deployments": deployments})
    assert error.param == "model_deployments.x.value"
    assert error.message.endswith('Given: [1,{"y":2}].')


def test_of_a_long_value_the_beginning_is_shown():
    error = refused(InstanceSchema(), FEWEST | {"api_version": "x" * 10_000})
    assert len(error.message) < 200


def test_a_missing_field_shows_nothing_else():
    body = {"name": "a", "api_key": "planted"}
    error = refused(InstanceSchema(), body)
    assert error.message == "api_base: Missing data for required field."


def test_all_that_is_wrong_is_told_the_first_as_the_errors_own():
    body = FEWEST | {"api_key": "", "max_tpm": -1, "timeout_seconds": "soon", "prority": 3}
    error = refused(InstanceSchema(), body)
    assert error.param == "api_key"
    assert error.message.startswith("api_key: Length must be between 1 and 4000.")
    assert " Besides, max_tpm: Must be " in error.message
    assert " Given: -1. Besides, timeout_seconds: Not a valid number." in error.message
    assert error.message.endswith(" Unknown besides: \"prority\". Did you mean 'priority'?")


def test_what_is_misspelt_is_told_with_what_is_meant_as_it_is_written_outside():
    error = refused(DiffQuerySchema(), {"form": "1"})  # the field's own name is `older`
    assert error.message.endswith("Unknown besides: \"form\". Did you mean 'from'?")


def test_of_much_that_is_wrong_some_is_told():
    names = ("max_tpm", "max_rpm", "priority", "timeout_seconds", "enabled", "max_input_tokens")
    error = refused(InstanceSchema(), FEWEST | {key: [] for key in ("name", *names)})
    assert error.message.count(" Besides, ") == MAX_BESIDES


def test_a_secret_that_is_wrong_besides_is_not_shown():
    body = FEWEST | {"max_tpm": -1, "proxy_url": "ftp://user:planted@h", "api_key": ["planted"]}
    error = refused(InstanceSchema(), body)
    assert "api_key" in error.message
    assert "proxy_url" in error.message
    assert "planted" not in error.message


def test_what_is_misspelt_is_told_with_what_is_missing():
    body = {"name": "a", "api_key": "planted", "api_bas": "https://planted.example"}
    error = refused(InstanceSchema(), body)
    missing = "api_base: Missing data for required field."
    assert (error.param, error.message) == (
        "api_base",
        f"{missing} Unknown besides: \"api_bas\". Did you mean 'api_base'?",
    )


@pytest.mark.parametrize("at, path", [("", ""), ("3.", "3")])
def test_a_field_with_marshmallows_name_for_the_whole_is_unknown_as_others_are(at, path):
    error = refused(InstanceSchema(), FEWEST | {"_schema": 1}, at=at)
    assert (error.param, error.message) == (
        path or None,
        f"{path}: Unknown field." if path else "Unknown field.",
    )
    error = refused(InstanceSchema(), {"name": "a", "api_key": "k", "_schema": 1}, at=at)
    assert "api_base: Missing data for required field." in error.message
