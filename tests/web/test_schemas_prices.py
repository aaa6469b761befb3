import pytest

from proxy.core.prices import Price
from proxy.errors import Unprocessable
from proxy.store.prices import FIELDS
from proxy.web.schemas_prices import PriceSchema, checked_model, checked_price


def test_type_and_schema_have_the_same_fields():
    assert set(PriceSchema().fields) == set(FIELDS)


def test_what_get_shows_may_come_back():
    given = {"prompt_per_million": 2, "completion_per_million": 8, "revision": 5, "model": "o3"}
    assert checked_price(given) == Price(2.0, 2.0, 8.0)


def test_a_model_is_a_name_or_the_beginning_of_names():
    assert checked_model("o3*") == "o3*"
    with pytest.raises(Unprocessable, match=r"^model: Is a model's name, or the beginning"):
        checked_model("o*3")
