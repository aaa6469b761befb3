"""The kinds of upstream: where a call goes, with which key, and what the body must name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from proxy.core.kept import Homes
from proxy.core.types import ENTRA, InstanceConfig

CLASSIC = "azure"  # the one kind that is asked by a version of its API
NO_KEY = "NONE"  # the old program's word for "send no key"

# Azure rejects `stream_options` at this version and all before it.
LAST_WITHOUT_STREAM_OPTIONS = "2024-06-01"

# Below no deployment: the resource keeps them. Each has its v1 paths, which need no version.
OF_RESOURCES = "responses"

KEPT_NAMES = 1024  # of deployments, quoted


@dataclass(frozen=True, slots=True)
class Provider:
    """`url(config, path, deployment)` and `key_headers(key)` say how to ask;
    `model_in_body`: the body's `model` must be the deployment, as with all where the path
    names none (OF_RESOURCES); `stream_usage(config)`: a stream may be asked for its usage
    event; `takes_tokens`: of Entra ID."""

    url: Callable[[InstanceConfig, str, str], str]
    key_headers: Callable[[str], dict[str, str]]
    model_in_body: bool
    stream_usage: Callable[[InstanceConfig], bool]
    takes_tokens: bool = True


def _azure_url(config: InstanceConfig, path: str, deployment: str) -> str:
    if path.startswith(OF_RESOURCES):
        return _azure_v1_url(config, path, deployment)
    return (
        f"{config.api_base.rstrip('/')}/openai/deployments/{_quoted(deployment)}"
        f"/{path}?api-version={_quoted(config.api_version)}"
    )


@lru_cache(KEPT_NAMES)
def _quoted(name: str) -> str:
    return quote(name, safe="")


def _azure_v1_url(config: InstanceConfig, path: str, _deployment: str) -> str:
    base = config.api_base.rstrip("/").removesuffix("/openai/v1")
    # v1 needs no api-version; only these two select something there.
    version = config.api_version if config.api_version in ("preview", "latest") else ""
    return f"{base}/openai/v1/{path}" + (f"?api-version={version}" if version else "")


def _openai_url(config: InstanceConfig, path: str, _deployment: str) -> str:
    return f"{config.api_base.rstrip('/').removesuffix('/v1')}/v1/{path}"


def _azure_key(key: str) -> dict[str, str]:
    return {"api-key": key}


def _bearer_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _after_2024_06(config: InstanceConfig) -> bool:
    # Versions are dates with an optional suffix; "preview" and "latest" sort after digits.
    return config.api_version[:10] > LAST_WITHOUT_STREAM_OPTIONS


def _always(_config: InstanceConfig) -> bool:
    return True


PROVIDERS: dict[str, Provider] = {
    CLASSIC: Provider(_azure_url, _azure_key, False, _after_2024_06),
    "azure_v1": Provider(_azure_v1_url, _azure_key, True, _always),
    "openai": Provider(_openai_url, _bearer_key, True, _always, takes_tokens=False),
}

# Names the old program used, and what they are called now.
PROVIDER_ALIASES = {"generic": "openai"}


def homes(configs: Iterable[InstanceConfig]) -> Homes:
    """Of what is kept by these."""
    found: dict[str, list[str]] = {}
    for config in configs:
        found.setdefault(resource(config), []).append(config.name)
    return found


def resource(config: InstanceConfig) -> str:
    """Equal for instances that know the same of what is kept: with Azure those of the same
    resource, whatever key they are asked with; else it is kept for who has the key, and each
    may have another."""
    base = config.api_base.rstrip("/").removesuffix("/openai/v1").removesuffix("/v1").lower()
    return f"{base} {config.name}" if config.provider_type == "openai" else base


def key_headers(config: InstanceConfig) -> dict[str, str]:
    """The header that carries the instance's key; none if it has none, or gets a token of
    Entra ID instead (which the upstream's part sees to: it is not config)."""
    if not config.api_key or config.api_key == NO_KEY or config.auth == ENTRA:
        return {}
    return PROVIDERS[config.provider_type].key_headers(config.api_key)
