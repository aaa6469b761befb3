"""What is wrong with a gateway, or soon will be: facts in, findings with a remedy out."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from proxy.core.days import DAY_SECONDS
from proxy.core.providers import LAST_WITHOUT_STREAM_OPTIONS
from proxy.core.standing import countdown

# A finding's severity. ERROR: it does not work, or is open to others. SKIPPED: it could not be
# looked at.
ERROR, WARNING, OK, SKIPPED = "error", "warning", "ok", "skipped"

KEY_ENDS_SOON_SECONDS = 14 * DAY_SECONDS
# Who renews certificates by machine does so a month before; less than this was forgotten.
CERTIFICATE_ENDS_SOON_SECONDS = 14 * DAY_SECONDS
CLOCK_WRONG_SECONDS = 120.0  # tokens of Entra ID, expiries, and days of budgets go wrong
CLOCK_LATE_SECONDS = 5.0
LITTLE_BYTES, LOW_BYTES = 100_000_000, 1_000_000_000
LARGE_WAL_BYTES = 256_000_000
SHORT_KEY_CHARACTERS = 16
EXAMPLE_ADMIN_KEY = "your-admin-api-key"  # in README and docs, where one's own is to stand
PREVIEW_DAYS = 365
NAMED = 10  # instances in one finding
# Where a worker has the key for secrets: in its file; read before that was lost; nowhere.
KEY_THERE, KEY_IN_MEMORY, KEY_GONE = "there", "in memory", "gone"
USUAL_VERSION = "2024-10-21"

_VERSION = re.compile(r"(\d{4})-(\d{2})-(\d{2})(-preview)?", re.ASCII)

# What `verify` looked at, and what mends it.
VERIFY_REMEDIES = {
    "key": "Set its api_key to one of the resource's keys (Azure portal: Keys and Endpoint).",
    "deployment": "Correct supported_models, model_deployments or api_version of it, or make"
    " the deployment there.",
    "identity": "Give the gateway's identity that role, or correct PROXY_ENTRA_*.",
    "connection": "Correct its api_base or proxy_url, or let the gateway through to it.",
    "config": "Mend the reference, or set the secret anew.",
}
# What an upstream that is ill says, however it is configured.
_ILL = re.compile(r"HTTP 5\d\d|broke off|timed out while we waited")
ILL_REMEDY = (
    "The upstream is ill, or slower than its timeout_seconds: see Azure's status page, or ask"
    " its support."
)
RESTORE_NEWEST = ".venv/bin/python scripts/backup_monitor.py restore --newest"
TROUBLE = "README.md tells what is done meanwhile: When the gateway itself is in trouble."


@dataclass(frozen=True, slots=True)
class Finding:
    """`area` is what was looked at; `remedy` what a person should do, where there is something
    to do."""

    area: str
    severity: str
    what: str
    remedy: str = ""


def well(area: str, what: str) -> Finding:
    return Finding(area, OK, what)


def skipped(area: str, what: str) -> Finding:
    return Finding(area, SKIPPED, what)


def has_error(found: Iterable[Finding]) -> bool:
    return any(f.severity == ERROR for f in found)


def summary(found: Iterable[Finding]) -> str:
    """`1 error, 2 warnings.`"""
    counts = Counter(f.severity for f in found)
    said = [
        f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in (ERROR, WARNING) if counts[s]
    ]
    if not said:
        said = ["Nothing is wrong"]
    if counts[SKIPPED]:
        said.append(f"{counts[SKIPPED]} not looked at")
    return f"{', '.join(said)}."


# Settings.


def can_be_guessed(admin_key: str) -> bool:
    return 0 < len(admin_key) < SHORT_KEY_CHARACTERS or admin_key.lower() == EXAMPLE_ADMIN_KEY


def of_admins(first_key: str, admins: int) -> Finding:
    if not first_key and not admins:
        return Finding(
            "settings",
            WARNING,
            "Nobody can use the admin API: there is no admin key.",
            "Make one: flask admins add NAME --role admin.",
        )
    if can_be_guessed(first_key):
        return Finding(
            "settings",
            ERROR,
            "ADMIN_API_KEY is short or stands in the documentation, and can be guessed.",
            "Choose a long random one: openssl rand -hex 32.",
        )
    return well("settings", "The settings can be used.")


def of_client_auth(client_auth: str, bind: str, keys: int) -> Iterator[Finding]:
    if client_auth == "off":
        is_open = bind not in ("127.0.0.1", "::1", "localhost")
        yield Finding(
            "settings",
            ERROR if is_open else WARNING,
            f"PROXY_CLIENT_AUTH=off: whoever reaches {bind} may use instances at your cost.",
            "Set it to key, and make keys: flask keys add NAME.",
        )
    elif not keys:
        yield Finding(
            "settings",
            WARNING,
            "No client has a key: nobody can make requests.",
            "Make one: flask keys add NAME.",
        )


def of_instances(total: int, enabled: int) -> Finding:
    if enabled:
        return well("instances", f"{enabled} of {total} instances are enabled.")
    remedy = "flask instances enable NAME." if total else "Add one: README, First steps."
    what = "No instance is enabled" if total else "There is no instance"
    return Finding("instances", ERROR, f"{what}: nobody can be served.", remedy)


def of_open_files(allowed: int, needed: int, threads: int) -> Finding:
    if allowed >= needed:
        return well("files", f"A process may open {allowed:,} files; {needed:,} are enough.")
    return Finding(
        "files",
        WARNING,
        f"A process may open {allowed:,} files; for PROXY_THREADS={threads} a worker may need"
        f" {needed:,}.",
        "Raise the limit (ulimit -Hn, or LimitNOFILE= in systemd), or lower PROXY_THREADS.",
    )


# The host.


def of_disk(folder: str, free_bytes: int) -> Finding:
    free = f"{free_bytes / 1e9:.1f} GB are free in {folder}."
    remedy = "Make room: what the gateway wrote there does not shrink by itself."
    if free_bytes < LITTLE_BYTES:
        return Finding(
            "disk", ERROR, f"Only {free_bytes / 1e6:.0f} MB free in {folder}.", remedy
        )
    if free_bytes < LOW_BYTES:
        return Finding("disk", WARNING, free, remedy)
    return well("disk", free)


def of_exposed(paths: Sequence[str]) -> Iterator[Finding]:
    for path in paths:
        yield Finding(
            "files", ERROR, f"{path} can be read by others than its owner.", f"chmod 600 {path}"
        )
    if not paths:
        yield well("files", "Nobody else can read the database, its keys or .env.")


def of_clock(offsets_seconds: Sequence[float]) -> Finding:
    """How far upstreams are ahead of our clock, each."""
    if not offsets_seconds:
        return skipped("clock", "No upstream told the time.")
    # Of several one may be wrong itself.
    offset = median(offsets_seconds)
    how = (
        f"The clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} upstreams'."
    )
    if abs(offset) < CLOCK_LATE_SECONDS:
        return well("clock", "The clock agrees with upstreams'.")
    severity = ERROR if abs(offset) >= CLOCK_WRONG_SECONDS else WARNING
    return Finding("clock", severity, how, "Let the host follow a time server (NTP).")


# The database.


def of_database(
    journal_mode: str, damage: str | None, size_bytes: int, wal_bytes: int
) -> Iterator[Finding]:
    """Of one with our schema that can be written. `journal_mode` "" is no SQLite database."""
    size = f"{size_bytes / 1e6:.1f} MB" if journal_mode else "no SQLite file"
    if damage is not None:
        yield Finding(
            "database",
            ERROR,
            f"It is damaged: {damage}.",
            f"Stop the gateway, then {RESTORE_NEWEST}",
        )
    if journal_mode not in ("", "wal"):
        yield Finding(
            "database",
            WARNING,
            f"Its journal mode is {journal_mode}: readers wait for writers.",
            "Start the gateway: it sets WAL. If it stays so, the file system does not allow it"
            " (network drives); move the database to a local disk.",
        )
    if wal_bytes > LARGE_WAL_BYTES:
        yield Finding(
            "database",
            WARNING,
            f"Its write-ahead log has {wal_bytes / 1e6:.0f} MB: a reader never ends.",
            "Stop what else has the database open.",
        )
    if damage is None and journal_mode in ("", "wal") and wal_bytes <= LARGE_WAL_BYTES:
        yield well("database", f"Schema and file are as they should be ({size}).")


def of_secrets(
    problem: str | None, sealed: int, behind: int, unopened: Sequence[str]
) -> Iterator[Finding]:
    if problem is not None:
        yield Finding(
            "secrets", ERROR, f"No secret can be stored: {problem}.", "Put the key back."
        )
    if unopened:
        shown = "; ".join(unopened[:3])
        more = f"; and {len(unopened) - 3} more" if len(unopened) > 3 else ""
        yield Finding(
            "secrets",
            ERROR,
            f"{len(unopened)} secrets cannot be decrypted: {shown}{more}.",
            "Put the right PROXY_SECRET_KEY, or its file, back; or set them anew.",
        )
    if behind:
        yield Finding(
            "secrets",
            WARNING,
            f"{behind} secrets are not encrypted with the first key.",
            "flask secrets rotate finishes that.",
        )
    if problem is None and not unopened:
        yield well("secrets", f"All {sealed} secrets can be decrypted.")


def of_lost_key(problem: str, unopened: int) -> Finding:
    """Of the key for secrets while workers that have it in memory go on."""
    return Finding(
        "secrets",
        ERROR,
        f"The key for secrets is gone: {problem}. The gateway that runs still has it in memory"
        " and goes on, but can store no secret. Started anew it could read none of the"
        f" {unopened} that there are: instances would be out of service, and no client's or"
        " admin's key could be checked.",
        "Put your copy of it back there before the gateway is started anew: with chmod 600, and"
        " the gateway's user as its owner. If no copy is left: README, Secrets.",
    )


def of_hidden_key(problem: str) -> Finding:
    """Of one that the gateway can read, and this command cannot."""
    return Finding(
        "secrets",
        WARNING,
        f"This command cannot read the key for secrets: {problem}. The gateway that runs can.",
        "Run this as the gateway's user and with its environment.",
    )


def of_not_asked(names: Sequence[str], *, serves: bool) -> Iterator[Finding]:
    """Of instances whose secrets this command lacks for want of the key. `serves`: the gateway
    that runs has all in service; else some are not, and which is not known."""
    if names:
        begin = "In service, but not asked" if serves else "In service or not, and not asked"
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield skipped(
            "instances",
            f"{begin} by this command, which cannot read their secrets:"
            f" {', '.join(sorted(names)[:NAMED])}{more}.",
        )


def of_references(problems: Mapping[str, str], *, serves: bool = False) -> Iterator[Finding]:
    """Of instances by name, as commands see them. `serves`: the gateway that runs has them in
    service."""
    if serves:
        for name, problem in sorted(problems.items()):
            yield Finding(
                "secrets",
                WARNING,
                f"Instance {name} is in service, but would not be with what this command finds:"
                f" {problem}",
                "Run this as the gateway's user and with its environment; if it says the same,"
                " mend it before the gateway is started anew.",
            )
        return
    for name, problem in sorted(problems.items()):
        yield Finding(
            "secrets",
            ERROR,
            f"Instance {name} is out of service: {problem}",
            "Run this as the gateway's user and with its environment; then as it says.",
        )


def of_ill(standings: Mapping[str, str]) -> Iterator[Finding]:
    """Of instances by name how they stand, of those that workers leave alone for an error."""
    for name, stands in sorted(standings.items()):
        yield Finding(
            "instances",
            WARNING,
            f"{name} is left alone now: {stands}.",
            f"When it is mended: flask instances verify {shlex.quote(name)}; what is well"
            " is asked again at once.",
        )


def of_variables(names: Iterable[str]) -> Iterator[Finding]:
    """Of instances whose key was to be replaced by a shell, or by an older program."""
    for name in names:
        yield Finding(
            "secrets",
            WARNING,
            f"The key of {name} names a variable that nothing replaced, and is sent as it is"
            " written.",
            "Set its api_key: to the key, or to env:NAME.",
        )


def of_expiries(ends: Iterable[tuple[str, str, float | None]], now: float) -> Iterator[Finding]:
    """Of each key whose it is ("client" or "admin"), the name, and when it expires."""
    is_well = True
    for whose, name, expires_at in ends:
        if expires_at is None or expires_at - now > KEY_ENDS_SOON_SECONDS:
            continue
        is_well = False
        left = expires_at - now
        what = "has expired" if left <= 0 else f"expires in {_days(left)}"
        group = "keys" if whose == "client" else "admins"
        remedy = f"flask {group} change --expires 90d -- {shlex.quote(name)}; or remove it."
        yield Finding("keys", WARNING, f"The key of {whose} {name} {what}.", remedy)
    if is_well:
        yield well("keys", f"None expires within {_days(KEY_ENDS_SOON_SECONDS)}.")


# Running workers.


def key_of(answers: Iterable[Mapping[str, Any] | None]) -> str | None:
    """Where the workers have the key for secrets, the worst that any says; None: none does."""
    said = {each.get("secret_key") for each in answers if each is not None}
    return next((k for k in (KEY_GONE, KEY_IN_MEMORY, KEY_THERE) if k in said), None)


def serves_all(answers: Iterable[Mapping[str, Any] | None], but: int = 0) -> bool:
    """Whoever answered has all instances in service that are enabled, `but` for so many; false
    if nobody did."""
    counts = [each.get("out_of_service") for each in answers if each is not None]
    return bool(counts) and all(count is not None and count <= but for count in counts)


def of_gateway(address: str, answers: Sequence[Mapping[str, Any] | None]) -> Iterator[Finding]:
    """What `/health` said, each time; None where nobody answered."""
    heard = [each for each in answers if each is not None]
    if not heard:
        yield skipped("gateway", f"No gateway answers at {address}: start one, or set PORT.")
        return
    if len(heard) < len(answers):
        yield Finding(
            "gateway",
            ERROR,
            f"Of {len(answers)} questions at {address}, {len(answers) - len(heard)} had no"
            " answer in time.",
            "A worker is stuck or has no thread left: see its log; docs/tuning.md.",
        )
    problems = sorted({str(each["problem"]) for each in heard if each.get("problem")})
    for problem in problems:
        yield Finding("gateway", ERROR, f"A worker says: {problem}", TROUBLE)
    if len(heard) == len(answers) and not problems:
        yield well("gateway", f"It runs at {address}, and its workers are up to date.")


# Upstreams.


def of_api_versions(
    versions: Sequence[tuple[str, str]], today: tuple[int, int, int]
) -> Iterator[Finding]:
    """Of instances by name, those with Azure's classic API: others need none."""
    told = [(name, version, _is_wrong(version, today)) for name, version in versions]
    for name, version, why in told:
        if why:
            yield Finding(
                "api-version",
                WARNING,
                f"{name}: api_version {version} {why}.",
                f"Set api_version of {name} to {USUAL_VERSION} or later.",
            )
    if told and not any(why for _, _, why in told):
        yield well("api-version", f"Those of {len(told)} instances are recent enough.")


