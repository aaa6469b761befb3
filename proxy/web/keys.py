"""The admin API: clients, what they may do, and their keys."""

from dataclasses import asdict
from functools import partial
from typing import Any

from flask import url_for
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.errors import Unprocessable
from proxy.store import keys
from proxy.store.keys import StoredClient
from proxy.web import schemas_keys
from proxy.web.admin import Answer, Json
from proxy.web.auth import require_admin
from proxy.web.author import author
from proxy.web.documented import documented_in
from proxy.web.etags import etag, if_match
from proxy.web.schemas import body_json, checked, query_values
from proxy.web.schemas_keys import (
    check_read_only,
    checked_change,
    checked_client,
    client_json,
    matches,
)

blueprint = Blueprint(
    "keys",
    __name__,
    url_prefix="/admin/keys",
    description="Clients and their keys: what each may use, how much, from where, how long.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)

NOT_KEPT = {"Cache-Control": "no-store"}  # an answer with a key in it


@blueprint.route("")
class ClientKeys(MethodView):
    @documented(
        200,
        schemas_keys.ClientListSchema,
        query=schemas_keys.ClientQuerySchema,
        errors=(422,),
    )
    def get(self) -> Json:
        """All clients, or those that match, a page at a time."""
        query = checked(schemas_keys.ClientQuerySchema(), query_values())
        with parts().database.read() as connection:
            stored = keys.listed(connection)
        found = [each for each in stored if matches(client_json(each), query)]
        page = found[query["offset"] : query["offset"] + query["limit"]]
        return {
            "keys": [with_state(each) for each in page],
            "total": len(found),
            "limit": query["limit"],
            "offset": query["offset"],
        }

    @documented(
        201, schemas_keys.NewKeySchema, body=schemas_keys.ClientSchema(), errors=(409, 422)
    )
    def post(self) -> Answer:
        """Add a client. Its key is in this answer, and nowhere else."""
        values = checked_client(body_json())
        name = values.pop("name")
        with parts().database.session() as session:
            key = keys.add(session, name, values, author=author())
        shown, _, headers = _shown(name)
        where = {"Location": url_for("keys.ClientKey", name=name)}
        return shown | {"key": key}, 201, headers | where | NOT_KEPT


@blueprint.route("/<path:name>")
class ClientKey(MethodView):
    @documented(200, schemas_keys.ClientViewSchema)
    def get(self, name: str) -> Answer:
        """One client. Of its key, the last characters."""
        return _read(name)

    @documented(
        200,
        schemas_keys.ClientViewSchema,
        body=schemas_keys.CHANGE,
        errors=(404, 409, 412, 422),
    )
    def put(self, name: str) -> Answer:
        """Change the fields that are sent; the others stay."""
        shown, _, _ = _read(name)  # of what is not there no field is wrong
        sent = body_json()
        check_read_only(sent, shown)
        values = checked_change(sent)
        if values.pop("name", name) != name:
            raise Unprocessable(
                f"name: a client cannot be renamed; add a new one and remove {name!r}.",
                param="name",
            )
        with parts().database.session() as session:
            keys.change(session, name, values, author=author(), if_match=if_match())
        return _shown(name)

    patch = put

    @documented(204, errors=(404, 412))
    def delete(self, name: str) -> None:
        """Remove the client: its keys are worth nothing from now on. Its usage stays."""
        with parts().database.session() as session:
            keys.remove(session, name, author=author(), if_match=if_match())
        parts().snapshots.reload()


@blueprint.route(f"/<path:name>{schemas_keys.ROTATE}")
class ClientKeyRotation(MethodView):
    @documented(
        200,
        schemas_keys.NewKeySchema,
        body=schemas_keys.RotationSchema(),
        errors=(404, 412, 422),
    )
    def post(self, name: str) -> Answer:
        """Make another key; the present one stays valid for `grace_seconds`. Without a body
        for a day."""
        values = checked(schemas_keys.RotationSchema(), body_json(default={}))
        with parts().database.session() as session:
            key = keys.rotate(session, name, **values, author=author(), if_match=if_match())
        shown, status, headers = _shown(name)
        return shown | {"key": key}, status, headers | NOT_KEPT


def _shown(name: str) -> Answer:
    """As it is now that it was changed; this worker's requests know of it, too."""
    parts().snapshots.reload()
    return _read(name)


def _read(name: str) -> Answer:
    with parts().database.read() as connection:
        stored: Any = keys.stored(connection, name)
    return with_state(stored), 200, etag(stored.revision)


def with_state(stored: StoredClient) -> Json:
    """With what it uses now, as this worker knows it."""
    state = asdict(parts().clients.view(stored.client))
    shown = client_json(stored)
    last, written = state.pop("last_used_at"), stored.last_used_at
    if last is not None and last >= stored.created_at:
        shown["last_used_at"] = max(last, written or last)
    return shown | {"state": state}
