import ast
import logging

import pytest

from proxy.core.events import EVENTS
from proxy.runtime.tell import level_of, tell
from proxy.settings import ROOT

FILES = [
    path
    for path in ROOT.glob("proxy/**/*.py")
    if "simulator" not in path.parts and path.name not in ("tell.py", "logs.py", "worker.py")
]
# Their lines have these as variables: each is one of the names.
OF_VARIABLES = {
    "breaker_opened",
    "breaker_closed",
    "misconfigured",
    "accepts_again",
    "asked_again",
    "instance_rests",
}
OF_VARIABLES |= {"disk_full", "sync_failed", "wrong_admin_key", "unknown_client_key"}
OF_VARIABLES |= {"worker_killed", "not_reloaded"}  # of gunicorn's parent
OF_THE_SERVER = {"connection_refused"}  # gunicorn's logger has methods of its own
OF_THE_LOG = {"log_failed", "log_recovered"}  # logs.py is not looked at
NOT_TOLD = {"starting", "request"}  # logs.py writes them itself


def calls(path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_each_event_is_told_somewhere_and_nothing_else_is():
    told = set()
    for path in FILES:
        for call in calls(path):
            if getattr(call.func, "id", "") == "tell" and isinstance(call.args[1:2], list):
                name = call.args[1]
                told |= {name.value} if isinstance(name, ast.Constant) else set()
    assert told | OF_VARIABLES | OF_THE_SERVER | OF_THE_LOG | NOT_TOLD == set(EVENTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_logs_what_has_no_name(path):
    for call in calls(path):
        owner = getattr(call.func, "value", None)
        name = getattr(owner, "id", getattr(owner, "attr", ""))
        assert name not in ("logger", "log", "error_log"), f"{path}:{call.lineno}"


def test_the_line_has_the_level_the_name_and_the_fields(logged):
    logger = logging.getLogger("proxy.anything")
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    logger.addHandler(handler)
    tell(logger, "breaker_closed", "%s answers", "east", instance="east")
    logger.removeHandler(handler)
    assert logged == [("WARNING", "east answers")]
    assert (seen[0].event, seen[0].fields) == ("breaker_closed", {"instance": "east"})


def test_every_level_is_one_that_logging_knows():
    assert {level_of(event) for event in EVENTS} == {20, 30, 40}
