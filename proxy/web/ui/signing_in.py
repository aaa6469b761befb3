"""The console's door: who has an admin key comes in."""

from flask import Response, current_app, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from proxy.context import parts
from proxy.core.roles import READ
from proxy.errors import ProxyError, Unauthorized
from proxy.web.ui import session
from proxy.web.ui.blueprint import TICKS, blueprint, view
from proxy.web.ui.pages import page

HOME = "console.overview"


@blueprint.get("/sign-in")
def sign_in() -> AnyResponse:
    mine = parts()
    try:
        session.present(mine)
    except Unauthorized:
        return _form(session.of_cookie(mine) or session.begun())
    return redirect(_back() or url_for(HOME))


@blueprint.post("/sign-in")
def signed_in() -> AnyResponse:
    """The key is right, and a session begins; or the form again, with what is wrong."""
    mine = parts()
    before = session.of_cookie(mine)
    session.check_token(before)
    try:
        begun = session.signed_in(mine, request.form.get("key", ""))
    except ProxyError as error:
        assert before is not None  # its token was right
        return _form(before, error)
    response = redirect(_back() or url_for(HOME), 303)
    session.set_cookie(mine, response, begun)
    return response


@view("/sign-out", READ, "POST")
def sign_out() -> AnyResponse:
    session.end(parts(), g.session)
    current_app.extensions[TICKS].forget_all()
    response = redirect(url_for("console.sign_in"), 303)
    session.delete_cookie(response)
    return response


def _form(known: session.Session, error: ProxyError | None = None) -> Response:
    g.session = session.Session(known.token)
    response = page("sign_in.html", back=_back(), error=error)
    if error is not None:
        response.status_code = error.status
        response.headers.update(error.headers())
    session.set_cookie(parts(), response, g.session)
    return response


def _back() -> str:
    """Where somebody was sent here from; a page of ours, or nothing."""
    given = request.values.get("back", "")
    is_ours = given.startswith(f"{session.PATH}/") and given.isascii() and given.isprintable()
    return given if is_ours and "\\" not in given else ""
