"""docs/applications.md: its errors are those that a client can get, each with its status."""

import ast
import re

import openai
import pytest

from proxy import errors
from proxy.core import door
from proxy.core.endpoints import ENDPOINTS
from proxy.errors import ProxyError
from proxy.settings import ROOT

TEXT = (ROOT / "docs" / "applications.md").read_text()
PROXY = ROOT / "proxy"
MOST_LINES = 170
MOST_CHARACTERS = 120

ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if re.match(r"\| \d{3}[ ,]", line) and "`" in line.split(" | ")[1]
]
ERRORS = [row for row in ROWS if len(row) == 6]

AZURES = {"content_filter"}
# Which no client of OpenAI's endpoints can get, or none that is told by a status.
ELSEWHERE = {
    **dict.fromkeys(
        (
            *("conflict", "gone", "invalid_value", "name_exists", "precondition_failed"),
            *("admin_api_closed", "admin_key_not_found", "client_not_found", "last_admin_key"),
            *(
                "instance_not_found",
                "invalid_config",
                "price_not_found",
                "quota_group_unknown",
                "not_found",
            ),
            *("request_not_found", "revision_not_found", "role_not_sufficient"),
            *("secret_key_missing", "too_many_wrong_keys"),
        ),
        "the admin API",
    ),
    **dict.fromkeys(("csrf_token_missing", "not_signed_in", "session_over"), "the console"),
    **dict.fromkeys(
        ("previous_response_not_found", "response_not_found"), "docs/responses.md tells of them"
    ),
    "forbidden": "each that is raised has a code of its own",
    "client_closed_request": "nobody is there to read it",
    "stream_interrupted": "an event in a stream that has begun",
}


def _classes():
    """By name; a class of `proxy.store` has a status as one of `proxy.errors` has."""
    found, bases = {}, {}
    for path in PROXY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = node, [b.id for b in node.bases if isinstance(b, ast.Name)]
    found |= {
        name: (kind.status, kind.code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ProxyError)
    }
    for name, (node, parents) in bases.items():
        status = next((found[p][0] for p in parents if p in found), None)
        if name not in found and status is not None:
            (code,) = [
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Assign) and statement.targets[0].id == "code"
            ] or [None]
            found[name] = status, code
    return {name: pair for name, pair in found.items() if pair[1]}


def _raised():
    """(status, code) of each error that is written anywhere in the program."""
    classes = _classes()
    yield from classes.values()
    for path in PROXY.rglob("*.py"):
        if path.is_relative_to(PROXY / "simulator"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            for given in node.keywords:
                if given.arg == "code" and node.func.id in classes:
                    yield from ((classes[node.func.id][0], c) for c in _codes(given.value))


def _codes(value):
    if isinstance(value, ast.Constant):
        return [value.value]
    assert ast.unparse(value) == "f'api_key_{why}'", "a code that this test cannot read"
    return [f"api_key_{why}" for why in (door.DISABLED, door.EXPIRED, door.FOLLOWED)]


RAISED = set(_raised())


def told(row):
    """(status, code) of a row; of several, the first status belongs to the first code, or all
    codes have the one there is."""
    statuses = [int(status) for status in re.findall(r"\d{3}", row[0])]
    codes = re.findall(r"`(\w+)`", row[1])
    if len(statuses) == 1:
        statuses *= len(codes)
    return list(zip(statuses, codes, strict=True))


TOLD = {pair for row in ERRORS for pair in told(row)}


def test_the_table_is_found():
    assert len(ERRORS) > 20


@pytest.mark.parametrize("status, code", sorted(TOLD))
def test_each_error_can_be_raised(status, code):
    assert (status, code) in RAISED or code in AZURES


def test_each_error_that_a_client_can_get_is_told():
    assert {pair for pair in RAISED if pair[1] not in ELSEWHERE} <= TOLD


def test_what_is_left_out_is_there_and_not_told():
    assert set(ELSEWHERE) <= {code for _, code in RAISED}
    assert not set(ELSEWHERE) & {code for _, code in TOLD}
    assert "`stream_interrupted`" in TEXT or '"stream_interrupted"' in TEXT


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row[0]} {row[1]}")
def test_each_says_what_the_official_client_makes_of_it(row):
    _, _, meaning, raises, repeats, remedy = row
    assert meaning
    assert remedy
    for status, _ in told(row):
        assert raises == f"`{raised_for(status)}`"
        may_repeat = status in (408, 409, 429) or status >= 500
        assert repeats == "no" or (repeats == "yes" and may_repeat)


def raised_for(status):
    """The official client's exception."""
    if status >= 500:
        return "InternalServerError"
    for kind in openai.APIStatusError.__subclasses__():
        if getattr(kind, "status_code", None) == status:
            return kind.__name__
    return "APIStatusError"


def test_what_is_never_worth_repeating_says_so():
    in_vain = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, ProxyError)
        and not kind.is_worth_retrying
    }
    rows = {code: row[4] for row in ERRORS for _, code in told(row)}
    assert {code: rows[code] for code in in_vain & rows.keys()} == {"insufficient_quota": "no"}


def test_each_endpoint_is_told():
    for endpoint in ENDPOINTS:
        assert f"`POST …/{endpoint}`" in TEXT


def test_its_links_lead_somewhere():
    headings = {
        line.lstrip("# ").lower().replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings


def test_it_stays_a_page():
    lines = TEXT.splitlines()
    assert len(lines) <= MOST_LINES
    assert [x for x in lines if len(x) > MOST_CHARACTERS and not x.startswith("|")] == []
