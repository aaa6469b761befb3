"""Moments as people write and read them: dates, with or without a time, in UTC."""

import re

from proxy.core.days import DAY_SECONDS, days, year_and_month

_DATE = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d(\.\d{1,6})?))?"
_ZONE = r"Z|(?P<sign>[+-])(?P<zone_hour>\d\d):(?P<zone_minute>\d\d)"
_MOMENT = re.compile(rf"{_DATE}([T ]{_TIME}({_ZONE})?)?", re.ASCII)


class NotAMoment(ValueError):
    """Its text says what is one."""

    def __init__(self) -> None:
        super().__init__("Is no date: write 2030-01-31, or 2030-01-31T12:00:00Z.")


def moment(text: str) -> float:
    """Seconds since the epoch; of a date alone, when it begins. Without a zone it is UTC.
    Raises NotAMoment."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise NotAMoment
    found = {k: float(v) for k, v in match.groupdict("0").items() if k != "sign"}
    year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    if not (
        1 <= month <= 12
        and 1 <= day <= _length(year, month)
        and found["hour"] < 24
        and found["zone_hour"] < 24
        and max(found["minute"], found["second"], found["zone_minute"]) < 60
    ):
        raise NotAMoment
    zone_seconds = found["zone_hour"] * 3600 + found["zone_minute"] * 60
    seconds = found["hour"] * 3600 + found["minute"] * 60 + found["second"]
    ahead_seconds = -zone_seconds if match["sign"] == "-" else zone_seconds
    return (days(year, month) + day - 1) * DAY_SECONDS + seconds - ahead_seconds


def as_text(moment_at: float) -> str:
    """To the second that it is in; `moment` reads it."""
    day, second = divmod(int(moment_at // 1), DAY_SECONDS)
    year, month = year_and_month(day)
    date = f"{year:04}-{month:02}-{day - days(year, month) + 1:02}"
    return f"{date}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def exact_text(moment_at: float) -> str | None:
    """The same; None if it would not be read as just that moment."""
    is_whole = moment_at == moment_at // 1 and -6e10 < moment_at < 2.5e11  # years 69 to 9892
    return as_text(moment_at) if is_whole else None


def _length(year: int, month: int) -> int:
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return days(*following) - days(year, month)
