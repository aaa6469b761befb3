"""How gunicorn runs us: `gunicorn -c python:proxy.gunicorn_conf wsgi:app`."""

import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from proxy.context import EXTENSION, Parts
from proxy.runtime import cpu_affinity, large_memory, open_files
from proxy.runtime.log_forms import JSON, form_of_stderr
from proxy.runtime.tell import tell
from proxy.server.worker import Worker
from proxy.settings import ROOT, SettingError, load_settings
from proxy.start import greeting
from proxy.store import damage, schema

try:
    _settings = load_settings()
except SettingError as error:
    sys.exit(str(error))

chdir = str(ROOT)
bind = f"{f'[{_settings.bind}]' if ':' in _settings.bind else _settings.bind}:{_settings.port}"
workers = _settings.workers
worker_class = "proxy.server.worker.Worker"
# Beyond those that calls may take, some for health checks, the admin API, and for telling the
# next client that there is no place.
KEPT_THREADS = 16
threads = _settings.threads + KEPT_THREADS
worker_connections = open_files.connections(_settings.threads, open_files.allow_all())
backlog = 2048
# The app is made once and forked, so that workers share its memory.
preload_app = True
# Longer than clients keep idle connections (httpx: 5 s, requests: until the server's end),
# so that it is not us who closes one just as a request goes out on it.
keepalive = 75
# Of a worker's main loop, which only waits and accepts; requests have their own timeouts.
timeout = 60
# Workers stop after the setting (post_worker_init); the parent kills them after this, so that
# they have time to write what they counted.
FLUSH_SECONDS = 5
DRAIN_STEP_SECONDS = 0.05
graceful_timeout = _settings.graceful_timeout_seconds + FLUSH_SECONDS
# The heartbeat's file: on a disk it would write to the journal every second.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nosec B108
# It would be a second way to command us, without a key.
control_socket_disable = True
# Of a request's head. A line: the longest model's name, percent-encoded, and a query. Headers:
# twice as many as a client behind three proxies has, and each as long as a token of Entra ID
# with many groups. core/request_head.py bounds all of it together.
limit_request_line = 4_094
limit_request_fields = 100
limit_request_field_size = 8_190
# What a client may say of itself as a proxy would: nothing. By default whoever connects from
# this host may name our path (SCRIPT_NAME) and scheme, and so may all behind a proxy there.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# `X_Admin_API_Key` is not `X-Admin-API-Key`, though WSGI calls both the same; nor are these.
header_map = "drop"
strip_header_spaces = False
permit_obsolete_folding = False


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own lines, in the form of ours."""

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        is_json = form_of_stderr(_settings) is JSON
        super()._set_handler(log, output, JSON if is_json else fmt, stream)


logger_class = ServerLog
accesslog = None  # we write our own line for each request
loglevel = _settings.log_level
proc_name = "azure-openai-gateway"

NO_TLS = "certfile, keyfile: TLS belongs to a server in front (nginx, Caddy); leave them out."

# A thread that waits for the interpreter wakes so often to ask for it: by default every 5 ms.
# Of hundreds whose answers come at once most would only wake and wake. Who has it gives it
# back wherever it waits, so nobody waits so long for anything but arithmetic.
SWITCH_SECONDS = 0.05

# A call leaves nothing in a circle, and whatever else is asked (the admin API, the console)
# little: new objects are looked through rarely, and old ones hardly ever.
GC_THRESHOLDS = (20_000, 20, 100)

KILLED = "it was killed, perhaps for want of memory"
LATE = "it had not ended when the gateway's time to do so was over"
STUCK = f"it did not answer for {timeout} s"

logger = logging.getLogger(__name__)


def on_starting(server: Arbiter) -> None:
    """However gunicorn was started: what cannot work stops it here, with a sentence."""
    if server.cfg.is_ssl:
        sys.exit(NO_TLS)
    large_memory.give_back()
    parts = _parts(server.app.wsgi())
    server.stop = partial(_stop, server, server.stop, parts)
    server.reload = partial(_reload, server.reload, parts)
    try:
        parts.log_writer.check()
        if parts.traces is not None:
            parts.traces.check()
        damage.set_aside_if_damaged(parts.database)
        schema.check(parts.database)
    except (SettingError, schema.SchemaProblem) as problem:
        sys.exit(str(problem))
    parts.log_writer.greet(greeting(parts))
    # As while modules are loaded: all that is read stays, and is never looked through.
    gc.disable()
    parts.snapshots.prepare()
    gc.freeze()
    gc.enable()
    parts.database.dispose()  # its connections must not cross the fork


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """In the parent: the next worker's row of what all workers share, and its cores."""
    by_age = sorted(server.WORKERS.values(), key=lambda each: each.age)
    numbers = [each.number for each in by_age]
    worker.number = cpu_affinity.free_number(numbers, workers)
    parts = _parts(server.app.wsgi())
    row = parts.clients.counts.take_row(worker.age)
    parts.board.use_row(row)
    parts.least_connections.use_row(row)
    parts.recent.use_row(row)
    parts.alerts.use_row(row)
    parts.roster.use_row(row)


