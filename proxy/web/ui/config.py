"""Config: who changed what, and back to what it was."""

from flask import Response, request

from proxy.context import parts
from proxy.core.roles import ADMINISTER, READ
from proxy.errors import NotFound
from proxy.runtime.config_hand import Outcome, shown_outcome
from proxy.store import revisions
from proxy.store.revisions import shown_revision
from proxy.web.author import author
from proxy.web.ui.asked import number_in, reason_given
from proxy.web.ui.blueprint import blueprint, view
from proxy.web.ui.pages import fragment_of_page, page

__all__ = ["blueprint"]

PAGE = 50


@view("/config", READ)
def config() -> Response:
    """The revisions, the newest first."""
    offset = number_in(request.args, "offset")
    with parts().database.read() as connection:
        found, total = revisions.page(connection, limit=PAGE, offset=offset)
    return page(
        "config.html",
        revisions=[shown_revision(each) for each in found],
        total=total,
        newer=max(offset - PAGE, 0) if offset else None,
        older=offset + PAGE if offset + PAGE < total else None,
    )


@view("/config/revision", READ)
def revision() -> Response:
    """What one changed, secrets masked."""
    number = number_in(request.args, "number")
    with parts().database.read() as connection:
        found = revisions.one(connection, number)
        newest = revisions.newest(connection)
    if found is None:
        raise NotFound(f"There is no revision {number}.", code="revision_not_found")
    return page("revision.html", revision=shown_revision(found), newest=newest)


@view("/config/plan", ADMINISTER, "POST")
def plan_rollback() -> Response:
    """What going back would change. Nothing is changed yet."""
    return _told(_rolled_back(is_dry_run=True))


@view("/config/rollback", ADMINISTER, "POST")
def roll_back() -> Response:
    """Raises PreconditionFailed if somebody changed the config since the plan was shown."""
    return _told(_rolled_back(is_dry_run=False))


def _rolled_back(*, is_dry_run: bool) -> Outcome:
    return parts().config_hand.roll_back(
        number_in(request.form, "number"),
        author=author(reason_given()),
        dry_run=is_dry_run,
        if_match=None if is_dry_run else number_in(request.form, "revision"),
    )


def _told(outcome: Outcome) -> Response:
    return fragment_of_page(
        "_plan.html",
        told=shown_outcome(outcome),
        number=number_in(request.form, "number"),
    )
