"""What may be asked of the last requests, and what is shown of each."""

from marshmallow import RAISE, Schema, fields, validate

from proxy.core.record import LEFT, REFUSED
from proxy.core.verdict import OUTCOMES
from proxy.runtime.recent import KEPT

USUAL_LIMIT = 100


class RequestsQuerySchema(Schema):
    """Which of them; all that is given must be so."""

    class Meta:
        unknown = RAISE

    client = fields.String()
    model = fields.String(metadata={"description": "As the client called it."})
    instance = fields.String(metadata={"description": "It was asked, whatever came of it."})
    outcome = fields.String(
        validate=validate.OneOf(sorted({*OUTCOMES, REFUSED, LEFT})),
        metadata={"description": "`refused`: no instance was asked."},
    )
    limit = fields.Integer(load_default=USUAL_LIMIT, validate=validate.Range(1, KEPT))


class AttemptSchema(Schema):
    """One try at one instance."""

    instance = fields.String()
    deployment = fields.String()
    at_ms = fields.Integer(metadata={"description": "When it began, after the request did."})
    ms = fields.Integer(metadata={"description": "How long it took."})
    status = fields.Integer(metadata={"description": "Not there: it gave no answer."})
    outcome = fields.String()
    why = fields.String(metadata={"description": "There was no answer, or no whole one."})
    rest_ms = fields.Integer(metadata={"description": "How long it is left alone after this."})
    upstream_id = fields.String(metadata={"description": "The upstream's own id of it."})
    region = fields.String()


class PassedOverSchema(Schema):
    """An instance that was not asked when it was its turn."""

    instance = fields.String()
    reason = fields.String()
    wait_ms = fields.Integer(
        allow_none=True, metadata={"description": "Until it may be asked; null: by no time."}
    )


class RequestSchema(Schema):
    """What it did not come to is left out."""

    id = fields.String()
    ended_at = fields.Float(metadata={"description": "Seconds since the epoch, UTC."})
    method = fields.String()
    path = fields.String()
    status = fields.Integer(metadata={"description": "499: the client left before an answer."})
    ms = fields.Integer(metadata={"description": "Until its last byte was out."})
    client = fields.String()
    source = fields.String(
        metadata={"description": "The address it came from, if its client's key does not open."}
    )
    model = fields.String()
    endpoint = fields.String()
    policy = fields.String()
    home = fields.String(
        metadata={"description": "The only one to be asked: it keeps what the call refers to."}
    )
    said = fields.String(
        metadata={"description": "What its client was told, where there was no room for it."}
    )
    stream = fields.Boolean()
    instance = fields.String(metadata={"description": "Whose answer it got; empty: nobody's."})
    outcome = fields.String()
    error = fields.String(metadata={"description": "The code of the gateway's own error."})
    attempts = fields.List(fields.Nested(AttemptSchema))
    passed_over = fields.List(fields.Nested(PassedOverSchema))
    waited_ms = fields.Integer(metadata={"description": "For room."})
    first_byte_ms = fields.Integer(
        metadata={"description": "Until the answer was there, or its stream said something."}
    )
    prompt_tokens = fields.Integer()
    completion_tokens = fields.Integer()
    cached_tokens = fields.Integer()
    reasoning_tokens = fields.Integer()
    estimated = fields.Boolean(
        metadata={"description": "The tokens are counted by the gateway."}
    )
    request_bytes = fields.Integer()
    response_bytes = fields.Integer()
    cost = fields.Float(metadata={"description": "Where the model has a price."})
    upstream_id = fields.String()
    region = fields.String()
    cut = fields.Boolean(
        metadata={"description": "It was too long: attempts, or parts of them, are left out."}
    )


class RequestWithStorySchema(RequestSchema):
    """And in sentences."""

    story = fields.List(fields.String(), metadata={"description": "Where it went and why."})


class RequestListSchema(Schema):
    """The newest first."""

    requests = fields.List(fields.Nested(RequestSchema))
