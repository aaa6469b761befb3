"""What may come in about admin keys, and what is shown of them."""

from marshmallow import RAISE, Schema, fields, validate

from proxy.core.roles import NAME_CHARACTERS, ROLES
from proxy.web.schemas_fields import Moment


class AdminKeyChangeSchema(Schema):
    """What a key may do, and until when."""

    class Meta:
        unknown = RAISE

    role = fields.String(required=True, validate=validate.OneOf(list(ROLES)))
    expires_at = Moment("It opens nothing from then on.")


class AdminKeySchema(AdminKeyChangeSchema):
    """A new one. Names are unique, and stand in revisions as their author."""

    name = fields.String(
        required=True,
        validate=validate.Length(1, NAME_CHARACTERS),
        metadata={"format": "gateway-name"},
    )


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
