"""What an upstream's answer means, judged by its head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from proxy.core.headers import retry_after_seconds

THROTTLED_REST_SECONDS = 5.0  # a 429 that does not say how long
MISCONFIGURED_REST_SECONDS = 300.0  # a person has to fix it; do not try it every second
LEAST_REST_SECONDS = 1.0
TOKEN_REST_SECONDS = 2.0

# The names under which attempts are counted.
Outcome = Literal[
    "succeeded",
    "rejected",
    "throttled",
    "failed",
    "misconfigured",
    "unreachable",
    "aborted",
    "expired",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    try_next: bool = False  # another instance could do better with the same request
    failure: bool = False  # the instance is unwell: its breaker counts it
    no_answer: bool = False  # a failure of which nothing came back at all
    rest_seconds: float = 0.0  # leave it alone this long
    rest_reason: str = ""  # why it rests, where the outcome does not tell
    whole_instance: bool = False  # the rest concerns all its deployments, not this one only
    shown: bool = True  # the answer may be shown to the client if nobody does better
    is_ours: bool = False  # it is no error of the instance, whatever it is called


# Outcome -> the state's counter that it adds to, if any.
OUTCOMES: dict[Outcome, str | None] = {
    "succeeded": "successful_requests",
    "rejected": "total_upstream_400_errors",
    "throttled": "total_upstream_429_errors",
    "failed": "total_upstream_500_errors",
    "misconfigured": "total_upstream_other_errors",
    "unreachable": "total_upstream_other_errors",
    "aborted": None,
    "expired": None,
}

# Outcomes that are the instance's own errors: a client's bad request or hanging up is not.
ERRORS: frozenset[Outcome] = frozenset({"throttled", "failed", "misconfigured", "unreachable"})
# Those after which a client that is there got an error, if nobody did better.
LOSSES: frozenset[Outcome] = ERRORS | {"expired"}

NO_DEPLOYMENT = "no_deployment"
MISCONFIGURED = frozenset({"misconfigured", NO_DEPLOYMENT})  # rests that time will not mend

SUCCEEDED = Verdict("succeeded")
REJECTED = Verdict("rejected")
FAILED = Verdict("failed", try_next=True, failure=True)
UNREACHABLE = Verdict("unreachable", try_next=True, failure=True, no_answer=True)
# The gateway lacks what it needs to ask; of another there may be a connection yet.
NOT_ASKED = Verdict("unreachable", try_next=True, is_ours=True)
ABORTED = Verdict("aborted")
# By a mistake of the gateway's own its client gets a 500: no reason to leave it alone.
SPOILED = Verdict("failed")
# The call's time was over, by the setting or by the client's own word, and it was told so.
EXPIRED = Verdict("expired")
# Its worker's time was over, and the client was there.
CUT_OFF = Verdict("expired")
# A 404 of a model that no config names: the client made it up.
NO_SUCH_MODEL = Verdict("rejected", try_next=True, shown=False)
# A 500 with the code `model_error`, or an error in a stream that may blame the request: mostly
# the prompt's doing, and not the instance's.
MODEL_ERROR = Verdict("failed", try_next=True)
# Nobody waits for it any longer, and it was silent for longer than it ever is when it is well.
OVERDUE = Verdict("unreachable", failure=True)

# A 400 about the version of Azure's API, which the instance's config says, and no client: with
# one that is not known nothing can be asked.
WRONG_VERSION = Verdict(
    "misconfigured",
    try_next=True,
    rest_seconds=MISCONFIGURED_REST_SECONDS,
    shown=False,
)
# This cannot be asked there, but all else: an old version of the API, or a model that is there
# and not for this endpoint. A sibling may know it.
UNSUPPORTED = Verdict("rejected", try_next=True)

# That a client wanted an answer sooner than this, and there was none, tells nothing.
HASTY_SECONDS = 5.0
OVERDUE_SECONDS = 5.0
OVERDUE_TIMES = 10


def is_overdue(
    silent_seconds: float,
    usual_ms: float | None,
    *,
    is_hurried: bool,
    timeout_seconds: float,
) -> bool:
    """Whether a silence tells that the instance is unwell, though it ended before
    `timeout_seconds` were over. `usual_ms`: what half of its streams take until they say
    something; None where nobody knows, and of plain answers, which take as long as they are.
    There a client in a hurry tells nothing."""
    if usual_ms is not None:
        return silent_seconds >= max(OVERDUE_SECONDS, OVERDUE_TIMES * usual_ms / 1000)
    return not is_hurried and silent_seconds >= timeout_seconds / 2


def of_version(error: object) -> Verdict | None:
    """Of the `error` that a 400 of Azure's holds, if it blames the version. Nothing that quotes
    the client does: else a client could put an instance to rest."""
    if not isinstance(error, dict) or error.get("param"):
        return None
    said = str(error.get("message")).strip(" .").lower()
    if said == "api version not supported":
        return WRONG_VERSION
    is_quoted = "'" in said or '"' in said
    is_old = "enabled only for api versions" in said and not is_quoted
    return UNSUPPORTED if is_old else None


def blames_endpoint(error: object) -> bool:
    """Whether the `error` that a 404 of OpenAI's holds says that the model is there, but is not
    to be asked in this way: a chat model for completions, say. Of a model that is not there
    it has the code `model_not_found`, and of a path that is not it names no parameter."""
    return (
        isinstance(error, dict)
        and error.get("type") == "invalid_request_error"
        and error.get("param") == "model"
        and "code" in error  # servers that only resemble it leave it out
        and error["code"] is None
    )


def of_kept(error: object) -> Verdict | None:
    """Of the `error` that a 404 holds where the Responses API was asked, unless it tells of the
    deployment: what the call refers to is not kept any more, or that API is not there, which
    says nothing of all else that the deployment is asked for."""
    code = error.get("code") if isinstance(error, dict) else None
    return None if code in ("DeploymentNotFound", "model_not_found") else UNSUPPORTED


def without_token(retry_seconds: float) -> Verdict:
    """Entra ID refuses the gateway a token, or the gateway does not know who it is: for a
    person to mend. It rests until there is another try, which may find it mended; not longer
    than it takes until the worker puts it out of service, which ends with the next token."""
    return Verdict(
        "misconfigured",
        try_next=True,
        rest_seconds=min(max(LEAST_REST_SECONDS, retry_seconds), TOKEN_REST_SECONDS),
        whole_instance=True,
        shown=False,
    )


def of(status: int, headers: Mapping[str, str], now: float) -> Verdict:
    """Judge an upstream's answer by its head. `now` is seconds since the epoch.

    A 4xx that is the client's own doing is passed on: every instance would say
    the same. 401, 403 and 404 are not the client's doing here, because the key
    and the deployment name are ours. Only a 401 concerns the whole instance: 403 and 404
    may be about one model. A redirect is never followed: it would carry our key to
    wherever it points.
    """
    if status == 429:
        asked = retry_after_seconds(headers, now)
        rest = THROTTLED_REST_SECONDS if asked is None else asked
        return Verdict("throttled", try_next=True, rest_seconds=rest)
    if status in (401, 403, 404):
        return Verdict(
            "misconfigured",
            try_next=True,
            rest_seconds=MISCONFIGURED_REST_SECONDS,
            rest_reason=NO_DEPLOYMENT if status == 404 else "",
            whole_instance=status == 401,
            shown=False,
        )
    if status == 408 or status >= 500 or 300 <= status < 400 or status < 200:
        return Verdict("failed", try_next=True, failure=True, shown=status >= 400)
    return SUCCEEDED if status < 300 else REJECTED
