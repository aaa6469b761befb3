"""what clients may do, secrets encrypted, revisions that can be undone

Secrets that are there are encrypted, and hashes of keys keyed, in place.

Revision ID: 0008
Revises: 0007
"""

import logging
import secrets
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from proxy.store import keys
from proxy.store.schema import SchemaProblem
from proxy.store.sealed import is_secret, vault_of
from proxy.store.vault import MARK, CannotOpen

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

logger = logging.getLogger("alembic.secrets")

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PEPPER_BYTES = 32
SECRETS = ("api_key", "proxy_url", "legacy_extra")

# Columns that rows get which are there already, with what is in them then.
CLIENT_COLUMNS: tuple[tuple[str, Any, str | None], ...] = (
    ("former_keys", sa.JSON(), "[]"),
    ("enabled", sa.Boolean(), sa.sql.expression.true()),
    ("expires_at", sa.Double(), None),
    ("allowed_models", sa.JSON(), "[]"),
    ("allowed_instances", sa.JSON(), "[]"),
    ("allowed_networks", sa.JSON(), "[]"),
    ("max_tpm", WHOLE, "0"),
    ("max_rpm", WHOLE, "0"),
    ("max_parallel_requests", WHOLE, "0"),
    ("max_tokens_per_day", WHOLE, "0"),
    ("max_tokens_per_month", WHOLE, "0"),
    ("max_cost_per_day", sa.Double(), "0"),
    ("max_cost_per_month", sa.Double(), "0"),
    ("compat", sa.String(20), "raw"),
    ("labels", sa.JSON(), "{}"),
    ("updated_at", sa.Double(), "0"),
    ("revision", WHOLE, "0"),
)
CONFIG = sa.table("instance_config", *map(sa.column, ("name", *SECRETS)))
# The revision's first change; those with several are from after this.
MOVE_BACK = """
UPDATE config_revision SET
    subject = (SELECT name FROM config_change
               WHERE revision = config_revision.id AND number = 0),
    changes = (SELECT changes FROM config_change
               WHERE revision = config_revision.id AND number = 0)
WHERE EXISTS (SELECT 1 FROM config_change
              WHERE revision = config_revision.id AND number = 0)
"""
KINDS = {"instance": "instance", "quota group": "quota_group", "key": "client"}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        # Not all builds do: pages that are given up would keep keys as they were.
        op.execute("PRAGMA secure_delete = ON")
    _add("instance_config", (("auth", sa.String(20), "key"),))
    _add("usage_minute", (("cost_nano", WHOLE, "0"),))
    _add("client_key", CLIENT_COLUMNS)
    with op.batch_alter_table("client_key") as batch_op:
        batch_op.alter_column("key_hash", existing_type=sa.String(64), nullable=True)
        batch_op.alter_column("key_hint", existing_type=sa.String(4), nullable=True)
    with op.batch_alter_table("instance_config") as batch_op:
        batch_op.alter_column(
            "legacy_extra",
            existing_type=sa.JSON(),
            type_=sa.String(),
            postgresql_using="legacy_extra::text",
        )
    _make_tables()
    _move_changes()
    _seal_all()


def downgrade() -> None:
    _open_all()
    _move_changes_back()
    lost = op.get_bind().execute(sa.text("DELETE FROM client_key")).rowcount
    if lost:
        logger.warning("Client keys cannot be taken back, and have to be made anew: %d", lost)
    for table in (
        *("secret", "client_spending", "client_window", "client_state"),
        *("admin_key", "model_price"),
    ):
        op.drop_table(table)
    with op.batch_alter_table("instance_config") as batch_op:
        batch_op.alter_column(
            "legacy_extra",
            existing_type=sa.String(),
            type_=sa.JSON(),
            postgresql_using="legacy_extra::json",
        )
        batch_op.drop_column("auth")
    with op.batch_alter_table("usage_minute") as batch_op:
        batch_op.drop_column("cost_nano")
    with op.batch_alter_table("client_key") as batch_op:
        for name, _, _ in CLIENT_COLUMNS:
            batch_op.drop_column(name)
        batch_op.alter_column("key_hash", existing_type=sa.String(64), nullable=False)
        batch_op.alter_column("key_hint", existing_type=sa.String(4), nullable=False)


def _add(table: str, columns: tuple[tuple[str, Any, str | None], ...]) -> None:
    with op.batch_alter_table(table) as batch_op:
        for name, kind, default in columns:
            nullable = default is None
            batch_op.add_column(
                sa.Column(name, kind, nullable=nullable, server_default=default)
            )
    with op.batch_alter_table(table) as batch_op:
        for name, kind, default in columns:
            if default is not None:
                batch_op.alter_column(name, existing_type=kind, server_default=None)


def _whole(name: str, *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, WHOLE, nullable=False, autoincrement=not key and "auto")


