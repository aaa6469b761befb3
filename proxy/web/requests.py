"""The admin API: the last calls of clients, and how each of them went."""

from functools import partial

from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.core.story import story
from proxy.errors import NotFound
from proxy.web import schemas, schemas_requests
from proxy.web.admin import Json
from proxy.web.auth import require_admin
from proxy.web.documented import documented_in

blueprint = Blueprint(
    "requests",
    __name__,
    url_prefix="/admin/requests",
    description="The last calls of clients, and how each of them went.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)


@blueprint.route("")
class Requests(MethodView):
    @documented(
        200,
        schemas_requests.RequestListSchema,
        query=schemas_requests.RequestsQuerySchema,
        errors=(422,),
    )
    def get(self) -> Json:
        """The newest first. Kept are the last 1,000 of this host whose client is known, while
        the gateway runs; without what was asked and answered."""
        query = schemas.checked(schemas_requests.RequestsQuerySchema(), schemas.query_values())
        return {"requests": parts().recent.newest(**query)}


# What the document says of the path.
REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}


@blueprint.route("/<string:request_id>", parameters=[REQUEST_ID])
class Request(MethodView):
    @documented(200, schemas_requests.RequestWithStorySchema)
    def get(self, request_id: str) -> Json:
        """One of them, by its `x-request-id`, and its story in sentences; where a client used
        that for several, the newest of these."""
        found = parts().recent.find(request_id)
        if found is None:
            raise NotFound(
                f"None of the last requests has the id {request_id!r}. The log may have it:"
                f" .venv/bin/flask logs explain {request_id}",
                code="request_not_found",
            )
        return {**found, "story": story(found)}
