"""What may be said of a model's price, and what is shown of it."""

from typing import Any

from marshmallow import RAISE, Schema, fields, pre_load, validate

from proxy.core.prices import Price
from proxy.store.prices import StoredPrice
from proxy.web.schemas import checked
from proxy.web.schemas_fields import StrictFloat, is_part_of_path
from proxy.web.schemas_keys import is_model_pattern

MAX_PRICE = 1_000_000  # of a million tokens

# Part of what GET shows; taken back in a PUT, and without effect there.
READ_ONLY = frozenset({"model", "updated_at", "revision"})


def _price(description: str, **more: Any) -> StrictFloat:
    return StrictFloat(
        validate=validate.Range(0, MAX_PRICE), metadata={"description": description}, **more
    )


class PriceSchema(Schema):
    """Of a million tokens each, in whatever currency costs are to be counted."""

    class Meta:
        unknown = RAISE

    prompt_per_million = _price("Tokens of the prompt.", required=True)
    cached_per_million = _price(
        "Tokens of the prompt that the upstream had in its cache; left out or null: as others.",
        allow_none=True,
        load_default=None,
    )
    completion_per_million = _price("Tokens of the answer.", required=True)

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back."""
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if k not in READ_ONLY}


class PriceViewSchema(PriceSchema):
    """As it is shown."""

    model = fields.String(
        metadata={"description": "Its name, or the beginning of names and *."}
    )
    updated_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    revision = fields.Integer()


class PriceListSchema(Schema):
    """All prices, by model."""

    prices = fields.List(fields.Nested(PriceViewSchema))


class _ModelSchema(Schema):
    model = fields.String(validate=[validate.Length(1, 200), is_part_of_path, is_model_pattern])


def checked_model(model: str) -> str:
    """As it stands in a path. Raises Unprocessable."""
    found: str = checked(_ModelSchema(), {"model": model})["model"]
    return found


def checked_price(values: Any) -> Price:
    """Raises Unprocessable."""
    found = checked(PriceSchema(), values)
    if found["cached_per_million"] is None:
        found["cached_per_million"] = found["prompt_per_million"]
    return Price(**found)


def price_json(stored: StoredPrice) -> dict[str, Any]:
    price = stored.price
    return {
        "model": stored.model,
        "prompt_per_million": price.prompt_per_million,
        "cached_per_million": price.cached_per_million,
        "completion_per_million": price.completion_per_million,
        "updated_at": stored.updated_at,
        "revision": stored.revision,
    }
