import pytest

from proxy.web.ui import forms, instances
from proxy.web.ui.forms import Field, Group
from tests.builders import config

GROUPS = instances.GROUPS


def form_of(values):
    """What a browser sends of the form as it was shown."""
    fields = forms.all_of(GROUPS)
    texts = {f.name: f.text(values[f.name]) for f in fields}
    return {name: text for name, text in texts.items() if text != "off"}


@pytest.fixture
def shown():
    return instances.plain_config(
        config(
            "a",
            proxy_url="http://user:planted-password@proxy:3128",
            supported_models=("gpt-4o", "o3"),
            model_deployments={"o3": "o3-deployment"},
            model_limits={"o3": {"max_tpm": 1000, "max_rpm": 60}},
            timeout_seconds=12.5,
        )
    )


def test_what_is_sent_as_it_was_shown_changes_nothing(shown):
    assert forms.given(GROUPS, shown, form_of(shown)) == {}


@pytest.mark.parametrize(
    "field, text, value",
    [
        ("api_key", "another-key", "another-key"),
        ("proxy_url", "", ""),
        ("priority", "2", 2),
        ("priority", "two", "two"),  # the schema says what is wrong with it
        ("timeout_seconds", "2.5", 2.5),
        ("supported_models", "gpt-4o\r\n\r\n o3-mini ", ["gpt-4o", "o3-mini"]),
        ("model_deployments", "gpt-4o = a=b", {"gpt-4o": "a=b"}),
        ("model_limits", "o3: max_rpm=5", {"o3": {"max_rpm": 5}}),
        ("model_deployments", "a=b = c\nx = y", {"a=b": "c", "x": "y"}),
        # The schema refuses it: the last one alone would take off the other.
        ("model_deployments", "x = y\nz=1\nx = w\nx=v", {"x": ["y", "w", "v"], "z": "1"}),
        (
            "model_limits",
            "o3: max_rpm=5\no3: max_tpm=7",
            {"o3": [{"max_rpm": 5}, {"max_tpm": 7}]},
        ),
        ("timeout_seconds", "12.3456789", 12.3456789),
        ("model_limits", "nonsense", {"": {"nonsense": ""}}),
        ("quota_group", "west", "west"),
    ],
)
def test_what_is_written_otherwise_is_given(shown, field, text, value):
    form = form_of(shown) | {field: text}
    assert forms.given(GROUPS, shown, form) == {field: value}


def test_a_switch_that_is_off_is_not_sent_by_browsers(shown):
    form = form_of(shown)
    form.pop("enabled")
    assert forms.given(GROUPS, shown, form) == {"enabled": False}


def test_a_model_that_no_line_can_hold_stays_as_it_is(shown):
    shown["model_deployments"] = {"a = b": "c"}
    assert forms.given(GROUPS, shown, form_of(shown)) == {}


@pytest.mark.parametrize(
    "value, text",
    [(12345.67, "12345.67"), (1_234_567.89, "1234567.89"), (60.0, "60"), (5, "5")],
)
def test_a_number_is_shown_with_all_of_its_digits(value, text):
    field = Field("max_cost_per_day", "Cost a day", "cost")
    assert field.text(value) == text
    assert field.value(text) == value


def test_a_difference_shows_no_secret(shown):
    after = {"api_key": "planted-other-key-0123456789", "proxy_url": "http://u:planted-pw@p:1"}
    rows = forms.differences(GROUPS, shown, after)
    assert rows == [
        ("Key", "***6789", "***6789 (another)"),
        ("By way of the proxy", "http://***@proxy:3128", "http://***@p:1"),
    ]


def test_a_difference_is_told_as_it_is_written(shown):
    rows = forms.differences(
        GROUPS, shown, {"supported_models": [], "enabled": False, "weight": 100}
    )
    assert rows == [("Enabled", "on", "off"), ("Models", "gpt-4o\no3", "nothing")]


def test_the_seal_is_of_one_change_at_one_revision():
    data = {"weight": 1}
    seals = {
        forms.seal(b"key", 1, data),
        forms.seal(b"key", 2, data),
        forms.seal(b"key", 1, {"weight": 2}),
        forms.seal(b"other", 1, data),
    }
    assert len(seals) == 4


def test_a_moment_is_written_as_browsers_write_it():
    field = Group("", (Field("at", "At", "moment"),)).fields[0]
    assert field.text(1_750_154_400.0) == "2025-06-17T10:00"
    assert field.value("2025-06-17T10:00") == 1_750_154_400.0
    assert field.value("2025-06-17T12:00+02:00") == 1_750_154_400.0
    assert (field.value(""), field.value("soon")) == (None, "soon")
