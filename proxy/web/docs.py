"""The admin API's OpenAPI document and a page to browse it, served without other hosts."""

from threading import Lock
from typing import Any

from flask import Blueprint, Flask, Response, json, redirect, request
from flask_smorest import Api
from flask_smorest import Blueprint as DocumentedBlueprint
from flask_swagger_ui import get_swaggerui_blueprint

from proxy.web import (
    admin,
    admin_keys,
    config,
    explain,
    keys,
    prices,
    quota_groups,
    requests,
    stats,
)
from proxy.web.app import Relayed
from proxy.web.auth import ADMIN_HEADER, require_admin
from proxy.web.schemas import ErrorSchema

SPEC_URL = "/admin/openapi.json"
DOCS_URL = "/admin/docs"

# Swagger UI needs inline styles and the script that configures it; nothing from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; font-src 'self';"
    " script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class AdminApi(Api):  # type: ignore[misc]  # flask-smorest has no types
    """With errors in OpenAI's shape, as web/errors.py makes them.

    The library would write its document at once. That takes a tenth of a start, and hardly any
    worker is ever asked for it: here it is written for the first who asks.
    """

    ERROR_SCHEMA = ErrorSchema

    def __init__(self, app: Flask, **options: Any) -> None:
        self._lock = Lock()
        self._unwritten: list[DocumentedBlueprint] = []
        super().__init__(app, **options)

    def register_blueprint(self, blueprint: DocumentedBlueprint) -> None:
        """Its views are there; the document has them when it is asked for."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blueprint.name] = self
        self._app.register_blueprint(blueprint)
        self._unwritten.append(blueprint)

    def document(self) -> dict[str, Any]:
        with self._lock:
            while self._unwritten:
                room = self._unwritten.pop(0)
                room.register_views_in_doc(
                    self, self._app, self.spec, name=room.name, parameters=None
                )
                self.spec.tag({"name": room.name, "description": room.description})
            shown: dict[str, Any] = self.spec.to_dict()
            return shown

    def _openapi_json(self) -> Response:
        return Response(
            json.dumps(self.document(), indent=2, sort_keys=False),
            mimetype="application/json",
        )


def register(app: Flask, *, version: str) -> None:
    app.config.update(
        API_TITLE="Azure OpenAI gateway: admin API",
        API_VERSION=version,
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/admin",
        OPENAPI_JSON_PATH="openapi.json",
    )
    key = {"type": "apiKey", "in": "header", "name": ADMIN_HEADER}
    api = AdminApi(
        app,
        spec_kwargs={
            "components": {"securitySchemes": {"adminKey": key}},
            "security": [{"adminKey": []}],
        },
    )
    for room in (
        admin,
        admin_keys,
        quota_groups,
        keys,
        prices,
        config,
        explain,
        requests,
        stats,
    ):
        _check_that_it_is_guarded(room.blueprint)
        api.register_blueprint(room.blueprint)
    # None where Swagger UI would name a host: its own, or the one in the request's head.
    hosts = {"validatorUrl": None, "oauth2RedirectUrl": None}
    app.register_blueprint(get_swaggerui_blueprint(DOCS_URL, SPEC_URL, config=hosts))
    # The framework's own redirect says http://, which is wrong with TLS in front of us.
    app.add_url_rule(DOCS_URL, "docs", lambda: redirect(f"{DOCS_URL}/"))
    app.after_request(secure_pages)


def _check_that_it_is_guarded(blueprint: Blueprint) -> None:
    if require_admin not in blueprint.before_request_funcs.get(None, ()):
        raise ValueError(
            f"the blueprint {blueprint.name!r} lacks before_request(require_admin)"
        )


def secure_pages(response: Response) -> Response:
    # What an upstream answered is none, and need not be asked for its path.
    if not isinstance(response, Relayed) and request.path.startswith(DOCS_URL):
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
    return response
