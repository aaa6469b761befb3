"""What may come in through the admin API, and what goes out of it."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import has_app_context, request
from marshmallow import (
    INCLUDE,
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
from proxy.core import references
from proxy.core.addresses import refused
from proxy.core.masking import MASK, masked, masked_key
from proxy.core.moments import NotAMoment, moment
from proxy.core.providers import NO_KEY, PROVIDER_ALIASES, PROVIDERS
from proxy.core.types import ENTRA, KEY, InstanceConfig
from proxy.errors import Unprocessable
from proxy.runtime.state import StateView
from proxy.settings import load_settings
from proxy.store.instances import CONFIG_FIELDS, StoredInstance
from proxy.web.body import parsed_json, read_body
from proxy.web.errors import message_and_path, messages_and_paths, shown

MAX_NUMBER = 2**31 - 1
MAX_TIMEOUT_SECONDS = 3600
LATEST_AT = 10_000_000_000  # in the year 2286; milliseconds are above it
MAX_LATIN_1 = 0xFF
SECRET_WORDS = ("key", "proxy", "secret", "token_", "password", "credential")
UNKNOWN = "Unknown field."  # marshmallow's message
MAX_BESIDES = 5  # that one message names
DEPLOYMENTS = "/openai/deployments"  # what people copy with the address from Azure's portal
STATUSES = ("healthy", "rate_limited", "misconfigured", "error")

# Path segments of the admin API: an instance of such a name could not be addressed.
RESERVED_NAMES = frozenset({"new", "migrate", "implementation"})
RESERVED_ENDINGS = ("/config", "/state", "/verify")

# Part of what GET shows; taken back in a PUT, and without effect there.
READ_ONLY = frozenset({"api_key_set", "created_at", "updated_at", "revision"})


class StrictInteger(fields.Integer):
    """A whole number, and not `true` or "3"."""

    def __init__(self, low: int, high: int = MAX_NUMBER, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(low, high), **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool | str):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class StrictFloat(fields.Float):
    """A number, and not `true`, "3", NaN or infinity."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool | str):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Moment(fields.Raw):
    """Seconds since the epoch, as they are or as a date."""

    def __init__(self, description: str, **more: Any) -> None:
        as_number = {"type": "number", "minimum": 0, "maximum": LATEST_AT}
        as_date = {"type": "string", "format": "date-or-time"}
        said = f"{description} A date, in UTC unless it says otherwise (2030-01-31,"
        said += " 2030-01-31T12:00:00Z), or seconds since the epoch; null: never."
        metadata = {"description": said, "anyOf": [as_number, as_date]}
        super().__init__(allow_none=True, load_default=None, metadata=metadata, **more)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            try:
                value = moment(value)
            except NotAMoment as error:
                raise ValidationError(str(error)) from None
        found = StrictFloat()._deserialize(value, attr, data, **kwargs)
        if not 0 <= found <= LATEST_AT:
            raise ValidationError(
                f"Must be seconds, not milliseconds, since the epoch: 0 to {LATEST_AT}."
            )
        return found


