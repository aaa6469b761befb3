"""Days and months, UTC, as moments: seconds since the epoch."""

DAY_SECONDS = 86_400

# Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin with March, so
# that the day that is not always there is their last; eras have 400 years and the same days.
_DAYS_OF_ERA = 146_097
_DAYS_BEFORE_1970 = 719_468


def day_at(now: float) -> int:
    """When the day began."""
    return int(now) // DAY_SECONDS * DAY_SECONDS


def month(now: float) -> tuple[int, int]:
    """When the month began, and when the next one begins."""
    year, number = year_and_month(int(now) // DAY_SECONDS)
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return days(year, number) * DAY_SECONDS, days(*following) * DAY_SECONDS


def year_and_month(days: int) -> tuple[int, int]:
    """Of a day, by its number since the epoch."""
    era, day = divmod(days + _DAYS_BEFORE_1970, _DAYS_OF_ERA)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    from_march = (5 * day + 2) // 153
    number = from_march + 3 if from_march < 10 else from_march - 9
    return 400 * era + year + (number <= 2), number


def days(year: int, number: int) -> int:
    """Of a month's first day, its number since the epoch."""
    year -= number <= 2
    era, year = divmod(year, 400)
    from_march = number - 3 if number > 2 else number + 9
    day = (153 * from_march + 2) // 5 + 365 * year + year // 4 - year // 100
    return era * _DAYS_OF_ERA + day - _DAYS_BEFORE_1970
