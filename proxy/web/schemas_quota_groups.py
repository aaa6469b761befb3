"""Quota groups, as the admin API takes and shows them."""

from typing import Any

from marshmallow import RAISE, Schema, fields, pre_load

from proxy.web.schemas_fields import (
    READ_ONLY,
    StrictInteger,
    limits_by_model,
    requests_a_minute,
)


class QuotaGroupChangeSchema(Schema):
    """Limits of a group; what is left out stays."""

    class Meta:
        unknown = RAISE

    max_tpm = StrictInteger(0, metadata={"description": "Tokens a minute; 0: no limit."})
    max_rpm = requests_a_minute()
    model_limits = limits_by_model()

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back."""
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if k not in READ_ONLY | {"name", "instances"}}


class QuotaGroupSchema(Schema):
    """What the instances of a group may use together. Moments are seconds since the epoch."""

    name = fields.String()
    max_tpm = fields.Integer()
    max_rpm = fields.Integer()
    model_limits = limits_by_model()
    instances = fields.List(fields.String())
    revision = fields.Integer(allow_none=True)
    created_at = fields.Float(allow_none=True)
    updated_at = fields.Float(allow_none=True)


class QuotaGroupListSchema(Schema):
    """Every group that an instance is in or that has limits."""

    quota_groups = fields.List(fields.Nested(QuotaGroupSchema))