def post_fork(server: Arbiter, worker: Worker) -> None:
    """Before the worker has any other thread."""
    if _settings.cpu_affinity:
        cores = os.sched_getaffinity(0)
        _parts(server.app.wsgi()).streams.cores = cores
        cpu_affinity.run_on(cpu_affinity.share(cores, worker.number, workers))


def child_exit(server: Arbiter, worker: Worker) -> None:
    """In the parent, however the worker ended: what it held is free. One that was killed could
    not say so itself."""
    parts = _parts(server.app.wsgi())
    row = parts.clients.counts.free_row(worker.age)
    last = None
    if row is not None:
        last = parts.roster.free_row(row)
        parts.least_connections.free_row(row)
    if not worker.was_killed:
        return
    parts.alerts.use_row(row)  # nobody else writes there now
    why = LATE if parts.draining.has_begun else STUCK if worker.aborted else KILLED
    calls = last.calls_open if last is not None else None
    besides = "" if calls is None else f", with about {calls} calls"
    said = f"a worker (pid {worker.pid}) is gone{besides}: {why}"
    _tell(parts, "worker_killed", said, worker_pid=worker.pid, why=why, calls=calls)


def post_worker_init(worker: Worker) -> None:
    """Threads do not survive a fork, so they start here and not in the parent."""
    # What was made before the fork lives as long as we do; not looking at it again keeps
    # its memory shared.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)
    worker.cfg.set("graceful_timeout", _settings.graceful_timeout_seconds)
    _parts(worker.app.wsgi()).start()


def worker_exit(server: Arbiter, worker: Worker) -> None:
    """After the last answer of a worker that was told to end (SIGTERM), or at once (Ctrl-C).

    What is counted is written. Python would wait for the threads of answers that are still
    open, for as long as their upstreams like.
    """
    cut_off = _parts(worker.app.wsgi()).stop()
    worker.note_end()
    if cut_off:
        sys.stderr.flush()
        os._exit(0)


def _stop(
    server: Arbiter, stop: Callable[[bool], None], parts: Parts, graceful: bool = True
) -> None:
    """SIGTERM: for a while everything is served as before, but `/ready` says that it will not
    be, so that load balancers look elsewhere; only then connections are refused. A second
    signal ends that while."""
    is_first = not parts.draining.has_begun
    parts.draining.begin()
    if graceful and is_first:
        ends_at = time.monotonic() + _settings.drain_seconds
        while time.monotonic() < ends_at and server.SIG_QUEUE.empty():
            time.sleep(DRAIN_STEP_SECONDS)
    stop(graceful)


def _reload(reload: Callable[[], None], parts: Parts) -> None:
    """SIGHUP. While the database cannot be read the next workers would have no config, and
    answer 503: so those that run stay."""
    try:
        schema.check(parts.database, writes=False)
    except schema.SchemaProblem as problem:
        said = f"SIGHUP: no worker is replaced, as the next one could read no config. {problem}"
        _tell(parts, "not_reloaded", said, why=str(problem))
        return
    finally:
        parts.database.dispose()  # its connections must not cross the fork
    reload()


def _tell(parts: Parts, event: str, said: str, **fields: Any) -> None:
    """In the parent, which has no thread that writes."""
    try:
        with parts.log_writer.at_once():
            tell(logger, event, said, **fields)
    except OSError as error:
        sys.stderr.write(f"{said}; the log's file cannot be written: {error}\n")


def _parts(app: Flask) -> Parts:
    parts: Parts = app.extensions[EXTENSION]
    return parts