def _make_tables() -> None:
    text, moment = sa.String(100), sa.Double()
    op.create_table(
        "model_price",
        sa.Column("model", sa.String(200), nullable=False),
        *(
            sa.Column(f"{kind}_per_million", sa.Double(), nullable=False)
            for kind in ("prompt", "cached", "completion")
        ),
        sa.Column("updated_at", moment, nullable=False),
        _whole("revision"),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_price")),
    )
    op.create_table(
        "admin_key",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("key_hint", sa.String(4), nullable=False),
        sa.Column("expires_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        _whole("revision"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_key")),
        sa.UniqueConstraint("name", name=op.f("uq_admin_key_name")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_admin_key_key_hash")),
    )
    op.create_table(
        "client_state",
        sa.Column("client_name", text, nullable=False),
        sa.Column("last_used_at", moment, nullable=False),
        _whole("write_number"),
        sa.PrimaryKeyConstraint("client_name", name=op.f("pk_client_state")),
    )
    for table, at, counted in (
        ("client_window", "second_at", "requests"),
        ("client_spending", "day_at", "cost_nano"),
    ):
        op.create_table(
            table,
            _whole(at),
            sa.Column("client_name", text, nullable=False),
            _whole("tokens"),
            _whole(counted),
            _whole("write_number"),
            sa.PrimaryKeyConstraint(at, "client_name", name=op.f(f"pk_{table}")),
        )
    for table in ("client_state", "client_window", "client_spending"):
        op.create_index(op.f(f"ix_{table}_write_number"), table, ["write_number"])
    op.create_table(
        "secret",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secret")),
    )
    op.create_table(
        "config_change",
        _whole("revision", key=True),
        _whole("number", key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("revision", "number", name=op.f("pk_config_change")),
    )


def _move_changes() -> None:
    bind = op.get_bind()
    for kind, name in KINDS.items():
        bind.execute(
            sa.text(
                "INSERT INTO config_change (revision, number, kind, name, changes)"
                " SELECT id, 0, :kind, subject, changes FROM config_revision"
                " WHERE action LIKE :actions"
            ),
            {"kind": name, "actions": f"{kind} %"},
        )
    with op.batch_alter_table("config_revision", **_NUMBERED) as batch_op:
        batch_op.add_column(sa.Column("reason", sa.String(500), nullable=True))
        batch_op.add_column(sa.Column("request_id", sa.String(128), nullable=True))
        batch_op.drop_column("subject")
        batch_op.drop_column("changes")


# Made anew by SQLite, a table would forget that its numbers are never used twice.
_NUMBERED: dict[str, Any] = {"table_kwargs": {"sqlite_autoincrement": True}}


def _move_changes_back() -> None:
    bind = op.get_bind()
    with op.batch_alter_table("config_revision", **_NUMBERED) as batch_op:
        batch_op.add_column(
            sa.Column("subject", sa.String(100), nullable=False, server_default="")
        )
        batch_op.add_column(
            sa.Column("changes", sa.JSON(), nullable=False, server_default="{}")
        )
        batch_op.drop_column("reason")
        batch_op.drop_column("request_id")
    with op.batch_alter_table("config_revision", **_NUMBERED) as batch_op:
        for name, kind in (("subject", sa.String(100)), ("changes", sa.JSON())):
            batch_op.alter_column(name, existing_type=kind, server_default=None)
    bind.execute(sa.text(MOVE_BACK))
    op.drop_table("config_change")


def _seal_all() -> None:
    bind = op.get_bind()
    vault = vault_of(bind.dialect)
    vault.make_key()
    pepper = secrets.token_bytes(PEPPER_BYTES)
    bind.execute(
        sa.text("INSERT INTO secret (name, value) VALUES (:name, :value)"),
        {"name": keys.PEPPER, "value": vault.seal(pepper.hex())},
    )
    for number, digest in bind.execute(sa.text("SELECT id, key_hash FROM client_key")).all():
        bind.execute(
            sa.text(
                "UPDATE client_key SET key_hash = :hash, updated_at = created_at"
                " WHERE id = :number"
            ),
            {"hash": keys.peppered(pepper, digest), "number": number},
        )
    _change_secrets(lambda value: vault.seal(value) if is_secret(value) else None)


def _open_all() -> None:
    vault = vault_of(op.get_bind().dialect)

    def opened(value: str) -> str | None:
        if not value.startswith(MARK):
            return None
        try:
            return vault.open(value)
        except CannotOpen as error:
            raise SchemaProblem(
                f"A secret of an instance cannot be taken back: {error}. Put the right key into"
                f" {vault.source}, or remove the instance."
            ) from None

    _change_secrets(opened)


def _change_secrets(changed: Callable[[str], str | None]) -> None:
    """Each secret that is there becomes what `changed` makes of it; None: it stays."""
    bind = op.get_bind()
    for column in SECRETS:
        value = CONFIG.c[column]
        found = bind.execute(sa.select(CONFIG.c.name, value).where(value.is_not(None)))
        for name, old in found.all():
            new = changed(old)
            if new is not None:
                here = CONFIG.c.name == name
                bind.execute(sa.update(CONFIG).where(here).values({column: new}))
