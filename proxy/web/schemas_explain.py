"""Where a request would go, and why: what is asked, and what is told."""

from marshmallow import INCLUDE, RAISE, Schema, fields, validate

from proxy.core.endpoints import ENDPOINTS


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
    """Whose call it would be, and of what."""

    class Meta:
        unknown = RAISE

    client = fields.String(load_default="", metadata={"description": "The name of one."})
    endpoint = fields.String(
        validate=validate.OneOf(list(ENDPOINTS)),
        metadata={"description": "Without it, what the body's fields look like."},
    )


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
    about. `home`: who keeps what the body refers to, and is asked alone; empty: it refers to
    nothing."""

    model = fields.String()
    endpoint = fields.String()
    policy = fields.String()
    home = fields.List(fields.String())
    prompt_tokens = fields.Integer()
    reserved_tokens = fields.Integer()
    order = fields.List(fields.String())
    instances = fields.List(fields.Nested(ExplainedInstanceSchema))
    clients = fields.List(fields.Nested(CompetingClientSchema))
    client = fields.Nested(ExplainedClientSchema, allow_none=True)
