"""The first page: what is happening, in ten seconds."""

import time

import orjson
from flask import Response

from proxy.context import parts
from proxy.core.report import OF_ATTEMPTS
from proxy.core.roles import READ
from proxy.web.counted import by_minute, recent_of_console
from proxy.web.health import health
from proxy.web.ui import standing
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.forms import Json
from proxy.web.ui.pages import live, lively, page

__all__ = ["blueprint"]

CHART_SECONDS = 3600
# Only minutes that are over are shown, so it need not be asked for more often.
TRAFFIC_SECONDS = 5.0
# More would not be looked at; the worst are first.
MOST_INSTANCES = 12
URGENCY = ("misconfigured", "error", "rate_limited", "healthy", "disabled")


@view("/", READ)
def overview() -> Response:
    return page("overview.html", **_now())


@view("/live/overview", READ)
def live_overview() -> Response:
    return live("_overview.html", _now)


@view("/live/traffic", READ)
def live_traffic() -> Response:
    """What the charts show, as JSON."""
    return lively("traffic", _traffic, "application/json", TRAFFIC_SECONDS)


def _traffic() -> bytes:
    mine = parts()
    until = int(time.time() - mine.settings.sync_interval_seconds)
    minutes = by_minute(mine, until - CHART_SECONDS, until)
    found: Json = {
        "at": list(minutes),
        "requests": [shown["requests"] for shown in minutes.values()],
        "tokens": [shown["tokens"]["total"] for shown in minutes.values()],
    }
    for kind in OF_ATTEMPTS:
        found[kind] = [shown["errors"][kind] for shown in minutes.values()]
    configs = [c for c in mine.snapshots.current.configs.values() if c.enabled]
    has_budget = configs and all(c.rate_limit_enabled and c.max_tpm for c in configs)
    found["budget"] = sum(c.max_tpm for c in configs) if has_budget else None
    return orjson.dumps(found)


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
        "recent": recent_of_console(mine),
    }
