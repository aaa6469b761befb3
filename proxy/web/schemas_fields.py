"""Kinds of fields in what the admin API takes, and what one value may be."""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import has_app_context
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from proxy.context import parts
from proxy.core import references
from proxy.core.addresses import refused
from proxy.core.masking import MASK
from proxy.core.moments import NotAMoment, moment
from proxy.settings import load_settings

MAX_NUMBER = 2**31 - 1
LATEST_AT = 10_000_000_000  # in the year 2286; milliseconds are above it
MAX_LATIN_1 = 0xFF
DEPLOYMENTS = "/openai/deployments"  # what people copy with the address from Azure's portal

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


def is_name(name: str) -> None:
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


def is_upstream_url(url: str) -> None:
    _check_url(url, credentials=False)
    if DEPLOYMENTS in urlsplit(url).path.lower():
        raise ValidationError(
            f"Must end before {DEPLOYMENTS}: the gateway adds that. Which deployment serves a"
            " model is in `model_deployments`."
        )


def is_proxy_url(url: str) -> None:
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
    if parts.hostname in ("http", "https"):
        raise ValidationError("Has http:// or https:// twice.")
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


def is_key(key: str) -> None:
    if _is_reference(key):
        return
    mistake = references.key_mistake(key)
    if mistake:
        raise ValidationError(mistake)
    if key.startswith(MASK):
        raise ValidationError("Is a masked key; leave the field out to keep the present one.")


def is_no_variable(key: str) -> None:
    """It would be sent as it is written."""
    if references.is_variable(key):
        raise ValidationError(
            "Names a variable that nothing replaced by its value. env:NAME reads it from the"
            " gateway's environment."
        )


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


def distinct(values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValidationError("Names a model twice.")


def word() -> fields.String:
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


def limits_by_model() -> fields.Dict:
    return fields.Dict(
        keys=word(),
        values=fields.Nested(ModelLimitsSchema),
        load_default=dict,
        metadata={"description": "Of single deployments, by their model."},
    )


def requests_a_minute() -> StrictInteger:
    return StrictInteger(
        0,
        load_default=0,
        metadata={"description": "Requests a minute, looked at over 10 s; 0: no limit."},
    )
