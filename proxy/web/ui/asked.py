"""What a request of one of the console's pages says, besides the form's fields."""

from collections.abc import Mapping

from flask import request

from proxy.errors import PreconditionFailed
from proxy.web.schemas_fields import MAX_NUMBER


def name_asked() -> str:
    """Whom the page is about; empty for one that is to be made."""
    return request.args.get("name", "")


def reason_given() -> str:
    """Why the change is made."""
    return request.form.get("reason", "")


def revision_shown() -> int:
    """Which one the page showed that sends the form."""
    return number_in(request.form, "revision")


def number_in(values: Mapping[str, str], name: str) -> int:
    """0 where there is none."""
    text = values.get(name, "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_NUMBER))
    return min(int(text), MAX_NUMBER) if is_number else 0


def check_unchanged(name: str, present: int) -> None:
    """Before anything is made of a form: what it showed is still there. Raises
    PreconditionFailed."""
    shown = revision_shown()
    if present != shown:
        raise PreconditionFailed(
            f"{name!r} is at revision {present}, not {shown}: somebody changed it. Load the"
            " page again, then repeat the change."
        )
