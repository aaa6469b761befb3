"""What may be said of a client and its key, by the admin API and by `flask keys`, and what is
shown of them."""

import time
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, pre_load, validate

from proxy.core.door import ANY_END
from proxy.core.masking import MASK
from proxy.core.sources import NotANetwork, network
from proxy.core.strict import STRICT
from proxy.core.types import ANONYMOUS
from proxy.errors import Unprocessable
from proxy.store.keys import FIELDS, StoredClient
from proxy.web.schemas import checked
from proxy.web.schemas_fields import (
    MAX_NUMBER,
    Moment,
    StrictBoolean,
    StrictFloat,
    StrictInteger,
    is_part_of_path,
    is_printable,
)

COMPATS = ("raw", STRICT)
MAX_TOKENS = 2**53  # above it, programs that read JSON as floats lose the last digits
MAX_COST = 1_000_000_000  # a billion in billionths is what 64 bits hold
MAX_GRACE_SECONDS = 366 * 86_400
USUAL_GRACE_SECONDS = 86_400
MAX_LABELS = 64
ROTATE = "/rotate"  # below a client's path

# Part of what GET shows; taken back with the whole of it, and without effect there.
READ_ONLY = frozenset(
    {"key_hint", "former_keys", "expired", "last_used_at", "state"}
    | {"created_at", "updated_at", "revision"}
)
# What there is instead.
INSTEAD = {
    "expired": " Set expires_at.",
    "former_keys": " Rotate with grace_seconds 0, and all former keys end now.",
    "key_hint": " Rotate to make another key.",
    "state": " Of a client that needs more now, raise the limit.",
}


def _is_client_name(name: str) -> None:
    is_part_of_path(name)
    if name.endswith(ROTATE):
        raise ValidationError("Is a path of the admin API; choose another name.")
    if name == ANONYMOUS.name:
        raise ValidationError(
            "Is what callers without a key are counted under; choose another."
        )


def is_model_pattern(pattern: str) -> None:
    is_printable(pattern)
    if ANY_END in pattern[:-1]:
        raise ValidationError(
            "Is a model's name, or the beginning of names and a * at its end: gpt-4o*."
        )


def _is_network(text: str) -> None:
    try:
        network(text)
    except NotANetwork as error:
        raise ValidationError(str(error)) from None


def _distinct(values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValidationError("Has the same twice.")


def _list(each: Any, form: str, description: str, characters: int = 200) -> fields.List[str]:
    kind = fields.String(
        validate=[validate.Length(1, characters), each], metadata={"format": form}
    )
    about = {"description": description, "uniqueItems": True}
    return fields.List(kind, validate=_distinct, load_default=list, metadata=about)


def _limit(description: str, high: int = MAX_NUMBER) -> StrictInteger:
    return StrictInteger(
        0, high, load_default=0, metadata={"description": f"{description}; 0: no limit."}
    )


def _cost(description: str) -> StrictFloat:
    return StrictFloat(
        validate=validate.Range(0, MAX_COST),
        load_default=0.0,
        metadata={"description": f"{description}, in the prices' currency; 0: no limit."},
    )


class ClientSchema(Schema):
    """Who may call, and what its key may do. Times are UTC."""

    class Meta:
        unknown = RAISE

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 100), _is_client_name],
        metadata={"format": "gateway-name"},
    )
    enabled = StrictBoolean(load_default=True)
    expires_at: fields.Field[Any] = Moment("Its key opens nothing from then on.")
    allowed_models = _list(
        is_model_pattern,
        "model-name",
        "Names, or beginnings of names and *, such as gpt-4o*; empty: all.",
    )
    allowed_instances = _list(is_printable, "gateway-name", "Empty: all.", 100)
    allowed_networks = _list(
        _is_network,
        "network",
        "From where it may call, such as 10.0.0.0/8; empty: from everywhere.",
        60,
    )
    max_tpm = _limit("Tokens a minute")
    max_rpm = _limit("Requests a minute")
    max_parallel_requests = _limit("Requests at a time")
    max_tokens_per_day = _limit("Tokens a day", MAX_TOKENS)
    max_tokens_per_month = _limit("Tokens a month", MAX_TOKENS)
    max_cost_per_day = _cost("What it may spend a day")
    max_cost_per_month = _cost("What it may spend a month")
    compat = fields.String(
        validate=validate.OneOf(COMPATS),
        load_default="raw",
        metadata={
            "description": "openai_strict: without what Azure adds to OpenAI's answers, events"
            " without choices first of all. raw: the upstream's bytes."
        },
    )
    labels = fields.Dict(
        keys=fields.String(validate=[validate.Length(1, 200), is_printable]),
        values=fields.String(
            validate=[validate.Length(0, 200), is_printable], metadata={"format": "label"}
        ),
        validate=validate.Length(max=MAX_LABELS),
        load_default=dict,
        metadata={"description": "Whatever tells clients apart: a team, a cost centre."},
    )

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back: people read, edit and write the whole."""
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if k not in READ_ONLY}

    @post_load
    def normalise(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "allowed_networks" in data:
            found = (str(network(n)) for n in data["allowed_networks"])
            data["allowed_networks"] = list(dict.fromkeys(found))
        return data


class ClientChangeSchema(ClientSchema):
    """Some of a client's fields: with `partial`. A name of its own in the document."""


