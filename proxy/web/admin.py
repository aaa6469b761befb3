"""The admin API: instances, their config and their state."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from flask import make_response, url_for
from flask.views import MethodView
from flask_smorest import Blueprint
from werkzeug.exceptions import MethodNotAllowed

from proxy.context import parts
from proxy.core.config_plan import left_without
from proxy.core.providers import PROVIDER_ALIASES
from proxy.core.roles import OPERATE, OPERATED_FIELDS, right_to_change
from proxy.core.types import InstanceConfig
from proxy.errors import NotFound, Unprocessable
from proxy.runtime.state import StateView, removed_view
from proxy.runtime.verify import Check, verify
from proxy.store import instances, keys, states
from proxy.store.db import StoreUnavailable
from proxy.store.instances import CONFIG_FIELDS, StoredInstance
from proxy.store.revisions import Author
from proxy.web import schemas_instances as schemas
from proxy.web.auth import demand, require_admin
from proxy.web.author import author
from proxy.web.documented import any_of, documented_in, one_or_list
from proxy.web.etags import etag, if_match
from proxy.web.schemas import NotesSchema, body_json, checked, query_values
from proxy.web.schemas_instances import config_json, state_json

Json = dict[str, Any]
Answer = tuple[Json, int, dict[str, str]]

blueprint = Blueprint(
    "instances",
    __name__,
    url_prefix="/admin/instances",
    description="Instances: what an operator set (config), and what was measured (state).",
)
blueprint.before_request(require_admin)


documented = partial(documented_in, blueprint)

METHODS_OF_PARTS = {
    "/config": ("GET", "PATCH", "PUT"),
    "/state": ("GET", "PUT"),
    "/verify": ("POST",),
}

# The status of those with a problem that no upstream told of.
OUT_OF_SERVICE = "misconfigured"
CHANGE = schemas.InstanceChangeSchema(partial=True)


@blueprint.route("")
class Instances(MethodView):
    @documented(
        200,
        schemas.InstanceListSchema,
        query=schemas.ListQuerySchema,
        errors=(422,),
    )
    def get(self) -> Json:
        """All instances, or those that match, a page at a time."""
        query = checked(schemas.ListQuerySchema(), query_values())
        found = [v for v in map(view_of, _snapshot_instances()) if _matches(v, query)]
        key = query["sort"].removeprefix("-")
        found.sort(key=_sort_key(key), reverse=query["sort"].startswith("-"))
        page = found[query["offset"] : query["offset"] + query["limit"]]
        return {
            "instances": page,
            "total": len(found),
            "limit": query["limit"],
            "offset": query["offset"],
        }

    @documented(
        201,
        schemas.InstanceViewSchema,
        body=one_or_list(schemas.InstanceSchema()),
        shown=any_of(schemas.InstanceViewSchema(), schemas.AddedInstancesSchema()),
        errors=(409, 422),
    )
    def post(self) -> Any:
        """Add one instance; or a list of them, of which all or none are added."""
        data = body_json()
        many = isinstance(data, list)
        if data == []:
            raise Unprocessable("The list is empty: there is nothing to add.")
        configs = [
            new_config(each, at=f"{i}." if many else "")
            for i, each in enumerate(data if many else [data])
        ]
        add(configs, by=author())
        views = [view_of(stored_instance(c.name)) for c in configs]
        if many:
            shown = schemas.InstanceViewSchema(many=True).dump(views)
            # A whole response, or it would be put through the schema of a single one.
            return make_response({"instances": shown, "total": len(shown)}, 201)
        where = url_for("instances.Instance", name=configs[0].name)
        revision = stored_instance(configs[0].name).revision
        return views[0], 201, etag(revision) | {"Location": where}


@blueprint.route("/<path:name>")
class Instance(MethodView):
    def dispatch_request(self, **arguments: Any) -> Any:
        """No name ends as the path of a part does: that part has no such method."""
        for ending, methods in METHODS_OF_PARTS.items():
            if arguments["name"].endswith(ending):
                raise MethodNotAllowed(valid_methods=methods)
        return super().dispatch_request(**arguments)

    @documented(200, schemas.InstanceViewSchema)
    def get(self, name: str) -> Answer:
        """Config and state of one instance."""
        return _both(name)

    @documented(
        200,
        schemas.InstanceViewSchema,
        body=CHANGE,
        errors=(404, 412, 422),
        right=OPERATE,
    )
    def put(self, name: str) -> Answer:
        """Change the fields that are sent; the others stay. Also as {"config": {...}}, with the
        `state` that it was read with, which is left as it is: it has an address of its own.

        The role operator may send `enabled` alone.
        """
        data = body_json()
        if isinstance(data, dict) and set(data) <= {"config", "state"} and "config" in data:
            data = data["config"]
        change(name, data, by=author(), match=if_match())
        return _both(name)

    patch = put

    @documented(204, errors=(404, 412), instead=NotesSchema)
    def delete(self, name: str) -> Answer | None:
        """Remove the config. Its state and usage stay. Where there is something to know of it,
        such as clients that may use no other instance, the answer is 200 and says so."""
        notes = remove(name, by=author(), match=if_match())
        return ({"notes": notes}, 200, {}) if notes else None


@blueprint.route("/<path:name>/config")
class InstanceConfigResource(MethodView):
    @documented(200, schemas.InstanceConfigSchema)
    def get(self, name: str) -> Answer:
        """What an operator set. The key is masked."""
        return _config_alone(name)

    @documented(
        200,
        schemas.InstanceConfigSchema,
        body=CHANGE,
        errors=(404, 412, 422),
        right=OPERATE,
    )
    def put(self, name: str) -> Answer:
        """Change the fields that are sent; the others stay.

        The role operator may send `enabled` alone.
        """
        change(name, body_json(), by=author(), match=if_match())
        return _config_alone(name)

    patch = put


@blueprint.route("/<path:name>/state")
class InstanceStateResource(MethodView):
    @documented(200, schemas.InstanceStateSchema)
    def get(self, name: str) -> Json:
        """What was measured; also of an instance that was removed (status "removed")."""
        stored = parts().snapshots.current.instances.get(name)
        if stored is not None:
            return _state(stored.config)
        with parts().database.read() as connection:
            shared = states.read_one(connection, name)
        if shared is None:
            raise _unknown(name)
        return state_json(name, removed_view(shared), 0)

    @documented(
        200,
        schemas.InstanceStateSchema,
        body=schemas.StateChangeSchema(),
        least=1,
        errors=(404, 422),
        right=OPERATE,
    )
    def put(self, name: str) -> Json:
        """Clear errors and rests (`status: healthy`), or set or end a rest."""
        config = stored_instance(name).config
        change = checked(schemas.StateChangeSchema(), body_json())
        if not change:
            raise Unprocessable("Nothing to set: send status or rate_limited_until.")
        if "status" in change:
            parts().operator.clear_errors(name)
        if "rate_limited_until" in change:
            parts().operator.set_rest(name, change["rate_limited_until"])
        return _state(config)


@blueprint.route("/<path:name>/verify")
class InstanceVerify(MethodView):
    @documented(
        200,
        schemas.VerifyResultSchema,
        body=schemas.VerifySchema(),
        right=OPERATE,
    )
    def post(self, name: str) -> Json:
        """Call each deployment with a tiny prompt and say what was found. What is well and was
        left alone, because its key or deployment was wrong or it failed, is asked again."""
        model = checked(schemas.VerifySchema(), body_json(default={})).get("model")
        checks = verified(name, model)
        return {
            "name": name,
            "ok": all(c.ok for c in checks),
            "checks": [asdict(c) for c in checks],
        }


def add(configs: list[InstanceConfig], *, by: Author) -> None:
    """All or none. Raises Conflict for a name that exists."""
    with parts().database.session() as session:
        instances.add(session, configs, author=by)
    for config in configs:
        parts().state.clear_rests(config.name)  # of one that had the name before
    parts().snapshots.reload()


def change(name: str, data: Any, *, by: Author, match: int | None) -> None:
    """Sets the fields in `data`. Raises what `checked_change` does, and PreconditionFailed if
    `match` is not the config's revision."""
    values = checked_change(name, data)
    with parts().database.session() as session:
        done = instances.change(session, name, values, author=by, if_match=match)
    if done.is_another_upstream:
        parts().state.clear_rests(name)
    parts().snapshots.reload()


