import re

import pytest
from flask_smorest import Blueprint as DocumentedBlueprint
from openapi_spec_validator import validate

from proxy import create_app

ROOMS = (
    "instances.",
    "quota-groups.",
    "keys.",
    "prices.",
    "requests.",
    "admin-keys.",
    "config.",
    "explain.",
    "usage.",
)
PAGES = ["/admin/docs/", "/admin/docs/index.html"]


@pytest.fixture
def document(shared_world):
    answer = shared_world.client.get("/admin/openapi.json")
    assert answer.status_code == 200
    return answer.get_json()


def operations(document):
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_it_is_written_when_somebody_asks_for_it(make_settings, monkeypatch):
    written = []
    write = DocumentedBlueprint.register_views_in_doc
    monkeypatch.setattr(
        DocumentedBlueprint,
        "register_views_in_doc",
        lambda mine, *given, **named: written.append(mine) or write(mine, *given, **named),
    )
    client = create_app(make_settings()).test_client()
    assert written == []
    first, second = (client.get("/admin/openapi.json") for _ in range(2))
    assert len(written) == len(ROOMS)
    assert first.data == second.data


def test_the_document_is_valid(document):
    validate(document)
    assert document["openapi"].startswith("3.")


def test_every_path_and_method_of_the_admin_api_is_in_it(shared_world, document):
    rules = shared_world.app.url_map.iter_rules()
    expected = {
        (method.lower(), re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule))
        for rule in rules
        if rule.endpoint.startswith(ROOMS)
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert len(expected) == 46
    assert set(operations(document)) == expected


def test_every_operation_says_what_it_does_and_what_can_come_back(document):
    for place, operation in operations(document).items():
        assert operation["summary"].endswith("."), place
        assert any(status.startswith("2") for status in operation["responses"]), place
        for status, answer in operation["responses"].items():
            if status.startswith("4"):
                shape = answer["content"]["application/json"]["schema"]["$ref"]
                assert shape == "#/components/schemas/Error", (place, status)


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("path", ["", "/config"])
def test_a_change_names_its_body_and_its_header(document, method, path):
    operation = operations(document)[method, f"/admin/instances/{{name}}{path}"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert "InstanceChange" in str(body)
    assert ("header", "If-Match") in {(p["in"], p["name"]) for p in operation["parameters"]}
    assert {"404", "412", "422"} <= set(operation["responses"])


def test_the_filters_of_the_list_are_in_it(document):
    parameters = operations(document)["get", "/admin/instances"]["parameters"]
    names = {p["name"] for p in parameters}
    assert names == {"status", "provider_type", "model", "sort", "limit", "offset"}


def test_a_state_that_is_shown_is_one_that_is_documented(document):
    status = document["components"]["schemas"]["InstanceState"]["properties"]["status"]
    assert set(status["enum"]) == {
        "healthy",
        "rate_limited",
        "misconfigured",
        "error",
        "removed",
    }


def test_it_says_which_key_is_needed(document):
    assert document["security"] == [{"adminKey": []}]
    assert document["components"]["securitySchemes"]["adminKey"]["name"] == "X-Admin-API-Key"


@pytest.mark.parametrize("page", PAGES)
def test_the_page_and_all_it_needs_come_from_here(shared_world, page):
    answer = shared_world.client.get(page, headers={"Host": "gateway.example"})
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    assert not re.search(r"https?:|//\w", answer.text.split("<body>")[0])
    assert "://" not in answer.text
    assert "gateway.example" not in answer.text
    assert "/admin/openapi.json" in answer.text
    needed = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(needed) >= 4
    for path in needed:
        asset = shared_world.client.get(path)
        assert (asset.status_code, len(asset.data) > 100) == (200, True), path


@pytest.mark.parametrize("path", [*PAGES, "/admin/docs", "/admin/docs/swagger-ui.css"])
def test_the_page_may_load_nothing_from_elsewhere(shared_world, path):
    headers = shared_world.client.get(path).headers
    directives = headers["content-security-policy"].split(";")
    policy = dict(each.strip().split(" ", 1) for each in directives)
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    sources = {source for value in policy.values() for source in value.split()}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_is_found_without_its_slash_whatever_is_in_front(shared_world):
    answer = shared_world.client.get("/admin/docs")
    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/docs/")


def test_other_answers_have_no_policy(shared_world):
    assert "content-security-policy" not in shared_world.client.get("/health").headers


@pytest.mark.parametrize("path", ["/admin/docs/nope.js", "/admin/docs/../openai.py"])
def test_there_is_nothing_else_beside_the_page(shared_world, path):
    assert shared_world.client.get(path).status_code == 404


def test_the_document_says_that_no_model_is_named_twice(shared_world):
    document = shared_world.client.get("/admin/openapi.json").get_json()
    for name in ("Instance", "InstanceChange"):
        models = document["components"]["schemas"][name]["properties"]["supported_models"]
        assert models["uniqueItems"] is True
