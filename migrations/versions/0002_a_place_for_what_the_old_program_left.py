"""a place for what the old program left

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from proxy.store.schema import SchemaProblem

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "legacy_import",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("imported_at", sa.Double(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("backup_folder", sa.String(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legacy_import")),
    )
    with op.batch_alter_table("instance_config", schema=None) as batch_op:
        batch_op.add_column(sa.Column("legacy_extra", sa.JSON(), nullable=True))

    with op.batch_alter_table("instance_state", schema=None) as batch_op:
        batch_op.add_column(sa.Column("legacy_state", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("legacy_imported_at", sa.Double(), nullable=True))


def downgrade() -> None:
    marked = "SELECT count(*) FROM instance_state WHERE legacy_imported_at IS NOT NULL"
    if op.get_bind().execute(sa.text(marked)).scalar():
        raise SchemaProblem(
            "This downgrade would forget that the old program's totals were added, and a later"
            " import would add them twice. Nothing was changed. The old program's files are"
            " written by `alembic downgrade -1` already; to begin anew, use a new database."
        )
    with op.batch_alter_table("instance_state", schema=None) as batch_op:
        batch_op.drop_column("legacy_imported_at")
        batch_op.drop_column("legacy_state")

    with op.batch_alter_table("instance_config", schema=None) as batch_op:
        batch_op.drop_column("legacy_extra")

    op.drop_table("legacy_import")
