"""What was counted, as reports tell it, for whoever shows it: the admin API, the console and
`flask top` say the same, whichever worker is asked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from proxy.context import Parts
from proxy.core.report import (
    BUCKETS,
    MAX_ROWS,
    RECENT_SECONDS,
    Question,
    aligned,
    figures,
    is_kept,
    kept_since,
    last,
)
from proxy.core.usage import MINUTE_SECONDS, NOTHING, Counts
from proxy.errors import Unprocessable
from proxy.store import reports
from proxy.store.db import StoreUnavailable

Json = dict[str, Any]
Counted = dict[tuple[Any, ...], Counts]

# Consoles ask once a second; what is shown of a quarter of an hour need not be read so often.
FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Figures of the last 15 minutes: of all, of each instance, and of one nobody asked."""

    total: Json
    instances: dict[str, Json]
    others: Json

    def of(self, name: str) -> Json:
        return self.instances.get(name, self.others)


def counted_for(mine: Parts, asked: Question) -> tuple[Question, Counted]:
    """The question as it can be answered, and the answer. Raises Unprocessable if that would be
    too much, StoreUnavailable."""
    kept = oldest(mine)
    if asked.bucket_seconds and not is_kept(asked.since, asked.bucket_seconds, kept):
        raise _forgotten(asked.bucket_seconds, kept)
    first = min(max(asked.since, kept_since(asked.bucket_seconds, kept)), asked.until)
    since, until = aligned(replace(asked, since=first), kept)
    question = replace(asked, since=since, until=until)
    with mine.database.read() as connection:
        found = reports.answer(connection, question, MAX_ROWS)
    if len(found) > MAX_ROWS:
        raise Unprocessable(
            f"That is more than {MAX_ROWS} rows, which is the most that is shown at once: ask"
            " for a shorter time, longer steps, or fewer groups.",
            param="from",
        )
    return question, found


def oldest(mine: Parts) -> Mapping[int, int]:
    """Period -> since when usage is kept by it, as of now."""
    return mine.settings.usage_kept.since(time.time())


def _forgotten(bucket_seconds: int, kept: Mapping[int, int]) -> Unprocessable:
    names = {seconds: name for name, seconds in BUCKETS.items()}
    moment = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(kept_since(bucket_seconds, kept)))
    longer = [name for seconds, name in sorted(names.items()) if seconds > bucket_seconds]
    return Unprocessable(
        f"from: By the {names[bucket_seconds]} usage is kept since {moment}; ask from then on"
        + (f", or by {' or '.join(longer)}." if longer else "."),
        param="from",
    )


def recent(mine: Parts) -> Recent:
    """As /admin/stats would tell it now. Raises StoreUnavailable."""
    _, counted = counted_for(mine, last(RECENT_SECONDS, time.time(), by=("instance",)))
    total = tuple(map(sum, zip(NOTHING, *counted.values(), strict=True)))
    by_instance = {name: figures(counts) for (_, name), counts in counted.items()}
    return Recent(figures(total), by_instance, figures(NOTHING))


def recent_of_console(mine: Parts) -> Recent:
    """The same, read at most once in FRESH_SECONDS for all who look; without the database
    nothing is known."""

    def make() -> bytes:
        try:
            return orjson.dumps(recent(mine))
        except StoreUnavailable:
            return orjson.dumps(UNKNOWN)

    return Recent(**orjson.loads(mine.fragments.get("recent", make, FRESH_SECONDS).body))


def by_minute(mine: Parts, since: int, until: int) -> dict[int, Json]:
    """Figures of each minute between the two that is over. Raises StoreUnavailable."""
    since, until = (at // MINUTE_SECONDS * MINUTE_SECONDS for at in (since, until))
    minutes = range(since, until, MINUTE_SECONDS)
    _, counted = counted_for(mine, Question(since, until, bucket_seconds=MINUTE_SECONDS))
    return {at: figures(counted.get((at,), NOTHING)) for at in minutes}


def _unknown(shown: Mapping[str, Any]) -> Json:
    return {
        name: _unknown(value) if isinstance(value, Mapping) else None
        for name, value in shown.items()
    }


UNKNOWN = Recent(_unknown(figures(NOTHING)), {}, _unknown(figures(NOTHING)))
