"""The limits of clients' keys: who is let in, what the others are told, and each answer's
headers about them."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from flask import Flask, Response, g

from proxy.context import Parts, parts
from proxy.core.allowance import Denial
from proxy.core.endpoints import ENDPOINTS, Answer
from proxy.core.prices import NANO
from proxy.core.types import Call, Client, Usage
from proxy.errors import BudgetSpent, LimitReached, ProxyError
from proxy.runtime.clients import Ticket
from proxy.web.app import Relayed

# Of a limit, in words: what so many are.
UNITS = {
    "max_tpm": "tokens a minute",
    "max_rpm": "requests a minute",
    "max_parallel_requests": "requests at a time",
    "max_tokens_per_day": "tokens a day",
    "max_tokens_per_month": "tokens a month",
    "max_cost_per_day": "a day",
    "max_cost_per_month": "a month",
}


# By what the answer is made of, what is to be less of a call that is too large.
REMEDIES: Mapping[Answer, str] = {
    "completion": "a shorter prompt, or fewer max_completion_tokens",
    "images": "fewer images (n), a lower quality, or a shorter prompt",
    "transcript": "a shorter recording, or one that is compressed more",
    "speech": "a shorter input",
    "response": "a shorter input, or fewer max_output_tokens",
    "data": "a shorter input",
}


def register(app: Flask) -> None:
    app.after_request(tell)


def let_in(mine: Parts, call: Call) -> Ticket:
    """The call's ticket, to be settled when it is over. Raises LimitReached or BudgetSpent."""
    got = mine.clients.start(call.client, call.reserved_tokens, _most_nano(mine, call))
    if isinstance(got, Denial):
        raise refused(got, time.time(), call.endpoint)
    return got


def let_in_again(mine: Parts, client: Client, endpoint: str) -> Ticket:
    """As `let_in`, of a stream that is taken up again: a request without tokens, which were
    counted when it began."""
    got = mine.clients.start(client)
    if isinstance(got, Denial):
        raise refused(got, time.time(), endpoint)
    return got


def denial(mine: Parts, call: Call) -> Denial | None:
    """What would keep `let_in` from it now; None: nothing. Takes nothing."""
    return mine.clients.denial(call.client, call.reserved_tokens, _most_nano(mine, call))


def _most_nano(mine: Parts, call: Call) -> int:
    """The most it may cost, where that is limited."""
    client = call.client
    if not (client.max_cost_per_day or client.max_cost_per_month):
        return 0
    completion_tokens = call.reserved_tokens - call.prompt_tokens
    most = Usage(call.prompt_tokens, completion_tokens)
    return mine.snapshots.current.cost_nano(call.model, most)


def tell(response: Response) -> Response:
    """A key with limits a minute hears of these. What is relayed says so already."""
    if isinstance(response, Relayed):
        return response
    client = g.get("client")
    if client is not None and has_lines(client):
        response.headers.update(parts().clients.lines(client))
    return response


def has_lines(client: Client) -> bool:
    """Its answers tell of its limits."""
    return bool(client.max_tpm or client.max_rpm)


def refused(denial: Denial, now: float, endpoint: str) -> ProxyError:
    """What the client is told."""
    wait_seconds = None if denial.until is None else max(denial.until - now, 0.0)
    # Of one that can never fit the budget may be whole.
    is_spent = denial.is_budget and denial.is_pointless and wait_seconds is not None
    kind = BudgetSpent if is_spent else LimitReached
    return kind(
        why(denial, wait_seconds, endpoint),
        retry_after_seconds=wait_seconds,
        is_worth_retrying=not denial.is_pointless,
    )


def why(denial: Denial, wait_seconds: float | None, endpoint: str) -> str:
    bound, used = _shown(denial.limit, denial.bound), _shown(denial.limit, denial.used)
    asked = _shown(denial.limit, denial.asked)
    unit = UNITS[denial.limit]
    if denial.bound == 1:
        unit = unit.replace("tokens", "token").replace("requests", "request")
    limit = f"{bound} {unit} ({denial.limit})"
    if wait_seconds is None:
        return (
            f"This request may need {asked}, and this key may use no more than {limit}: it can"
            f" never fit. Ask for less: {REMEDIES[ENDPOINTS[endpoint].answer]}."
        )
    if denial.limit == "max_parallel_requests":
        are_open = "that is open" if denial.bound == 1 else "so many are open"
        return f"This key may have {limit}, and {are_open}. Try again when one has ended."
    if denial.limit == "max_rpm":
        return f"This key may make {limit}, and made {used}. Try again in {wait_seconds:.1f} s."
    are = "is" if used == "1" else "are"
    needs = f"This key may use {limit}; {used} {are} used, and this request may need {asked}."
    if not denial.is_budget:
        return f"{needs} Try again in {wait_seconds:.1f} s."
    if not denial.is_pointless:
        return f"{needs} Requests that are still open may leave some of it: try again soon."
    has_rest = denial.used < denial.bound
    moment = datetime.fromtimestamp(denial.until or 0, UTC).strftime("%Y-%m-%d %H:%M")
    less = f" Ask for less: {REMEDIES[ENDPOINTS[endpoint].answer]}." if has_rest else ""
    return f"{needs}{less} The budget begins anew at {moment} UTC."


def _shown(limit: str, amount: int) -> str:
    if "cost" not in limit:
        return str(amount)
    return f"{amount / NANO:.9f}".rstrip("0").rstrip(".")
