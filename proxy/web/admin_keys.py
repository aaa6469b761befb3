"""The admin API: who may use it, and with which role."""

import time
from functools import partial

from flask import url_for
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.core.roles import ADMINISTER
from proxy.store import admin_keys
from proxy.store.admin_keys import StoredAdmin
from proxy.web import schemas_admin_keys as schemas
from proxy.web.admin import Answer, Json
from proxy.web.auth import require_admin
from proxy.web.author import author
from proxy.web.documented import documented_in
from proxy.web.etags import etag, if_match
from proxy.web.schemas import body_json, checked

blueprint = Blueprint(
    "admin-keys",
    __name__,
    url_prefix="/admin/admin-keys",
    description="Admin keys: who may use the admin API, and with which role.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)

CHANGE = schemas.AdminKeyChangeSchema(partial=True)


@blueprint.route("")
class AdminKeys(MethodView):
    @documented(200, schemas.AdminKeyListSchema, errors=(), right=ADMINISTER)
    def get(self) -> Json:
        """All admin keys, without the keys."""
        with parts().database.read() as connection:
            found = admin_keys.listed(connection)
        return {"admin_keys": [_json(each) for each in found], "admin_api_key_set": _is_set()}

    @documented(
        201, schemas.NewAdminKeySchema, body=schemas.AdminKeySchema(), errors=(409, 422)
    )
    def post(self) -> Answer:
        """Make a key. It is in this answer, and never shown again."""
        values = checked(schemas.AdminKeySchema(), body_json())
        with parts().database.session() as session:
            key = admin_keys.add(session, **values, author=author())
        parts().snapshots.reload()
        made = _stored(values["name"])
        where = url_for("admin-keys.AdminKey", name=made.admin.name)
        headers = {"Location": where, "Cache-Control": "no-store"}
        return _json(made) | {"key": key}, 201, etag(made.revision) | headers


@blueprint.route("/<path:name>")
class AdminKey(MethodView):
    @documented(200, schemas.AdminKeyViewSchema, right=ADMINISTER)
    def get(self, name: str) -> Answer:
        """One admin key."""
        return _shown(name)

    @documented(200, schemas.AdminKeyViewSchema, body=CHANGE, errors=(404, 409, 412, 422))
    def patch(self, name: str) -> Answer:
        """Change role or expiry; what is not sent stays."""
        values = checked(CHANGE, body_json(), partial=True)
        with parts().database.session() as session:
            admin_keys.change(
                session,
                name,
                values,
                author=author(),
                is_first_set=_is_set(),
                if_match=if_match(),
            )
        parts().snapshots.reload()
        return _shown(name)

    @documented(204, errors=(404, 409, 412))
    def delete(self, name: str) -> None:
        """Remove it: the key is worth nothing from now on."""
        with parts().database.session() as session:
            admin_keys.remove(
                session, name, author=author(), is_first_set=_is_set(), if_match=if_match()
            )
        parts().snapshots.reload()


def _is_set() -> bool:
    return bool(parts().settings.admin_api_key)


def _stored(name: str) -> StoredAdmin:
    with parts().database.read() as connection:
        found = [each for each in admin_keys.listed(connection) if each.admin.name == name]
    if not found:
        raise admin_keys.unknown(name)
    return found[0]


def _shown(name: str) -> Answer:
    stored = _stored(name)
    return _json(stored), 200, etag(stored.revision)


def _json(stored: StoredAdmin) -> Json:
    return stored.shown(time.time())
