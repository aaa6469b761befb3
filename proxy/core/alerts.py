"""What is sent to whom when somebody should hear of an event: grouped, and not too often."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Alert(NamedTuple):
    """One event of the table in core/events.py. `at` is a moment."""

    event: str
    at: float
    message: str
    fields: Mapping[str, Any]
