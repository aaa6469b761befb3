"""Requests while somebody else holds the database's lock."""

import sqlite3
import time
from contextlib import closing

from benchlib.loads import Ask
from benchlib.places import GATEWAY
from benchlib.stage import Stage
from benchlib.table import Measure

RATE = 200.0
CONNECTIONS = 64
LOCKED_SECONDS, QUICK_SECONDS = 10.0, 3.0
BEFORE = "before"
WRITTEN_SECONDS = 1.0  # for what waited to be written


def requests(stage: Stage) -> None:
    stage.upstream.behave()
    seconds = QUICK_SECONDS if stage.options.is_quick else LOCKED_SECONDS
    ask = Ask(
        (stage.body(),),
        connections=CONNECTIONS,
        seconds=seconds,
        rate=RATE,
        warm_seconds=0.5,
    )
    title = f"{RATE:g} requests a second, database locked for {seconds:g} s"
    p99, p50 = (Measure(f"{title}: {name}", "ms", BEFORE) for name in ("p99", "p50"))
    for _ in range(stage.options.rounds):
        before = stage.make("before the lock", stage.gateway, ask)
        with closing(sqlite3.connect(stage.database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            during = stage.make("locked", stage.gateway, ask)
            connection.execute("ROLLBACK")
        for measure, name in ((p50, "p50"), (p99, "p99")):
            stage.results.note(measure, BEFORE, before.load.total_us[name] / 1000)
            stage.results.note(measure, GATEWAY, during.load.total_us[name] / 1000)
        time.sleep(WRITTEN_SECONDS)