class StrictBoolean(fields.Boolean):
    """true or false, and not 1 or "yes"."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


def _is_name(name: str) -> None:
    is_part_of_path(name)
    if name in RESERVED_NAMES or name.startswith("new/") or name.endswith(RESERVED_ENDINGS):
        raise ValidationError("Is a path of the admin API; choose another name.")


def is_part_of_path(name: str) -> None:
    """It can stand at the end of a path, slashes and all."""
    is_printable(name)
    if name.startswith("/") or name.endswith("/"):
        raise ValidationError("Must not begin or end with a slash.")
    if {".", ".."} & set(name.split("/")):
        # RFC 3986, 5.2.4: clients take such a segment out of the path before they send it.
        raise ValidationError("Must not be, or have between slashes, a single or double dot.")


def _is_url(url: str) -> None:
    _check_url(url, credentials=False)
    if DEPLOYMENTS in urlsplit(url).path.lower():
        raise ValidationError(
            f"Must end before {DEPLOYMENTS}: the gateway adds that. Which deployment serves a"
            " model is in `model_deployments`."
        )


def _is_proxy_url(url: str) -> None:
    if not url or _is_reference(url):
        return
    _check_url(url, credentials=True)
    credentials = urlsplit(url).netloc.rpartition("@")[0]
    if credentials == MASK:
        raise ValidationError("Is a masked URL; leave the field out to keep the present one.")
    if any(ord(c) > MAX_LATIN_1 for c in unquote(credentials)):
        raise ValidationError("User and password must be Latin-1: they are sent in a header.")


def _check_url(url: str, *, credentials: bool) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValidationError("Is not a URL.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValidationError("Must be http:// or https:// and a host.")
    if re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise ValidationError("Must not contain spaces, backslashes or control characters.")
    if parts.query or parts.fragment:
        raise ValidationError("Must have no ? or # part.")
    if not credentials and "@" in parts.netloc:
        raise ValidationError("Must not contain user or password; the key is `api_key`.")
    leads_to = refused(parts.hostname)
    if leads_to and not _allows_private_upstreams():
        raise ValidationError(
            f"Leads to {leads_to}. Name the upstream itself, or set"
            " PROXY_ALLOW_PRIVATE_UPSTREAMS=true."
        )


def _allows_private_upstreams() -> bool:
    """A migration that imports has no app around it."""
    settings = parts().settings if has_app_context() else load_settings()
    return settings.allow_private_upstreams


def _is_key(key: str) -> None:
    if _is_reference(key):
        return
    mistake = references.key_mistake(key)
    if mistake:
        raise ValidationError(mistake)
    if key.startswith(MASK):
        raise ValidationError("Is a masked key; leave the field out to keep the present one.")


def _is_reference(value: str) -> bool:
    """Where it leads is looked up when it is used: what it names may be there only later. But
    what is the gateway's own never may be."""
    if not references.is_reference(value):
        return False
    mistake = references.mistake(value)
    if mistake is None and has_app_context():
        mistake = parts().snapshots.references.names_ours(value)
    if mistake:
        raise ValidationError(mistake)
    return True


def _distinct(values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValidationError("Names a model twice.")


def _word() -> fields.String:
    """A model or a deployment."""
    return fields.String(
        validate=[validate.Length(1, 200), is_printable], metadata={"format": "model-name"}
    )


def is_printable(text: str) -> None:
    if not text.isprintable() or text != text.strip():
        raise ValidationError("Must have no space at its ends and no control characters.")


class ModelLimitsSchema(Schema):
    """Of one deployment. 0 or left out: no limit of its own."""

    class Meta:
        unknown = RAISE

    max_tpm = StrictInteger(0)
    max_rpm = StrictInteger(0)


def _model_limits() -> fields.Dict:
    return fields.Dict(
        keys=_word(),
        values=fields.Nested(ModelLimitsSchema),
        load_default=dict,
        metadata={"description": "Of single deployments, by their model."},
    )


def _max_rpm() -> StrictInteger:
    return StrictInteger(
        0,
        load_default=0,
        metadata={"description": "Requests a minute, looked at over 10 s; 0: no limit."},
    )


class InstanceSchema(Schema):
    """An instance's config as an operator writes it."""

    class Meta:
        unknown = RAISE  # a misspelt field is an error, not a field that has no effect

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 100), _is_name],
        metadata={"format": "gateway-name"},
    )
    provider_type = fields.String(
        validate=validate.OneOf([*PROVIDERS, *PROVIDER_ALIASES]), load_default="azure"
    )
    api_key = fields.String(
        validate=[validate.Length(1, 4000), _is_key],
        metadata={
            "format": "secret",
            "description": "Sent to the upstream; never returned. NONE: send no key. env:NAME"
            " or file:/path: where the key is. Required, unless auth is entra.",
        },
    )
    api_base = fields.String(
        required=True,
        validate=[validate.Length(1, 2000), _is_url],
        metadata={"format": "upstream-url"},
    )
    api_version = fields.String(
        # Ends so because `$` allows a line end in Python, and others do not know `\Z`.
        validate=validate.Regexp(r"^[A-Za-z0-9._-]{1,50}(?![\s\S])"),
        load_default="2024-10-21",
    )
    proxy_url = fields.String(
        allow_none=True,
        validate=[validate.Length(0, 2000), _is_proxy_url],
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
        _word(),
        validate=_distinct,
        load_default=list,
        metadata={"description": "Empty: any.", "uniqueItems": True},
    )
    model_deployments = fields.Dict(keys=_word(), values=_word(), load_default=dict)
    enabled = StrictBoolean(load_default=True)
    timeout_seconds = StrictFloat(
        validate=validate.Range(0, MAX_TIMEOUT_SECONDS, min_inclusive=False),
        load_default=60.0,
        metadata={"exclusiveMinimum": True},  # the document would not say so by itself
    )
    retry_count = StrictInteger(0, 100, load_default=3)
    rate_limit_enabled = StrictBoolean(load_default=True)
    max_rpm = _max_rpm()
    model_limits = _model_limits()
    quota_group = fields.String(
        allow_none=True,
        validate=[validate.Length(1, 100), _is_name],
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


class InstanceChangeSchema(InstanceSchema):
    """Some of an instance's fields: with `partial`. A name of its own in the document."""


class InstanceConfigSchema(InstanceSchema):
    """As it is shown."""

    api_key_set = fields.Boolean()
    revision = fields.Integer()
    created_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    updated_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})


