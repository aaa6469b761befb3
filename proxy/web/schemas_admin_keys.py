"""What may come in about admin keys, and what is shown of them."""

from marshmallow import RAISE, Schema, fields, validate

from proxy.core.roles import NAME_CHARACTERS, ROLES
from proxy.web.schemas import StrictFloat

# The year 9999: beyond it nobody can write a moment as a date.
LATEST_AT = 253_402_300_799


class AdminKeyChangeSchema(Schema):
    """`expires_at`: a moment in seconds since the epoch, or null for never."""

    class Meta:
        unknown = RAISE

    role = fields.String(required=True, validate=validate.OneOf(list(ROLES)))
    expires_at = StrictFloat(
        load_default=None, allow_none=True, validate=validate.Range(0, LATEST_AT)
    )


class AdminKeySchema(AdminKeyChangeSchema):
    """A new one. Names are unique, and stand in revisions as their author."""

    name = fields.String(required=True, validate=validate.Length(1, NAME_CHARACTERS))


class AdminKeyViewSchema(Schema):
    """What is known of a key, which is not the key."""

    name = fields.String()
    role = fields.String()
    key_hint = fields.String(metadata={"description": "The key's last characters."})
    expires_at = fields.Float(allow_none=True)
    expired = fields.Boolean()
    created_at = fields.Float()
    updated_at = fields.Float()
    revision = fields.Integer()


class NewAdminKeySchema(AdminKeyViewSchema):
    """With the key, this once."""

    key = fields.String()


class AdminKeyListSchema(Schema):
    """All keys, by name; whether the environment's ADMIN_API_KEY is valid beside them."""

    admin_keys = fields.List(fields.Nested(AdminKeyViewSchema))
    admin_api_key_set = fields.Boolean()
