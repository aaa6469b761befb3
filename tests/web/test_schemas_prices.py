import pytest

from proxy.core.prices import Price
from proxy.errors import Unprocessable
from proxy.store.prices import FIELDS
from proxy.web.schemas_prices import PriceSchema, checked_price


def test_type_and_schema_have_the_same_fields():
    assert set(PriceSchema().fields) == {*FIELDS, "model"}


def test_a_price_is_checked_with_its_model():
    given = {"prompt_per_million": 2, "completion_per_million": 8, "revision": 5}
    assert checked_price(given, "o3*") == Price(2.0, 2.0, 8.0)
    with pytest.raises(Unprocessable, match=r"^model: Is a model's name, or the beginning"):
        checked_price(given, "o*3")
