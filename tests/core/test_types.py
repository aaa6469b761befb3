import math
from dataclasses import FrozenInstanceError

import pytest

from proxy.core.types import (
    ANONYMOUS,
    NO_DEPLOYMENTS,
    NO_USAGE,
    Call,
    Candidate,
    Client,
    InstanceConfig,
    Usage,
    is_same_upstream,
)
from tests.builders import call, config, serving

VALUES = (config(), ANONYMOUS, NO_USAGE, call(), serving(), Candidate(serving()))


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_are_frozen(value):
    is_tuple = isinstance(value, tuple)
    names = type(value)._fields if is_tuple else type(value).__slots__
    with pytest.raises(AttributeError if is_tuple else FrozenInstanceError):
        setattr(value, next(iter(names)), "changed")


def test_a_configs_repr_shows_no_secrets():
    shown = repr(config(api_key="sk-secret", proxy_url="http://user:hidden@proxy:3128"))
    assert "sk-secret" not in shown
    assert "hidden" not in shown
    assert "3128" not in shown


def test_a_calls_repr_shows_neither_body_nor_headers():
    shown = repr(call(body=b'{"private": 1}', headers={"x-private": "2"}))
    assert "private" not in shown


def test_a_config_without_deployments_shares_an_empty_mapping_nobody_can_fill():
    bare = InstanceConfig("a", "https://a", "key")
    assert bare.model_deployments is NO_DEPLOYMENTS
    with pytest.raises(TypeError):
        bare.model_deployments["gpt-4o"] = "mine"


def test_defaults_are_those_the_table_and_the_schema_have():
    bare = InstanceConfig("a", "https://a", "key")
    assert (bare.provider_type, bare.api_version, bare.proxy_url) == (
        "azure",
        "2024-10-21",
        None,
    )
    assert (bare.priority, bare.weight, bare.retry_count) == (100, 100, 3)
    assert (bare.max_tpm, bare.max_input_tokens) == (240_000, 0)
    assert (bare.enabled, bare.rate_limit_enabled, bare.timeout_seconds) == (True, True, 60.0)
    assert bare.supported_models == ()


def test_what_a_call_does_not_say_is_nothing():
    bare = Call("embeddings", "gpt-4o", b"{}")
    assert bare.client == Client("anonymous")
    assert (bare.stream, bare.body_model, bare.stream_options) == (False, None, None)
    assert (bare.prompt_tokens, bare.reserved_tokens) == (0, 0)
    assert (dict(bare.headers), bare.request_id) == ({}, "")
    assert (bare.ends_at, bare.affinity) == (math.inf, b"")


def test_an_idle_candidate_and_an_answer_without_usage_weigh_nothing():
    idle = Candidate(serving())
    assert (idle.in_flight, idle.load, idle.first_byte_ms) == (0, 0.0, None)
    assert Usage() == Usage(0, 0, 0, estimated=False) == NO_USAGE


@pytest.mark.parametrize(
    "changes, same",
    [
        ({}, True),
        ({"weight": 1, "priority": 1, "enabled": False, "max_tpm": 1}, True),
        ({"supported_models": ("o3",), "timeout_seconds": 1.0, "retry_count": 0}, True),
        ({"api_key": "another"}, False),
        ({"api_base": "https://another"}, False),
        ({"api_version": "2023-05-15"}, False),
        ({"provider_type": "openai"}, False),
        ({"proxy_url": "http://proxy"}, False),
        ({"model_deployments": {"gpt-4o": "another"}}, False),
    ],
)
def test_an_upstream_is_another_if_we_would_ask_elsewhere_or_with_another_key(changes, same):
    assert is_same_upstream(config(), config(**changes)) is same


def test_an_answers_total_is_prompt_and_completion_and_cached_ones_are_part_of_the_prompt():
    assert Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=6).total_tokens == 12


@pytest.mark.parametrize(
    "options, asks",
    [
        (None, False),
        ({}, False),
        ({"include_usage": False}, False),
        ({"include_usage": None}, False),
        ({"include_usage": True}, True),
        ({"include_usage": "yes"}, True),  # wrong, and the upstream's to refuse
        ({"include_obfuscation": True}, False),
    ],
)
def test_a_call_asks_for_usage_when_its_own_options_say_so(options, asks):
    assert call(stream_options=options).asks_usage is asks