def _is_wrong(version: str, today: tuple[int, int, int]) -> str | None:
    match = _VERSION.fullmatch(version)
    if match is None:
        return "is none of Azure's, which are dates"
    if version[:10] <= LAST_WITHOUT_STREAM_OPTIONS:
        return "is so old that streams do not tell their tokens: these are estimated"
    if match[4] and _age_days(match, today) > PREVIEW_DAYS:
        return "is a preview of more than a year ago, which Azure retires"
    return None


def of_host(
    host: str, problem: str | None, *, area: str, certificate_until: float | None, now: float
) -> Finding:
    """`area` is where the problem is, or how far it was looked at: "dns", "tls" or
    "connection"."""
    if problem is not None:
        remedies = {
            "dns": "Correct api_base, or the host's resolver (/etc/resolv.conf).",
            "tls": "Renew the certificate; or set PROXY_CA_BUNDLE to who signed it.",
            "connection": VERIFY_REMEDIES["connection"],
        }
        return Finding(area, ERROR, f"{host}: {problem}.", remedies[area])
    if certificate_until is None:
        return well(area, f"{host} can be reached, without TLS.")
    left = certificate_until - now
    if left < CERTIFICATE_ENDS_SOON_SECONDS:
        return Finding(
            "tls", WARNING, f"{host}: its certificate expires in {_days(left)}.", "Renew it."
        )
    return well("tls", f"{host}: its certificate is good for {_days(left)}.")


def of_check(name: str, check: str, *, ok: bool, detail: str, model: str | None) -> Finding:
    """One that `verify` made."""
    what = f"{name}{f', {model}' if model else ''}: {detail}"
    if ok:
        return well("instances", what)
    if check == "deployment" and model is None:  # none was tried
        return skipped("instances", what)
    remedy = ILL_REMEDY if _ILL.search(detail) else VERIFY_REMEDIES.get(check, "")
    return Finding("instances", ERROR, what, remedy)


def late(area: str, label: str, seconds: float) -> Finding:
    """Of what was given up."""
    return Finding(
        area,
        WARNING,
        f"{label}: it took longer than {seconds:.0f} s.",
        "Give more time with --seconds, or see why it is slow.",
    )


def _days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return f"{days} days" if days > 1 else countdown(max(seconds, 0.0))


def _age_days(match: "re.Match[str]", today: tuple[int, int, int]) -> int:
    """About, which is enough for years."""
    year, month, day = today
    return (year - int(match[1])) * 365 + (month - int(match[2])) * 30 + (day - int(match[3]))
