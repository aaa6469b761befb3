"""One line of the log for each thing that happens, with a name that programs can look for."""

import logging
from typing import Any

from proxy.core.events import EVENTS

EVENT, FIELDS = "event", "fields"  # the names under which a LogRecord has them


def tell(
    logger: logging.Logger,
    event: str,
    message: str,
    *arguments: object,
    with_traceback: Any = False,
    **fields: Any,
) -> None:
    """`event` is a key of EVENTS, `message` what a person reads of it, with its `arguments`.
    `with_traceback`: of the exception that is handled now, or of the given `exc_info`."""
    logger.log(
        level_of(event),
        message,
        *arguments,
        exc_info=with_traceback,
        extra=named(event, **fields),
    )


def named(event: str, **fields: Any) -> dict[str, Any]:
    """What a line has besides, for `extra`; for a logger that is not ours."""
    assert event in EVENTS, "one of the table's"
    return {EVENT: event, FIELDS: fields}


def level_of(event: str) -> int:
    return logging.getLevelNamesMapping()[EVENTS[event].level.upper()]
