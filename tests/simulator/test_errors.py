import json

import pytest

from proxy.simulator import errors


@pytest.mark.parametrize("style, has_type", [("azure", False), ("azure_v1", True)])
def test_v1_says_more_about_a_missing_deployment_than_classic(style, has_type):
    answer = errors.deployment_not_found(style)
    body = json.loads(answer.body)["error"]
    assert (answer.status, body["code"]) == (404, "DeploymentNotFound")
    assert ("type" in body) is has_type


def test_a_429_names_operation_version_limit_and_wait():
    answer = errors.too_many("token", 7, {"retry-after": "7"}, "embeddings", "2024-10-21")
    assert (answer.status, answer.headers) == (429, {"retry-after": "7"})
    assert json.loads(answer.body)["error"] == {
        "code": "429",
        "message": "Requests to the Embeddings_Create Operation under Azure OpenAI API version "
        "2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. "
        "Please retry after 7 seconds.",
    }
