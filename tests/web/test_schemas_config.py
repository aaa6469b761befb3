import pytest

from proxy.core.config_document import BY_NAME
from proxy.errors import Unprocessable
from proxy.store.models import ClientKeyRow
from proxy.web import schemas_config as schemas
from proxy.web.schemas import checked
from tests.builders import thing


@pytest.mark.parametrize("section", BY_NAME)
def test_a_section_takes_the_fields_its_things_have(section):
    assert set(schemas.IN_DOCUMENT[section]().fields) == set(BY_NAME[section].fields)


@pytest.mark.parametrize("section", BY_NAME)
def test_a_thing_as_it_is_in_a_document_is_one_that_is_taken(section):
    given = thing(BY_NAME[section].kind, "x")
    assert checked(schemas.IN_DOCUMENT[section](), given) == given


def test_the_defaults_of_a_client_are_those_of_its_row():
    for field, default in BY_NAME["clients"].defaults.items():
        column = ClientKeyRow.__table__.columns[field]
        if column.default is not None:
            value = column.default.arg
            assert (value(None) if callable(value) else value) == default, field


@pytest.mark.parametrize(
    "section, values",
    [
        ("clients", {"name": " app"}),
        ("clients", {"name": "app", "key": "gw-x"}),  # keys are no part of it
        ("prices", {"model": "x", "prompt_per_million": 1.0}),
        ("quota_groups", {"name": "a/../b"}),
        ("quota_groups", {"max_tpm": 1}),
    ],
)
def test_what_makes_no_sense_is_refused(section, values):
    with pytest.raises(Unprocessable):
        checked(schemas.IN_DOCUMENT[section](), values)


def test_a_document_is_taken_as_it_comes_and_checked_later():
    assert checked(schemas.ImportSchema(), {"config": 7}) == {"config": 7}


@pytest.mark.parametrize(
    "values",
    [{}, {"config": {}, "dry_run": "true"}, {"config": {}, "prune": 1}, {"config": {}, "x": 1}],
)
def test_how_it_is_brought_in_is_said_exactly(values):
    with pytest.raises(Unprocessable):
        checked(schemas.ImportSchema(), values)
