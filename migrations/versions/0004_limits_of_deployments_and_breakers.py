"""limits of deployments, quota groups, and breakers

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BREAKER = (
    "breaker_open_until",
    "breaker_open_seconds",
    "breaker_trial_until",
    "breaker_changed_at",
)


def upgrade() -> None:
    op.create_table(
        "quota_group",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("max_tpm", WHOLE, nullable=False),
        sa.Column("max_rpm", WHOLE, nullable=False),
        sa.Column("model_limits", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_quota_group")),
    )
    with op.batch_alter_table("instance_config", schema=None) as batch_op:
        # With a default for the rows that are there; the program always says what it writes.
        batch_op.add_column(sa.Column("max_rpm", WHOLE, nullable=False, server_default="0"))
        batch_op.add_column(
            sa.Column("model_limits", sa.JSON(), nullable=False, server_default="{}")
        )
        batch_op.add_column(sa.Column("quota_group", sa.String(length=100), nullable=True))
    with op.batch_alter_table("instance_config", schema=None) as batch_op:
        for name, kind in (("max_rpm", WHOLE), ("model_limits", sa.JSON())):
            batch_op.alter_column(name, existing_type=kind, server_default=None)
    with op.batch_alter_table("instance_state", schema=None) as batch_op:
        for name in BREAKER:
            batch_op.add_column(sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("instance_state", schema=None) as batch_op:
        for name in reversed(BREAKER):
            batch_op.drop_column(name)
    with op.batch_alter_table("instance_config", schema=None) as batch_op:
        for name in ("quota_group", "model_limits", "max_rpm"):
            batch_op.drop_column(name)
    op.drop_table("quota_group")
