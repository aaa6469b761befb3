"""All config at once: how its things are written in a document, and what is said of plans."""

from typing import Any

from marshmallow import RAISE, Schema, fields, pre_load, validate

from proxy.core.config_document import OF_KIND
from proxy.core.config_history import ADDED, CHANGED, REMOVED
from proxy.store.admin_keys import KIND as ADMIN_KIND
from proxy.web import schemas_instances, schemas_quota_groups
from proxy.web.schemas_fields import (
    MAX_NUMBER,
    READ_ONLY,
    StrictBoolean,
    StrictInteger,
    is_part_of_path,
)
from proxy.web.schemas_keys import ClientSchema, is_model_pattern
from proxy.web.schemas_prices import READ_ONLY as PRICE_READ_ONLY
from proxy.web.schemas_prices import PriceSchema


class InstanceInDocumentSchema(schemas_instances.InstanceSchema):
    """An instance. Of one that is there, what is left out or masked stays as it is."""


class GroupInDocumentSchema(schemas_quota_groups.QuotaGroupChangeSchema):
    """A quota group's limits, and its name."""

    name = schemas_instances.InstanceSchema().fields["name"]

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back."""
        return {k: v for k, v in data.items() if k not in READ_ONLY | {"instances"}}


class ClientInDocumentSchema(ClientSchema):
    """A client without its key."""


class PriceInDocumentSchema(PriceSchema):
    """What a million tokens of a model cost."""

    model = fields.String(
        required=True,
        validate=[validate.Length(1, 200), is_part_of_path, is_model_pattern],
        metadata={"format": "model-name"},
    )

    @pre_load
    def drop_read_only(self, data: Any, **_: Any) -> Any:
        """What GET showed may come back."""
        return {k: v for k, v in data.items() if k not in PRICE_READ_ONLY - {"model"}}


# How the things of a document's sections are checked.
IN_DOCUMENT: dict[str, type[Schema]] = {
    "instances": InstanceInDocumentSchema,
    "quota_groups": GroupInDocumentSchema,
    "clients": ClientInDocumentSchema,
    "prices": PriceInDocumentSchema,
}


def _things(schema: type[Schema], key: str) -> fields.List[Any]:
    """Documented as those of one that is there: all but its name may be left out."""
    others = tuple(name for name in schema().fields if name != key)
    return fields.List(fields.Nested(schema(partial=others)))


class DocumentSchema(Schema):
    """All config. A section that is left out stays as it is."""

    class Meta:
        unknown = RAISE

    instances = _things(InstanceInDocumentSchema, "name")
    quota_groups = _things(GroupInDocumentSchema, "name")
    clients = _things(ClientInDocumentSchema, "name")
    prices = _things(PriceInDocumentSchema, "model")


class ImportFlagsSchema(Schema):
    """How it is brought in, as the query says it."""

    class Meta:
        unknown = RAISE

    dry_run = fields.Boolean(metadata={"description": "Only make the plan."})
    prune = fields.Boolean(
        metadata={"description": "Of the sections that are there, remove what is not in them."}
    )


class DocumentField(fields.Nested):
    """Documented as what it is, and taken as it comes: it is checked against the present one,
    and all that is wrong with it is told at once."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class ImportSchema(Schema):
    """A document, and how it is brought in."""

    class Meta:
        unknown = RAISE

    config = DocumentField(DocumentSchema, required=True)
    dry_run = StrictBoolean()
    prune = StrictBoolean()


class RollbackSchema(Schema):
    """The config becomes what this revision left."""

    class Meta:
        unknown = RAISE

    revision = StrictInteger(0, required=True)
    dry_run = StrictBoolean(load_default=False)


class ExportQuerySchema(Schema):
    """In which form."""

    class Meta:
        unknown = RAISE

    format = fields.String(validate=validate.OneOf(["json", "yaml"]), load_default="json")


class DiffQuerySchema(Schema):
    """From which revision to which; the newest, if `to` is left out."""

    class Meta:
        unknown = RAISE

    older = fields.Integer(
        required=True, data_key="from", validate=validate.Range(0, MAX_NUMBER)
    )
    newer = fields.Integer(
        data_key="to", validate=validate.Range(0, MAX_NUMBER), load_default=None
    )


# Of what revisions tell; keys of admins are no part of the document.
KINDS = (*OF_KIND, ADMIN_KIND)


class RevisionsQuerySchema(Schema):
    """A page, the newest first; `kind` and `name` of one thing that was changed."""

    class Meta:
        unknown = RAISE

    kind = fields.String(validate=validate.OneOf(KINDS))
    name = fields.String()
    author = fields.String()
    limit = fields.Integer(validate=validate.Range(1, 1000), load_default=100)
    offset = fields.Integer(validate=validate.Range(0, MAX_NUMBER), load_default=0)


class ChangeSchema(Schema):
    """What became, or is to become, of one thing."""

    kind = fields.String()
    name = fields.String()
    effect = fields.String(validate=validate.OneOf([ADDED, CHANGED, REMOVED]))
    fields_ = fields.Dict(
        data_key="fields",
        attribute="fields",
        keys=fields.String(),
        values=fields.List(fields.Raw(allow_none=True)),
        metadata={"description": "{field: [old, new]}; secrets are masked."},
    )
    changed_secrets = fields.List(
        fields.String(), metadata={"description": "Others than before, if the masks are equal."}
    )


class RevisionSchema(Schema):
    """Who changed what, when and why. Moments are seconds since the epoch, UTC."""

    revision = fields.Integer()
    made_at = fields.Float()
    author = fields.String()
    action = fields.String()
    reason = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    changes = fields.List(fields.Nested(ChangeSchema))


class RevisionListSchema(Schema):
    """One page; `total` counts all that match."""

    revisions = fields.List(fields.Nested(RevisionSchema))
    total = fields.Integer()
    limit = fields.Integer()
    offset = fields.Integer()


class DifferenceSchema(Schema):
    """What became other from one revision to another."""

    older = fields.Integer(data_key="from")
    newer = fields.Integer(data_key="to")
    changes = fields.List(fields.Nested(ChangeSchema))


class PlanSchema(Schema):
    """What is to be done. Empty if nothing is."""

    summary = fields.String()
    changes = fields.List(fields.Nested(ChangeSchema))
    notes = fields.List(
        fields.String(), metadata={"description": "What is not in the fields, for people."}
    )


class OutcomeSchema(Schema):
    """`revision` is the config's from now on."""

    applied = fields.Boolean()
    revision = fields.Integer()
    plan = fields.Nested(PlanSchema)
