"""When to ask for the next token of Entra ID."""

EARLY_SECONDS = 300.0  # before it expires; as Azure's own libraries do
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0  # a role that was given, or an endpoint that is back, is soon noticed
LEAST_SECONDS = 5.0


def next_after_seconds(life_seconds: float) -> float:
    """How long a token that is good for `life_seconds` is used before the next is asked for.

    Of one that lives hardly longer than we are early, half of its life: endpoints give out the
    same token again until it is nearly over, and must not be asked in a circle.
    """
    early_seconds = min(EARLY_SECONDS, life_seconds / 2)
    return max(LEAST_SECONDS, life_seconds - early_seconds)


def retry_after_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4 ... 60."""
    # Bounded before it is raised: after a day of failures the power would be a huge number.
    doubled = FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10)
    return min(LAST_RETRY_SECONDS, doubled)
