"""Try it: a chat through the gateway, with a client's key.

The browser asks the client API as any client does; the key stays in its memory.
"""

from flask import Response

from proxy.context import parts
from proxy.core.roles import READ
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.pages import page

__all__ = ["blueprint"]


@view("/chat", READ)
def chat() -> Response:
    return page("chat.html", models=parts().snapshots.current.catalog.models())
