"""What the readers find: records as they stand in the old files, and what cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any


class Era(IntEnum):
    """Which file was the old program's truth when. Of one instance, the newest era wins.

    Lists that operators wrote by hand come first: the program read them once, and kept what
    it made of them in the files of the later eras.
    """

    CSV = 10
    ENV_AZURE = 20
    ENV_API = 30
    YAML = 40
    SHARED_STATE = 50  # M1
    INSTANCE_STATE = 60  # M2, and the dump M2' of the database
    DATABASE = 70  # D1
    FLAT = 80  # M3
    SPLIT = 90  # S1 and S2


ERAS = {
    "C1": Era.CSV,
    "E1": Era.ENV_AZURE,
    "E2": Era.ENV_API,
    "Y1": Era.YAML,
    "M1": Era.SHARED_STATE,
    "M2": Era.INSTANCE_STATE,
    "M2'": Era.INSTANCE_STATE,
    "D1": Era.DATABASE,
    "M3": Era.FLAT,
    "S1": Era.SPLIT,
    "S2": Era.SPLIT,
}


# What config and state were called in every layout. Whatever else a record holds is "extra".
CONFIG_KEYS = (
    "name",
    "provider_type",
    "api_key",
    "api_base",
    "api_version",
    "proxy_url",
    "priority",
    "weight",
    "max_tpm",
    "max_input_tokens",
    "supported_models",
    "model_deployments",
    "enabled",
    "timeout_seconds",
    "retry_count",
    "rate_limit_enabled",
)

# State that is carried; what is derived from it (`status`, rates, `current_*`) is not.
CARRIED_STATE_KEYS = (
    "error_count",
    "last_error",
    "last_error_time",
    "rate_limited_until",
    "total_requests",
    "successful_requests",
    "total_tokens_served",
    "total_upstream_400_errors",
    "total_upstream_429_errors",
    "total_upstream_500_errors",
    "total_upstream_other_errors",
    "last_used",
    "avg_latency_ms",
)


# The layout of a file that holds states and nothing else.
STATES_ONLY = "S2"
# And of those that hold configs and nothing else.
CONFIGS_ONLY = frozenset({"S1", "Y1", "E1", "E2", "C1"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be carried, in words for the person who has to mend it.

    `value` is as it may be shown: never a key. `field` is "" where it is about the whole
    record, `record` "" where it is about the whole file.
    """

    file: Path
    record: str
    field: str
    value: str
    remedy: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One instance in one file, its values as they stand there (types too).

    `place` says where in the file ("instances[3]", "row 4", "key 'azure1'"). `name` is None
    where there is none that can be used. A layout may hold only config (S1, Y1, E, C1), only
    state (S2), or both.
    """

    file: Path
    place: str
    layout: str
    era: Era
    name: str | None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)  # holds keys
    state: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)  # nobody knows what
    # What was done to read it that a person should know (a date turned back into text, ...).
    notes: tuple[str, ...] = ()
    # Of one era and name, where a later record replaced an earlier one (Y1): the later has
    # more. Records that have the same must agree.
    turn: int = 0
    # Why nothing in it can be used, and then what stands there instead of a record.
    problem: Problem | None = None
    raw: Any = field(default=None, repr=False)  # holds keys

    @property
    def recency(self) -> tuple[Era, int]:
        """The greatest of those of one name is what the old program last went by."""
        return self.era, self.turn


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file gave. `bad` are entries that were meant to be records, each with its
    problem; `problems` are about the file.

    `notes` are about what is of no record: what was passed over, and how to have it.
    """

    file: Path
    layout: str
    records: tuple[Record, ...] = ()
    problems: tuple[Problem, ...] = ()
    # Settings of the old program found there (name -> value): told, not carried.
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    bad: tuple[Record, ...] = ()
    # Scalars beside records by name: bad if one has the name of an instance, else settings.
    aside: tuple[Record, ...] = ()
    # The layout of a file of which nothing can be read, where its name tells that; or "".
    lost: str = ""
