"""The admin API keeps what its OpenAPI document promises, whatever it is sent.

Each operation gets inputs that the document allows and inputs that it does not. By hand, with
more of them: FUZZ_ADMIN_INPUTS=50000 ./scripts/test -n 2 tests/fuzz/test_admin_api.py -s
"""

import os
import shutil
import sys
import time
from dataclasses import replace
from datetime import datetime
from urllib.parse import unquote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation

from proxy import create_app
from proxy.context import EXTENSION
from proxy.core.moments import NotAMoment, moment
from proxy.errors import Unprocessable
from proxy.runtime.upstream import Upstream, UpstreamError
from proxy.settings import load_settings
from proxy.web.schemas_prices import checked_model
from tests.builders import SECRET_KEY

INPUTS = int(os.environ.get("FUZZ_ADMIN_INPUTS", "700"))
ADMIN_KEY = "admin-key-0123456789"
ADMIN = {"X-Admin-API-Key": ADMIN_KEY}

# Answers that are right though the document's schemas cannot tell: a version that is another
# one, a path that was retired.
ALSO_RIGHT = ("409", "410", "412")
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", "401", "403", "404", "429", *ALSO_RIGHT]
            },
            "negative_data_rejection": {
                "expected-statuses": [
                    *("400", "401", "403", "404", "405", "406", "415", "422", "428", "429"),
                    *ALSO_RIGHT,
                ]
            },
        }
    }
)

AZURE = ("azure", "azure_v1")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
words = st.text(LETTERS, min_size=1, max_size=20).filter(lambda w: w.strip("."))
# What the document calls by a format of ours.
FORMATS = {
    "gateway-name": words.filter(lambda w: w not in ("new", "migrate", "implementation")),
    "model-name": words,
    "secret": words,
    "moment": st.integers(0, 2**33).map(str),
    "date-or-time": st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)).map(
        lambda d: d.isoformat()
    ),
    "network": st.ip_addresses().map(str),
    "label": words,
    "upstream-url": words.map(lambda w: f"https://{w.strip('-._') or 'a'}.example.com"),
    "proxy-url": words.map(lambda w: f"http://user:{w}@proxy.example.com:3128"),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)


@pytest.fixture(scope="module")
def app(tmp_path_factory, migrated_file):
    """One for all inputs: what one of them made, the next finds. Its upstreams never answer."""
    file = shutil.copy(migrated_file, tmp_path_factory.mktemp("fuzz") / "proxy.db")
    settings = load_settings(environ={"PROXY_SECRET_KEY": SECRET_KEY}, env_file=None)
    made = create_app(
        replace(settings, database_url=f"sqlite:///{file}", admin_api_key=ADMIN_KEY)
    )
    parts = made.extensions[EXTENSION]
    parts.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Upstream, "send", _nobody_answers)
        yield made
    parts.stop()


def _nobody_answers(*_, **__):
    raise UpstreamError("nobody answers")


def _is_meant(body):
    """Allowed also in what the document has no words for: OpenAPI 3.0 cannot say what the keys
    of a mapping may be (here names of models), nor has every generator heard of our formats
    where a value may be null."""
    if isinstance(body, list):
        return all(map(_is_meant, body))
    if not isinstance(body, dict):
        return True
    if not (_has_a_way_in(body) and _ends_at_a_date(body)):
        return False
    names = [name for value in body.values() if isinstance(value, dict) for name in value]
    group = body.get("quota_group")
    if isinstance(group, str):
        if "/" in group or not group.strip("."):
            return False
        names.append(group)
    return (body.get("proxy_url") or "http").startswith("http") and all(
        0 < len(name) <= 200 and name.isprintable() and name == name.strip() for name in names
    )


def _has_a_way_in(body):
    """A key where the instance is a whole one; a token only with Azure, whatever the instance
    was before."""
    auth, kind = body.get("auth"), body.get("provider_type")
    if auth == "entra":
        return kind in AZURE
    if kind not in (None, *AZURE) and auth is None:
        return False  # it may have been asked with a token
    return "api_key" in body or "api_base" not in body


def _ends_at_a_date(body):
    things = [each for each in body.get("clients") or () if isinstance(each, dict)]
    ends = [each.get("expires_at") for each in (body, *things)]
    try:
        return all(moment(end) >= 0 for end in ends if isinstance(end, str))
    except NotAMoment:
        return False


def _is_some_time(query):
    """Two ends in their order, or the minutes until now; the document has no words for it."""
    ends = [query[name] for name in ("from", "to") if name in query]
    if "window" in query:
        return not ends
    now = int(time.time())
    return int(query.get("from", 0)) < int(query.get("to", now))


def _is_long_ago(query):
    ends = (int(query.get(name, 2**33)) for name in ("from", "to"))
    return min(ends) < time.time() - 86_400


def _is_sent(query):
    """All of it: an empty list leaves no trace in a URL, and so makes it no worse."""
    return all(value != [] for value in (query or {}).values())


def _is_fine_after_all(case):
    """Nothing is wrong with it but its model's name, and that has letters which no example of
    the format has: whether such a name cannot be, the document has no words for. Nor is a
    header wrong: ours is sent instead."""
    wrong = {place for place, made in case.meta.components.items() if made.mode.is_negative}
    model = (case.path_parameters or {}).get("model")
    is_path_alone = wrong - {ParameterLocation.HEADER} == {ParameterLocation.PATH}
    if not is_path_alone or not isinstance(model, str):
        return False
    try:
        checked_model(unquote(model))
    except Unprocessable:
        return False
    return True


def _checks(case, mode):
    """Of a document, too, there is more to say than its schema can: its names are distinct, and
    of what is new nothing may be missing. Usage of long ago is not kept in short steps."""
    found = CHECKS.get_all()
    is_right = mode is GenerationMode.POSITIVE
    if case.path == "/admin/config/import" or (is_right and _is_long_ago(case.query or {})):
        found = [check for check in found if check.__name__ != "positive_data_acceptance"]
    return found


def _cannot_be(case, failure):
    """Each a line that says what was sent, for whoever mends it."""
    sent = {k: getattr(case, k) for k in ("path_parameters", "query", "body")}
    return f"{case.method} {case.path}: {' '.join(str(failure).split())}, sent {sent!r}"[:1000]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_check_holds_for_every_operation(app, mode, capsys):
    schema = schemathesis.openapi.from_wsgi("/admin/openapi.json", app, config=CONFIG)
    operations = [found.ok() for found in schema.get_all_operations()]
    each = INPUTS // len(GenerationMode) // len(operations) + 1
    tried, failures = [], {}
    for operation in operations:

        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            assume(mode is GenerationMode.NEGATIVE or _is_meant(case.body))
            assume(mode is GenerationMode.POSITIVE or not _is_fine_after_all(case))
            assume(_is_sent(case.query))
            assume(mode is GenerationMode.NEGATIVE or _is_some_time(case.query or {}))
            tried.append(case.method)
            answer = case.call(headers=ADMIN)
            for check in _checks(case, mode):
                try:
                    case.validate_response(answer, checks=[check], headers=ADMIN)
                except FailureGroup as group:
                    kind = case.method, case.path, check.__name__
                    failures.setdefault(kind, _cannot_be(case, group.exceptions[0]))

        ask()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(tried)} {mode.value} inputs for {len(operations)} operations\n"
        )
    assert not failures, "\n".join(failures.values())
    assert len(tried) >= 0.9 * INPUTS / len(GenerationMode)
