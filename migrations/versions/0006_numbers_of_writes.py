"""numbers of writes, by which workers find what changed

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NUMBERED = ("instance_state", "state_window")


def upgrade() -> None:
    op.create_table(
        "state_write",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state_write")),
    )
    for table in NUMBERED:
        with op.batch_alter_table(table, schema=None) as batch_op:
            # With a default for the rows that are there.
            batch_op.add_column(
                sa.Column("write_number", WHOLE, nullable=False, server_default="0")
            )
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.alter_column("write_number", existing_type=WHOLE, server_default=None)
        op.create_index(op.f(f"ix_{table}_write_number"), table, ["write_number"])


def downgrade() -> None:
    for table in reversed(NUMBERED):
        op.drop_index(op.f(f"ix_{table}_write_number"), table_name=table)
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("write_number")
    op.drop_table("state_write")
