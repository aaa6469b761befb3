"""How long reports of usage take, and how large the file is: 30 days of a busy gateway.

    python scripts/usage_benchmark.py
    python scripts/usage_benchmark.py --days 7 --busy 2000 --json

Fills a database with each minute's, hour's and day's sums as the syncer would have them: of
instances x models x clients, `--busy` combinations, drawn anew each hour, were used in it. Then
asks for reports as the admin API does, each several times, and prints the median. Times are of
this process alone, so that others on the machine do not count. Figures are reported, never
judged.
"""

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from cryptography.fernet import Fernet

from proxy.core.days import DAY_SECONDS
from proxy.core.deltas import Deltas
from proxy.core.report import MAX_ROWS, Question, figures
from proxy.core.usage import HOUR_SECONDS, MINUTE_SECONDS, Kept
from proxy.store import reports, schema, usage
from proxy.store.db import Database
from proxy.store.vault import Vault

INSTANCES, MODELS, CLIENTS = 50, 20, 20
DAYS, BUSY = 30, 1000
KEPT_MINUTES_DAYS = 2
BEGAN_AT = 1_699_920_000
TIMES = 5
# While the older days are filled: of minutes nothing.
KEPT = Kept(minutes=0, hours=DAY_SECONDS * 1000, days=DAY_SECONDS * 1000)
AIM = "The aim: less than 50 ms each."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--busy", type=int, default=BUSY, help="combinations used in an hour")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "usage.db"
        database = Database(f"sqlite:///{file}", Vault([Fernet.generate_key().decode()]))
        schema.upgrade(database)
        began = time.monotonic()
        until = fill(database, asked.days, asked.busy)
        filled_seconds = time.monotonic() - began
        rolled_ms = roll_up_ms(database, until, asked.busy)
        took = {name: median_ms(database, q) for name, q in questions(until, asked.days)}
        database.dispose()
        found = {
            "megabytes": round(file.stat().st_size / 1e6, 1),
            "filled_seconds": round(filled_seconds, 1),
            "roll_up_of_a_minute_ms": round(rolled_ms, 1),
            "reports_ms": {name: round(ms, 1) for name, ms in took.items()},
        }
    print(json.dumps(found) if asked.json else as_markdown(found, asked.days, asked.busy))
    return 0


def fill(database: Database, days: int, busy: int) -> int:
    """Until which moment. Of the last days the minutes stay, as the syncer would leave them."""
    chance = random.Random(1)
    some = [counts(chance) for _ in range(100)]
    until = BEGAN_AT + days * DAY_SECONDS
    minutes_since = until - KEPT_MINUTES_DAYS * DAY_SECONDS
    for hour in range(BEGAN_AT, until, HOUR_SECONDS):
        used = chance.sample(range(INSTANCES * MODELS * CLIENTS), busy)
        with_minutes = hour >= minutes_since
        # Before, a few minutes of an hour make the same sums as all of them.
        step = MINUTE_SECONDS * (1 if with_minutes else 30)
        deltas = Deltas()
        for minute in range(hour, hour + HOUR_SECONDS, step):
            share = used[:: 10 if with_minutes else 1]
            for one in share:
                deltas.usage[(minute, *names(one))] = chance.choice(some)
            chance.shuffle(used)
        with database.write() as connection:
            usage.add(connection, deltas)
            while usage.roll_up(connection, hour + HOUR_SECONDS + 2 * usage.GRACE_SECONDS):
                pass  # it takes a few thousand rows at once
            if not with_minutes:
                usage.forget_old(connection, hour + HOUR_SECONDS, KEPT)
    return until


def names(one: int) -> tuple[str, str, str]:
    rest, client = divmod(one, CLIENTS)
    instance, model = divmod(rest, MODELS)
    return f"instance-{instance:02}", f"gpt-model-{model:02}", f"client-{client:02}"


def counts(chance: random.Random) -> dict[str, int]:
    requests = chance.randrange(1, 40)
    buckets = {
        f"{what}_upto_{bound}_ms": chance.randrange(1, 20)
        for what in ("first_byte", "latency")
        for bound in chance.sample((200, 300, 500, 750, 1000, 1500, 2500, 4000), 4)
    }
    return {
        **{"requests": requests, "attempts": requests + 1, "succeeded": requests},
        **{
            "throttled": 1,
            "prompt_tokens": 900 * requests,
            "completion_tokens": 300 * requests,
        },
        **{"latency_total_ms": 2000 * requests, "first_byte_total_ms": 400 * requests},
        **{"cost_nano": 10**6 * requests},
        **buckets,
    }


def roll_up_ms(database: Database, until: int, busy: int) -> float:
    """Of one minute in which all that are used in an hour were."""
    chance, deltas = random.Random(2), Deltas()
    for one in chance.sample(range(INSTANCES * MODELS * CLIENTS), busy):
        deltas.usage[(until, *names(one))] = counts(chance)
    with database.write() as connection:
        usage.add(connection, deltas)
    began = time.process_time()
    with database.write() as connection:
        usage.roll_up(connection, until + 2 * MINUTE_SECONDS)
    return (time.process_time() - began) * 1000


def questions(until: int, days: int) -> Iterator[tuple[str, Question]]:
    """As console and API ask; not from midnight, so that there are edges."""
    until -= 17 * MINUTE_SECONDS
    month = until - days * DAY_SECONDS
    one = {"client": "client-07"}
    yield "the last hour, all", Question(until - HOUR_SECONDS, until)
    yield "the last hour by minute", Question(until - HOUR_SECONDS, until, bucket_seconds=60)
    for by in ("instance", "model", "client"):
        yield f"the last hour by {by}", Question(until - HOUR_SECONDS, until, by=(by,))
    hour, day = HOUR_SECONDS, DAY_SECONDS
    month_by_hour = month // hour * hour, until // hour * hour
    month_by_day = month // day * day, until // day * day
    yield f"{days} days, all", Question(month, until)
    yield f"{days} days by hour", Question(*month_by_hour, bucket_seconds=hour)
    for by in ("instance", "model", "client"):
        yield f"{days} days by {by}", Question(month, until, by=(by,))
        yield (
            f"{days} days by day and {by}",
            Question(*month_by_day, by=(by,), bucket_seconds=day),
        )
    yield f"{days} days of a client by hour", Question(*month_by_hour, one, (), hour)
    yield f"{days} days of a client by model", Question(month, until, one, ("model",))


def median_ms(database: Database, question: Question) -> float:
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        with database.read() as connection:
            found = reports.answer(connection, question, MAX_ROWS)
        for each in found.values():
            figures(each)
        took.append(time.process_time() - began)
    return statistics.median(took) * 1000


def as_markdown(found: dict[str, object], days: int, busy: int) -> str:
    facts = {
        "instances": INSTANCES,
        "models": MODELS,
        "clients": CLIENTS,
        "days": days,
        "combinations used in an hour": busy,
        "cores": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    reports_ms = found["reports_ms"]
    assert isinstance(reports_ms, dict)
    return "\n".join(
        [
            ", ".join(f"{name} {value}" for name, value in facts.items()),
            "",
            f"File: {found['megabytes']} MB. Rolling up a minute with all of these:"
            f" {found['roll_up_of_a_minute_ms']} ms.",
            "",
            "| report | median, ms |",
            "| --- | ---: |",
            *(f"| {name} | {ms} |" for name, ms in reports_ms.items()),
            "",
            AIM,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