class QuotaGroupChangeSchema(Schema):
    """Limits of a group; what is left out stays."""

    class Meta:
        unknown = RAISE

    max_tpm = StrictInteger(0, metadata={"description": "Tokens a minute; 0: no limit."})
    max_rpm = _max_rpm()
    model_limits = _model_limits()

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
    model_limits = _model_limits()
    instances = fields.List(fields.String())
    revision = fields.Integer(allow_none=True)
    created_at = fields.Float(allow_none=True)
    updated_at = fields.Float(allow_none=True)


class QuotaGroupListSchema(Schema):
    """Every group that an instance is in or that has limits."""

    quota_groups = fields.List(fields.Nested(QuotaGroupSchema))


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

    model = _word()


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


class AnyBodySchema(Schema):
    """The body of a client's request, as it would be sent to the client API."""

    class Meta:
        unknown = INCLUDE

    model = fields.String(required=True, validate=validate.Length(1, 200))


class ExplainedInstanceSchema(Schema):
    """One who serves the model, in the order in which they would be tried."""

    name = fields.String()
    deployment = fields.String()
    priority = fields.Integer()
    weight = fields.Integer()
    in_flight = fields.Integer()
    first_byte_ms = fields.Float(allow_none=True)
    used_percentage = fields.Float(
        allow_none=True, metadata={"description": "Of the limit that is used most."}
    )
    asked = fields.Boolean(metadata={"description": "It could be asked now."})
    reason = fields.String(allow_none=True)
    wait_seconds = fields.Float(allow_none=True)
    why = fields.String()


class CompetingClientSchema(Schema):
    """One that had of the model in the last seconds, or wants more of it than it gets."""

    name = fields.String()
    share_percentage = fields.Float(
        metadata={"description": "Of what all clients had of the model in the last seconds."}
    )
    wants_more = fields.Boolean(
        metadata={"description": "It waited, or was refused, a moment ago."}
    )
    held_back = fields.Boolean(
        metadata={"description": "It leaves room to who had less, and waits or is refused now."}
    )


class ExplainQuerySchema(Schema):
    """Whose call it would be."""

    class Meta:
        unknown = RAISE

    client = fields.String(load_default="", metadata={"description": "The name of one."})


class ExplainedClientSchema(Schema):
    """Whether the client may make the call now, wherever it comes from."""

    name = fields.String()
    let_in = fields.Boolean()
    reason = fields.String(
        allow_none=True, metadata={"description": "Its limit that is reached, or another."}
    )
    wait_seconds = fields.Float(
        allow_none=True, metadata={"description": "Until that has passed; null: it does not."}
    )
    why = fields.String()


