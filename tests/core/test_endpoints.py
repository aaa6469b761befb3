import pytest

from proxy.core.endpoints import ENDPOINTS


@pytest.mark.parametrize(
    "path, prompt_fields, answer",
    [
        (
            "chat/completions",
            ("messages", "tools", "functions", "response_format"),
            "completion",
        ),
        ("completions", ("prompt", "suffix"), "completion"),
        ("embeddings", ("input",), "data"),
        ("images/generations", ("prompt",), "images"),
        ("images/edits", ("prompt",), "images"),
        ("audio/transcriptions", ("prompt",), "transcript"),
        ("audio/translations", ("prompt",), "transcript"),
        ("audio/speech", ("input", "instructions"), "speech"),
        ("responses", ("input", "instructions", "tools", "text"), "response"),
        ("responses/compact", ("input", "instructions"), "response"),
    ],
)
def test_an_endpoint_says_what_its_prompt_and_its_answer_are(path, prompt_fields, answer):
    endpoint = ENDPOINTS[path]
    assert (endpoint.path, endpoint.prompt_fields, endpoint.answer) == (
        path,
        prompt_fields,
        answer,
    )


def test_which_have_no_streams_and_which_take_files():
    assert {p for p, e in ENDPOINTS.items() if not e.streams} == {
        "embeddings",
        "audio/translations",
        "responses/compact",
    }
    assert {p for p, e in ENDPOINTS.items() if e.is_form} == {
        "images/edits",
        "audio/transcriptions",
        "audio/translations",
    }


def test_each_endpoint_is_found_by_its_path():
    assert all(endpoint.path == path for path, endpoint in ENDPOINTS.items())
    assert len(ENDPOINTS) == 10


@pytest.mark.parametrize("path", ENDPOINTS)
def test_paths_can_stand_behind_any_prefix(path):
    assert path == path.strip("/")
