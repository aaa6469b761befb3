import json

import pytest

from proxy.simulator.errors import Refused
from proxy.simulator.shelf import MOST_KEPT, Kept, Shelf

ITEM = {"id": "msg_0", "role": "user"}


def kept(name="resp_1", **changes):
    response = {"id": name, "status": "completed", "background": False, "output": []}
    return Kept({**response, **changes}, [ITEM])


def shelf(*these):
    found = Shelf()
    for each in these or (kept(),):
        found.put(each)
    return found


def said(answer):
    assert answer.status == 200
    return json.loads(answer.body)


def test_what_was_put_there_is_found():
    there = shelf()
    assert there.get("resp_1") == kept()
    assert said(there.retrieved("resp_1")) == kept().response
    assert there.get("resp_2") is None


def test_one_in_the_background_is_ready_when_it_is_asked_for():
    there = shelf(kept(status="queued", background=True))
    assert said(there.retrieved("resp_1"))["status"] == "completed"
    assert said(there.cancelled("resp_1"))["status"] == "completed"


def test_until_then_it_may_be_cancelled():
    there = shelf(kept(status="queued", background=True))
    assert said(there.cancelled("resp_1"))["status"] == "cancelled"
    assert said(there.retrieved("resp_1"))["status"] == "cancelled"


def test_one_that_was_waited_for_cannot():
    with pytest.raises(Refused) as refused:
        shelf().cancelled("resp_1")
    assert refused.value.answer.status == 400


def test_its_input_is_listed():
    listed = {"object": "list", "data": [ITEM], "first_id": "msg_0", "last_id": "msg_0"}
    assert said(shelf().items("resp_1")) == listed | {"has_more": False}


def test_items_of_input_and_output_are_known():
    there = shelf(kept(output=[{"id": "rs_1"}]))
    assert [there.has_item(n) for n in ("msg_0", "rs_1", "x")] == [True, True, False]


@pytest.mark.parametrize("ask", ["retrieved", "items", "cancelled", "deleted"])
def test_what_is_deleted_is_gone(ask):
    there = shelf()
    gone = {"id": "resp_1", "object": "response", "deleted": True}
    assert said(there.deleted("resp_1")) == gone
    with pytest.raises(Refused) as refused:
        getattr(there, ask)("resp_1")
    assert refused.value.answer.status == 404


def test_the_oldest_goes_where_there_are_too_many():
    there = shelf(*(kept(f"resp_{number}") for number in range(MOST_KEPT + 1)))
    assert there.get("resp_0") is None
    assert there.get("resp_1") is not None
    there.clear()
    assert there.get("resp_1") is None