def remove(name: str, *, by: Author, match: int | None) -> list[str]:
    """The config is gone; state and usage stay. What that means to clients, in sentences.
    Raises NotFound, PreconditionFailed."""
    with parts().database.session() as session:
        instances.remove(session, name, author=by, if_match=match)
        stored = keys.listed(session.connection())
    there = parts().snapshots.reload().instances
    allowed = {each.client.name: each.client.allowed_instances for each in stored}
    return list(left_without(allowed, [name], there))


def verified(name: str, model: str | None) -> list[Check]:
    """What a tiny call to each deployment finds; what is well need not rest any longer. Raises
    NotFound."""
    snapshot = parts().snapshots.current
    if name not in snapshot.instances:
        raise _unknown(name)
    config = snapshot.configs.get(name)
    if config is None:
        return [Check("config", ok=False, detail=snapshot.problems[name].text)]
    checks = verify(parts().upstream, config, model)
    try:
        parts().operator.end_misconfigured(name, checks)
    except StoreUnavailable:
        pass  # what was found is worth its answer; /health says what is wrong with the database
    return checks


def _snapshot_instances() -> list[StoredInstance]:
    return list(parts().snapshots.current.instances.values())


def stored_instance(name: str) -> StoredInstance:
    stored = parts().snapshots.current.instances.get(name)
    if stored is None:
        raise _unknown(name)
    return stored


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no instance named {name!r}.", code="instance_not_found")


