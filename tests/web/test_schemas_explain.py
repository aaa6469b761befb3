import pytest

from proxy.errors import Unprocessable
from proxy.web.schemas import checked
from proxy.web.schemas_explain import AnyBodySchema, ExplainQuerySchema


def test_of_a_clients_body_all_is_taken_and_only_the_model_has_to_be_there():
    body = {"model": "gpt-4o", "messages": [], "unheard_of": {"a": 1}}
    assert checked(AnyBodySchema(), body) == body


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": "x" * 201}])
def test_a_body_without_a_model_cannot_be_explained(body):
    with pytest.raises(Unprocessable, match=r"^model: "):
        checked(AnyBodySchema(), body)


def test_nobodys_call_is_explained_unless_a_client_is_named():
    assert checked(ExplainQuerySchema(), {}) == {"client": ""}
    with pytest.raises(Unprocessable, match="Unknown field"):
        checked(ExplainQuerySchema(), {"cleint": "app"})
