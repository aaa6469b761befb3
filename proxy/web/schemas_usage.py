"""What may be asked of usage, and what is shown of it."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from proxy.core.report import BUCKETS, RECENT_SECONDS, Question, usual_bucket
from proxy.core.usage import DIMENSIONS
from proxy.errors import Unprocessable
from proxy.web.schemas import checked

WINDOWS = (5, 15, 30, 60)  # minutes
USUAL_WINDOW = RECENT_SECONDS // 60
MAX_MOMENT = 253_402_300_799  # the last of the year 9999


def moment(value: Any) -> int:
    """Seconds since the epoch, or an ISO 8601 date or time; UTC where it names no zone."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        return min(int(float(text)), MAX_MOMENT)
    try:
        # A + of a query that was not encoded is a space.
        found = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        at = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValidationError(
            "Must be seconds since the epoch, or a time such as 2030-01-31T08:00Z, not"
            f" {text[:40]!r}."
        ) from None
    return max(0, int(at))


def _moment(name: str, text: str) -> Any:
    said = {"description": text, "type": "string", "format": "moment", "minLength": 1}
    return fields.Function(deserialize=moment, data_key=name, metadata=said)


NAMES = "|".join(DIMENSIONS)


class WhoSchema(Schema):
    """Whose usage: all that is given must be true of it."""

    class Meta:
        unknown = RAISE

    since = _moment("from", "Seconds since the epoch, or a time as ISO 8601 has it.")
    until = _moment("to", "Left out: now.")
    instance = fields.String(metadata={"description": "Only this instance."})
    model = fields.String(metadata={"description": "Only this model."})
    client = fields.String(metadata={"description": "Only this client."})


class StatsQuerySchema(WhoSchema):
    window = fields.Integer(
        validate=validate.OneOf(WINDOWS),
        metadata={"description": f"The last minutes; {USUAL_WINDOW} without it and `from`."},
    )
    group_by = fields.String(validate=validate.OneOf(DIMENSIONS))
    series = fields.String(
        validate=validate.OneOf(["auto", *BUCKETS]),
        metadata={"description": "A series over time, too, with a point for each of these."},
    )


class InstancesQuerySchema(StatsQuerySchema):
    class Meta:
        exclude = ("group_by", "instance", "series")


class UsageQuerySchema(WhoSchema):
    """Without `from`: the last day."""

    by = fields.String(validate=validate.OneOf(list(BUCKETS)), load_default="hour")
    group_by = fields.String(
        load_default="",
        validate=validate.Regexp(
            rf"^(({NAMES})(,({NAMES}))*)?$",
            error=f"Must be some of {', '.join(DIMENSIONS)}, with a comma between.",
        ),
        metadata={"description": f"Some of {', '.join(DIMENSIONS)}, with a comma between."},
    )
    format = fields.String(validate=validate.OneOf(["json", "csv"]), load_default="json")


class TokensSchema(Schema):
    """`cached` are some of the prompt's, `reasoning` some of the completion's."""

    prompt = fields.Integer()
    completion = fields.Integer()
    cached = fields.Integer()
    reasoning = fields.Integer()
    total = fields.Integer()


class ErrorsSchema(Schema):
    """By whose fault. Of requests `client` and `ours`; of attempts the others, also where
    another instance made it good."""

    client = fields.Integer(metadata={"description": "Bad requests and keys, unknown models."})
    ours = fields.Integer(metadata={"description": "No room, no instance, or a key's limit."})
    upstream_429 = fields.Integer()
    upstream_4xx = fields.Integer(metadata={"description": "Our key or deployment is wrong."})
    upstream_5xx = fields.Integer(metadata={"description": "Also 408 and broken answers."})
    connection = fields.Integer(metadata={"description": "No answer at all."})
    timeout = fields.Integer(metadata={"description": "The request's time was over."})


class TimesSchema(Schema):
    """In ms, of requests that succeeded, from their beginning; null where none did."""

    p50 = fields.Float(allow_none=True)
    p90 = fields.Float(allow_none=True)
    p99 = fields.Float(allow_none=True)
    mean = fields.Float(allow_none=True)