def view_of(stored: StoredInstance, measured: StateView | None = None) -> Json:
    """`measured` of now, by whoever has it already."""
    return {"config": config_json(stored), "state": _state(stored.config, measured)}


def _both(name: str) -> Answer:
    stored = stored_instance(name)
    return view_of(stored), 200, etag(stored.revision)


def _config_alone(name: str) -> Answer:
    stored = stored_instance(name)
    return config_json(stored), 200, etag(stored.revision)


def _state(config: InstanceConfig, measured: StateView | None = None) -> Json:
    view = measured or parts().state.view(config.name)
    problem = parts().snapshots.current.problems.get(config.name)
    if problem is not None:
        view = replace(
            view,
            status=OUT_OF_SERVICE,
            last_error=problem.text,
            last_error_time=problem.since,
        )
    return state_json(config.name, view, config.max_tpm if config.rate_limit_enabled else 0)


def _matches(view: Json, query: Json) -> bool:
    config, models = view["config"], view["config"]["supported_models"]
    kind = query.get("provider_type")
    model = query.get("model", "").lower()
    return (
        query.get("status") in (None, view["state"]["status"])
        and (kind is None or PROVIDER_ALIASES.get(kind, kind) == config["provider_type"])
        and (not model or not models or model in (m.lower() for m in models))
    )


def _sort_key(key: str) -> Callable[[Json], Any]:
    return lambda view: (view["config"] | view["state"])[key]


def new_config(data: Any, *, at: str = "") -> InstanceConfig:
    """Raises Unprocessable."""
    values = checked(schemas.InstanceSchema(), data, at=at)
    values["supported_models"] = tuple(values["supported_models"])
    config = InstanceConfig(**values)
    schemas.check_auth(config, at=at)
    return config


def checked_change(name: str, data: Any) -> Json:
    """What is to be set. Raises NotFound, Unprocessable, and Forbidden if whoever makes the
    request may not change these fields."""
    fields = data if isinstance(data, dict) else {}
    more = ", ".join(f for f in CONFIG_FIELDS if f in fields and f not in OPERATED_FIELDS)
    demand(right_to_change(fields), f"To change {more}" if more else "This")
    present = stored_instance(name).config
    if isinstance(data, dict):
        data = schemas.without_masks(data, present)
    values = checked(CHANGE, data, partial=True)
    if values.pop("name", name) != name:
        raise Unprocessable(
            f"name: an instance cannot be renamed; add a new one and remove {name!r}.",
            param="name",
        )
    schemas.check_auth(replace(present, **values))
    return values
