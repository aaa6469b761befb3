"""What a client is told that gets no answer: why nobody could be asked, or did not answer."""

from collections.abc import Sequence

from proxy.core.catalog import names_model
from proxy.core.refusal import FAILING, FULL, Refusal, is_short
from proxy.core.types import ENTRA, Call, Serving
from proxy.core.verdict import MISCONFIGURED
from proxy.errors import (
    BadRequest,
    ModelNotFound,
    NoRoom,
    ProxyError,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.runtime.attempt import Attempt

# "No room" without a moment when there will be: other threads took it just now, or others are
# to have it.
SOON_SECONDS = 1.0
KEEPER = "The instance that keeps what this request refers to"
SAID_CHARACTERS = 300  # of what an upstream says of itself


def no_room(
    call: Call, refused: Sequence[Refusal], wait_seconds: float, *, free: int = 0
) -> ProxyError:
    """429, or 503 where all that could be asked again are failing; when to come back. `free`:
    how many could be asked now, but not for this call any more."""
    broken = sum(1 for r in refused if r.reason in MISCONFIGURED)
    besides = ""
    if broken:
        refuse = _count(broken, "refuses", "refuse")
        besides = f" {refuse} the gateway, for its operator to mend."
    passing = [r for r in refused if r.passes]
    if passing and not free and all(r.reason == FAILING for r in passing):
        them = "it" if call.homes else "one of them"
        return Unavailable(
            f"{_whom(call)} {_be(call)} failing. The next attempt at {them} is in"
            f" {wait_seconds:.1f} s.{besides}",
            retry_after_seconds=wait_seconds,
        )
    full = sum(1 for r in passing if r.reason in FULL)
    failing = sum(1 for r in passing if r.reason == FAILING)
    why = (
        _count(len(passing) - full - failing, "rests", "rest"),
        _count(full, "has no room left this minute", "have no room left this minute"),
        _count(failing, "is failing", "are failing"),
        _count(free, "can be asked again now", "can be asked again now"),
    )
    whose = "its" if call.homes else "their"
    return NoRoom(
        f"{_whom(call)} {_be(call, was=bool(free))} at {whose} limit."
        f" {', '.join(filter(None, why))}.{_oversize(call, passing)}{besides}",
        retry_after_seconds=wait_seconds,
    )


def _whom(call: Call) -> str:
    if call.homes:
        return KEEPER
    return f"All instances that serve {call.model!r}"


def _be(call: Call, *, was: bool = False) -> str:
    if call.homes:
        return "was" if was else "is"
    return "were" if was else "are"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}" if number else ""


def _oversize(call: Call, refused: Sequence[Refusal]) -> str:
    """Waiting alone may not help such a call: any other that comes first moves its turn on."""
    sizes = [refusal.serving.least_tpm for refusal in refused]
    is_above_all = all(0 < size < call.reserved_tokens for size in sizes)
    if not (is_above_all and is_short(refused)):
        return ""
    most = max(sizes)
    return (
        f" This call may need about {call.reserved_tokens} tokens, more than a whole minute of"
        f" any of them ({most}), and is let in only where nothing else was used for a minute;"
        " a smaller prompt or max_tokens is let in sooner."
    )


def held_back(call: Call) -> ProxyError:
    """429: there is room, and it is for clients that had less."""
    return NoRoom(
        f"The room that there is for {call.model!r} is left to other clients: they want more of"
        " it too, and had less in the last seconds.",
        retry_after_seconds=SOON_SECONDS,
    )


def too_long(call: Call, servings: Sequence[Serving]) -> ProxyError:
    """400 with the most that any of them takes."""
    most = max(s.config.max_input_tokens for s in servings)
    return BadRequest(
        f"The prompt has about {call.prompt_tokens} tokens; for {call.model!r} at most"
        f" {most} are accepted.",
        code="context_length_exceeded",
    )


def model_not_found(call: Call) -> ProxyError:
    """404: no config names it, and no upstream knows it."""
    return ModelNotFound(
        f"The model {call.model!r} does not exist here, or no instance serves it.",
        param="model",
    )


def not_at_home(call: Call) -> ProxyError:
    """400: the only instance that could do it has no such model."""
    return BadRequest(
        "What this request refers to is kept by an instance that does not serve"
        f" {call.model!r}. Ask for the model that you began with, or send the whole"
        " conversation.",
        param="model",
    )


def home_out_of_service() -> ProxyError:
    """503: it is switched off, or lacks a secret or a token."""
    return Unavailable(
        f"{KEEPER} is out of service.",
        is_worth_retrying=False,
    )


def out_of_service(call: Call, out: Sequence[Serving], *, lacks_token: bool) -> ProxyError:
    """503: those that serve the model, `out`, are switched off or lack a secret or a token.
    Where they serve it because they serve any, nobody here knows whether there is such one."""
    said = f"No instance that serves {call.model!r} is in service."
    if not any(names_model(s.config, call.model) for s in out):
        whose = " that this API key may use" if call.client.allowed_instances else ""
        said = (
            f"No instance{whose} names the model {call.model!r}, which may be misspelt, and"
            " those that serve any model are out of service."
        )
    if lacks_token and any(s.config.enabled and s.config.auth == ENTRA for s in out):
        said += " The gateway has no token of Entra ID; this is for its operator to mend."
    return Unavailable(said, is_worth_retrying=False)


def misconfigured(call: Call, servings: Sequence[Serving]) -> ProxyError:
    """502: they refuse the gateway, and no client can mend that."""
    what = "their key,"
    if any(s.config.auth == ENTRA for s in servings):
        is_mixed = any(s.config.auth != ENTRA for s in servings)
        what = f"{'their key, ' if is_mixed else ''}its identity at Entra ID or its role there,"
    who = (
        f"{KEEPER} refuses" if call.homes else f"The instances that serve {call.model!r} refuse"
    )
    return UpstreamFailed(
        f"{who} the gateway: {what} deployment or api_version is wrong. This is for the"
        " gateway's operator to mend.",
        code="upstream_misconfigured",
        is_worth_retrying=False,
    )


def ending() -> ProxyError:
    """503: the worker ends. The next one, or another, will do better."""
    return Unavailable(
        "The gateway is being stopped or restarted, and can wait for no answer any longer.",
        retry_after_seconds=SOON_SECONDS,
    )


def unreachable(call: Call, attempt: Attempt) -> ProxyError:
    """502, or 504 where the time was over, with how the last attempt ended; 503 where the
    gateway itself could not ask. A client that set the time itself wants no second try, which
    would take as long again."""
    error = attempt.error
    who = f"No instance gave an answer for {call.model!r}; of the last one"
    if call.homes:
        who = f"{KEEPER} gave no answer"
    if error is None:
        said = attempt.trouble() if attempt.verdict.shown else None
        said = (said or "it redirected elsewhere")[:SAID_CHARACTERS]
        return UpstreamFailed(f"{who}: {said}.")
    if error.is_ours:
        return Unavailable(
            f"{error.message[:1].upper()}{error.message[1:]}.",
            retry_after_seconds=SOON_SECONDS,
        )
    kind = UpstreamTimeout if error.timed_out else UpstreamFailed
    had_its_time = call.is_hurried and error.timed_out and not attempt.verdict.try_next
    return kind(f"{who}: {error.message}.", is_worth_retrying=not had_its_time)
