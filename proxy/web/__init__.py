"""Speaks: Flask and marshmallow at the edge."""

from flask import g

from proxy.context import parts
from proxy.web import (
    docs,
    errors,
    health,
    limits,
    metrics,
    openai,
    requests_log,
    responses,
    retired,
    ui,
)
from proxy.web.app import Gateway
from proxy.web.routes import Routes


def register(app: Gateway, *, version: str) -> None:
    """Everything that answers HTTP."""
    with app.app_context():
        app.config["MAX_CONTENT_LENGTH"] = parts().settings.max_body_bytes
    # Or a doubled slash would be redirected, to http:// even with TLS in front of us.
    app.url_map.merge_slashes = False
    requests_log.register(app)
    app.before_request(_let_others_begin)
    limits.register(app)
    openai.register(app)
    responses.register(app)
    app.routes = Routes(openai.CALLS)
    health.register(app)
    metrics.register(app)
    retired.register(app)
    docs.register(app, version=version)
    ui.register(app)
    errors.register(app)  # last: it replaces what flask-smorest registers


def _let_others_begin() -> None:
    """Whatever is no call may wait for the database."""
    if g.asked.endpoint not in openai.CALLS:
        parts().turnstile.leave()
