"""Values with sensible defaults: a test names only what it is about."""

import json
from collections.abc import Mapping
from typing import Any

from proxy.core import limiter
from proxy.core.config_document import OF_KIND, Document, made
from proxy.core.days import DAY_SECONDS
from proxy.core.types import Call, Client, InstanceConfig, Serving
from proxy.core.usage import COUNTERS, Counts, Kept
from proxy.store.revisions import Author
from proxy.store.vault import Vault

MODEL = "gpt-4o"

# Makes what its tests change.
AUTHOR = Author("test")
# Of the tests' databases. Not a secret: it protects made-up keys.
SECRET_KEY = "dGVzdHMtdGVzdHMtdGVzdHMtdGVzdHMtdGVzdHMtMTI="
VAULT = Vault([SECRET_KEY])
KEPT = Kept(minutes=30 * DAY_SECONDS, hours=60 * DAY_SECONDS, days=90 * DAY_SECONDS)


def config(name: str = "a", **changes: Any) -> InstanceConfig:
    """An Azure instance that serves any model."""
    values = {
        "api_base": f"https://{name}.openai.azure.com",
        "api_key": f"planted-key-of-{name}-0123456789",
    }
    return InstanceConfig(name=name, **(values | changes))


def counts(**given: int) -> Counts:
    """A row of counters: those that are given, and 0."""
    return tuple(given.get(name, 0) for name in COUNTERS)


def thing(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """One as it is in a document of all config."""
    section = OF_KIND[kind]
    required = dict.fromkeys(section.required, 1.0)
    if kind == "instance":
        required = {f: getattr(config(name), f) for f in section.required}
    return {**required, **section.defaults, section.key: name, **changes}


def document(**things: list[dict[str, Any]]) -> Document:
    """`instance=[thing("instance", "a")]`, and so on by kind."""
    return made((kind, each) for kind, these in things.items() for each in these)


def call(**changes: Any) -> Call:
    """A chat call; its body names the model and streams as the call does, unless given."""
    values: dict[str, Any] = {
        "endpoint": "chat/completions",
        "model": MODEL,
        "client": Client(name="app"),
        "prompt_tokens": 10,
        "reserved_tokens": 26,
        "request_id": "request-1",
    } | changes
    values.setdefault("body_model", values["model"])
    values.setdefault("body", _body(values))
    return Call(**values)


def serving(config: InstanceConfig | None = None, deployment: str = MODEL) -> Serving:
    """The instance, or else one of this module's, under `deployment`."""
    return limiter.serving(config or _any_instance(), deployment)


def _any_instance() -> InstanceConfig:
    return config()


def _body(values: dict[str, Any]) -> bytes:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}]}
    if values["body_model"] is not None:
        fields = {"model": values["body_model"], **fields}
    if values.get("stream"):
        fields["stream"] = True
    if values.get("stream_options") is not None:
        given = values["stream_options"]
        fields["stream_options"] = dict(given) if isinstance(given, Mapping) else given
    return json.dumps(fields).encode()
