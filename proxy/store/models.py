"""The tables. Config and state apart: nothing an instance does writes a config row.

Moments (`_at`, `_until`, and the old names `last_used` and `last_error_time`) are seconds
since the epoch, UTC, as in the old program's files. No table of state has a foreign key:
counts outlive the instance they were measured on.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from proxy.core.usage import COUNTERS
from proxy.store.sealed import Sealed, SealedJson

# Totals of tokens outgrow 32 bits; SQLite numbers rows only by its own INTEGER.
WHOLE: Any = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    # Constraints have names, so that a later migration can refer to them.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads it from the class
        int: WHOLE,
        list[str]: JSON,
        list[dict[str, Any]]: JSON,
        dict[str, str]: JSON,
        dict[str, dict[str, int]]: JSON,
        dict[str, Any]: JSON,
    }


class InstanceRow(Base):
    """What an operator set about one instance."""

    __tablename__ = "instance_config"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    provider_type: Mapped[str] = mapped_column(String(20))
    api_key: Mapped[str] = mapped_column(Sealed)
    api_base: Mapped[str]
    api_version: Mapped[str]
    proxy_url: Mapped[str | None] = mapped_column(Sealed)
    priority: Mapped[int]
    weight: Mapped[int]
    max_tpm: Mapped[int]
    max_input_tokens: Mapped[int]
    supported_models: Mapped[list[str]]
    model_deployments: Mapped[dict[str, str]]
    enabled: Mapped[bool]
    timeout_seconds: Mapped[float]
    retry_count: Mapped[int]
    rate_limit_enabled: Mapped[bool]
    max_rpm: Mapped[int]
    # {model: {"max_tpm": n, "max_rpm": n}}
    model_limits: Mapped[dict[str, dict[str, int]]]
    quota_group: Mapped[str | None] = mapped_column(String(100))
    auth: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[float]
    updated_at: Mapped[float]
    revision: Mapped[int]  # the config_revision that last changed it: its ETag
    # Keys of the old program's record that nobody knows; may hold secrets, so never shown.
    legacy_extra: Mapped[dict[str, Any] | None] = mapped_column(SealedJson)


class QuotaGroupRow(Base):
    """What instances that share a quota may use together."""

    __tablename__ = "quota_group"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    max_tpm: Mapped[int]
    max_rpm: Mapped[int]
    model_limits: Mapped[dict[str, dict[str, int]]]
    created_at: Mapped[float]
    updated_at: Mapped[float]
    revision: Mapped[int]  # its ETag


class InstanceStateRow(Base):
    """Totals of one instance over all workers and restarts. Workers add to it."""

    __tablename__ = "instance_state"

    instance_name: Mapped[str] = mapped_column(String(100), primary_key=True)
    total_requests: Mapped[int] = mapped_column(default=0)
    successful_requests: Mapped[int] = mapped_column(default=0)
    error_count: Mapped[int] = mapped_column(default=0)
    total_tokens_served: Mapped[int] = mapped_column(default=0)
    total_upstream_400_errors: Mapped[int] = mapped_column(default=0)
    total_upstream_429_errors: Mapped[int] = mapped_column(default=0)
    total_upstream_500_errors: Mapped[int] = mapped_column(default=0)
    total_upstream_other_errors: Mapped[int] = mapped_column(default=0)
    latency_total_ms: Mapped[int] = mapped_column(default=0)
    last_used: Mapped[float | None]
    last_success_time: Mapped[float | None]
    last_failure_time: Mapped[float | None]
    last_error: Mapped[str | None]
    last_error_time: Mapped[float | None]
    # The breaker as the worker that last changed it left it (core/breaker.py). NULL: closed.
    breaker_open_until: Mapped[float | None]
    breaker_open_seconds: Mapped[float | None]
    breaker_trial_until: Mapped[float | None]
    breaker_changed_at: Mapped[float | None]
    # When an operator last cleared errors and rests: what workers measured before is void.
    cleared_at: Mapped[float | None]
    # What the old program measured and we do not: kept for the way back.
    legacy_state: Mapped[dict[str, Any] | None]
    # When the old program's totals were added; once each.
    legacy_imported_at: Mapped[float | None]
    write_number: Mapped[int] = mapped_column(default=0, index=True)  # see StateWriteRow


class DeploymentStateRow(Base):
    """The rest of one deployment: Azure limits deployments, so that is where a 429 counts.

    `deployment` "" is the whole instance: a refused key concerns all of it.
    """

    __tablename__ = "deployment_state"

    instance_name: Mapped[str] = mapped_column(String(100), primary_key=True)
    deployment: Mapped[str] = mapped_column(String(200), primary_key=True)
    rate_limited_until: Mapped[float]
    rest_reason: Mapped[str] = mapped_column(String(40))
    rest_set_at: Mapped[float]


class StateJournalRow(Base):
    """What one write added to the tokens and requests of seconds, of the last two minutes.

    One row and not one for each second and deployment: the others read it once, at a tenth of
    what it takes to keep sums, and two minutes later it is deleted.
    """

    __tablename__ = "state_journal"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # the write's
    newest_at: Mapped[int]  # the newest second in it
    # JSON: [[second, instance, deployment, tokens, requests], ...]
    added: Mapped[str] = mapped_column(Text)


class HeldCountsRow(Base):
    """What a round of one process added to usage and totals, where it was much. For a few
    seconds: see held.py."""

    __tablename__ = "held_counts"

    owner: Mapped[str] = mapped_column(String(32), primary_key=True)  # of a process, by chance
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # its own count
    written_at: Mapped[float]
    # JSON: {"totals": {instance: {counter: n}}, "moments": {instance: {moment: seconds}},
    # "usage": [[[minute, instance, model, client], {counter: n}], ...]}
    added: Mapped[str] = mapped_column(Text)


class StateWriteRow(Base):
    """How many transactions wrote state: one row, and none before the first.

    Each takes the next number and leaves it in the rows it changes, so that a worker need read
    only those with a higher one than it knows. Whoever takes a number keeps others from it
    until the transaction ends: when one is seen, all before it are.
    """

    __tablename__ = "state_write"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]


def _usage_table(name: str, *keys: Column[Any]) -> Table:
    """Counters (core/usage.py) that are only added to; `keys` are its primary key."""
    counters = [Column(c, WHOLE, nullable=False, default=0) for c in COUNTERS]
    # Without row numbers the rows lie in the order of their keys, as reports read them, and a
    # key is there once. PostgreSQL has no such thing.
    return Table(name, Base.metadata, *keys, *counters, sqlite_with_rowid=False)


def _keys_alone(table: Any) -> dict[str, Any]:
    """Of hundreds of counters nobody makes objects, only statements: to map them to attributes
    took a twentieth of a start."""
    return {"include_properties": [column.name for column in table.primary_key]}


def _key(name: str, kind: Any = None) -> Column[Any]:
    return Column(name, kind or WHOLE, primary_key=True, autoincrement=False)


def _who() -> tuple[Column[Any], ...]:
    return (
        _key("instance_name", String(100)),
        _key("model", String(200)),
        _key("client_name", String(100)),
    )


class UsageRow(Base):
    """What one client used of one model on one instance in one UTC minute.

    `requests` are the client's: each counts once, at the instance that answered it.
    `attempts` are ours, each with one outcome: several where an instance failed and
    another was asked. `instance_name` "" stands for requests that found no instance,
    `model` "" for names that clients made up (see store/model_names.py), `client_name` "" for
    those without a key.
    """

    __table__ = _usage_table("usage_minute", _key("minute_at"), *_who())
    __mapper_args__ = _keys_alone(__table__)


class UsageHourRow(Base):
    """The same of one UTC hour. What is rolled up, and until when, UsageRolledRow knows."""

    __table__ = _usage_table("usage_hour", _key("hour_at"), *_who())
    __mapper_args__ = _keys_alone(__table__)


class UsageDayRow(Base):
    """The same of one UTC day."""

    __table__ = _usage_table("usage_day", _key("day_at"), *_who())
    __mapper_args__ = _keys_alone(__table__)
    # Reports ask for one client, say, over months.
    Index("ix_usage_day_instance", __table__.c.instance_name, __table__.c.day_at)
    Index("ix_usage_day_model", __table__.c.model, __table__.c.day_at)
    Index("ix_usage_day_client", __table__.c.client_name, __table__.c.day_at)


class UsageTotalRow(Base):
    """The same of all time: never deleted, so that counters made of it only grow."""

    __table__ = _usage_table("usage_total", *_who())
    __mapper_args__ = _keys_alone(__table__)


class UsageSeriesRow(Base):
    """The same of one instance, one model, one client, or all (dimension and name ""), in a
    minute, an hour or a day: charts of a month read no more than they show."""

    __table__ = _usage_table(
        "usage_series",
        _key("period_seconds"),
        _key("dimension", String(10)),
        _key("begins_at"),
        _key("name", String(200)),
    )
    __mapper_args__ = _keys_alone(__table__)


class UsagePairRow(Base):
    """The same of one instance and model, one instance and client, or one model and client, in
    a day that is over: what a client used of each model in a month is read from 600 rows and
    not from 30,000. `pair` and the names are in the order of `core.usage.PAIRS`."""

    __table__ = _usage_table(
        "usage_pair",
        _key("pair", String(20)),
        _key("day_at"),
        _key("name", String(200)),
        _key("other_name", String(200)),
    )
    __mapper_args__ = _keys_alone(__table__)
    Index("ix_usage_pair_name", __table__.c.pair, __table__.c.name, __table__.c.day_at)
    Index("ix_usage_pair_other", __table__.c.pair, __table__.c.other_name, __table__.c.day_at)


class UsageRolledRow(Base):
    """Until which minute usage is rolled up: one row, and none before the first time. What is
    counted later for a minute before it is added to all tables at once."""

    __tablename__ = "usage_rolled"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    until: Mapped[int]


class ClientKeyRow(Base):
    """A client: what its key may do, the key's keyed hash and last characters, never the key.

    Numbers that are 0 are no limit, lists that are empty allow all. A client without a key
    (`key_hash` NULL) waits for one.
    """

    __tablename__ = "client_key"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    key_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    key_hint: Mapped[str | None] = mapped_column(String(4))
    # Keys that were followed by another: [{"key_hash", "key_hint", "valid_until"}].
    former_keys: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    enabled: Mapped[bool] = mapped_column(default=True)
    expires_at: Mapped[float | None]
    allowed_models: Mapped[list[str]] = mapped_column(default=list)
    allowed_instances: Mapped[list[str]] = mapped_column(default=list)
    allowed_networks: Mapped[list[str]] = mapped_column(default=list)
    max_tpm: Mapped[int] = mapped_column(default=0)
    max_rpm: Mapped[int] = mapped_column(default=0)
    max_parallel_requests: Mapped[int] = mapped_column(default=0)
    max_tokens_per_day: Mapped[int] = mapped_column(default=0)
    max_tokens_per_month: Mapped[int] = mapped_column(default=0)
    max_cost_per_day: Mapped[float] = mapped_column(default=0.0)
    max_cost_per_month: Mapped[float] = mapped_column(default=0.0)
    compat: Mapped[str] = mapped_column(String(20), default="raw")
    labels: Mapped[dict[str, str]] = mapped_column(default=dict)
    created_at: Mapped[float]
    updated_at: Mapped[float]
    revision: Mapped[int]  # its ETag


class ModelPriceRow(Base):
    """What a million tokens of a model cost, in whatever currency the operator counts.

    `model` is a name, or the beginning of names and `*`.
    """

    __tablename__ = "model_price"

    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    prompt_per_million: Mapped[float]
    cached_per_million: Mapped[float]
    completion_per_million: Mapped[float]
    updated_at: Mapped[float]
    revision: Mapped[int]  # its ETag


class AdminKeyRow(Base):
    """A key of the admin API: whose, what it may do, its keyed hash, never the key."""

    __tablename__ = "admin_key"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    key_hint: Mapped[str] = mapped_column(String(4))
    expires_at: Mapped[float | None]
    created_at: Mapped[float]
    updated_at: Mapped[float]
    revision: Mapped[int]  # its ETag


class ClientStateRow(Base):
    """What was measured of one client. Workers write it."""

    __tablename__ = "client_state"

    client_name: Mapped[str] = mapped_column(String(100), primary_key=True)
    last_used_at: Mapped[float]
    write_number: Mapped[int] = mapped_column(default=0, index=True)  # see StateWriteRow


class ClientWindowRow(Base):
    """Tokens and requests of one client in one second of the last two minutes. Workers add."""

    __tablename__ = "client_window"

    second_at: Mapped[int] = mapped_column(primary_key=True)
    client_name: Mapped[str] = mapped_column(String(100), primary_key=True)
    tokens: Mapped[int] = mapped_column(default=0)
    requests: Mapped[int] = mapped_column(default=0)
    write_number: Mapped[int] = mapped_column(default=0, index=True)  # see StateWriteRow


class ClientSpendingRow(Base):
    """What one client used in one UTC day, of which months are made. Workers add to it."""

    __tablename__ = "client_spending"

    day_at: Mapped[int] = mapped_column(primary_key=True)
    client_name: Mapped[str] = mapped_column(String(100), primary_key=True)
    tokens: Mapped[int] = mapped_column(default=0)
    cost_nano: Mapped[int] = mapped_column(default=0)
    write_number: Mapped[int] = mapped_column(default=0, index=True)  # see StateWriteRow


class SecretRow(Base):
    """A secret of the gateway's own, such as what keys are hashed with; and which sessions of
    the console were ended (signed_out.py)."""

    __tablename__ = "secret"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(Sealed)


class LegacyImportRow(Base):
    """One import of the old program's files."""

    __tablename__ = "legacy_import"

    id: Mapped[int] = mapped_column(primary_key=True)
    imported_at: Mapped[float]
    source: Mapped[str]
    backup_folder: Mapped[str]
    # {"found": n, "imported": n, "merged": n, "rejected": n, ...}
    counts: Mapped[dict[str, Any]]


class RevisionRow(Base):
    """One change of config: who, when, why. Its number is the snapshot's revision."""

    __tablename__ = "config_revision"
    # Numbers are never used twice, not even after the newest rows were deleted.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    made_at: Mapped[float]
    author: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str | None] = mapped_column(String(500))
    request_id: Mapped[str | None] = mapped_column(String(128))


class RevisionChangeRow(Base):
    """What a revision changed of one thing: an instance, say, and its name."""

    __tablename__ = "config_change"

    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200))
    # {field: [old, new]}; a secret's values are masked here, and whole in `secrets`.
    changes: Mapped[dict[str, Any]]
    secrets: Mapped[dict[str, Any] | None] = mapped_column(SealedJson)
