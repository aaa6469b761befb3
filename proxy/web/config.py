"""The admin API: all config at once, and every version of it."""

from functools import partial
from typing import Any

from flask import Response, request
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.core.config_document import shown
from proxy.core.config_plan import shown_change
from proxy.errors import BadRequest, NotFound
from proxy.runtime.config_hand import Outcome, shown_outcome
from proxy.store import revisions
from proxy.store.revisions import shown_revision
from proxy.web import config_text
from proxy.web import schemas_config as schemas
from proxy.web.admin import Answer, Json
from proxy.web.auth import require_admin
from proxy.web.author import author
from proxy.web.body import read_body
from proxy.web.config_import import wanted
from proxy.web.documented import documented_in
from proxy.web.etags import etag, if_match
from proxy.web.schemas import body_json, checked, query_values
from proxy.web.schemas_fields import MAX_NUMBER

blueprint = Blueprint(
    "config",
    __name__,
    url_prefix="/admin/config",
    description="All config at once: every version of it, back to one, out and in.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)

# With or without what is around it.
IMPORT = {"anyOf": [schemas.ImportSchema, schemas.DocumentSchema]}


@blueprint.route("/revisions")
class Revisions(MethodView):
    @documented(
        200, schemas.RevisionListSchema, query=schemas.RevisionsQuerySchema, errors=(422,)
    )
    def get(self) -> Json:
        """Who changed what, when and why; the newest first."""
        query = checked(schemas.RevisionsQuerySchema(), query_values())
        with parts().database.read() as connection:
            found, total = revisions.page(connection, **query)
        return {
            "revisions": [shown_revision(each) for each in found],
            "total": total,
            "limit": query["limit"],
            "offset": query["offset"],
        }


@blueprint.route("/revisions/<int:number>")
class OneRevision(MethodView):
    @documented(200, schemas.RevisionSchema)
    def get(self, number: int) -> Json:
        """One revision."""
        found = None
        if number <= MAX_NUMBER:
            with parts().database.read() as connection:
                found = revisions.one(connection, number)
        if found is None:
            raise NotFound(f"There is no revision {number}.", code="revision_not_found")
        return shown_revision(found)


@blueprint.route("/diff")
class Difference(MethodView):
    @documented(200, schemas.DifferenceSchema, query=schemas.DiffQuerySchema, errors=(404, 422))
    def get(self) -> Json:
        """What became other from one revision to another."""
        query = checked(schemas.DiffQuerySchema(), query_values())
        changes, newer = parts().config_hand.difference(query["older"], query["newer"])
        return {
            "older": query["older"],
            "newer": newer,
            "changes": [shown_change(change) for change in changes],
        }


@blueprint.route("/rollback")
class Rollback(MethodView):
    @documented(
        200, schemas.OutcomeSchema, body=schemas.RollbackSchema(), errors=(404, 412, 422)
    )
    def post(self) -> Answer:
        """Back to what a revision left; with dry_run, only say what that would change."""
        given = checked(schemas.RollbackSchema(), body_json())
        return _told(
            parts().config_hand.roll_back(
                given["revision"],
                author=author(),
                dry_run=given["dry_run"],
                if_match=if_match(),
            )
        )


@blueprint.route("/export")
class Export(MethodView):
    @documented(
        200,
        schemas.DocumentSchema,
        yaml=schemas.DocumentSchema(),
        query=schemas.ExportQuerySchema,
        errors=(422,),
    )
    def get(self) -> Response:
        """All config as one document. Secrets are masked, references to them are not."""
        form = checked(schemas.ExportQuerySchema(), query_values())["format"]
        document, revision = parts().config_hand.document()
        if form == "yaml":
            text, kind = config_text.to_yaml(shown(document)), config_text.YAML_TYPES[0]
        else:
            text, kind = config_text.to_json(shown(document)), "application/json"
        return Response(text, mimetype=kind, headers=etag(revision))


@blueprint.route("/import")
class Import(MethodView):
    @documented(
        200,
        schemas.OutcomeSchema,
        body=IMPORT,
        yaml=IMPORT,
        query=schemas.ImportFlagsSchema,
        errors=(400, 412, 413, 422),
    )
    def post(self) -> Answer:
        """Bring a document in, all or nothing; with dry_run, only say what that would change.

        The body is {"config": {...}, "dry_run": ..., "prune": ...} or the document alone, then
        with both in the query; in JSON, or in YAML as its Content-Type says.
        """
        given = {"dry_run": False, "prune": False}
        given |= checked(schemas.ImportFlagsSchema(), query_values())
        given |= _given()
        return _told(
            parts().config_hand.bring(
                lambda present: wanted(given["config"], present, prune=given["prune"]),
                author=author(),
                dry_run=given["dry_run"],
                if_match=if_match(),
            )
        )


def _given() -> Json:
    data = _body()
    if isinstance(data, dict) and "config" in data:
        return checked(schemas.ImportSchema(), data)
    return {"config": data}


def _body() -> Any:
    if request.mimetype in config_text.YAML_TYPES:
        return config_text.from_yaml(bytes(read_body(parts(), request.environ)))
    try:
        return body_json()
    except BadRequest as error:
        hint = f"YAML is read with the header Content-Type: {config_text.YAML_TYPES[0]}."
        raise BadRequest(f"{error.message} {hint}") from None


def _told(outcome: Outcome) -> Answer:
    return shown_outcome(outcome), 200, etag(outcome.revision)
