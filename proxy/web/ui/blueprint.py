"""The console's place in the app: what each of its views asks for, and what all answers have in
common."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, g, redirect, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Response as AnyResponse

from proxy.context import parts
from proxy.core.roles import READ
from proxy.errors import NotFound, ProxyError, TooLarge, Unauthorized
from proxy.web.auth import demand
from proxy.web.ui import session
from proxy.web.ui.pages import LIVE_TYPE, fragment_of_page, is_fragment, page
from proxy.web.ui.ticks import LIVE

# Nothing inline, nothing from elsewhere, and nobody may put us into a frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURE = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NOT_KEPT = {"Cache-Control": "no-store"}
# Of an instance with a thousand models. Who is not signed in may send as much, and what is
# larger the framework puts into files.
MAX_FORM_BYTES = 262_144
TICKS = "console_ticks"  # the app's extension
STATIC = "console.static"
SIGN_IN = "console.sign_in"
# Without a session: they show nothing of the gateway.
OPEN = frozenset({STATIC, SIGN_IN, "console.signed_in"})

View = TypeVar("View", bound=Callable[..., Any])

blueprint = Blueprint(
    "console",
    __name__,
    url_prefix="/admin/ui",
    template_folder="templates",
    static_folder="static",
)


def view(rule: str, right: str, method: str = "GET") -> Callable[[View], View]:
    """A page or part of one, for those who have the right (core/roles.py)."""

    def decorate(function: View) -> View:
        function.right = right  # type: ignore[attr-defined]
        blueprint.add_url_rule(rule, function.__name__, function, methods=[method])
        return function

    return decorate


@view("/<path:_anything>", READ)
def nowhere(_anything: str) -> Any:
    """Raises NotFound: there is no such page, and whoever asks for one sees that as a page."""
    raise NotFound(f"There is no page at {request.path}.", code="unknown_path")


@blueprint.before_request
def let_in() -> None:
    """Whose session it is, whether that may what the view asks for, and whether one of its
    pages asks. Then the view sees what others changed. Raises Unauthorized, Forbidden,
    KeysClosed."""
    request.max_content_length = MAX_FORM_BYTES
    if request.endpoint in OPEN:
        return
    mine = parts()
    # What comes meanwhile lets nobody in.
    g.let_in_by = current_app.extensions[TICKS].basis()
    found = session.present(mine)
    # Not for what open pages ask each second: it follows by itself.
    if not request.path.startswith(LIVE) and mine.syncer.catch_up():
        mine.fragments.forget()
        found = session.present(mine)
    g.session = found
    g.admin, g.admin_name = found.admin, found.admin.name if found.admin else ""
    if request.method == "POST":
        session.check_token(found)
    asked: Any = current_app.view_functions[request.endpoint or ""]
    demand(asked.right)


@blueprint.after_request
def secure(response: Response) -> Response:
    response.headers.update(SECURE)
    if request.endpoint != STATIC:
        response.headers.update(NOT_KEPT)
    if "shown" in g:
        headers = [*SECURE.items(), *NOT_KEPT.items(), ("Content-Type", LIVE_TYPE)]
        current_app.extensions[TICKS].remember(
            request.environ, g.let_in_by, g.session.ends_at, g.shown, headers
        )
    if request.method == "POST":
        parts().fragments.forget()  # who changed something wants to see it
    return response


@blueprint.errorhandler(ProxyError)
def refused(error: ProxyError) -> AnyResponse:
    """As a page, or within the page that asked."""
    if isinstance(error, Unauthorized) and request.endpoint not in OPEN:
        return _to_sign_in()
    show = fragment_of_page if is_fragment() else page
    name = "_alert.html" if is_fragment() else "error.html"
    response = show(name, error=error)
    response.status_code = error.status
    response.headers.update(error.headers())
    return response


@blueprint.errorhandler(RequestEntityTooLarge)
def too_large(_: RequestEntityTooLarge) -> AnyResponse:
    return refused(TooLarge(f"A form may have at most {MAX_FORM_BYTES:,} bytes here."))


def _to_sign_in() -> AnyResponse:
    if is_fragment():
        return Response(status=401, headers={"HX-Redirect": url_for(SIGN_IN)})
    back = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for(SIGN_IN, back=back))
