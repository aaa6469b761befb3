"""The admin API: what was used, how fast it was, and how the gateway is."""

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from flask import Response
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import Parts, parts
from proxy.core.report import BUCKETS, Question, figures, last
from proxy.core.usage import NOTHING
from proxy.core.wellness import Watched, judge
from proxy.web import schemas_usage
from proxy.web.auth import require_admin
from proxy.web.counted import Counted, counted_for, oldest
from proxy.web.documented import CSV, documented_in
from proxy.web.health import keys_problem, sync_problem
from proxy.web.schemas import query_values
from proxy.web.schemas_usage import stats_question, usage_question
from proxy.web.ui.standing import Standing, budgets, of_all, standings

Json = dict[str, Any]

BUCKET_NAMES = {seconds: name for name, seconds in BUCKETS.items()}
HEALTH_SECONDS = 300

blueprint = Blueprint(
    "usage",
    __name__,
    url_prefix="/admin",
    description="Usage: requests, tokens, errors, times and money, and how the gateway is.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)


@blueprint.route("/stats")
class Stats(MethodView):
    @documented(
        200, schemas_usage.StatsSchema, query=schemas_usage.StatsQuerySchema, errors=(422,)
    )
    def get(self) -> Response:
        """Figures of the last minutes, or of any time; by instance, model or client."""
        return _shown(stats(parts(), stats_question(query_values(), oldest(parts()))))


@blueprint.route("/stats/instances")
class InstancesStats(MethodView):
    @documented(
        200,
        schemas_usage.InstancesStatsSchema,
        query=schemas_usage.InstancesQuerySchema,
        errors=(422,),
    )
    def get(self) -> Response:
        """Figures of each instance, and how it is now."""
        asked = stats_question(
            query_values(), oldest(parts()), schema=schemas_usage.InstancesQuerySchema
        )
        question, counted = counted_for(parts(), replace(asked, by=["instance"]))
        instances = [
            _instance(one, figures(counted.get((0, one.name), NOTHING)))
            for one in sorted(standings(parts()), key=lambda one: one.name)
        ]
        return _shown({"from": question.since, "to": question.until, "instances": instances})


@blueprint.route("/stats/health")
class HealthStats(MethodView):
    @documented(200, schemas_usage.HealthSchema, errors=())
    def get(self) -> Json:
        """Healthy, degraded or critical, and why."""
        return health(parts())


@blueprint.route("/usage")
class UsageReport(MethodView):
    @documented(
        200,
        schemas_usage.UsageReportSchema,
        query=schemas_usage.UsageQuerySchema,
        errors=(422,),
        csv=True,
    )
    def get(self) -> Response:
        """Usage and money by minute, hour or day, as JSON or CSV."""
        question, form = usage_question(query_values())
        report = usage_report(parts(), question)
        if form == "csv":
            text = as_csv(report["rows"], question.by)
            return Response(text, content_type=f"{CSV}; charset=utf-8")
        return _shown(report)


def stats(mine: Parts, asked: Question) -> Json:
    """As /admin/stats shows it."""
    plain = replace(asked, bucket_seconds=0)
    question, counted = counted_for(mine, plain)
    total = list((_whole(mine, question) if asked.by else counted).values())
    by_name = {key[1]: counts for key, counts in counted.items()} if asked.by else {}
    found: Json = {
        "from": question.since,
        "to": question.until,
        "total": figures(total[0] if total else NOTHING),
        "group_by": asked.by[0] if asked.by else None,
        "groups": [{"name": n, **figures(by_name[n])} for n in sorted(by_name)],
        "bucket": BUCKET_NAMES.get(asked.bucket_seconds),
        "series": [],
    }
    if asked.bucket_seconds:
        _, points = counted_for(mine, asked)
        found["series"] = [
            {"at": at, **({"name": names[0]} if names else {}), **figures(counts)}
            for (at, *names), counts in sorted(points.items())
        ]
    return found


def usage_report(mine: Parts, asked: Question) -> Json:
    question, counted = counted_for(mine, asked)
    return {
        "from": question.since,
        "to": question.until,
        "by": BUCKET_NAMES[asked.bucket_seconds],
        "rows": [
            {"at": at, **dict(zip(asked.by, names, strict=True)), **figures(counts)}
            for (at, *names), counts in sorted(counted.items())
        ],
    }


def health(mine: Parts) -> Json:
    _, counted = counted_for(mine, last(HEALTH_SECONDS, time.time()))
    shown = figures(counted.get((0,), NOTHING))
    # Without those that a limit of their key refused.
    refused = shown["errors"]["ours"] - shown["limited"]
    found = standings(mine)
    models = budgets(mine, found)
    statuses = {each.name: each.status for each in found}
    judged = judge(
        Watched(
            statuses,
            models,
            rate=shown["success_rate"],
            judged=shown["succeeded"] + shown["lost"] + refused,
            problem=sync_problem(),
            outage=keys_problem(),
        )
    )
    return {
        "status": judged.status,
        "sentence": of_all(found, models).sentence,
        "reasons": list(judged.reasons),
        "instances": dict(Counter(statuses.values())),
        "budgets": {model.model: round(model.left_share, 4) for model in models},
    }


def as_csv(rows: list[Json], by: Any) -> str:
    """With a line of names; moments in seconds, and what is not known empty."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    flat = [_flat({"requests": 0, **row}) for row in rows]
    names = list(_flat({"at": 0, **dict.fromkeys(by, ""), **figures(NOTHING)}))
    lines.writerow(names)
    for row in flat:
        lines.writerow([_safe(row.get(name)) for name in names])
    return text.getvalue()


def moment_text(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def _flat(row: Mapping[str, Any], before: str = "") -> Json:
    """{"tokens": {"prompt": 1}} becomes {"tokens_prompt": 1}."""
    found: Json = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}_")
        else:
            found[before + name] = value
    return found


def _safe(value: Any) -> Any:
    """Names come from clients, and a spreadsheet takes one that begins so for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


def _shown(found: Json) -> Response:
    """It is as its schema says (a test compares them), and to have that made of it would take
    far longer than all else."""
    return Response(orjson.dumps(found), content_type="application/json")


def _whole(mine: Parts, question: Question) -> Counted:
    return counted_for(mine, replace(question, by=()))[1]


def _instance(one: Standing, shown: Json) -> Json:
    return {
        "name": one.name,
        "status": one.status,
        "current_tpm": one.state["current_tpm"],
        "current_rpm": one.state["current_rpm"],
        "max_tpm": one.max_tpm,
        **shown,
    }
