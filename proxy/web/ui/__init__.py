"""The console at /admin/ui: pages for operators, without a build and without other hosts."""

import time

from flask import Flask

from proxy.web.ui import chat, config, instances, keys, overview, requests, signing_in
from proxy.web.ui.blueprint import blueprint
from proxy.web.ui.formats import FILTERS

ROOMS = (signing_in, overview, instances, requests, keys, config, chat)


def register(app: Flask) -> None:
    """Their views are the blueprint's by being imported."""
    assert all(room.blueprint is blueprint for room in ROOMS)
    app.register_blueprint(blueprint)
    app.jinja_env.filters.update(FILTERS)
    app.jinja_env.globals["now"] = time.time
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
