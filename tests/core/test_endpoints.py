import pytest

from proxy.core.endpoints import ENDPOINTS


@pytest.mark.parametrize(
    "path, streams, prompt_fields",
    [
        ("chat/completions", True, ("messages", "tools", "functions", "response_format")),
        ("completions", True, ("prompt", "suffix")),
        ("embeddings", False, ("input",)),
    ],
)
def test_an_endpoint_says_whether_it_streams_and_what_its_prompt_is(
    path, streams, prompt_fields
):
    endpoint = ENDPOINTS[path]
    assert (endpoint.path, endpoint.streams, endpoint.prompt_fields) == (
        path,
        streams,
        prompt_fields,
    )


def test_each_endpoint_is_found_by_its_path():
    assert all(endpoint.path == path for path, endpoint in ENDPOINTS.items())
    assert len(ENDPOINTS) == 3


@pytest.mark.parametrize("path", ENDPOINTS)
def test_paths_can_stand_behind_any_prefix(path):
    assert path == path.strip("/")
