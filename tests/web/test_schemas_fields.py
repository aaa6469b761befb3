import pytest
from marshmallow import ValidationError

from proxy.core.masking import masked
from proxy.web import schemas_fields
from proxy.web.schemas_fields import (
    LATEST_AT,
    MASK,
    Moment,
    StrictBoolean,
    StrictFloat,
    StrictInteger,
)


def complaint(act, *arguments):
    with pytest.raises(ValidationError) as caught:
        act(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "3", None])
def test_numbers_without_sense_do_not_pass_as_floats(value):
    complaint(StrictFloat().deserialize, value)


@pytest.mark.parametrize("value", [True, "3", 1.5, -1, 11])
def test_what_is_no_whole_number_in_its_bounds_is_no_integer(value):
    complaint(StrictInteger(0, 10).deserialize, value)


@pytest.mark.parametrize("value", [0, 1, "true", "yes", None])
def test_what_others_call_true_is_not_true(value):
    complaint(StrictBoolean().deserialize, value)


@pytest.mark.parametrize(
    "value, seconds",
    [(0, 0), (1.5, 1.5), ("1970-01-02", 86_400), ("1970-01-01T01:00:00+01:00", 0)],
)
def test_a_moment_is_seconds_or_a_date(value, seconds):
    assert Moment("When it ends.").deserialize(value) == seconds


def test_a_moment_in_milliseconds_is_told_from_one_in_seconds():
    said = complaint(Moment("When it ends.").deserialize, LATEST_AT + 1)
    assert "not milliseconds" in said


@pytest.mark.parametrize(
    "name, said",
    [
        ("new", "a path of the admin API"),
        ("a/verify", "a path of the admin API"),
        ("/a", "with a slash"),
        ("a/", "with a slash"),
        ("a/../b", "double dot"),
        (" a", "no space"),
        ("a\n", "no space"),
    ],
)
def test_a_name_that_no_path_could_have_is_refused(name, said):
    assert said in complaint(schemas_fields.is_name, name)


@pytest.mark.parametrize(
    "url, said",
    [
        ("https://[", "not a URL"),
        ("ftp://h", "http:// or https://"),
        ("https://h:0", "http:// or https://"),
        ("https://https://h", "twice"),
        ("http://https//h", "twice"),
        ("https://h/ a", "spaces"),
        ("https://h?api-version=1", "no ? or #"),
        ("https://u:p@h", "the key is `api_key`"),
        ("https://h/openai/deployments/d", "`model_deployments`"),
        ("http://169.254.169.254", "PROXY_ALLOW_PRIVATE_UPSTREAMS"),
    ],
)
def test_what_is_wrong_with_an_upstreams_url_is_said(url, said):
    assert said in complaint(schemas_fields.is_upstream_url, url)


def test_what_marks_a_masked_secret_is_what_masking_writes():
    assert masked("api_key", "a-key-of-0123456789").startswith(MASK)
    assert masked("proxy_url", "http://u:p@h") == f"http://{MASK}@h"
    for check, value in (
        (schemas_fields.is_key, f"{MASK}6789"),
        (schemas_fields.is_proxy_url, f"http://{MASK}@h"),
    ):
        assert "leave the field out" in complaint(check, value)


@pytest.mark.parametrize("key", ["$AZURE_KEY", "${AZURE_KEY:-none}"])
def test_a_key_that_a_shell_should_have_replaced_is_told_how_to_be_read(key):
    said = complaint(schemas_fields.is_no_variable, key)
    assert "env:NAME" in said
    assert key not in said
