"""Plans and imports for tests, and what is in a database afterwards."""

from pathlib import Path

from sqlalchemy import inspect, select, text

from migrations.legacy import discover, run
from migrations.legacy.plan import make_plan
from migrations.legacy.records import Era, Problem, Reading, Record
from migrations.legacy.tables import reflected

NOW = 1_750_000_000.0
LATER = 4_102_444_800.0  # 2100: a rest until then is not over
FILE = Path("old.json")
CONFIG = {"api_key": "sk-planted-0123456789", "api_base": "https://a.openai.azure.com"}
NOT_CARRIED = {"imported_at", "made_at", "created_at", "updated_at", "legacy_imported_at"}


def found(
    name="a",
    *,
    era=Era.SPLIT,
    config=CONFIG,
    state=None,
    extra=None,
    place=None,
    turn=0,
    **more,
):
    """A record as a reader gives it; its config is whole, unless it is given; None is that
    of a file of states."""
    layout = more.pop("layout", "S1" if config is not None else "S2")
    config = {} if config is None else {"name": name, **config}
    return Record(
        file=more.pop("file", FILE),
        place=place or f"key {name!r}",
        layout=layout,
        era=era,
        name=name,
        config=config | more,
        state=state or {},
        extra=extra or {},
        turn=turn,
    )


def bad(name="a", *, era=Era.SPLIT, layout="S1", raw=None, place=None):
    """What stands where a record belongs and is none, as a reader gives it."""
    place = place or f"key {name!r}"
    problem = Problem(FILE, place, "", "null", "Delete the entry.", "This is no object.")
    return Record(FILE, place, layout, era, name, problem=problem, raw=raw)


def planned(*records, **reading):
    return make_plan([Reading(FILE, "S1", records, **reading)], now=NOW)


def imported(database, path, *, backups=None, **options):
    """As `flask legacy import`: in one transaction of its own."""
    with database.write() as connection:
        return run.import_legacy(
            connection,
            path,
            backups=backups or Path(database.url.database).parent,
            **{"environ": {}} | options,
        )


_TABLES = {}  # by schema: to have them reflected takes longer than most of what is tested


def _tables(connection):
    """All there are, by name."""
    schema = text("SELECT group_concat(sql) FROM sqlite_master")
    found = _TABLES.setdefault(connection.scalar(schema), {})
    if not found:
        found |= {n: reflected(connection, n) for n in inspect(connection).get_table_names()}
    return found


def contents(database):
    """All rows of all tables, secrets as they were before they were encrypted."""
    with database.read() as connection:
        return {n: _rows(connection, table) for n, table in _tables(connection).items()}


def rows(database, table):
    """By name, of config or state."""
    key = "name" if table == "instance_config" else "instance_name"
    with database.read() as connection:
        return {row[key]: row for row in _rows(connection, _tables(connection)[table])}


def _rows(connection, table):
    return [dict(row) for row in connection.execute(select(table)).mappings()]


class Reader:
    """`discover` with another `read`."""

    find = staticmethod(discover.find)
    passed_over = staticmethod(discover.passed_over)
    elsewhere = staticmethod(discover.elsewhere)

    def __init__(self, read):
        self.read = read
