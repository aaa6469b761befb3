import pytest
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import Map, Rule

from proxy.web.routes import MOST_CHARACTERS, MOST_HOSTS, MOST_PATHS, Routes

RULES = Map(
    [
        Rule("/v1/chat", endpoint="chat", methods=["POST"], defaults={"style": "v1"}),
        Rule("/of/<path:model>/chat", endpoint="chat-of", methods=["POST"]),
        Rule("/other", endpoint="other", methods=["POST"]),
    ],
    merge_slashes=False,
)


class Requests:
    """Each asks for its rule as Flask does; `made` counts the router's adapters."""

    def __init__(self):
        self.routes = Routes({"chat", "chat-of"})
        self.made = 0

    def adapter(self, path, method="POST", **more):
        def make():
            self.made += 1
            return RULES.bind("gateway.example", path_info=path, default_method=method)

        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, **more}
        return self.routes.adapter(environ, make)

    def match(self, path, method="POST", **more):
        rule, values = self.adapter(path, method, **more).match(return_rule=True)
        return rule.endpoint, values


@pytest.fixture
def requests():
    return Requests()


def test_the_router_is_asked_once_for_a_path(requests):
    found = [requests.match("/v1/chat") for _ in range(3)]
    assert found == [("chat", {"style": "v1"})] * 3
    assert requests.made == 1


def test_each_deployment_is_a_path_of_its_own(requests):
    for model in ("a", "b/c", "a", "b/c"):
        assert requests.match(f"/of/{model}/chat") == ("chat-of", {"model": model})
    assert requests.made == 2


def test_what_a_view_does_to_its_values_no_other_sees(requests):
    requests.match("/v1/chat")[1]["style"] = "planted"
    requests.match("/v1/chat")[1]["style"] = "planted again"
    assert requests.match("/v1/chat") == ("chat", {"style": "v1"})


def test_other_methods_ask_the_router_each_time(requests):
    requests.match("/v1/chat")
    for _ in range(2):
        with pytest.raises(MethodNotAllowed):
            requests.match("/v1/chat", "GET")
    assert requests.made == 3


@pytest.mark.parametrize("path", ["/other", f"/of/{'m' * MOST_CHARACTERS}/chat"])
def test_what_is_no_call_or_too_long_is_not_kept(requests, path):
    assert requests.match(path) == requests.match(path)
    assert requests.made == 2


def test_what_the_router_refuses_it_refuses_also_where_the_path_is_known(shared_world):
    path, key = "/v1/chat/completions", {"Authorization": "Bearer none"}
    asked = [{}, {"Host": "a..b"}, {"Connection": "Upgrade", "Upgrade": "websocket"}] * 2
    answers = [shared_world.client.post(path, headers=key | more) for more in asked]
    assert [answer.status_code for answer in answers] == [401, 400, 400] * 2


def test_a_host_that_is_new_is_for_the_router_to_judge(requests):
    for host in ("a.example", "b.example", "a.example", "b.example"):
        requests.match("/v1/chat", HTTP_HOST=host)
    assert requests.made == 2
    for number in range(MOST_HOSTS):
        requests.match("/v1/chat", HTTP_HOST=f"{number}.example")
        assert len(requests.routes._hosts) <= MOST_HOSTS


def test_clients_cannot_make_it_keep_more_and_more(requests):
    for number in range(MOST_PATHS + 1):
        requests.match(f"/of/{number}/chat")
    assert len(requests.routes._found) == 1
    requests.match(f"/of/{MOST_PATHS}/chat")
    assert requests.made == MOST_PATHS + 1


def test_for_all_else_the_routers_own_is_made_once(requests):
    requests.match("/v1/chat")
    adapter = requests.adapter("/v1/chat")
    assert adapter.build("chat-of", {"model": "a"}) == "/of/a/chat"
    assert adapter.match() == ("chat", {"style": "v1"})
    assert adapter.match("/other") == ("other", {})
    assert adapter.allowed_methods() == ["POST"]
    assert requests.made == 2
