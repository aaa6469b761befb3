import pytest

from proxy import errors
from proxy.web.counting import why


@pytest.mark.parametrize(
    "error, expected",
    [
        (errors.BadRequest, "mistaken"),
        (errors.Unauthorized, "mistaken"),
        (errors.ModelNotFound, "mistaken"),
        (errors.TooLarge, "mistaken"),
        (errors.LimitReached, "limited"),
        (errors.BudgetSpent, "limited"),
        (errors.NoRoom, "refused"),
        (errors.Saturated, "refused"),
        (errors.Unavailable, "refused"),
        (errors.UpstreamFailed, "refused"),  # the instances refuse the gateway
        (errors.ClientLeft, "abandoned"),
    ],
)
def test_who_is_at_fault(error, expected):
    assert why(error("why")) == expected
