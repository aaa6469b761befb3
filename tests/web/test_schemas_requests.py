import pytest

from proxy.core.record import Ended, Seen, Trail, Tried, record
from proxy.core.types import Usage
from proxy.core.verdict import OUTCOMES
from proxy.errors import Unprocessable
from proxy.web.schemas import checked
from proxy.web.schemas_requests import RequestSchema, RequestsQuerySchema


def test_all_that_a_record_has_is_documented_and_nothing_else():
    # With all that can be known, whether or not it is ever known together.
    tried = Tried("a", "d", 1.0, 5, 500, "failed", "why", 7.0, "id", "region")
    trail = Trail("failover", [tried], {"b": ("no_room", 1.0)})
    ended = Ended(1.0, 5, 1, "failed", "why", Usage(1, 1, 1, estimated=True), 1, 9, True)
    seen = Seen(1.0, 1.0, 1, "x", "POST", "/", 200, "app", "m", "e", 1, "code", trail, ended)
    seen = seen._replace(source="192.0.2.7", home="a", said="why")
    values = record(seen)
    fields = RequestSchema().fields
    assert values.keys() | {"cut"} == fields.keys()  # by `fitted`
    for name in ("attempts", "passed_over"):
        (found,) = values[name]
        assert found.keys() == fields[name].inner.schema.fields.keys()


def test_an_outcome_that_there_is_not_is_refused_and_those_that_there_are_named():
    for outcome in (*OUTCOMES, "refused"):
        assert checked(RequestsQuerySchema(), {"outcome": outcome})["outcome"] == outcome
    with pytest.raises(Unprocessable, match=r"outcome: Must be one of: aborted, .*, succeeded"):
        checked(RequestsQuerySchema(), {"outcome": "bogus"})
