import pytest

from proxy.errors import PreconditionFailed
from proxy.web.schemas_fields import MAX_NUMBER
from proxy.web.ui import asked


@pytest.mark.parametrize(
    "text, number",
    [("7", 7), ("", 0), ("-1", 0), ("x", 0), ("٣", 0), ("9" * 10, MAX_NUMBER), ("9" * 99, 0)],
)
def test_a_number_is_what_can_be_one_of_ours(text, number):
    assert asked.number_in({"n": text}, "n") == number


def test_what_the_page_showed_has_to_be_there_still(world):
    with world.app.test_request_context("/?name=a", method="POST", data={"revision": "3"}):
        assert asked.name_asked() == "a"
        asked.check_unchanged("a", 3)
        with pytest.raises(PreconditionFailed, match="at revision 4, not 3"):
            asked.check_unchanged("a", 4)
