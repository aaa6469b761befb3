"""A request's record in sentences: where it went and why, and how long each step took."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from proxy.core.refusal import (
    FAILING,
    LEFT_TO_OTHERS,
    NO_ROOM,
    SHARED_OUT,
    TOO_LONG,
    UPSTREAM_SAYS,
)
from proxy.core.verdict import NO_DEPLOYMENT

Values = Mapping[str, Any]

# Of a refusal's or a rest's reason; what is not here stands as it is.
REASONS: Mapping[str, str] = {
    NO_ROOM: "it had no room left this minute",
    TOO_LONG: "the prompt was too long for it",
    FAILING: "it was failing",
    LEFT_TO_OTHERS: "what it had left may have been taken by other workers",
    UPSTREAM_SAYS: "it had said that it had too little room left",
    SHARED_OUT: "other clients wanted its room too, which is handed out evenly",
    "throttled": "it rested after a 429",
    "misconfigured": "it rested because it refuses the gateway, for a person to mend",
    NO_DEPLOYMENT: "it rested because it has no such deployment, for a person to mend",
    "operator": "an operator let it rest",
}
# Why another was asked after that outcome.
FAILURES: Mapping[str, str] = {
    "throttled": "it is at its limit",
    "failed": "it failed",
    "misconfigured": "it refuses the gateway, for a person to mend",
    "unreachable": "it gave no answer",
    "rejected": "it does not know the model",
}
# Of the last one, whose client may have had its answer, these are told too.
OF_INSTANCES = frozenset({"throttled", "failed", "misconfigured"})
# Attempts after which nobody is asked, passed over or waited for.
FINAL = frozenset({"succeeded", "aborted", "expired"})
# Those without a status of which something may have come: an answer that broke, or none to use.
PARTLY = frozenset({"failed", "aborted", "expired"})


def story(record: Values) -> list[str]:
    """Of a record as core/record.py makes them, or of one that was cut to fit."""
    return list(_sentences(record))


def _sentences(record: Values) -> Iterator[str]:
    if "policy" not in record:  # it did not come to be a call
        who = f"{record['client']} sent " if "client" in record else ""
        where = f" of {record['home']}" if "home" in record else ""
        yield f"{who}{record['method']} {record['path']}{where}: {_told(record)}."
        return
    yield _asked(record)
    attempts = record.get("attempts") or []
    asked = [_attempt(*pair) for pair in zip_longest(attempts, attempts[1:])]
    if _were_others_before(attempts):
        yield from (*_others(record), *asked)
    else:
        yield from (*asked, *_others(record, "On the way "))
    yield from _end(record, attempts)


def _were_others_before(attempts: list[Values]) -> bool:
    """Whether all that was passed over or waited for was so before these. A record has no
    moment of it, so that is known only where nothing could come after."""
    if not attempts:
        return True
    is_answer = 200 <= (attempts[0].get("status") or 0) < 300
    return len(attempts) == 1 and (is_answer or attempts[0]["outcome"] in FINAL)


def _others(record: Values, when: str = "") -> Iterator[str]:
    for passed in record.get("passed_over") or ():
        yield f"{when}{_passed_over(passed)}"
    if record.get("waited_ms"):
        it = f"{when}it" if when else "It"
        yield f"{it} waited {_ms(record['waited_ms'])} for room."


def _asked(record: Values) -> str:
    what = [str(record.get("endpoint", "a call"))]
    if record.get("stream"):
        what.append("a stream")
    if "request_bytes" in record:
        what.append(f"{record['request_bytes']} bytes")
    asked = f"{record.get('client')} asked for {record.get('model')} ({', '.join(what)})"
    if "home" in record:
        who = "only who keeps what it refers to could be asked"
        return f"{asked}; {who}: {record['home']}."
    if not record["policy"]:  # it was refused before there was an order
        return f"{asked}."
    return f"{asked}; instances in the order of the policy {record['policy']}."


def _passed_over(passed: Values) -> str:
    reason = REASONS.get(passed["reason"], passed["reason"])
    wait_ms = passed.get("wait_ms")
    left = f", for another {_ms(wait_ms)}" if wait_ms else ""
    return f"{passed['instance']} was passed over: {reason}{left}."


def _attempt(attempt: Values, following: Values | None) -> str:
    name, status = attempt["instance"], attempt.get("status")
    deployment = attempt.get("deployment")
    where = f"{name} (deployment {deployment})" if deployment else name
    came = f"it answered {status}" if status else _without_status(attempt)
    text = f"After {_ms(attempt['at_ms'])} {where} was asked: {came} in {_ms(attempt['ms'])}"
    why = attempt.get("why")
    is_told = (status or 0) >= 400 and attempt["outcome"] in OF_INSTANCES
    if why or following or is_told:
        text += f", {why or FAILURES.get(attempt['outcome'], attempt['outcome'])}"
    if attempt.get("rest_ms"):
        text += f"; it is left alone for {_ms(attempt['rest_ms'])}"
    if following:
        is_same = following["instance"] == name
        text += "; so it was asked once more" if is_same else "; so the next was tried"
    known = [attempt[name] for name in ("upstream_id", "region") if attempt.get(name)]
    return f"{text}." + (f" The upstream knows it as {', '.join(known)}." if known else "")


def _without_status(attempt: Values) -> str:
    return "no usable answer came" if attempt["outcome"] in PARTLY else "no answer came"


def _end(record: Values, attempts: list[Values]) -> Iterator[str]:
    if record.get("cut"):
        what = "not all of it is told" if attempts else "whom it was sent to is left out"
        yield f"The record was too long to be kept whole: {what}."
    elif not attempts:
        yield "No instance was asked."
    if "first_byte_ms" not in record:
        instead = "none of these answers: " if attempts else ""
        yield f"The client got {instead}{_told(record)}."
        if "prompt_tokens" in record:
            why = "But its upstream went on, so it is" if _went_on(record) else "It is"
            yield f"{why} charged {_used(record)}."
        return
    outcome = record["outcome"]
    if outcome == "aborted" and not (attempts and attempts[-1].get("why")):
        yield f"The client left after {_ms(record['ms'])}."
    elif outcome == "succeeded" or not record.get("stream"):
        came = "said something" if record.get("stream") else "was there"
        first = _ms(record["first_byte_ms"])
        yield f"The answer {came} after {first} and was over after {_ms(record['ms'])}."
    else:
        yield f"The stream broke off after {_ms(record['ms'])}, and the client was told so."
    yield _amounts(record)


def _went_on(record: Values) -> bool:
    """Nobody but its client, or the time, ended it."""
    return record["outcome"] in ("aborted", "expired", "unreachable")


def _amounts(record: Values) -> str:
    return f"It used {_used(record)}: {record['response_bytes']} bytes."


def _used(record: Values) -> str:
    cached = record.get("cached_tokens")
    prompt = record["prompt_tokens"]
    parts = [f"{prompt} token{'s' if prompt != 1 else ''} of the prompt"]
    parts[0] += f" ({cached} of them cached)" if cached else ""
    parts.append(f"{record['completion_tokens']} of the answer")
    thought = record.get("reasoning_tokens")
    parts[1] += f" ({thought} of them thought)" if thought else ""
    counted = ", counted by the gateway" if record.get("estimated") else ""
    cost = f", at a cost of {_exact(record['cost'])}" if "cost" in record else ""
    return f"{' and '.join(parts)}{counted}{cost}"


def _exact(cost: float) -> str:
    return f"{cost:.9f}".rstrip("0").rstrip(".")


def _told(record: Values) -> str:
    error = f" ({record['error']})" if "error" in record else ""
    said = f": {record['said'].rstrip('.')}" if "said" in record else ""
    return f"{record['status']}{error} after {_ms(record['ms'])}{said}"


def _ms(ms: float) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
