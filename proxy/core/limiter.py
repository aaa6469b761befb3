"""Whether an instance has room for a call, and when it will."""

from proxy.core.types import InstanceConfig
from proxy.core.window import Window


def limit_tokens(config: InstanceConfig) -> int | None:
    """Tokens a minute the instance may serve; None without a limit."""
    return config.max_tpm if config.rate_limit_enabled and config.max_tpm > 0 else None


def reservation_tokens(config: InstanceConfig, tokens: int) -> int:
    """What a call of `tokens` estimated tokens reserves.

    At most the whole limit: a call estimated above it may go when nothing else does,
    because the estimate may be too high, and waiting would not make it fit.
    """
    limit = limit_tokens(config)
    return tokens if limit is None else min(tokens, limit)


def wait_seconds(config: InstanceConfig, used: Window, tokens: int, second: int) -> int:
    """Seconds until a call of `tokens` has room, 0 if it has now."""
    limit = limit_tokens(config)
    if limit is None:
        return 0
    wait = used.seconds_until(limit - reservation_tokens(config, tokens), second)
    # A reservation is at most the limit, so an empty window always has room.
    return 0 if wait is None else wait


def load(config: InstanceConfig, used: Window, second: int) -> float:
    """The share of the limit in use, 0.0 without a limit."""
    limit = limit_tokens(config)
    return used.total(second) / limit if limit else 0.0


def accepts_prompt(config: InstanceConfig, prompt_tokens: int) -> bool:
    """`max_input_tokens` allows it; 0 allows everything."""
    return config.max_input_tokens == 0 or prompt_tokens <= config.max_input_tokens
