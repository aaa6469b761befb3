"""import what the old program left

Only moves data, and only if it is told where: `alembic -x legacy=PATH upgrade head`, or the
setting PROXY_LEGACY_PATH. Later, `flask legacy import PATH` does the same. The downgrade
writes the present config and state in the old program's layout; it deletes nothing, and marks
the state as one that these files hold.

It is always the last revision: it uses the tables as the program knows them, and `downgrade -1`
is the way back. A revision that changes a table goes before it; the number it had stays, as a
revision that does nothing, for databases that have passed it.

Revision ID: 0013
Revises: 0012
"""

import logging
import time
from pathlib import Path

from alembic import context, op
from sqlalchemy import Connection, func, select, table

from migrations.legacy.export import (
    asked_with_tokens,
    export,
    leading_nowhere,
    mark_written_out,
    unknown_providers,
)
from migrations.legacy.run import ImportRefused, import_legacy
from proxy.settings import environment, load_settings
from proxy.store import held, states, usage
from proxy.store.schema import private_parent

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

logger = logging.getLogger("alembic.legacy")

YES, NO = ("yes", "true", "1"), ("no", "false", "0")


def upgrade() -> None:
    arguments = context.get_x_argument(as_dictionary=True)
    source = _source(arguments)
    if source is None:
        logger.info(
            "No data of an old proxy is imported: name it with `-x legacy=PATH` or"
            " PROXY_LEGACY_PATH, or later with `flask legacy import PATH`."
        )
        return
    was_before = context.config.attributes.get("was_before_0012", False)
    if "legacy" not in arguments and was_before and _has_imported():
        logger.warning(
            "%s is not imported: data of an old proxy was before; `-x legacy=PATH` does it.",
            source,
        )
        return
    outcome = import_legacy(
        op.get_bind(),
        source,
        backups=private_parent(op.get_bind()),
        skip_bad=_skips_bad(arguments),
    )
    # The report is seen also where the proxy migrates at its start: nobody asks for INFO there.
    logger.warning("%s", outcome.as_text())
    context.config.attributes["legacy_imported"] = True


def downgrade() -> None:
    environ = environment()
    _add_what_waits(op.get_bind())
    folder = export(op.get_bind(), private_parent(op.get_bind()), environ)
    context.config.attributes["written_out"] = folder
    mark_written_out(op.get_bind(), time.time())
    logger.warning("The present config and state, in the old program's layout: %s", folder)
    nowhere = leading_nowhere(op.get_bind(), environ)
    if nowhere:
        logger.warning(
            "Their env: or file: leads nowhere, and the old program knows neither; to be mended"
            " by hand: %s",
            ", ".join(nowhere),
        )
    changed = unknown_providers(op.get_bind())
    if changed:
        logger.warning(
            "The old program knows no azure_v1; written as azure, to be checked by hand: %s",
            ", ".join(changed),
        )
    without_key = asked_with_tokens(op.get_bind())
    if without_key:
        logger.warning(
            "The old program knows no tokens of Entra ID; to be given a key by hand: %s",
            ", ".join(without_key),
        )


def _add_what_waits(connection: Connection) -> None:
    """Of a gateway that was killed: nobody else would add it any more."""
    while deltas := held.fold_all(connection):
        states.add(connection, deltas)
        usage.add(connection, deltas)


def _has_imported() -> bool:
    """As 0007, say, which this was once: what PROXY_LEGACY_PATH names may have gone since."""
    found = op.get_bind().execute(select(func.count()).select_from(table("legacy_import")))
    return bool(found.scalar_one())


def _source(arguments: dict[str, str]) -> Path | None:
    given = arguments.get("legacy")
    if given is None:
        return load_settings().legacy_path
    if not given:
        raise ImportRefused("-x legacy= names no path.")
    return Path(given)


def _skips_bad(arguments: dict[str, str]) -> bool:
    given = arguments.get("skip_bad", NO[0]).lower()
    if given not in (*YES, *NO):
        raise ImportRefused(f"-x skip_bad: it is yes or no, not {given!r}.")
    return given in YES
