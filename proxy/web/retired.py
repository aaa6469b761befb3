"""Paths of the old program: gone, each with the name of its successor."""

from urllib.parse import quote

from flask import Flask, Response

from proxy.errors import Gone

# Old path -> its successor. `{name}` is filled in.
RETIRED: dict[str, str] = {
    "/admin/instances/new": "/admin/instances",
    "/admin/instances/new/<path:name>": "/admin/instances/{name}",
    "/admin/instances/new/<path:name>/config": "/admin/instances/{name}/config",
    "/admin/instances/new/<path:name>/state": "/admin/instances/{name}/state",
    "/instances": "/admin/instances",
    "/instances/<path:name>": "/admin/instances/{name}",
    "/stats": "/admin/stats",
    "/stats/<path:name>": "/admin/stats/instances",
    "/config": "/admin/instances",
    "/config/<path:name>": "/admin/instances",
    # Migration is no longer a request.
    "/admin/instances/migrate": "",
    "/admin/instances/implementation": "",
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def register(app: Flask) -> None:
    for number, (path, successor) in enumerate(RETIRED.items()):
        app.add_url_rule(
            path,
            f"retired-{number}",
            gone,
            methods=METHODS,
            strict_slashes=False,
            defaults={"successor": successor},
        )


def gone(successor: str, name: str = "") -> Response:
    """Needs no key: it says nothing that is not in the documentation."""
    if not successor:
        raise Gone("Migration is no request any more: run `alembic upgrade head`.")
    path = successor.format(name=quote(name.rstrip("/")))
    raise Gone(
        f"This path of the old proxy is gone; use {path}.",
        headers={"Link": f'<{path}>; rel="successor-version"'},
    )
