"""The values that pass between the parts. Frozen; nothing here acts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from proxy.core.form import Form
from proxy.core.kept import Marks
from proxy.core.prompt import NO_PROMPT, Prompt

NO_DEPLOYMENTS: Mapping[str, str] = MappingProxyType({})
NO_LABELS: Mapping[str, str] = MappingProxyType({})
NO_LIMITS: Mapping[str, Mapping[str, int]] = MappingProxyType({})

# How an instance knows us: by its own key, or by a token of Microsoft Entra ID.
KEY = "key"
ENTRA = "entra"

# A body: as it came, or, if it is a large one, as it was gathered.
Bytes = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Spliced:
    """A body in pieces, of which some are parts of another: for one that is too large to be
    copied for the few bytes in which it differs. `len` is that of all, `bytes` joins them."""

    pieces: tuple[bytes | memoryview, ...]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


# What is sent of a body.
Payload = Bytes | Spliced

# What tokens and requests are counted by: (kind, name, deployment or model).
MeterKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """What an operator set about one instance. Truth is the table `instance_config`.

    Fields have the names of the columns and of the JSON; a test keeps them equal.
    `max_tpm`, `max_rpm` and `max_input_tokens`: 0 means no limit. `supported_models`: empty
    means any model. `api_key` "NONE": no key is sent. `model_limits` bounds single
    deployments: {model: {"max_tpm": n, "max_rpm": n}}. `auth` is KEY or ENTRA; with that no
    key goes up.
    """

    name: str
    api_base: str
    api_key: str = field(repr=False)
    provider_type: str = "azure"
    api_version: str = "2024-10-21"
    # May hold user:password.
    proxy_url: str | None = field(default=None, repr=False)
    priority: int = 100
    weight: int = 100
    max_tpm: int = 240_000
    max_input_tokens: int = 0
    supported_models: tuple[str, ...] = ()
    model_deployments: Mapping[str, str] = field(default_factory=lambda: NO_DEPLOYMENTS)
    enabled: bool = True
    timeout_seconds: float = 60.0
    retry_count: int = 3
    rate_limit_enabled: bool = True
    max_rpm: int = 0
    model_limits: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: NO_LIMITS)
    quota_group: str | None = None
    auth: str = KEY


@dataclass(frozen=True, slots=True)
class QuotaGroup:
    """What the instances of this `quota_group` may use together: Azure's quota is one for each
    subscription, region and model. 0 means no limit."""

    name: str
    max_tpm: int = 0
    max_rpm: int = 0
    model_limits: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: NO_LIMITS)


# With another of these it is another upstream: what we measured of the old one is void.
UPSTREAM_FIELDS = (
    "api_key",
    "api_base",
    "api_version",
    "provider_type",
    "proxy_url",
    "model_deployments",
    "auth",
)


def is_same_upstream(one: InstanceConfig, other: InstanceConfig) -> bool:
    return all(getattr(one, f) == getattr(other, f) for f in UPSTREAM_FIELDS)


class Client(NamedTuple):
    """Who calls us, and what its key may do. Truth is the table `client_key`, whose columns
    the fields are named after. `name` appears in logs and usage, never the key.

    A tuple, since each change of config makes thousands: it takes a tenth of a dataclass' time.

    0 means no limit, an empty list that all are allowed. `allowed_models` are names or their
    beginnings and `*`, `allowed_networks` in CIDR notation. Costs are in the currency of the
    prices. `number` is the client's alone while it exists, and small.
    """

    name: str
    number: int = 0
    enabled: bool = True
    expires_at: float | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_instances: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    max_tpm: int = 0
    max_rpm: int = 0
    max_parallel_requests: int = 0
    max_tokens_per_day: int = 0
    max_tokens_per_month: int = 0
    max_cost_per_day: float = 0.0
    max_cost_per_month: float = 0.0
    compat: str = "raw"
    labels: Mapping[str, str] = NO_LABELS


ANONYMOUS = Client(name="anonymous")  # everybody, when PROXY_CLIENT_AUTH is off


class Usage(NamedTuple):
    """Tokens of one answer. `cached_tokens` are of the prompt's, `reasoning_tokens` of the
    completion's. `estimated`: the upstream did not say, we counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asked for, in our words.

    `endpoint` is a key of ENDPOINTS. `model` is the one we route by; `body` is what the
    client sent, byte for byte, and `body_model` and `stream_options` what it says there; `form`
    says where, if it is one, else it is JSON.
    `prompt` is what in it costs tokens, `prompt_tokens` the estimate of how many.
    `headers` are those that may go on to an upstream. `marks` are for the names of what is kept
    of it, `homes` the instances that know what it refers to; empty: that is nothing.
    """

    endpoint: str
    model: str
    body: Bytes = field(repr=False)
    client: Client = ANONYMOUS
    stream: bool = False
    body_model: str | None = None
    form: Form | None = field(default=None, repr=False)
    stream_options: object = None
    lacks_stream_options: bool = False  # the body surely has no such field
    prompt: Prompt = NO_PROMPT
    prompt_tokens: int = 0
    reserved_tokens: int = 0
    choices: int = 1  # that the answer is to have
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_id: str = ""
    # Monotonic seconds; 0.0: what came before an attempt is not known.
    began_at: float = 0.0
    # Monotonic seconds; after that nobody waits for the answer any more.
    ends_at: float = math.inf
    # The client set that end, and not the setting.
    is_hurried: bool = False
    # What calls with the same beginning of a prompt have in common.
    affinity: bytes = field(default=b"", repr=False)
    marks: Marks | None = field(default=None, repr=False)
    homes: tuple[str, ...] = ()

    @property
    def asks_usage(self) -> bool:
        """The client itself wants the stream's usage event."""
        options = self.stream_options
        return isinstance(options, dict) and bool(options.get("include_usage"))


@dataclass(frozen=True, slots=True)
class Limit:
    """What `meter` may count in a minute; 0 means no limit."""

    meter: MeterKey
    max_tpm: int = 0
    max_rpm: int = 0


@dataclass(frozen=True, slots=True)
class Serving:
    """An instance, and the deployment under which it serves the model asked for.

    Made by `limiter.serving`: `limits` are all that bound a call there, `meters` what it
    counts in. `least_tpm` is the lowest of these limits in tokens, 0 where there is none.
    `counts_tokens`: what there may be too little of is tokens, and not requests alone; where
    there is no limit of ours, it is the upstream's.
    """

    config: InstanceConfig
    deployment: str
    limits: tuple[Limit, ...] = ()
    meters: tuple[MeterKey, ...] = ()
    least_tpm: int = 0
    counts_tokens: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A serving with its load now.

    `load` is the largest share in use of one of its limits, 0.0 without a limit;
    `first_byte_ms` the median of its latest answers, None before the first.
    """

    serving: Serving
    in_flight: int = 0
    load: float = 0.0
    first_byte_ms: float | None = None