class FiguresSchema(Schema):
    """What was counted."""

    requests = fields.Integer(metadata={"description": "The clients', each once."})
    succeeded = fields.Integer()
    success_rate = fields.Float(
        allow_none=True,
        metadata={"description": "Of requests that did not fail through the client's fault."},
    )
    attempts = fields.Integer(metadata={"description": "Ours: several for some requests."})
    attempt_success_rate = fields.Float(allow_none=True)
    errors = fields.Nested(ErrorsSchema)
    limited = fields.Integer(metadata={"description": "Of `ours`: by a limit of the key."})
    lost = fields.Integer(metadata={"description": "Got an error by no fault of their client."})
    aborted = fields.Integer(metadata={"description": "The client left before the end."})
    tokens = fields.Nested(TokensSchema)
    first_byte_ms = fields.Nested(TimesSchema)
    latency_ms = fields.Nested(TimesSchema)
    cost = fields.Float(metadata={"description": "In the currency of the prices."})


class GroupSchema(FiguresSchema):
    name = fields.String(
        metadata={"description": "Empty: no instance, a made-up model, no known client."}
    )


class PointSchema(FiguresSchema):
    at = fields.Integer(metadata={"description": "When it begins, seconds since the epoch."})
    name = fields.String(metadata={"description": "Of the group, if there are groups."})


class _RangeSchema(Schema):
    since = fields.Integer(data_key="from", metadata={"description": "Inclusive."})
    until = fields.Integer(data_key="to", metadata={"description": "Exclusive."})


class StatsSchema(_RangeSchema):
    """Of whole minutes; of hours or days where minutes are not kept any more."""

    total = fields.Nested(FiguresSchema)
    group_by = fields.String(allow_none=True)
    groups = fields.List(fields.Nested(GroupSchema))
    bucket = fields.String(allow_none=True)
    series = fields.List(fields.Nested(PointSchema))


class InstanceStatsSchema(GroupSchema):
    status = fields.String()
    current_tpm = fields.Integer()
    current_rpm = fields.Integer()
    max_tpm = fields.Integer()


class InstancesStatsSchema(_RangeSchema):
    """All instances of the config, by name."""

    instances = fields.List(fields.Nested(InstanceStatsSchema))


class HealthSchema(Schema):
    status = fields.String(validate=validate.OneOf(["healthy", "degraded", "critical"]))
    sentence = fields.String(metadata={"description": "How it is, for people."})
    reasons = fields.List(fields.String())
    instances = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Status -> how many have it."},
    )
    budgets = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        metadata={"description": "Model -> share of its tokens a minute that is left."},
    )


class UsageRowSchema(FiguresSchema):
    at = fields.Integer()
    instance = fields.String()
    model = fields.String()
    client = fields.String()


class UsageReportSchema(_RangeSchema):
    """By moment, then by name."""

    by = fields.String()
    rows = fields.List(fields.Nested(UsageRowSchema))


def stats_question(
    values: dict[str, str],
    oldest: Mapping[int, int],
    *,
    schema: type[Schema] = StatsQuerySchema,
) -> Question:
    """`oldest`: period -> since when it is kept. Raises Unprocessable."""
    asked = checked(schema(), values)
    if "window" in asked and ("since" in asked or "until" in asked):
        raise Unprocessable("window: Give either it, or from and to.", param="window")
    window_seconds = asked.get("window", USUAL_WINDOW) * 60
    since, until = _range(asked, window_seconds)
    series = asked.get("series")
    if series == "auto":
        series = usual_bucket(since, until, oldest)
    by = [asked["group_by"]] if "group_by" in asked else []
    return Question(since, until, _where(asked), by, BUCKETS[series] if series else 0)


def usage_question(values: dict[str, str]) -> tuple[Question, str]:
    """And the format. Raises Unprocessable."""
    asked = checked(UsageQuerySchema(), values)
    by = list(dict.fromkeys(filter(None, asked["group_by"].strip().split(","))))
    since, until = _range(asked, 86_400)
    return Question(since, until, _where(asked), by, BUCKETS[asked["by"]]), asked["format"]


def _range(asked: dict[str, Any], usual_seconds: int) -> tuple[int, int]:
    until = asked.get("until", int(time.time()) + 1)
    since = asked.get("since", until - usual_seconds)
    if since >= until:
        raise Unprocessable(
            "from: Must be before `to`, which is now where it is not given.", param="from"
        )
    return since, until


def _where(asked: dict[str, Any]) -> dict[str, str]:
    return {name: asked[name] for name in DIMENSIONS if name in asked}
