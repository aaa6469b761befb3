"""What an operator sets about the proxy: one table, read once, strict at start.

A value comes from the environment, else from the file `.env` in the project's root,
else from the default. An unknown PROXY_* name is an error: a misspelt setting would
otherwise silently have no effect.
"""

import base64
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from proxy.core import addresses
from proxy.core.alerts import FORMATS
from proxy.core.days import DAY_SECONDS
from proxy.core.routing import POLICIES
from proxy.core.sources import Network, networks
from proxy.core.spelling import did_you_mean
from proxy.core.usage import Kept

ROOT = Path(__file__).resolve().parent.parent
INSTANCE_FOLDER = ROOT / "instance"
DEFAULT_DATABASE_URL = "sqlite:///instance/proxy.db"
ON, OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class SettingError(ValueError):
    """One line: which setting, what it holds, what is allowed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` turns text into the value or raises ValueError; `allowed` says what it takes.

    `default` is text too, so that the documentation shows what one would write.
    `alias` is an old name that is still read when the new one is not set.
    """

    name: str
    field: str
    default: str
    parse: Callable[[str], Any]
    allowed: str
    help: str
    alias: str | None = None
    secret: bool = False


def _whole(low: int, high: int) -> tuple[Callable[[str], int], str]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse, f"a whole number from {low} to {high}"


def _choice(*names: str) -> tuple[Callable[[str], str], str]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError
        return text.lower()

    return parse, "one of " + ", ".join(names)


def _switch(text: str) -> bool:
    if text.lower() not in (*ON, *OFF):
        raise ValueError
    return text.lower() in ON


def _workers(text: str) -> int:
    return len(os.sched_getaffinity(0)) if text.lower() == "auto" else _whole(1, 64)[0](text)


def _database_url(text: str) -> str:
    if not re.match(r"(sqlite|postgresql)(\+\w+)?://", text):
        raise ValueError
    head, _, path = text.partition(":///")
    if not head.startswith("sqlite") or path.startswith(("file:", "/")):
        return text
    # Of a database in memory each worker, and each of its connections, would have its own.
    if path.partition("?")[0] in ("", ":memory:"):
        raise ValueError
    # Relative to the project, not to wherever the command happened to be started.
    return f"{head}:///{ROOT / path}"


def _fernet_keys(text: str) -> tuple[str, ...]:
    """Each as cryptography's Fernet takes it: 32 bytes in URL-safe base64."""
    keys = tuple(text.split())
    for key in keys:
        if len(key) != 44 or len(base64.b64decode(key, altchars="-_", validate=True)) != 32:
            raise ValueError
    return keys


def _file(text: str) -> Path:
    return ROOT / text


def _folder(text: str) -> Path | None:
    return ROOT / text if text else None


def _certificates(text: str) -> Path | None:
    path = ROOT / text if text else None
    if path is not None:
        try:
            ssl.create_default_context(cafile=path)
        except OSError:  # also ssl's own
            raise ValueError from None
    return path


def _client_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{0,100}", text):
        raise ValueError
    return text


def _scope(text: str) -> str:
    if not re.fullmatch(r"https://[A-Za-z0-9.-]+/\.default", text):
        raise ValueError
    return text


def _existing(text: str) -> Path | None:
    path = ROOT / text if text else None
    if path is not None and not path.exists():
        raise ValueError
    return path


def _webhook(text: str) -> str:
    """Its path mostly is a secret: whoever knows it may write there."""
    parts = urlsplit(text)
    host = parts.hostname or ""
    if text and (parts.scheme not in ("http", "https") or not host or addresses.refused(host)):
        raise ValueError
    return text


def _networks(text: str) -> tuple[Network, ...]:
    return networks(re.findall(r"[^\s,]+", text))


def _networks_or_none(text: str) -> tuple[Network, ...]:
    return () if text.lower() == "none" else _networks(text)


def _token(text: str) -> str:
    # As long as one that is made by chance, in printable ASCII as headers have it.
    if text and not re.fullmatch(r"[!-~]{16,}", text):
        raise ValueError
    return text


_ANY = (str, "any text")
_SWITCH = (_switch, f"one of {', '.join((*ON, *OFF))}")
_FOLDER = (_folder, "a folder, or nothing")

# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("ADMIN_API_KEY", "admin_api_key", "", *_ANY,
            "First key of the admin API, sent as `X-Admin-API-Key`; it may do everything."
            " Empty: open to admin keys alone, closed while there is none.",
            secret=True),
    Setting("PROXY_SECRET_KEY", "secret_key", "", _fernet_keys,
            "keys made by `flask secrets key`, with a space between each and the next",
            "Encrypts the secrets in the database. Of several keys the first encrypts and each"
            " decrypts. Empty: PROXY_SECRET_KEY_FILE is used.", secret=True),
    Setting("PROXY_SECRET_KEY_FILE", "secret_key_file", "instance/secret.key", _file,
            "a file",
            "Holds the keys instead, a line each; made with a first one where there is none."),
    Setting("PORT", "port", "8000", *_whole(1, 65535), "TCP port to listen on."),
    Setting("PROXY_BIND", "bind", "127.0.0.1", *_ANY,
            "Address to listen on; `0.0.0.0` for all. TLS belongs in front of it."),
    Setting("PROXY_DATABASE_URL", "database_url", DEFAULT_DATABASE_URL, _database_url,
            "a URL of SQLite or PostgreSQL, such as sqlite:///instance/proxy.db",
            "Where config, state and usage are kept. Relative paths start at the project.",
            secret=True),
    Setting("PROXY_WORKERS", "workers", "auto", _workers,
            "auto, or a whole number from 1 to 64",
            "Worker processes; `auto` is one for each core."),
    Setting("PROXY_THREADS", "threads", "512", *_whole(1, 10000),
            "Calls that a worker can hold open, and threads it may have for them."),
    Setting("PROXY_CPU_AFFINITY", "cpu_affinity", "true", *_SWITCH,
            "Whether each worker stays on its own share of the cores: with one for each core,"
            " on one."),
    Setting("PROXY_SYNC_INTERVAL_MS", "sync_interval_ms", "200", *_whole(10, 60000),
            "How often a worker writes its counts, and reads others' and new config, in ms."),
    Setting("PROXY_CLIENT_AUTH", "client_auth", "key", *_choice("key", "off"),
            "`key`: clients need a key. `off`: everybody may call; for trusted networks only."),
    Setting("PROXY_TRUSTED_PROXIES", "trusted_proxies", "", _networks,
            "addresses and networks such as 10.0.0.0/8, with a comma between each and the next",
            "Proxies in front of the gateway that are believed when they say in"
            " `X-Forwarded-For` whom they speak for. Empty: none is."),
    Setting("PROXY_POLICY", "policy", "failover", *_choice(*POLICIES),
            "In which order instances are tried."),
    Setting("PROXY_MAX_BODY_BYTES", "max_body_bytes", "67108864", *_whole(1024, 2**31),
            "Largest request body, in bytes; more is answered with 413."),
    Setting("PROXY_ALLOW_PRIVATE_UPSTREAMS", "allow_private_upstreams", "false", *_SWITCH,
            "Whether an instance or its proxy may have a link-local or metadata address, such"
            " as 169.254.169.254. No other, whatever its name says: loopback and private"
            " networks (10.0.0.5) are always allowed."),
    Setting("PROXY_CONNECT_TIMEOUT_MS", "connect_timeout_ms", "5000", *_whole(1, 600000),
            "Longest wait for a connection to an instance, in ms."),
    Setting("PROXY_STREAM_IDLE_SECONDS", "stream_idle_seconds", "60", *_whole(1, 3600),
            "Longest silence of a stream that has begun, in seconds; then it is broken off."),
    Setting("PROXY_DEADLINE_SECONDS", "deadline_seconds", "3600", *_whole(1, 86400),
            "Longest time of a call in all, tries and waiting included, in seconds. A client"
            " may ask for less with the header `x-request-timeout-ms`. A stream that is silent"
            " then ends up to half a second later."),
    Setting("PROXY_MAX_WAIT_MS", "max_wait_ms", "2000", *_whole(0, 600000),
            "How long a call waits for an instance that will have room by then, in ms; else it"
            " is answered at once with 429 and when to come back."),
    Setting("PROXY_MAX_WAITING", "max_waiting", "100", *_whole(0, 10000),
            "How many calls of a worker may wait at a time."),
    Setting("PROXY_DRAIN_SECONDS", "drain_seconds", "1", *_whole(0, 600),
            "How long after SIGTERM `/ready` says 503 before connections are refused, in"
            " seconds: as long as a load balancer takes to notice."),
    Setting("PROXY_GRACEFUL_TIMEOUT_SECONDS", "graceful_timeout_seconds", "30",
            *_whole(1, 3600),
            "How long open answers may go on after SIGTERM, in seconds."),
    Setting("PROXY_USAGE_RETENTION_DAYS", "usage_retention_days", "90", *_whole(1, 3650),
            "How long usage is kept by the hour, in days."),
    Setting("PROXY_USAGE_MINUTES_RETENTION_DAYS", "usage_minutes_retention_days", "2",
            *_whole(1, 3650), "How long usage is kept by the minute, in days; no longer"
            " than by the hour."),
    Setting("PROXY_USAGE_DAYS_RETENTION_DAYS", "usage_days_retention_days", "1100",
            *_whole(1, 36500), "How long usage is kept by the day, in days; at least"
            " as long as by the hour."),
    Setting("PROXY_CA_BUNDLE", "ca_bundle", "", _certificates,
            "a PEM file with certificates, or nothing",
            "Certificate authorities to trust for https instances and Entra ID; empty:"
            " certifi's."),
    Setting("PROXY_ENTRA_CREDENTIAL", "entra_credential", "auto",
            *_choice("auto", "managed_identity", "workload_identity", "client_secret"),
            "Who the gateway is for Entra ID, where an instance has `auth: entra`. `auto`: by"
            " the `AZURE_*` variables of the environment, else the managed identity."),
    Setting("PROXY_ENTRA_CLIENT_ID", "entra_client_id", "", _client_id,
            "the client ID of an identity, or nothing",
            "Which identity, where there are several. Empty: `AZURE_CLIENT_ID`, else the"
            " system-assigned one."),
    Setting("PROXY_ENTRA_SCOPE", "entra_scope",
            "https://cognitiveservices.azure.com/.default", _scope,
            "https://, a host and /.default",
            "What tokens of Entra ID are for; other in a sovereign cloud."),
    Setting("PROXY_LEGACY_PATH", "legacy_path", "", _existing,
            "an existing file or folder, or nothing",
            "Where an older proxy left its files; imported once, by the migration."),
    Setting("PROXY_METRICS_TOKEN", "metrics_token", "", _token,
            "at least 16 printable ASCII characters without space, or nothing",
            "Who sends it as `Authorization: Bearer` may read `/metrics`, from wherever. Empty:"
            " PROXY_METRICS_NETWORKS alone may.", secret=True),
    Setting("PROXY_METRICS_NETWORKS", "metrics_networks", "127.0.0.0/8, ::1",
            _networks_or_none,
            "addresses and networks with a comma between each and the next, or none",
            "From where `/metrics` may be read without a token; through proxies only if they"
            " are in PROXY_TRUSTED_PROXIES."),
    Setting("PROXY_METRICS_CLIENTS", "metrics_clients", "100", *_whole(0, 10000),
            "How many clients `/metrics` tells one by one: those that were made first."),
    Setting("PROXY_LOG_DIR", "log_dir", "", *_FOLDER,
            "Folder of a rotating `proxy.log`, beside stderr. Empty: stderr only."),
    Setting("PROXY_LOG_MAX_BYTES", "log_max_bytes", "10485760", *_whole(10000, 2**31),
            "Size at which `proxy.log` is rotated, in bytes; seven older files are kept."),
    Setting("PROXY_LOG_FORMAT", "log_format", "auto", *_choice("auto", "json", "text"),
            "Of each line. `auto`: text on a terminal, JSON everywhere else."),
    Setting("PROXY_ALERT_WEBHOOK_URL", "alert_webhook_url", "", _webhook,
            "an http or https URL that leads to no metadata service, or nothing",
            "Where alerts are sent: what somebody should hear of now. Empty: nowhere.",
            secret=True),
    Setting("PROXY_ALERT_FORMAT", "alert_format", "generic", *_choice(*FORMATS),
            "In which form: JSON of our own, or as Slack's or Feishu's webhooks take it."),
    Setting("PROXY_TRACES", "traces", "false", *_SWITCH,
            "Whether calls are traced with OpenTelemetry, whose own variables (`OTEL_*`) say"
            " how and where to; needs requirements-otel.txt."),
    Setting("PROXY_TRACES_PROPAGATE", "traces_propagate", "false", *_SWITCH,
            "Whether instances are told of the trace (`traceparent`, `tracestate`), with"
            " PROXY_TRACES."),
    Setting("PROXY_LOG_LEVEL", "log_level", "info",
            *_choice("debug", "info", "warning", "error"),
            "Least level that is logged.", alias="LOG_LEVEL"),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Settings:
    """The values, one field for each row of SETTINGS. Secrets stay out of its repr."""

    admin_api_key: str
    secret_key: tuple[str, ...]
    secret_key_file: Path
    port: int
    bind: str
    database_url: str
    workers: int
    threads: int
    cpu_affinity: bool
    sync_interval_ms: int
    client_auth: str
    trusted_proxies: tuple[Network, ...]
    policy: str
    max_body_bytes: int
    allow_private_upstreams: bool
    connect_timeout_ms: int
    stream_idle_seconds: int
    deadline_seconds: int
    max_wait_ms: int
    max_waiting: int
    drain_seconds: int
    graceful_timeout_seconds: int
    usage_retention_days: int
    usage_minutes_retention_days: int
    usage_days_retention_days: int
    ca_bundle: Path | None
    entra_credential: str
    entra_client_id: str
    entra_scope: str
    legacy_path: Path | None
    metrics_token: str
    metrics_networks: tuple[Network, ...]
    metrics_clients: int
    log_dir: Path | None
    log_max_bytes: int
    log_format: str
    alert_webhook_url: str
    alert_format: str
    traces: bool
    traces_propagate: bool
    log_level: str

    def __repr__(self) -> str:
        shown = (s for s in SETTINGS if not s.secret)
        return f"Settings({', '.join(f'{s.field}={getattr(self, s.field)!r}' for s in shown)})"

    @property
    def sync_interval_seconds(self) -> float:
        return self.sync_interval_ms / 1000

    @property
    def usage_kept(self) -> Kept:
        """What is shorter is never kept longer: reports take for granted that where there are
        minutes there are hours too."""
        minutes, hours = self.usage_minutes_retention_days, self.usage_retention_days
        days = max(self.usage_days_retention_days, hours)
        return Kept(
            minutes=min(minutes, hours) * DAY_SECONDS,
            hours=hours * DAY_SECONDS,
            days=days * DAY_SECONDS,
        )

    @property
    def address(self) -> str:
        """Where a browser or `curl` on this host finds us."""
        host = "127.0.0.1" if self.bind in ("", "0.0.0.0", "::") else self.bind  # nosec B104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def load_settings(
    environ: Mapping[str, str] | None = None, env_file: Path | None = ROOT / ".env"
) -> Settings:
    """The settings of this process. Raises SettingError for the first that cannot be used."""
    values = environment(environ, env_file)
    _refuse_unknown(values)
    return Settings(**{s.field: _value(s, values) for s in SETTINGS})


