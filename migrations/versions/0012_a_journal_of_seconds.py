"""a journal of what writes added to seconds, instead of their sums; and counts that wait

Revision ID: 0012
Revises: 0011
"""

import json

import sqlalchemy as sa
from alembic import context, op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SUMS = "SELECT second_at, instance_name, deployment, tokens, requests FROM state_window"


def upgrade() -> None:
    context.config.attributes["was_before_0012"] = True  # for the import, which comes next
    journal = op.create_table(
        "state_journal",
        sa.Column("number", WHOLE, autoincrement=False, nullable=False),
        sa.Column("newest_at", WHOLE, nullable=False),
        sa.Column("added", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_state_journal")),
    )
    op.create_table(
        "held_counts",
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("number", WHOLE, autoincrement=False, nullable=False),
        sa.Column("written_at", sa.Double(), nullable=False),
        sa.Column("added", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "number", name=op.f("pk_held_counts")),
    )
    sums = [list(row) for row in op.get_bind().execute(sa.text(SUMS))]
    if sums:
        newest = max(second for second, *_ in sums)
        row = {"number": 0, "newest_at": newest, "added": json.dumps(sums)}
        op.bulk_insert(journal, [row])
    op.drop_index(op.f("ix_state_window_write_number"), table_name="state_window")
    op.drop_table("state_window")


def downgrade() -> None:
    """What was in the journal is of two minutes, and forgotten. No counts wait: the revision
    after this one has added them."""
    op.drop_table("held_counts")
    op.drop_table("state_journal")
    op.create_table(
        "state_window",
        sa.Column("second_at", WHOLE, nullable=False),
        sa.Column("instance_name", sa.String(length=100), nullable=False),
        sa.Column("deployment", sa.String(length=200), nullable=False),
        sa.Column("tokens", WHOLE, nullable=False),
        sa.Column("requests", WHOLE, nullable=False),
        sa.Column("write_number", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint(
            "second_at", "instance_name", "deployment", name=op.f("pk_state_window")
        ),
    )
    op.create_index(op.f("ix_state_window_write_number"), "state_window", ["write_number"])
