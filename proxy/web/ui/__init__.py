"""The console at /admin/ui: pages for operators, without a build and without other hosts."""

import time

from flask import Flask, redirect

from proxy.web.ui import chat, config, instances, keys, overview, requests, signing_in
from proxy.web.ui.blueprint import TICKS, blueprint
from proxy.web.ui.formats import FILTERS
from proxy.web.ui.session import PATH
from proxy.web.ui.ticks import Ticks

ROOMS = (signing_in, overview, instances, requests, keys, config, chat)


def register(app: Flask) -> None:
    """Their views are the blueprint's by being imported."""
    assert all(room.blueprint is blueprint for room in ROOMS)
    app.register_blueprint(blueprint)
    # The framework's own redirect says http://, which is wrong with TLS in front of us.
    app.add_url_rule(PATH, "console", lambda: redirect(f"{PATH}/"))
    ticks = app.extensions[TICKS] = Ticks(app)
    app.wsgi_app = ticks  # type: ignore[method-assign]
    app.jinja_env.filters.update(FILTERS)
    app.jinja_env.globals["now"] = time.time
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
