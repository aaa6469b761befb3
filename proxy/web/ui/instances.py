"""Instances: how they are, and what an operator does about them."""

from typing import Any

from flask import Response, request

from proxy.context import parts
from proxy.core.config_document import OF_KIND, plain
from proxy.core.providers import PROVIDERS
from proxy.core.roles import ADMINISTER, OPERATE, READ
from proxy.core.types import ENTRA, KEY
from proxy.web import admin
from proxy.web.admin import checked_change, new_config, stored_instance
from proxy.web.author import author
from proxy.web.counted import recent_of_console
from proxy.web.ui import forms, standing
from proxy.web.ui.asked import name_asked, reason_given, revision_shown
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.editing import Editor
from proxy.web.ui.forms import Field, Group, Json
from proxy.web.ui.pages import fragment_of_page, live, page, redirected

__all__ = ["blueprint"]

GROUPS = (
    Group(
        "The upstream",
        (
            Field("name", "Name", required=True),
            Field("provider_type", "Provider", "choice", choices=tuple(PROVIDERS)),
            Field(
                "api_base",
                "Address",
                help="https://your-resource.openai.azure.com",
                required=True,
            ),
            Field("auth", "It knows us by", "choice", choices=(KEY, ENTRA)),
            Field(
                "api_key",
                "Key",
                "secret",
                help="Empty: as it is, if there is one. env:NAME or file:/path say where it is;"
                " NONE: no key.",
            ),
            Field("api_version", "API version"),
            Field(
                "proxy_url", "By way of the proxy", "masked", help="Or env:NAME, file:/path."
            ),
        ),
    ),
    Group(
        "What it serves",
        (
            Field("enabled", "Enabled", "switch"),
            Field("supported_models", "Models", "lines", "One a line; empty: any."),
            Field(
                "model_deployments",
                "Deployments",
                "pairs",
                "model = deployment, one a line; where the two differ.",
            ),
            Field("max_input_tokens", "Longest prompt", "limit", "0: no limit.", "tokens"),
        ),
    ),
    Group(
        "Whom it is asked before",
        (
            Field("priority", "Priority", "number", "The lowest is asked first."),
            Field("weight", "Weight", "number", "Among those of one priority."),
            Field("retry_count", "Tries again", "number"),
            Field("timeout_seconds", "First byte within", "decimal", unit="s"),
        ),
    ),
    Group(
        "Limits",
        (
            Field("rate_limit_enabled", "Limits hold", "switch"),
            Field("max_tpm", "Tokens a minute", "limit", "0: no limit."),
            Field("max_rpm", "Requests a minute", "limit", "0: no limit."),
            Field(
                "model_limits",
                "Of single models",
                "limits",
                "model: max_tpm=1000 max_rpm=60, one a line.",
            ),
            Field("quota_group", "Quota group", "nullable", "Who shares a quota."),
        ),
    ),
)


def plain_config(config: Any) -> Json:
    return {f.name: plain(getattr(config, f.name)) for f in forms.all_of(GROUPS)}


def _present(name: str) -> tuple[Json, int]:
    stored = stored_instance(name)
    return plain_config(stored.config), stored.revision


EDITOR = Editor(
    "instance",
    "Add an instance",
    GROUPS,
    OF_KIND["instance"].defaults,
    _present,
)


@view("/instances", READ)
def instances() -> Response:
    return page("instances.html", **_table())


@view("/live/instances", READ)
def live_instances() -> Response:
    return live("_instances.html", _table)


@view("/instance", READ)
def instance() -> Response:
    return page("instance.html", **_one())


@view("/live/instance", READ)
def live_instance() -> Response:
    return live("_instance.html", _one)


@view("/instance/switch", OPERATE, "POST")
def switch_instance() -> Response:
    """What enabling it would change, or disabling: `to` says which."""
    stored, form = stored_instance(name_asked()), request.form
    shown, is_on = plain_config(stored.config), form.get("to") == "on"
    return fragment_of_page(
        "_switch.html",
        name=stored.config.name,
        differences=forms.differences(GROUPS, shown, {"enabled": is_on}),
        to="on" if is_on else "off",
        of=form.get("of", ""),
        back=form.get("back", ""),
        revision=stored.revision,
    )


@view("/instance/enable", OPERATE, "POST")
def enable_instance() -> Response:
    """What was shown before. Raises PreconditionFailed if somebody was faster."""
    name, is_on = name_asked(), request.form.get("to") == "on"
    by = author(reason_given())
    admin.change(name, {"enabled": is_on}, by=by, match=revision_shown())
    part, values = _asked_from()
    return fragment_of_page("_switched.html", part=part, **values)


@view("/instance/clear", OPERATE, "POST")
def clear_instance() -> Response:
    """Errors and rests are void."""
    parts().operator.clear_errors(stored_instance(name_asked()).config.name)
    return _again()


@view("/instance/verify", OPERATE, "POST")
def verify_instance() -> Response:
    return fragment_of_page(
        "_checks.html", name=name_asked(), checks=admin.verified(name_asked(), None)
    )


@view("/instance/remove", ADMINISTER, "POST")
def remove_instance() -> Response:
    admin.remove(name_asked(), by=author(reason_given()), match=revision_shown())
    return redirected("console.instances")


@view("/instance/edit", ADMINISTER)
def edit_instance() -> Response:
    return EDITOR.edit()


@view("/instance/new", ADMINISTER)
def new_instance() -> Response:
    return EDITOR.new()


@view("/instance/preview", ADMINISTER, "POST")
def preview_instance() -> Response:
    """What saving the form would change."""
    name, data = name_asked(), EDITOR.written()
    after = checked_change(name, data) if name else plain_config(new_config(data))
    return EDITOR.preview(after, data)


@view("/instance/save", ADMINISTER, "POST")
def save_instance() -> Response:
    """What was shown before. Raises PreconditionFailed if somebody was faster."""
    data = EDITOR.previewed()
    by, name = author(reason_given()), name_asked()
    if name:
        admin.change(name, data, by=by, match=revision_shown())
    else:
        config = new_config(data)
        admin.add([config], by=by)
        name = config.name
    return redirected("console.instance", name=name)


def _table() -> Json:
    mine = parts()
    found = standing.standings(mine)
    models = standing.budgets(mine, found)
    return {
        "groups": standing.groups(found),
        "recent": recent_of_console(mine),
        "outlook": standing.of_all(found, models),
        "policy": mine.settings.policy,
    }


def _one() -> Json:
    stored = stored_instance(name_asked())
    return {
        "one": standing.standing(parts(), stored),
        "told": recent_of_console(parts()).of(stored.config.name),
        "revision": stored.revision,
        "fields": forms.shown(GROUPS, plain_config(stored.config)),
    }


def _again() -> Response:
    part, values = _asked_from()
    return fragment_of_page(part, **values)


def _asked_from() -> tuple[str, Json]:
    """The table or the page as it is now, whichever of the two asked."""
    if request.form.get("of") == "table":
        return "_instances.html", _table()
    return "_instance.html", _one()