class FormerKeySchema(Schema):
    """A key that another followed, and that is valid for a while yet."""

    key_hint = fields.String(allow_none=True)
    valid_until = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})


class ClientStateSchema(Schema):
    """What a client uses, over all workers."""

    in_flight = fields.Integer(metadata={"description": "Requests that are open."})
    current_tpm = fields.Integer(
        allow_none=True,
        metadata={"description": "Tokens of the last minute; null: it has no limit of these."},
    )
    current_rpm = fields.Integer(
        allow_none=True,
        metadata={"description": "Requests, likewise."},
    )
    tokens_today = fields.Integer(metadata={"description": "Of the UTC day."})
    tokens_this_month = fields.Integer(metadata={"description": "Of the UTC month."})
    cost_today = fields.Float(metadata={"description": "In the currency of the prices."})
    cost_this_month = fields.Float(metadata={"description": "Likewise."})


class ClientViewSchema(ClientSchema):
    """As it is shown."""

    expires_at = fields.Float(
        allow_none=True, metadata={"description": "Seconds since the epoch, UTC; null: never."}
    )
    key_hint = fields.String(
        allow_none=True,
        metadata={"description": "The key's last characters; null: there is none yet."},
    )
    former_keys = fields.List(fields.Nested(FormerKeySchema))
    expired = fields.Boolean()
    last_used_at = fields.Float(
        allow_none=True, metadata={"description": "Seconds since the epoch, UTC."}
    )
    created_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    updated_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    revision = fields.Integer()
    state = fields.Nested(ClientStateSchema)


class NewKeySchema(ClientViewSchema):
    """With the key, which is not shown again."""

    key = fields.String()


class RotationSchema(Schema):
    """How long the present key stays valid beside the new one."""

    class Meta:
        unknown = RAISE

    grace_seconds = StrictInteger(0, MAX_GRACE_SECONDS, load_default=USUAL_GRACE_SECONDS)


class ClientListSchema(Schema):
    """One page; `total` counts all that match."""

    keys = fields.List(fields.Nested(ClientViewSchema))
    total = fields.Integer()
    limit = fields.Integer()
    offset = fields.Integer()


def _yes_or_no() -> fields.Boolean:
    return fields.Boolean(truthy={"true"}, falsy={"false"})


class ClientQuerySchema(Schema):
    """Filters of the list: all that are given must match."""

    class Meta:
        unknown = RAISE

    name = fields.String(metadata={"description": "Part of the name, in any case."})
    label = fields.String(metadata={"description": "A label: team, or with its value: team=a."})
    enabled = _yes_or_no()
    expired = _yes_or_no()
    limit = fields.Integer(validate=validate.Range(1, 1000), load_default=1000)
    offset = fields.Integer(validate=validate.Range(0), load_default=0)


WHOLE = ClientSchema()
CHANGE = ClientChangeSchema(partial=True)


def checked_client(values: Any) -> dict[str, Any]:
    """A whole client's fields. Raises Unprocessable."""
    return checked(WHOLE, values)


def checked_change(values: Any) -> dict[str, Any]:
    """Some of a client's fields. Raises Unprocessable."""
    return checked(CHANGE, values, partial=True)


def check_read_only(sent: Any, shown: dict[str, Any]) -> None:
    """What cannot be set may come back with all that GET shows, but neither alone nor with
    fewer former keys: somebody would believe that it had an effect. Raises Unprocessable."""
    if not isinstance(sent, dict):
        return
    refused = READ_ONLY & sent.keys()
    if refused == READ_ONLY:
        given = sent["former_keys"]
        # One whose grace ended since it was shown is missing in what is shown now.
        is_kept = isinstance(given, list) and all(key in given for key in shown["former_keys"])
        refused = frozenset() if is_kept else frozenset({"former_keys"})
    if refused:
        field = min(refused)
        raise Unprocessable(
            f"{field}: is shown, and cannot be set.{INSTEAD.get(field, '')}", param=field
        )


def client_json(stored: StoredClient) -> dict[str, Any]:
    """All but the key, of which nobody knows more than its last characters."""
    client = stored.client
    expires_at = client.expires_at
    return {name: _plain(getattr(client, name)) for name in FIELDS} | {
        "key_hint": _hint(stored.key_hint),
        "former_keys": [
            {"key_hint": _hint(k.key_hint), "valid_until": k.valid_until}
            for k in stored.former_keys
        ],
        "expired": expires_at is not None and expires_at <= time.time(),
        "last_used_at": stored.last_used_at,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
        "revision": stored.revision,
    }


def matches(shown: dict[str, Any], query: dict[str, Any]) -> bool:
    """Whether a client as `client_json` shows it is asked for."""
    label, _, value = query.get("label", "").partition("=")
    labels = shown["labels"]
    return (
        query.get("name", "").lower() in shown["name"].lower()
        and query.get("enabled") in (None, shown["enabled"])
        and query.get("expired") in (None, shown["expired"])
        and (not label or label in labels)
        and (not value or labels[label] == value)
    )


def _hint(hint: str | None) -> str | None:
    return None if hint is None else MASK + hint


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
