import pytest

from proxy.errors import Unprocessable
from proxy.web.schemas import checked
from proxy.web.schemas_admin_keys import AdminKeyChangeSchema, AdminKeySchema

WHOLE = {"name": "ann", "role": "viewer"}


def test_a_key_needs_a_name_and_a_role_and_does_not_expire_unless_told():
    assert checked(AdminKeySchema(), WHOLE) == WHOLE | {"expires_at": None}
    for field in WHOLE:
        with pytest.raises(Unprocessable) as caught:
            checked(AdminKeySchema(), {k: v for k, v in WHOLE.items() if k != field})
        assert caught.value.param == field


@pytest.mark.parametrize(
    "values",
    [{}, {"role": "admin"}, {"expires_at": 5.0}, {"expires_at": None}],
)
def test_a_change_is_what_is_sent_and_no_more(values):
    assert checked(AdminKeyChangeSchema(partial=True), values, partial=True) == values


@pytest.mark.parametrize(
    "field, value",
    [
        ("role", "owner"),
        ("role", "Admin"),
        ("role", None),
        ("role", ["admin"]),
        ("expires_at", "90d"),
        ("expires_at", True),
        ("expires_at", -1),
        ("expires_at", 1_790_000_000_000),  # milliseconds
        ("name", ""),
        ("name", "x" * 101),
        ("name", 5),
        # Made here, and never given.
        ("key", "gwa_mine"),
        ("key_hash", "0" * 64),
    ],
)
def test_what_cannot_be_is_named(field, value):
    with pytest.raises(Unprocessable) as caught:
        checked(AdminKeySchema(), WHOLE | {field: value})
    assert caught.value.param == field
    assert "gwa_mine" not in caught.value.message
