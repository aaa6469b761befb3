import pytest

from proxy.core.types import Client
from proxy.errors import Unprocessable
from proxy.store.keys import FIELDS
from proxy.web.schemas_keys import WHOLE, checked_change, checked_client

DAY_SECONDS = 86_400


def test_type_and_schema_have_the_same_fields_and_defaults():
    assert set(WHOLE.fields) == set(FIELDS)
    loaded = checked_client({"name": "app"})
    for name, default in Client._field_defaults.items():
        if name == "number":
            continue
        default = list(default) if isinstance(default, tuple) else default
        assert loaded[name] == default, name


def test_of_a_change_only_what_is_given_is_there():
    assert checked_change({"max_rpm": 5, "revision": 3}) == {"max_rpm": 5}


@pytest.mark.parametrize("given", ["2030-01-31", "2030-01-31T01:00+01:00", 1_896_048_000])
def test_a_moment_may_be_a_date(given):
    assert checked_change({"expires_at": given}) == {"expires_at": 1_896_048_000.0}


def test_networks_are_kept_as_everybody_writes_them():
    given = ["10.0.0.0/255.0.0.0", "192.0.2.1", "2001:DB8::/32", "::ffff:10.0.0.0/104"]
    found = checked_change({"allowed_networks": given})["allowed_networks"]
    assert found == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]


@pytest.mark.parametrize(
    "field, value, path, words",
    [
        ("name", "", "name", 'Length must be between 1 and 100. Given: "".'),
        ("name", "a ", "name", "no space at its ends"),
        ("name", "a/rotate", "name", "Is a path of the admin API; choose another name."),
        ("name", "a/../b", "name", "double dot"),
        ("name", "/a", "name", "slash"),
        ("name", "anonymous", "name", "callers without a key"),
        ("name", 5, "name", "Not a valid string. Given: 5."),
        ("enabled", 1, "enabled", "Not a valid boolean. Given: 1."),
        ("expires_at", 1_767_225_600_000, "expires_at", "Must be seconds, not milliseconds"),
        ("expires_at", -1, "expires_at", "since the epoch"),
        ("expires_at", "01.01.2030", "expires_at", "Is no date: write 2030-01-31, or"),
        ("expires_at", "1969-01-01", "expires_at", "since the epoch"),
        ("expires_at", True, "expires_at", "Not a valid number"),
        ("allowed_models", "gpt-4o", "allowed_models", "Not a valid list"),
        ("allowed_models", [""], "allowed_models.0", "Length"),
        ("allowed_models", ["o3", "gpt*4"], "allowed_models.1", "a * at its end: gpt-4o*"),
        ("allowed_models", ["**"], "allowed_models.0", "a * at its end"),
        ("allowed_models", ["o3", "o3"], "allowed_models", "Has the same twice."),
        ("allowed_instances", ["a\n"], "allowed_instances.0", "control characters"),
        ("allowed_networks", ["10.0.0.1/8"], "allowed_networks.0", "write 10.0.0.0/8. Given"),
        ("allowed_networks", ["office"], "allowed_networks.0", "write one as 10.0.0.0/8"),
        ("max_tpm", -1, "max_tpm", "Must be greater than or equal to 0"),
        ("max_tpm", 2**31, "max_tpm", "less than or equal to 2147483647"),
        ("max_rpm", 1.5, "max_rpm", "Not a valid integer"),
        ("max_parallel_requests", True, "max_parallel_requests", "Not a valid integer"),
        ("max_tokens_per_month", 2**53 + 1, "max_tokens_per_month", "less than or equal"),
        ("max_cost_per_day", -0.01, "max_cost_per_day", "Must be greater than or equal to 0"),
        ("max_cost_per_month", 1e10, "max_cost_per_month", "less than or equal to 1000000000"),
        ("compat", "strict", "compat", 'Must be one of: raw, openai_strict. Given: "strict".'),
        ("labels", {"team": 5}, "labels.team.value", "Not a valid string"),
        ("labels", {"": "a"}, "labels..key", "Length"),
        ("labels", {str(n): "" for n in range(65)}, "labels", "Longer than maximum length 64"),
        ("wieght", 1, "wieght", "Unknown field."),
        ("key", "gw_mine", "key", "Unknown field."),
    ],
)
def test_an_error_names_field_value_and_remedy(field, value, path, words):
    for check in (checked_client, checked_change):
        with pytest.raises(Unprocessable) as caught:
            check({"name": "app", field: value})
        assert caught.value.param == path
        assert caught.value.message.startswith(f"{path}: ")
        assert words in caught.value.message


def test_a_key_that_somebody_sends_is_not_quoted():
    with pytest.raises(Unprocessable) as caught:
        checked_client({"name": "app", "key": "gw_mine"})
    assert "gw_mine" not in caught.value.message
