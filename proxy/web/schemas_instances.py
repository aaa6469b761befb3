"""Instances, as the admin API takes and shows them: config, state, lists, what was tried."""

from typing import Any

from marshmallow import (
    RAISE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_load,
    validate,
    validates_schema,
)

from proxy.context import parts
from proxy.core.masking import masked, masked_key
from proxy.core.providers import NO_KEY, PROVIDER_ALIASES, PROVIDERS
from proxy.core.types import ENTRA, KEY, InstanceConfig
from proxy.errors import Unprocessable
from proxy.runtime.state import StateView
from proxy.store.instances import CONFIG_FIELDS, StoredInstance
from proxy.web.errors import message_and_path
from proxy.web.schemas_fields import (
    MAX_NUMBER,
    READ_ONLY,
    StrictBoolean,
    StrictFloat,
    StrictInteger,
    distinct,
    is_key,
    is_name,
    is_no_variable,
    is_proxy_url,
    is_upstream_url,
    limits_by_model,
    requests_a_minute,
    word,
)

MAX_TIMEOUT_SECONDS = 3600
STATUSES = ("healthy", "rate_limited", "misconfigured", "error")


class InstanceSchema(Schema):
    """An instance's config as an operator writes it."""

    class Meta:
        unknown = RAISE  # a misspelt field is an error, not a field that has no effect

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 100), is_name],
        metadata={"format": "gateway-name"},
    )
    provider_type = fields.String(
        validate=validate.OneOf([*PROVIDERS, *PROVIDER_ALIASES]), load_default="azure"
    )
    api_key = fields.String(
        validate=[validate.Length(1, 4000), is_key, is_no_variable],
        metadata={
            "format": "secret",
            "description": "Sent to the upstream; never returned. NONE: send no key. env:NAME"
            " or file:/path: where the key is. Required, unless auth is entra.",
        },
    )
    api_base = fields.String(
        required=True,
        validate=[validate.Length(1, 2000), is_upstream_url],
        metadata={"format": "upstream-url"},
    )
    api_version = fields.String(
        # Ends so because `$` allows a line end in Python, and others do not know `\Z`.
        validate=validate.Regexp(r"^[A-Za-z0-9._-]{1,50}(?![\s\S])"),
        load_default="2024-10-21",
    )
    proxy_url = fields.String(
        allow_none=True,
        validate=[validate.Length(0, 2000), is_proxy_url],
        load_default=None,
        metadata={
            "format": "proxy-url",
            "description": "Or env:NAME or file:/path: where the URL is.",
        },
    )
    priority = StrictInteger(-MAX_NUMBER, load_default=100)
    weight = StrictInteger(0, load_default=100)
    max_tpm = StrictInteger(
        0, load_default=240_000, metadata={"description": "Tokens a minute; 0: no limit."}
    )
    max_input_tokens = StrictInteger(
        0, load_default=0, metadata={"description": "Tokens of a prompt; 0: no limit."}
    )
    supported_models = fields.List(
        word(),
        validate=distinct,
        load_default=list,
        metadata={"description": "Empty: any.", "uniqueItems": True},
    )
    model_deployments = fields.Dict(keys=word(), values=word(), load_default=dict)
    enabled = StrictBoolean(load_default=True)
    timeout_seconds = StrictFloat(
        validate=validate.Range(0, MAX_TIMEOUT_SECONDS, min_inclusive=False),
        load_default=60.0,
        metadata={"exclusiveMinimum": True},  # the document would not say so by itself
    )
    retry_count = StrictInteger(0, 100, load_default=3)
    rate_limit_enabled = StrictBoolean(load_default=True)
    max_rpm = requests_a_minute()
    model_limits = limits_by_model()
    quota_group = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 100), is_name],
        load_default=None,
        metadata={
            "format": "gateway-name",
            "description": "Instances of one group share a quota.",
        },
    )
    auth = fields.String(
        validate=validate.OneOf([KEY, ENTRA]),
        load_default=KEY,
        metadata={
            "description": "key: api_key is sent; entra: a token of Entra ID, and no key."
        },
    )

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back: people read, edit and write the whole."""
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if k not in READ_ONLY}

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def has_a_key(
        self, data: Any, given: Any, *, partial: bool | None = None, **_: Any
    ) -> None:
        # One that is wrong is not in `data`, and not missing.
        is_missing = isinstance(given, dict) and "api_key" not in given
        if not partial and is_missing and data.get("auth") != ENTRA:
            raise ValidationError("Missing data for required field.", "api_key")

    @post_load
    def normalise(
        self, data: dict[str, Any], *, partial: bool | None = None, **_: Any
    ) -> dict[str, Any]:
        if "provider_type" in data:
            kind = data["provider_type"]
            data["provider_type"] = PROVIDER_ALIASES.get(kind, kind)
        if "proxy_url" in data:
            data["proxy_url"] = data["proxy_url"] or None  # the old program wrote ""
        if data.get("auth") == ENTRA and not partial:
            data.setdefault("api_key", NO_KEY)
        return data


class OldInstanceSchema(InstanceSchema):
    """As an older program left it, which did not look at what its key says."""

    api_key = fields.String(validate=[validate.Length(1, 4000), is_key])


class InstanceChangeSchema(InstanceSchema):
    """Some of an instance's fields: with `partial`. A name of its own in the document."""


