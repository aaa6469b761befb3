"""The first page: what is happening, in ten seconds."""

from flask import Response

from proxy.context import parts
from proxy.core.roles import READ
from proxy.web.health import health
from proxy.web.ui import standing
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.forms import Json
from proxy.web.ui.pages import live, page

__all__ = ["blueprint"]

# More would not be looked at; the worst are first.
MOST_INSTANCES = 12
URGENCY = ("misconfigured", "error", "rate_limited", "healthy", "disabled")


@view("/", READ)
def overview() -> Response:
    return page("overview.html", **_now())


@view("/live/overview", READ)
def live_overview() -> Response:
    return live("_overview.html", _now)


def _now() -> Json:
    mine = parts()
    found = standing.standings(mine)
    models = standing.budgets(mine, found)
    worst = sorted(found, key=lambda one: URGENCY.index(one.status))
    return {
        "outlook": standing.of_all(found, models),
        "problem": health()["problem"],
        "budgets": sorted(models, key=lambda b: (b.left_share, b.model)),
        "standings": worst[:MOST_INSTANCES],
    }
