"""Clients: what they use of what they may, and their keys."""

from collections.abc import Iterable

from flask import Response, request

from proxy.context import parts
from proxy.core.config_document import OF_KIND
from proxy.core.roles import ADMINISTER, READ
from proxy.store import keys as store
from proxy.web.author import author
from proxy.web.keys import with_state
from proxy.web.schemas import checked
from proxy.web.schemas_keys import (
    COMPATS,
    RotationSchema,
    checked_change,
    checked_client,
    client_json,
)
from proxy.web.ui import forms
from proxy.web.ui.asked import (
    name_asked,
    number_in,
    reason_given,
    revision_shown,
)
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.editing import Editor
from proxy.web.ui.forms import Field, Group, Json
from proxy.web.ui.pages import fragment_of_page, live, page, redirected

__all__ = ["blueprint"]

GROUPS = (
    Group(
        "The client",
        (
            Field("name", "Name", required=True),
            Field("enabled", "Enabled", "switch"),
            Field("expires_at", "Expires", "moment", "Empty: never.", "UTC"),
            Field("labels", "Labels", "pairs", "team = a, one a line."),
            Field("compat", "Answers", "choice", choices=COMPATS),
        ),
    ),
    Group(
        "What it may use",
        (
            Field("allowed_models", "Models", "lines", "One a line, gpt-4o* too; empty: all."),
            Field("allowed_instances", "Instances", "lines", "One a line; empty: all."),
            Field("allowed_networks", "From networks", "lines", "10.0.0.0/8; empty: all."),
        ),
    ),
    Group(
        "Limits a minute",
        (
            Field("max_tpm", "Tokens a minute", "limit", "0: no limit."),
            Field("max_rpm", "Requests a minute", "limit", "0: no limit."),
            Field("max_parallel_requests", "Requests at a time", "limit", "0: no limit."),
        ),
    ),
    Group(
        "Budgets",
        (
            Field("max_tokens_per_day", "Tokens a day", "limit", "0: no limit."),
            Field("max_tokens_per_month", "Tokens a month", "limit", "0: no limit."),
            Field("max_cost_per_day", "Cost a day", "cost", "0: no limit."),
            Field("max_cost_per_month", "Cost a month", "cost", "0: no limit."),
        ),
    ),
)


def _present(name: str) -> tuple[Json, int]:
    with parts().database.read() as connection:
        shown = client_json(store.stored(connection, name))
    return shown, shown["revision"]


EDITOR = Editor(
    "key",
    "Add a client",
    GROUPS,
    OF_KIND["client"].defaults,
    _present,
)
# Of each limit what is used of it now, in words and as `with_state` has it.
USED = {
    "max_tpm": ("tokens a minute", "current_tpm"),
    "max_rpm": ("requests a minute", "current_rpm"),
    "max_parallel_requests": ("at a time", "in_flight"),
    "max_tokens_per_day": ("tokens today", "tokens_today"),
    "max_tokens_per_month": ("tokens this month", "tokens_this_month"),
    "max_cost_per_day": ("cost today", "cost_today"),
    "max_cost_per_month": ("cost this month", "cost_this_month"),
}


@view("/keys", READ)
def keys() -> Response:
    return page("keys.html", **_table())


@view("/live/keys", READ)
def live_keys() -> Response:
    return live("_keys.html", _table)


@view("/key", READ)
def key() -> Response:
    return page("key.html", **_one())


@view("/live/key", READ)
def live_key() -> Response:
    return live("_key.html", _one)


@view("/key/new", ADMINISTER)
def new_key() -> Response:
    return EDITOR.new()


@view("/key/edit", ADMINISTER)
def edit_key() -> Response:
    return EDITOR.edit()


@view("/key/preview", ADMINISTER, "POST")
def preview_key() -> Response:
    """What saving the form would change."""
    data = EDITOR.written()
    after = checked_change(data) if name_asked() else checked_client(data)
    return EDITOR.preview(after, data)


@view("/key/save", ADMINISTER, "POST")
def save_key() -> Response:
    """What was shown before. A new key is shown here, this once."""
    data, name = EDITOR.previewed(), name_asked()
    by = author(reason_given())
    if name:
        with parts().database.session() as session:
            store.change(
                session, name, checked_change(data), author=by, if_match=revision_shown()
            )
        parts().snapshots.reload()
        return redirected("console.key", name=name)
    values = checked_client(data)
    name = values.pop("name")
    with parts().database.session() as session:
        made = store.add(session, name, values, author=by)
    parts().snapshots.reload()
    return fragment_of_page("_new_key.html", name=name, key=made)


@view("/key/rotate", ADMINISTER, "POST")
def rotate_key() -> Response:
    """Another key, shown this once; the present one is valid for `grace_seconds` yet."""
    name = name_asked()
    values = checked(
        RotationSchema(), {"grace_seconds": number_in(request.form, "grace_seconds")}
    )
    with parts().database.session() as session:
        made = store.rotate(session, name, **values, author=author(reason_given()))
    parts().snapshots.reload()
    return fragment_of_page("_new_key.html", name=name, key=made)


@view("/key/remove", ADMINISTER, "POST")
def remove_key() -> Response:
    with parts().database.session() as session:
        store.remove(
            session, name_asked(), author=author(reason_given()), if_match=revision_shown()
        )
    parts().snapshots.reload()
    return redirected("console.keys")


def usage(shown: Json) -> list[tuple[str, str, float, float]]:
    """Of each limit that a client has its field, what it bounds, what is used, and the
    bound."""
    state = shown["state"]
    return [
        (field, words, state[used] or 0, shown[field])
        for field, (words, used) in USED.items()
        if shown[field]
    ]


def _table() -> Json:
    with parts().database.read() as connection:
        stored = store.listed(connection)
    return {"clients": _with_usage(map(with_state, stored))}


def _one() -> Json:
    with parts().database.read() as connection:
        stored = store.stored(connection, name_asked())
    shown = with_state(stored)
    (one,) = _with_usage([shown])
    return {"one": one, "fields": forms.shown(GROUPS, shown)}


def _with_usage(shown: Iterable[Json]) -> list[Json]:
    return [each | {"usage": usage(each)} for each in shown]
