"""Whether the host's clock may be believed that something is old."""

from proxy.core.days import DAY_SECONDS

# What is corrected by less is no jump. A clock that jumped is believed when nobody has set it
# right for so long.
JUMP_SECONDS = 3600.0
BELIEVED_AFTER_SECONDS = float(DAY_SECONDS)


class ClockJumps:
    """Compares the clock with one that nobody sets. It is believed at first."""

    def __init__(self, now: float, uptime_seconds: float) -> None:
        self._offset = now - uptime_seconds
        self._believed_from = uptime_seconds

    def look(self, now: float, uptime_seconds: float) -> float | None:
        """Seconds by which it jumped since the last look; None: it did not."""
        offset = now - uptime_seconds
        jumped = offset - self._offset
        if abs(jumped) < JUMP_SECONDS:
            return None
        self._offset = offset
        self._believed_from = uptime_seconds + BELIEVED_AFTER_SECONDS
        return jumped

    def is_believed(self, uptime_seconds: float) -> bool:
        return uptime_seconds >= self._believed_from
