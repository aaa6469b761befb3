import pytest
from flask import Flask
from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from proxy.web.docs import AdminApi
from proxy.web.documented import ERRORS, any_of, documented_in, one_or_list


class Shape(Schema):
    name = fields.String()


@pytest.fixture
def document():
    """A function from how a view is documented to what the OpenAPI document says of it."""

    def made(*arguments, **more):
        blueprint = Blueprint("things", __name__)

        @blueprint.route("/thing")
        class Thing(MethodView):
            @documented_in(blueprint, *arguments, **more)
            def post(self):
                """What it does."""
                return {"name": "a", "secret": "not in the schema"}

        app = Flask("documented")
        app.config |= {"API_TITLE": "t", "API_VERSION": "1", "OPENAPI_VERSION": "3.0.3"}
        api = AdminApi(app)
        api.register_blueprint(blueprint)
        answer = app.test_client().post("/thing")
        return api.document()["paths"]["/thing"]["post"], answer

    return made


def test_an_answer_has_its_status_and_its_shape(document):
    shown, answer = document(201, Shape, errors=())
    schema = shown["responses"]["201"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Shape"}
    assert (answer.status_code, answer.get_json()) == (201, {"name": "a"})
    assert shown["summary"] == "What it does."


@pytest.mark.parametrize("status", ERRORS)
def test_each_error_has_openais_shape_and_says_what_it_means(status, document):
    shown, _ = document(200, Shape, errors=(status,))
    error = shown["responses"][str(status)]
    assert error["description"] == ERRORS[status]
    schema = error["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Error"}


def test_a_body_and_a_query_are_shown(document):
    shown, _ = document(200, Shape, body=Shape(), query=Shape)
    assert shown["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Shape"}}},
    }
    assert [(p["in"], p["name"]) for p in shown["parameters"]] == [("query", "name")]


def test_what_can_fail_for_another_version_takes_if_match(document):
    shown, _ = document(200, Shape, errors=(412,))
    assert [(p["in"], p["name"]) for p in shown["parameters"]] == [("header", "If-Match")]
    assert "parameters" not in document(200, Shape, errors=(404,))[0]


def test_what_may_be_yaml_is_shown_as_both(document):
    of_shape = {"schema": {"$ref": "#/components/schemas/Shape"}}
    both = {"application/json": of_shape, "application/yaml": of_shape}
    asked, _ = document(200, Shape, body=Shape(), yaml=Shape())
    assert asked["requestBody"]["content"] == both
    assert set(asked["responses"]["200"]["content"]) == {"application/json"}
    answered, _ = document(200, Shape, yaml=Shape())
    assert answered["responses"]["200"]["content"] == both


def test_what_may_be_one_or_a_list_is_shown_as_both(document):
    of_shape = {"$ref": "#/components/schemas/Shape"}
    either = [of_shape, {"type": "array", "minItems": 1, "items": of_shape}]
    shown, _ = document(201, Shape, body=one_or_list(Shape()))
    body = shown["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"anyOf": either}


def test_an_answer_of_several_shapes_is_shown_with_each(document):
    shown, answer = document(201, Shape, shown=any_of(Shape(), {"type": "null"}))
    schema = shown["responses"]["201"]["content"]["application/json"]["schema"]
    assert schema == {"anyOf": [{"$ref": "#/components/schemas/Shape"}, {"type": "null"}]}
    assert answer.get_json() == {"name": "a"}
