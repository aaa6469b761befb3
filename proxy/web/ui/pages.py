"""Pages from templates, and those parts of them that a page asks for again each second."""

from collections.abc import Callable, Hashable
from typing import Any

from flask import Response, g, render_template, request, url_for

from proxy.context import parts
from proxy.core.roles import ADMINISTER, OPERATE
from proxy.runtime.fragments import FRESH_SECONDS

LIVE_TYPE = "text/html; charset=utf-8"
# Endpoint, label, and how the paths of its pages begin.
NAV = (
    ("console.overview", "Overview", ("/admin/ui/",)),
    ("console.instances", "Instances", ("/admin/ui/instance",)),
    ("console.requests", "Requests", ("/admin/ui/request",)),
    ("console.keys", "Keys", ("/admin/ui/key",)),
    ("console.config", "Config", ("/admin/ui/config",)),
    ("console.chat", "Try it", ("/admin/ui/chat",)),
)


def page(template: str, **values: Any) -> Response:
    """A whole one."""
    return Response(render_template(template, **_of_all(), **values))


def fragment_of_page(template: str, **values: Any) -> Response:
    return Response(render_template(template, **_of_all(), **values))


def live(template: str, values: Callable[[], dict[str, Any]]) -> Response:
    """Part of a page, made at most once a second for all who look; nothing but 304 for one who
    has it already."""
    key = (template, g.admin.role, request.query_string)

    def put_into_words(found: dict[str, Any]) -> bytes:
        return render_template(template, **_of_all(), **found).encode()

    response = lively(
        key,
        lambda: parts().fragments.worded(key, values(), put_into_words),
        LIVE_TYPE,
    )
    g.shown = key
    return response


def lively(
    key: Hashable,
    make: Callable[[], bytes],
    kind: str,
    fresh_seconds: float = FRESH_SECONDS,
) -> Response:
    """As `live`, of anything."""
    found = parts().fragments.get(key, make, fresh_seconds)
    if request.headers.get("If-None-Match") == found.etag:
        return Response(status=304, headers={"ETag": found.etag})
    return Response(found.body, content_type=kind, headers={"ETag": found.etag})


def is_fragment() -> bool:
    """A script of ours asks, and puts what it gets into its page."""
    return "HX-Request" in request.headers


def redirected(endpoint: str, **values: Any) -> Response:
    """The page that asked goes there."""
    return Response(status=204, headers={"HX-Redirect": url_for(endpoint, **values)})


def _of_all() -> dict[str, Any]:
    """What any template may ask for."""
    admin = g.get("admin")
    return {
        "admin": admin,
        "nav": [(e, label, _is_current(begins)) for e, label, begins in NAV],
        "session": g.get("session"),
        "may_operate": admin is not None and admin.may(OPERATE),
        "may_administer": admin is not None and admin.may(ADMINISTER),
    }


def _is_current(begins: tuple[str, ...]) -> bool:
    whole = request.path
    return any(whole == b if b.endswith("/") else whole.startswith(b) for b in begins)