class InstanceConfigSchema(InstanceSchema):
    """As it is shown."""

    api_key_set = fields.Boolean()
    revision = fields.Integer()
    created_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    updated_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})


class DeploymentRestSchema(Schema):
    """A deployment that is left alone; `deployment` "" is the whole instance."""

    deployment = fields.String()
    rate_limited_until = fields.Float()
    reason = fields.String()


class InstanceStateSchema(Schema):
    """What was measured. Moments are seconds since the epoch, UTC."""

    name = fields.String()
    status = fields.String(validate=validate.OneOf([*STATUSES, "removed"]))
    error_count = fields.Integer()
    last_error = fields.String(allow_none=True)
    last_error_time = fields.Float(allow_none=True)
    rate_limited_until = fields.Float(allow_none=True)
    rests = fields.List(fields.Nested(DeploymentRestSchema))
    breaker = fields.String(
        validate=validate.OneOf(["closed", "open", "half_open"]),
        metadata={
            "description": "open: it failed, nobody asks it until breaker_open_until;"
            " half_open: one attempt at a time tries whether it is well again."
        },
    )
    breaker_open_until = fields.Float(allow_none=True)
    current_tpm = fields.Integer()
    current_rpm = fields.Integer()
    utilization_percentage = fields.Float()
    total_requests = fields.Integer()
    successful_requests = fields.Integer()
    total_tokens_served = fields.Integer()
    total_upstream_400_errors = fields.Integer()
    total_upstream_429_errors = fields.Integer()
    total_upstream_500_errors = fields.Integer()
    total_upstream_other_errors = fields.Integer()
    last_used = fields.Float(allow_none=True)
    avg_latency_ms = fields.Float(allow_none=True)


class InstanceViewSchema(Schema):
    """Both parts of one instance, apart as they are kept."""

    config = fields.Nested(InstanceConfigSchema)
    state = fields.Nested(InstanceStateSchema)


class InstanceListSchema(Schema):
    """One page; `total` counts all that match."""

    instances = fields.List(fields.Nested(InstanceViewSchema))
    total = fields.Integer()
    limit = fields.Integer()
    offset = fields.Integer()


class AddedInstancesSchema(Schema):
    """Of a list that was added."""

    instances = fields.List(fields.Nested(InstanceViewSchema), required=True)
    total = fields.Integer(required=True)


class StateChangeSchema(Schema):
    """What an operator may set: that all is well, or a rest."""

    class Meta:
        unknown = RAISE

    status = fields.String(
        validate=validate.OneOf(["healthy"]),
        metadata={"description": "healthy: clears errors and rests."},
    )
    rate_limited_until = StrictFloat(
        allow_none=True,
        validate=validate.Range(0, 4_102_444_800.0 * 10),
        metadata={"description": "Seconds since the epoch; null ends the rest."},
    )


SORT_KEYS = ("name", "priority", "weight", "status", "error_count", "total_requests")


