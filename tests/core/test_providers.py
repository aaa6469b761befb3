import pytest

from proxy.core.providers import PROVIDER_ALIASES, PROVIDERS, homes, key_headers, resource
from tests.builders import config

CHAT = "chat/completions"


def url(path=CHAT, deployment="d", **changes):
    instance = config(**changes)
    return PROVIDERS[instance.provider_type].url(instance, path, deployment)


@pytest.mark.parametrize(
    "api_base", ["https://r.openai.azure.com", "https://r.openai.azure.com//"]
)
def test_azure_names_the_deployment_in_the_path(api_base):
    assert url(api_base=api_base, api_version="2024-10-21") == (
        "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"
    )


@pytest.mark.parametrize(
    "deployment, segment",
    [
        ("gpt-4o_mini.2", "gpt-4o_mini.2"),
        ("my chat", "my%20chat"),
        ("a/b", "a%2Fb"),  # one segment: it cannot reach another path
        ("a?b#c", "a%3Fb%23c"),
        ("ü", "%C3%BC"),
        ("50%", "50%25"),
    ],
)
def test_a_deployment_is_one_segment_of_azures_path(deployment, segment):
    assert f"/openai/deployments/{segment}/chat/" in url(deployment=deployment)


def test_a_version_cannot_add_to_azures_query():
    assert url(api_version="1&x=/2").endswith("?api-version=1%26x%3D%2F2")


@pytest.mark.parametrize(
    "api_base",
    [
        "https://r.openai.azure.com",
        "https://r.openai.azure.com/",
        "https://r.openai.azure.com/openai/v1",
        "https://r.openai.azure.com/openai/v1/",  # as Microsoft's examples write it
    ],
)
def test_azure_v1_has_the_same_path_however_its_base_is_written(api_base):
    shown = url(provider_type="azure_v1", api_base=api_base, path="embeddings")
    assert shown == "https://r.openai.azure.com/openai/v1/embeddings"


@pytest.mark.parametrize("path", ["responses", "responses/resp_1/cancel"])
def test_what_a_resource_keeps_has_no_deployment_in_its_path(path):
    for kind in ("azure", "azure_v1"):
        assert (
            url(provider_type=kind, path=path) == f"https://a.openai.azure.com/openai/v1/{path}"
        )


@pytest.mark.parametrize(
    "version, query",
    [
        ("preview", "?api-version=preview"),
        ("latest", "?api-version=latest"),
        ("2024-10-21", ""),  # the default of an instance, meant for the classic paths
        ("", ""),
        ("Preview", ""),
    ],
)
def test_azure_v1_is_asked_only_for_the_versions_it_knows(version, query):
    shown = url(provider_type="azure_v1", api_version=version)
    assert shown == f"https://a.openai.azure.com/openai/v1/chat/completions{query}"


@pytest.mark.parametrize(
    "api_base, shown",
    [
        ("https://api.openai.com", "https://api.openai.com/v1/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/completions"),
        ("http://host:8000/llm", "http://host:8000/llm/v1/completions"),
        ("http://host/llm-v1", "http://host/llm-v1/v1/completions"),  # only a whole segment
    ],
)
def test_openai_has_v1_once(api_base, shown):
    assert url(provider_type="openai", api_base=api_base, path="completions") == shown


@pytest.mark.parametrize(
    "provider_type, headers",
    [
        ("azure", {"api-key": "k"}),
        ("azure_v1", {"api-key": "k"}),
        ("openai", {"Authorization": "Bearer k"}),
    ],
)
def test_each_provider_takes_its_key_in_its_own_header(provider_type, headers):
    assert key_headers(config(provider_type=provider_type, api_key="k")) == headers


@pytest.mark.parametrize("provider_type", PROVIDERS)
@pytest.mark.parametrize("key", ["", "NONE"])
def test_without_a_key_no_header_is_sent(provider_type, key):
    assert key_headers(config(provider_type=provider_type, api_key=key)) == {}


def test_only_the_classic_azure_leaves_the_bodys_model_alone():
    assert {n for n, p in PROVIDERS.items() if not p.model_in_body} == {"azure"}


@pytest.mark.parametrize(
    "version, may",
    [
        ("2023-05-15", False),
        ("2024-05-01-preview", False),
        ("2024-06-01", False),  # the last that rejects the field
        ("2024-06-01-preview", False),
        ("2024-06-02", True),
        ("2024-07-01-preview", True),
        ("2024-10-21", True),
        ("2025-04-01-preview", True),
        ("preview", True),
        ("latest", True),
        ("", False),
    ],
)
def test_azure_is_asked_for_a_streams_usage_only_at_versions_that_know_it(version, may):
    assert PROVIDERS["azure"].stream_usage(config(api_version=version)) is may


@pytest.mark.parametrize("provider_type", ["azure_v1", "openai"])
def test_the_others_always_know_a_streams_usage(provider_type):
    old = config(provider_type=provider_type, api_version="2023-05-15")
    assert PROVIDERS[provider_type].stream_usage(old)


def test_old_names_lead_to_providers_and_hide_none():
    assert PROVIDER_ALIASES == {"generic": "openai"}
    assert set(PROVIDER_ALIASES.values()) <= set(PROVIDERS)
    assert not set(PROVIDER_ALIASES) & set(PROVIDERS)


@pytest.mark.parametrize("provider_type", PROVIDERS)
def test_where_a_token_of_entra_id_goes_no_key_does(provider_type):
    assert key_headers(config(provider_type=provider_type, auth="entra")) == {}


def test_only_azure_takes_tokens_of_entra_id():
    assert {n for n, p in PROVIDERS.items() if p.takes_tokens} == {"azure", "azure_v1"}


@pytest.mark.parametrize(
    "one, other, is_same",
    [
        ({}, {}, False),
        ({"api_base": "https://x"}, {"api_base": "https://X/", "api_key": "another"}, True),
        (
            {"api_base": "https://x"},
            {"api_base": "https://x/openai/v1/", "provider_type": "azure_v1"},
            True,
        ),
        (
            {"api_base": "https://x", "provider_type": "openai"},
            {"api_base": "https://x/v1", "provider_type": "openai"},
            False,
        ),
        (
            {"api_base": "https://x", "provider_type": "openai"},
            {"api_base": "https://x"},
            False,
        ),
    ],
)
def test_instances_of_one_resource_of_azure_know_the_same(one, other, is_same):
    a, b = config("a", **one), config("b", **other)
    assert (resource(a) == resource(b)) is is_same
    assert list(homes([a, b]).values()) == ([["a", "b"]] if is_same else [["a"], ["b"]])
