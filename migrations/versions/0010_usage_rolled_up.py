"""usage with times in buckets, rolled up by hour, by day and for ever

What was counted by minute is rolled up here; of its times there are sums and no buckets.

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Callable, Iterable

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WHO = {"instance_name": 100, "model": 200, "client_name": 100}
COUNTED_BEFORE = (
    *("requests", "attempts", "succeeded", "rejected", "throttled", "failed"),
    *("misconfigured", "unreachable", "aborted", "prompt_tokens", "completion_tokens"),
    *("cached_tokens", "latency_total_ms", "first_byte_total_ms", "cost_nano"),
)
BOUNDS_MS = (
    *(5, 10, 25, 50, 100, 200, 300, 500, 750, 1000, 1500, 2500, 4000, 6000, 10000),
    *(15000, 30000, 60000, 120000, 300000, 600000),
)
BUCKETS = (*(f"upto_{bound}_ms" for bound in BOUNDS_MS), f"over_{BOUNDS_MS[-1]}_ms")
ADDED = (
    *("expired", "mistaken", "limited", "refused", "abandoned", "lost", "reasoning_tokens"),
    *(f"{what}_{bucket}" for what in ("first_byte", "latency") for bucket in BUCKETS),
)
PERIODS = {"usage_hour": ("hour_at", 3600), "usage_day": ("day_at", 86400)}
# Of usage_series: what rows are told apart by, and the column that names it.
DIMENSIONS = (
    ("", "''"),
    ("instance", "instance_name"),
    ("model", "model"),
    ("client", "client_name"),
)


PAIRS = (
    ("instance,model", "instance_name", "model"),
    ("instance,client", "instance_name", "client_name"),
    ("model,client", "model", "client_name"),
)


def upgrade() -> None:
    _make_anew(
        "usage_minute", lambda: _make("usage_minute", "minute_at", *WHO, rowid=False), ADDED
    )
    for table, (at, _) in PERIODS.items():
        _make(table, at, *WHO, rowid=False)
    for column in WHO:
        name = op.f(f"ix_usage_day_{column.removesuffix('_name')}")
        op.create_index(name, "usage_day", [column, "day_at"])
    _make("usage_total", *WHO, rowid=False)
    _make("usage_series", "period_seconds", "dimension", "begins_at", "name", rowid=False)
    _make("usage_pair", "pair", "day_at", "name", "other_name", rowid=False)
    for index, column in (("name", "name"), ("other", "other_name")):
        op.create_index(
            op.f(f"ix_usage_pair_{index}"), "usage_pair", ["pair", column, "day_at"]
        )
    op.create_table(
        "usage_rolled",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("until", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_rolled")),
    )
    _roll_up()


def downgrade() -> None:
    for table in (
        "usage_rolled",
        "usage_pair",
        "usage_series",
        "usage_total",
        *reversed(PERIODS),
    ):
        op.drop_table(table)
    _make_anew("usage_minute", _make_as_before, ())


def _make(table: str, *keys: str, rowid: bool, added: Iterable[str] = ADDED) -> None:
    op.create_table(
        table,
        *(_key(key) for key in keys),
        *(sa.Column(c, WHOLE, nullable=False) for c in (*COUNTED_BEFORE, *added)),
        sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{table}")),
        sqlite_with_rowid=rowid,
    )


def _make_as_before() -> None:
    _make("usage_minute", "minute_at", *WHO, rowid=True, added=())
    for who in ("client", "instance"):
        columns = [f"{who}_name", "minute_at"]
        op.create_index(op.f(f"ix_usage_minute_{who}"), "usage_minute", columns)


def _key(name: str) -> "sa.Column[object]":
    characters = {**WHO, "dimension": 10, "name": 200, "pair": 20, "other_name": 200}.get(name)
    kind = WHOLE if characters is None else sa.String(characters)
    return sa.Column(name, kind, autoincrement=False, nullable=False)


def _make_anew(table: str, make: Callable[[], None], added: Iterable[str]) -> None:
    """Its rows stay; in what is added they have nothing. Not by renaming: constraints and
    indexes would keep the names that the new table's have to have."""
    kept = ", ".join(("minute_at", *WHO, *COUNTED_BEFORE))
    zeros = "".join(", 0" for _ in added)
    names = "".join(f", {name}" for name in added)
    # The names are this file's own, here and below.
    op.execute(f"CREATE TABLE usage_kept AS SELECT {kept} FROM {table}")  # nosec B608
    op.drop_table(table)
    make()
    rows = f"SELECT {kept}{zeros} FROM usage_kept"  # nosec B608
    op.execute(f"INSERT INTO {table} ({kept}{names}) {rows}")
    op.drop_table("usage_kept")


def _roll_up() -> None:
    who = ", ".join(WHO)
    for table, (at, seconds) in PERIODS.items():
        _sum_up(f"{table} ({at}, {who}", f"minute_at - minute_at % {seconds}, {who}")
    _sum_up(f"usage_total ({who}", who)
    for seconds in (60, 3600, 86400):
        for dimension, column in DIMENSIONS:
            _sum_up(
                "usage_series (begins_at, name, period_seconds, dimension",
                f"minute_at - minute_at % {seconds}, {column}",
                f", {seconds}, '{dimension}'",
            )
    # Of days that are over when all minutes there are have been rolled up.
    until = "(SELECT (MAX(minute_at) + 60) - (MAX(minute_at) + 60) % 86400 FROM usage_minute)"
    for pair, name, other_name in PAIRS:
        _sum_up(
            "usage_pair (day_at, name, other_name, pair",
            f"minute_at - minute_at % 86400, {name}, {other_name}",
            f", '{pair}'",
            f" WHERE minute_at < {until}",
        )
    op.execute(
        "INSERT INTO usage_rolled (id, until)"
        " SELECT 1, MAX(minute_at) + 60 FROM usage_minute HAVING COUNT(*) > 0"
    )


def _sum_up(into: str, keys: str, constants: str = "", where: str = "") -> None:
    counters = (*COUNTED_BEFORE, *ADDED)
    # By their places: a constant among the keys is no key.
    by = ", ".join(str(number + 1) for number in range(len(keys.split(", "))))
    sums = ", ".join(f"SUM({c})" for c in counters)
    source = f"usage_minute{where}"
    rows = f"SELECT {keys}{constants}, {sums} FROM {source} GROUP BY {by}"  # nosec B608
    op.execute(f"INSERT INTO {into}, {', '.join(counters)}) {rows}")