class ListQuerySchema(Schema):
    """Filters and order of the list. `sort=-priority` is descending."""

    class Meta:
        unknown = RAISE

    status = fields.String(validate=validate.OneOf(STATUSES))
    provider_type = fields.String(validate=validate.OneOf([*PROVIDERS, *PROVIDER_ALIASES]))
    model = fields.String()
    sort = fields.String(
        validate=validate.OneOf([*SORT_KEYS, *(f"-{k}" for k in SORT_KEYS)]),
        load_default="name",
    )
    limit = fields.Integer(validate=validate.Range(1, 1000), load_default=1000)
    offset = fields.Integer(validate=validate.Range(0), load_default=0)


class VerifySchema(Schema):
    """Which model to try; without one, every model of the instance."""

    class Meta:
        unknown = RAISE

    model = word()


class CheckSchema(Schema):
    """One thing that was tried."""

    check = fields.String()
    model = fields.String(allow_none=True)
    deployment = fields.String(allow_none=True)
    ok = fields.Boolean()
    status = fields.Integer(allow_none=True)
    ms = fields.Integer()
    detail = fields.String()


class VerifyResultSchema(Schema):
    """All checks; `ok` if each is."""

    name = fields.String()
    ok = fields.Boolean()
    checks = fields.List(fields.Nested(CheckSchema))


# Making a schema takes longer than using it, and an import checks thousands of records.
OLD_INSTANCE = OldInstanceSchema()


def checked_old_instance(values: Any) -> tuple[dict[str, Any], list[tuple[str, list[str]]]]:
    """A whole config as the schema reads it, or else everything that is wrong with it: each a
    message and the path of the field."""
    try:
        return OLD_INSTANCE.load(values), []
    except ValidationError as error:
        messages = error.messages
    each = [{k: v} for k, v in messages.items()] if isinstance(messages, dict) else [messages]
    return {}, [message_and_path(one) for one in each]


def check_auth(config: InstanceConfig, *, at: str = "") -> None:
    """Raises Unprocessable for an instance that could not be sent a token of Entra ID."""
    if config.auth != ENTRA:
        return
    problem = parts().tokens.problem()
    if not PROVIDERS[config.provider_type].takes_tokens:
        kinds = " or ".join(name for name, p in PROVIDERS.items() if p.takes_tokens)
        problem = f"a provider_type {config.provider_type} takes no such tokens, only {kinds}"
    if problem is not None:
        raise Unprocessable(f"{at}auth: entra cannot be used: {problem}.", param=f"{at}auth")


def config_json(stored: StoredInstance) -> dict[str, Any]:
    """A config as it may be shown: the key masked."""
    config = stored.config
    shown = {name: masked(name, getattr(config, name)) for name in CONFIG_FIELDS}
    return shown | {
        "supported_models": list(config.supported_models),
        "model_deployments": dict(config.model_deployments),
        "model_limits": {m: dict(limits) for m, limits in config.model_limits.items()},
        "api_key_set": bool(config.api_key),  # not where it cannot be decrypted
        "revision": stored.revision,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


def without_masks(values: dict[str, Any], present: InstanceConfig) -> dict[str, Any]:
    """A change as meant by somebody who read the config, edited it and sends it all back."""
    shown = {
        "api_key": masked_key(present.api_key),
        "proxy_url": masked("proxy_url", present.proxy_url),
    }
    return {k: v for k, v in values.items() if not (k in shown and v == shown[k])}


def state_json(name: str, view: StateView, max_tpm: int) -> dict[str, Any]:
    """`max_tpm` 0: no limit that is enforced."""
    totals = dict(view.totals)
    latency_total_ms = totals.pop("latency_total_ms")
    answered = totals["successful_requests"]
    return {
        "name": name,
        "status": view.status,
        "last_error": view.last_error,
        "last_error_time": view.last_error_time,
        "rate_limited_until": max((r.until for r in view.rests.values()), default=None),
        "rests": [
            {"deployment": d, "rate_limited_until": r.until, "reason": r.reason}
            for d, r in sorted(view.rests.items())
        ],
        "breaker": view.breaker,
        "breaker_open_until": view.open_until,
        "current_tpm": view.current_tpm,
        "current_rpm": view.current_rpm,
        "utilization_percentage": round(100 * view.current_tpm / max_tpm, 2)
        if max_tpm
        else 0.0,
        "last_used": view.last_used,
        "avg_latency_ms": round(latency_total_ms / answered, 2) if answered else None,
        **totals,
    }
