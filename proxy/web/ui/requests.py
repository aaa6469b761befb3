"""The last requests of the host, and the story of each."""

from flask import Response, request

from proxy.context import parts
from proxy.core.record import LEFT, REFUSED
from proxy.core.roles import READ
from proxy.core.story import story
from proxy.core.verdict import OUTCOMES
from proxy.errors import NotFound
from proxy.runtime.recent import KEPT
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.forms import Json
from proxy.web.ui.pages import fragment_of_page, live, page

__all__ = ["blueprint"]

# All that are kept are looked at; to show more than these is to show nothing.
SHOWN = 100
FILTERS = ("client", "model", "instance", "outcome")


@view("/requests", READ)
def requests() -> Response:
    return page("requests.html", **_newest(), **_choices())


@view("/live/requests", READ)
def live_requests() -> Response:
    return live("_requests.html", _newest)


@view("/request", READ)
def one_request() -> Response:
    """Raises NotFound."""
    asked = request.args.get("id", "")
    found = parts().recent.find(asked)
    if found is None:
        raise NotFound(
            f"None of the last {KEPT:,} requests has the id {asked!r}; the log may have it:"
            f" flask logs explain {asked}",
            code="request_not_found",
        )
    return page("request.html", one=found, story=story(found))


@view("/request/story", READ)
def request_story() -> Response:
    """For a page that just made the request; nothing as long as it is not written down."""
    found = parts().recent.find(request.args.get("id", ""))
    if found is None:
        return Response(status=204)
    return fragment_of_page("_story.html", one=found, story=story(found))


def _newest() -> Json:
    asked = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    found = parts().recent.newest(SHOWN, **asked)
    return {"requests": found, "asked": asked, "shown": SHOWN}


def _choices() -> Json:
    """What may be asked for, as far as it is known."""
    snapshot = parts().snapshots.current
    return {
        "choices": {
            "client": sorted({known.client.name for known in snapshot.keys.values()}),
            "model": snapshot.catalog.models(),
            "instance": sorted(snapshot.instances),
            "outcome": sorted({*OUTCOMES, REFUSED, LEFT}),
        },
        "query": request.query_string.decode("latin-1"),
    }
