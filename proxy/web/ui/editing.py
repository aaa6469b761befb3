"""A thing of the config in a form: shown, previewed, and saved as it was previewed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, request, url_for

from proxy.context import parts
from proxy.errors import Conflict, Unprocessable
from proxy.web.ui import forms
from proxy.web.ui.asked import check_unchanged, name_asked, revision_shown
from proxy.web.ui.forms import Group, Json
from proxy.web.ui.pages import fragment_of_page, page
from proxy.web.ui.session import secret


@dataclass(frozen=True, slots=True)
class Editor:
    """Of one kind of thing. `endpoint` is the console's of its page; those of the list, of the
    preview and of saving are called after it. `present` gives what there is under a name, as
    JSON, and its revision; it raises NotFound."""

    endpoint: str
    title: str  # of the page for a new one
    groups: tuple[Group, ...]
    defaults: Mapping[str, Any]
    present: Callable[[str], tuple[Json, int]]

    def new(self) -> Response:
        return self._form("", dict(self.defaults), 0)

    def edit(self) -> Response:
        """The thing that is asked for. Raises NotFound."""
        return self._form(name_asked(), *self.present(name_asked()))

    def _form(self, name: str, shown: Json, revision: int) -> Response:
        back = self._url("", name) if name else url_for(f"console.{self.endpoint}s")
        return page(
            "form.html",
            title=f"Edit {name}" if name else self.title,
            groups=self.groups,
            shown=shown,
            name=name,
            revision=revision,
            preview=self._url("preview_", name),
            back=back,
        )

    def written(self) -> Json:
        """What was written into the form otherwise than it was shown.

        Raises PreconditionFailed if another revision is there now, and Unprocessable if of
        what is there nothing was changed.
        """
        name = name_asked()
        shown, revision = self._present(name)
        if not name:
            return forms.given(self.groups, shown, request.form)
        check_unchanged(name, revision)
        data = forms.given(self.groups, shown, request.form)
        data.pop("name", None)
        if not data:
            raise Unprocessable("Nothing is other than it was.")
        return data

    def preview(self, after: Json, data: Json) -> Response:
        """What would be other `after` what was `written` is saved."""
        name = name_asked()
        before = self._present(name)[0] if name else {}
        return fragment_of_page(
            "_diff.html",
            differences=forms.differences(self.groups, before, after),
            save=self._url("save_", name),
            seal=_seal(data),
        )

    def previewed(self) -> Json:
        """What was `written`, as it was previewed. Raises Conflict if it was not, and what
        `written` does."""
        data = self.written()
        if request.form.get("seal") != _seal(data):
            said = "The form was changed since what it changes was shown: look again."
            raise Conflict(said)
        return data

    def _present(self, name: str) -> tuple[Json, int]:
        return self.present(name) if name else (dict(self.defaults), 0)

    def _url(self, act: str, name: str) -> str:
        return url_for(f"console.{act}{self.endpoint}", name=name or None)


def _seal(data: Json) -> str:
    return forms.seal(secret(parts()), revision_shown(), data)