def environment(
    environ: Mapping[str, str] | None = None, env_file: Path | None = ROOT / ".env"
) -> dict[str, str]:
    """All that is set there, not only what is ours: secrets may be named by references."""
    values: dict[str, str] = {}
    if env_file is not None and env_file.is_file():
        values = _read(env_file)
    values |= os.environ if environ is None else environ
    return values


def _read(env_file: Path) -> dict[str, str]:
    try:
        return {k: v or "" for k, v in dotenv_values(env_file, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingError(f"{env_file} cannot be read: {reason}") from None


def _value(setting: Setting, values: Mapping[str, str]) -> Any:
    # Empty counts as not set: `PROXY_LOG_DIR=` is how people switch something off.
    text = values.get(setting.name, "").strip()
    if not text and setting.alias:
        text = values.get(setting.alias, "").strip()
    text = text or setting.default
    try:
        return setting.parse(text)
    except ValueError:
        given = "its value" if setting.secret else repr(text)
        raise SettingError(
            f"{setting.name}: {given} cannot be used; allowed is {setting.allowed}"
        ) from None


def _refuse_unknown(values: Mapping[str, str]) -> None:
    known = {s.name for s in SETTINGS}
    for name in sorted(values):
        if name.startswith("PROXY_") and name not in known:
            hint = did_you_mean(name, known, likeness=0.75)  # all begin alike
            names = ", ".join(sorted(known))
            raise SettingError(f"{name}: there is no such setting.{hint} Known are {names}")
