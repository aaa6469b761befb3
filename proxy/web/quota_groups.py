"""The admin API: what instances that share a quota may use together."""

from functools import partial
from typing import Any

from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.errors import NotFound
from proxy.store import quota_groups
from proxy.store.quota_groups import FIELDS, NO_LIMITS
from proxy.web import schemas_quota_groups as schemas
from proxy.web.admin import Answer, Json
from proxy.web.auth import require_admin
from proxy.web.author import author
from proxy.web.documented import documented_in
from proxy.web.etags import etag, if_match
from proxy.web.schemas import body_json, checked

blueprint = Blueprint(
    "quota-groups",
    __name__,
    url_prefix="/admin/quota-groups",
    description="Quota groups: what the instances of one `quota_group` may use together.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)

CHANGE = schemas.QuotaGroupChangeSchema(partial=True)


@blueprint.route("")
class QuotaGroups(MethodView):
    @documented(200, schemas.QuotaGroupListSchema, errors=())
    def get(self) -> Json:
        """Every group that an instance is in, or that has limits."""
        snapshot = parts().snapshots.current
        named = {s.config.quota_group for s in snapshot.instances.values()} - {None}
        names = sorted({*snapshot.groups, *(n for n in named if n)})
        return {"quota_groups": [_json(name) for name in names]}


@blueprint.route("/<path:name>")
class QuotaGroup(MethodView):
    @documented(200, schemas.QuotaGroupSchema)
    def get(self, name: str) -> Answer:
        """Limits of one group, and who is in it."""
        return _shown(name)

    @documented(200, schemas.QuotaGroupSchema, body=CHANGE, errors=(409, 412, 422))
    def put(self, name: str) -> Answer:
        """Set limits; what is not sent stays."""
        values = checked(CHANGE, body_json(), partial=True)
        with parts().database.session() as session:
            quota_groups.put(session, name, values, author=author(), if_match=if_match())
        parts().snapshots.reload()
        return _shown(name)

    patch = put

    @documented(204, errors=(404, 412))
    def delete(self, name: str) -> None:
        """Remove the limits. Who is in the group stays in it."""
        with parts().database.session() as session:
            quota_groups.remove(session, name, author=author(), if_match=if_match())
        parts().snapshots.reload()


def _shown(name: str) -> Answer:
    stored = parts().snapshots.current.groups.get(name)
    shown = _json(name)
    if stored is None and not shown["instances"]:
        raise NotFound(f"There is no quota group named {name!r}.", code="quota_group_unknown")
    return shown, 200, etag(stored.revision) if stored else {}


def _json(name: str) -> dict[str, Any]:
    snapshot = parts().snapshots.current
    stored = snapshot.groups.get(name)
    limits = {f: getattr(stored.group, f) for f in FIELDS} if stored else NO_LIMITS
    return limits | {
        "name": name,
        "instances": sorted(
            s.config.name for s in snapshot.instances.values() if s.config.quota_group == name
        ),
        "revision": stored.revision if stored else None,
        "created_at": stored.created_at if stored else None,
        "updated_at": stored.updated_at if stored else None,
    }
