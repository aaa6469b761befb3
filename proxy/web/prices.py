"""The admin API: what tokens of models cost."""

from functools import partial

from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.errors import NotFound
from proxy.store import prices
from proxy.web import schemas_prices
from proxy.web.admin import Answer, Json
from proxy.web.auth import require_admin
from proxy.web.author import author
from proxy.web.documented import documented_in
from proxy.web.etags import etag, if_match
from proxy.web.schemas import body_json
from proxy.web.schemas_prices import checked_model, checked_price, price_json

blueprint = Blueprint(
    "prices",
    __name__,
    url_prefix="/admin/prices",
    description="Prices of models: what clients' budgets in money are counted by.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)


@blueprint.route("")
class ModelPrices(MethodView):
    @documented(200, schemas_prices.PriceListSchema, errors=())
    def get(self) -> Json:
        """All prices. A model has that of its name, else of the longest beginning of it."""
        with parts().database.read() as connection:
            return {"prices": [price_json(stored) for stored in prices.listed(connection)]}


# What the document says of the path, where it can say it.
MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "model-name", "minLength": 1, "maxLength": 200},
}


@blueprint.route("/<path:model>", parameters=[MODEL])
class ModelPrice(MethodView):
    @documented(200, schemas_prices.PriceViewSchema)
    def get(self, model: str) -> Answer:
        """The price that is set under this very name."""
        return _shown(model)

    @documented(
        200,
        schemas_prices.PriceViewSchema,
        body=schemas_prices.PriceSchema(),
        errors=(409, 412, 422),
    )
    def put(self, model: str) -> Answer:
        """Set the price of a model, or of all whose names begin so: `gpt-4o*`."""
        model, price = checked_model(model), checked_price(body_json())
        with parts().database.session() as session:
            prices.put(session, model, price, author=author(), if_match=if_match())
        parts().snapshots.reload()
        return _shown(model)

    @documented(204, errors=(404, 412))
    def delete(self, model: str) -> None:
        """Remove the price: the model costs nothing, or what a beginning of its name does."""
        with parts().database.session() as session:
            prices.remove(session, model, author=author(), if_match=if_match())
        parts().snapshots.reload()


def _shown(model: str) -> Answer:
    with parts().database.read() as connection:
        found = next((s for s in prices.listed(connection) if s.model == model), None)
    if found is None:
        raise NotFound(f"{model!r} has no price.", code="price_not_found")
    return price_json(found), 200, etag(found.revision)