class ExplanationSchema(Schema):
    """`order`: who would be asked, first to last. `clients`: who competes for the model;
    empty while nobody wants more of it than it gets. `client`: of the one that was asked
    about."""

    model = fields.String()
    endpoint = fields.String()
    policy = fields.String()
    prompt_tokens = fields.Integer()
    reserved_tokens = fields.Integer()
    order = fields.List(fields.String())
    instances = fields.List(fields.Nested(ExplainedInstanceSchema))
    clients = fields.List(fields.Nested(CompetingClientSchema))
    client = fields.Nested(ExplainedClientSchema, allow_none=True)


class ErrorBodySchema(Schema):
    message = fields.String()
    type = fields.String()
    param = fields.String(allow_none=True)
    code = fields.String()


class NotesSchema(Schema):
    """What a person should know of what was done."""

    notes = fields.List(fields.String())


class ErrorSchema(Schema):
    """OpenAI's shape, for every error."""

    error = fields.Nested(ErrorBodySchema)


def query_values() -> dict[str, str]:
    """The query's parameters. Raises Unprocessable if one is there twice."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise Unprocessable(f"{name}: Is given {len(values)} times.", param=name)
    return request.args.to_dict()


def body_json(*, default: Any = None) -> Any:
    """The request's body, whatever its content type: `curl -d` names the wrong one."""
    body = read_body(parts(), request.environ)
    if not body and default is not None:
        return default
    return parsed_json(body)


def checked(
    schema: Schema, data: Any, *, partial: bool = False, at: str = ""
) -> dict[str, Any]:
    """`data` as the schema reads it. Raises Unprocessable that names the first bad field.

    `at` goes before the field's name: where in a list `data` stands.
    """
    if not isinstance(data, dict):
        raise Unprocessable(f"{at and at[:-1] + ': '}A JSON object is needed.")
    try:
        values: dict[str, Any] = schema.load(data, partial=partial)
    except ValidationError as error:
        raise unprocessable(error, data, at=at) from None
    return values


# Making a schema takes longer than using it, and an import checks thousands of records.
WHOLE_INSTANCE = InstanceSchema()


def checked_instance(values: Any) -> tuple[dict[str, Any], list[tuple[str, list[str]]]]:
    """A whole config as the schema reads it, or else everything that is wrong with it: each a
    message and the path of the field."""
    try:
        return WHOLE_INSTANCE.load(values), []
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


def unprocessable(error: ValidationError, data: Any, *, at: str = "") -> Unprocessable:
    """Names the first bad field, and some of the others."""
    message, keys = message_and_path(error.messages)
    path, sentence = _problem(message, keys, data, at)
    found = [each for each in messages_and_paths(error.messages) if each[1] != keys]
    wrong = [_problem(said, where, data, at) for said, where in found if said != UNKNOWN]
    for field, said in wrong[:MAX_BESIDES]:
        sentence += f" Besides, {field}: {said}"
    if message != UNKNOWN:
        # What is missing may be what is misspelt.
        unknown = [".".join(where) for said, where in found if said == UNKNOWN]
        if unknown:
            sentence += f" Unknown besides: {', '.join(map(shown, unknown[:MAX_BESIDES]))}."
    return Unprocessable(f"{path}: {sentence}", param=path or None)


def problems(error: ValidationError, data: Any, *, at: str = "") -> list[tuple[str, str]]:
    """All that is wrong with `data`: each the path of a field, and a sentence."""
    return [
        _problem(message, keys, data, at)
        for message, keys in messages_and_paths(error.messages)
    ]


def _problem(message: str, keys: Sequence[str], data: Any, at: str) -> tuple[str, str]:
    field = ".".join(keys)
    value = _value_at(data, keys)
    # What is misspelt may be anything.
    is_secret = (
        _is_secret(field) or message == UNKNOWN or (isinstance(value, str) and "@" in value)
    )
    given = "" if is_secret or value is None else f" Given: {shown(value)}."
    return f"{at}{field}", f"{message}{given}"


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


def _is_secret(field: str) -> bool:
    """Also misspelt: somebody who writes `api-key` sends a key."""
    return any(word in field.lower() for word in SECRET_WORDS)


def _value_at(data: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        elif key != "value":  # marshmallow's word for what a mapping's key leads to
            return None
    return data
