"""What happens to the gateway itself: each kind has a name that stays, so that programs can
look for it in the log. docs/logs.md shows this table; a test keeps the two equal."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Event:
    """`level` is that of its line. `fields` it has besides. `is_alert`: somebody should hear of
    it now (PROXY_ALERT_WEBHOOK_URL)."""

    level: str
    means: str
    fields: tuple[str, ...] = ()
    is_alert: bool = False


EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "starting": Event(
            "info", "The gateway starts; what a newcomer still has to do, in lines."
        ),
        "worker_started": Event("info", "A worker is ready for requests."),
        "worker_stopped": Event(
            "info", "A worker ends; `cut_off` calls were still open.", ("cut_off",)
        ),
        "worker_killed": Event(
            "error",
            "A worker ended that nobody told to, with so many `calls` as it had open in its"
            " last second (`null`: nobody knows); another takes its place.",
            ("worker_pid", "why", "calls"),
            is_alert=True,
        ),
        "not_reloaded": Event(
            "error",
            "SIGHUP while the database could not be read: the workers that run stay, as the"
            " next ones would have no config.",
            ("why",),
        ),
        "config_changed": Event("info", "A worker has read a newer config.", ("revision",)),
        "config_went_back": Event(
            "warning",
            "The database has an older config than the worker had, or (`revision` 0) none:"
            " another is in its place.",
            ("revision", "before"),
            is_alert=True,
        ),
        "breaker_opened": Event(
            "warning",
            "An instance fails; it is left alone, then tried by one request at a time. It is"
            " said once, however often that fails, and again if it fails after nobody tried it"
            " for a minute.",
            ("instance", "why"),
            is_alert=True,
        ),
        "breaker_closed": Event(
            "warning",
            "That instance answers again: an answer came to its end.",
            ("instance",),
            is_alert=True,
        ),
        "misconfigured": Event(
            "warning",
            "An instance refuses the gateway: its key, or the name of the `deployment` that was"
            " asked for, is wrong.",
            ("instance", "why", "deployment"),
            is_alert=True,
        ),
        "accepts_again": Event(
            "warning",
            "It takes the gateway again: nobody else could be asked, and a request tried it.",
            ("instance",),
            is_alert=True,
        ),
        "asked_again": Event(
            "warning",
            "It failed, or refused the gateway, and is asked again by a person's word: it was"
            " verified, changed or set healthy. Each worker says so.",
            ("instance",),
            is_alert=True,
        ),
        "instance_rests": Event(
            "warning",
            "An instance asked to be left alone for long, with a 429.",
            ("instance", "deployment", "seconds"),
        ),
        "out_of_service": Event(
            "error",
            "Instances cannot be asked: a secret of theirs cannot be read, or there is no token"
            " of Entra ID for them.",
            ("instances", "why"),
            is_alert=True,
        ),
        "back_in_service": Event(
            "warning", "They can be asked again.", ("instances",), is_alert=True
        ),
        "keys_unreadable": Event(
            "error",
            "No key of a client or admin can be checked, so nobody with one is served: the key"
            " for secrets is missing or another one.",
            ("why",),
            is_alert=True,
        ),
        "keys_readable": Event("warning", "They can be checked again.", is_alert=True),
        "vault_closed": Event(
            "error",
            "The key for secrets is not where it belongs, or cannot be read. A worker that has"
            " read it goes on; one that starts without it can read no secret.",
            ("why",),
            is_alert=True,
        ),
        "vault_opened": Event("warning", "It is there again.", is_alert=True),
        "token_failed": Event(
            "warning",
            "Entra ID gives no token; the present one is good for `seconds` more.",
            ("why", "seconds"),
            is_alert=True,
        ),
        "token_recovered": Event("warning", "Entra ID gives tokens again.", is_alert=True),
        "sync_failed": Event(
            "error",
            "A worker can neither write its counts nor hear of others: the database is locked"
            " or gone.",
            ("why",),
            is_alert=True,
        ),
        "disk_full": Event("error", "As before, for want of room.", ("why",), is_alert=True),
        "sync_late": Event(
            "warning",
            "The worker's last exchange with the database was `seconds` ago, and the present"
            " one does not end.",
            ("seconds",),
            is_alert=True,
        ),
        "sync_recovered": Event("warning", "The worker writes and hears again.", is_alert=True),
        "clock_jumped": Event(
            "warning",
            "The host's clock was set by `seconds`. It is not believed for a day that usage is"
            " old enough to be deleted.",
            ("seconds",),
            is_alert=True,
        ),
        "database_replaced": Event(
            "warning", "Another file is in the database's place: a backup was restored, say."
        ),
        "log_failed": Event(
            "error",
            "The log's file, or stderr, takes no lines; they are lost.",
            ("why",),
            is_alert=True,
        ),
        "log_recovered": Event(
            "warning", "It takes lines again; `lost` were lost.", ("lost",), is_alert=True
        ),
        "files_exhausted": Event(
            "error",
            "The system lets the worker open no more files: no client can connect until some"
            " are closed.",
            ("connections",),
            is_alert=True,
        ),
        "threads_exhausted": Event(
            "error",
            "The system gives the worker no more threads.",
            ("threads",),
            is_alert=True,
        ),
        "unexpected_error": Event(
            "error", "A mistake of the gateway's own, with its traceback.", is_alert=True
        ),
        "wrong_admin_key": Event(
            "warning",
            "Somebody came with a key that opens nothing of the admin API, or a token that does"
            " not open /metrics.",
            ("source", "method", "path", "id", "count", "unlogged"),
            is_alert=True,
        ),
        "unknown_client_key": Event(
            "info",
            "A client came with a key that nobody has.",
            ("source", "method", "path", "id", "count", "unlogged"),
        ),
        "connection_refused": Event(
            "info",
            "What came on a connection is no request, or there was no thread for it.",
            ("id", "client", "status"),
        ),
        "attempt_failed": Event(
            "info", "An attempt failed, and another follows.", ("id", "instance", "why")
        ),
        "no_answer": Event(
            "warning",
            "An attempt failed, and nobody else can serve the call or has the time to; or an"
            " instance gave no answer to a question about what it keeps.",
            ("id", "instance", "why"),
        ),
        "not_its_own": Event(
            "error",
            "An instance cannot read what it encrypted itself: it is another resource now,"
            " under the same address. Conversations that began before cannot go on.",
            ("id", "instance"),
        ),
        "stream_broken": Event(
            "warning",
            "An answer that its client had begun to get broke off, or told of an error.",
            ("id", "instance", "why"),
        ),
        "answer_cut_off": Event(
            "warning", "An answer was still open when its worker ended.", ("id", "instance")
        ),
        "alerts_failed": Event(
            "warning", "The webhook does not take alerts; they are tried again.", ("why",)
        ),
        "traces_failed": Event(
            "warning",
            "The collector takes no traces; those of now are lost if that lasts.",
            ("why",),
        ),
        "traces_recovered": Event("warning", "It takes them again."),
        "request": Event("info", "A request is over: its record, see above."),
    }
)
ALERTS = frozenset(name for name, event in EVENTS.items() if event.is_alert)
