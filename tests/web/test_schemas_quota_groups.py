import pytest

from proxy.errors import Unprocessable
from proxy.web.schemas import checked
from proxy.web.schemas_quota_groups import QuotaGroupChangeSchema, QuotaGroupSchema

CHANGE = QuotaGroupChangeSchema(partial=True)


def test_what_a_group_shows_may_come_back_without_effect():
    limits = {"max_tpm": 1, "max_rpm": 2, "model_limits": {"gpt-4o": {"max_tpm": 3}}}
    shown = dict.fromkeys(QuotaGroupSchema().fields) | limits
    assert checked(CHANGE, shown, partial=True) == limits


def test_a_change_has_no_defaults():
    assert checked(CHANGE, {}, partial=True) == {}


@pytest.mark.parametrize(
    "data, field",
    [
        ({"max_tpn": 1}, "max_tpn"),
        ({"max_rpm": -1}, "max_rpm"),
        (
            {"model_limits": {"gpt-4o": {"max_tokens": 1}}},
            "model_limits.gpt-4o.value.max_tokens",
        ),
        ({"model_limits": {"gpt-4o": None}}, "model_limits.gpt-4o.value"),
    ],
)
def test_what_is_no_limit_is_refused_by_its_place(data, field):
    with pytest.raises(Unprocessable) as caught:
        checked(CHANGE, data, partial=True)
    assert caught.value.param == field
