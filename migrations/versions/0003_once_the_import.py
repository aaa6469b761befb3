"""once the import

The import of the old program's data stood here. It has to be the last revision, because it uses
the tables as the program knows them; so it moves on whenever a table changes. What is left is
its number, for databases that have passed it.

Revision ID: 0003
Revises: 0002
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
