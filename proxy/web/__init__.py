"""Speaks: Flask and marshmallow at the edge."""

from flask import Flask

from proxy.context import parts
from proxy.web import docs, errors, health, openai, requests_log, retired


def register(app: Flask, *, version: str) -> None:
    """Everything that answers HTTP."""
    with app.app_context():
        app.config["MAX_CONTENT_LENGTH"] = parts().settings.max_body_bytes
    # Or a doubled slash would be redirected, to http:// even with TLS in front of us.
    app.url_map.merge_slashes = False
    requests_log.register(app)
    openai.register(app)
    health.register(app)
    retired.register(app)
    docs.register(app, version=version)
    errors.register(app)  # last: it replaces what flask-smorest registers
