import pytest

from proxy.simulator.routes import Route, find

VERSION = {"api-version": "2024-10-21"}


@pytest.mark.parametrize(
    "method, path, query, expected",
    [
        (
            "POST",
            "/openai/deployments/gpt-4o/chat/completions",
            VERSION,
            Route("azure", "chat/completions", "gpt-4o"),
        ),
        (
            "POST",
            "/openai/deployments/a%2Fb%20c/embeddings",
            VERSION,
            Route("azure", "embeddings", "a/b c"),
        ),
        ("POST", "/openai/v1/completions", {}, Route("azure_v1", "completions")),
        ("POST", "/openai/v1/embeddings", VERSION, Route("azure_v1", "embeddings")),
        ("POST", "/v1/chat/completions", {}, Route("openai", "chat/completions")),
        ("GET", "/openai/models", VERSION, Route("azure", "models")),
        ("GET", "/openai/v1/models", {}, Route("azure_v1", "models")),
        ("GET", "/v1/models", {}, Route("openai", "models")),
        # The classic paths do not exist without an api-version.
        ("POST", "/openai/deployments/gpt-4o/chat/completions", {}, None),
        ("GET", "/openai/models", {}, None),
        ("GET", "/v1/chat/completions", {}, None),
        ("POST", "/v1/models", {}, None),
        ("POST", "/v1/images/generations", {}, Route("openai", "images/generations")),
        ("POST", "/v1/audio/translations", {}, Route("openai", "audio/translations")),
        ("POST", "/v1/audio/speech", {}, Route("openai", "audio/speech")),
        ("POST", "/v1/audio/voices", {}, None),
        ("POST", "/v1/responses", {}, Route("openai", "responses")),
        ("POST", "/openai/responses", VERSION, Route("azure", "responses")),
        ("POST", "/openai/v1/responses/compact", {}, Route("azure_v1", "responses/compact")),
        ("GET", "/v1/responses/r%201", {}, Route("openai", "responses", "", "r 1", "GET")),
        (
            "POST",
            "/openai/responses/r/cancel",
            VERSION,
            Route("azure", "responses", "", "r", "POST /cancel"),
        ),
        ("GET", "/openai/v1/responses", {}, None),
        ("POST", "/v1/responses/r", {}, None),
        ("GET", "/v1/responses/r/cancel", {}, None),
        ("DELETE", "/openai/responses/r", {}, None),
        ("POST", "/openai/deployments/gpt-4o/responses", VERSION, None),
        ("POST", "/openai/deployments/a/b/chat/completions", VERSION, None),
        ("POST", "/chat/completions", VERSION, None),
        ("POST", "/", VERSION, None),
    ],
)
def test_a_path_means_an_operation_of_a_deployment(method, path, query, expected):
    assert find(method, path, query) == expected
