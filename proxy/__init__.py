"""A gateway in front of many Azure OpenAI instances."""

from proxy import loading

# isort: split
from flask import Flask

from proxy import cli, web
from proxy.context import EXTENSION, Parts
from proxy.core.limiter import Peers
from proxy.core.wrong_keys import LONGEST_WAIT_SECONDS, WrongKeys
from proxy.logs import LogWriter
from proxy.runtime.alerts import Alerts
from proxy.runtime.board import Board
from proxy.runtime.clients import ClientState
from proxy.runtime.config_hand import ConfigHand
from proxy.runtime.draining import Draining
from proxy.runtime.entra import Tokens
from proxy.runtime.estimates import Estimates
from proxy.runtime.fairness import Fairness
from proxy.runtime.forward import Forward
from proxy.runtime.fragments import Fragments
from proxy.runtime.identity import Identity
from proxy.runtime.kept_stream import KeptStreams
from proxy.runtime.key_watch import KeyWatch
from proxy.runtime.least_connections import LeastConnections
from proxy.runtime.metrics import Metrics
from proxy.runtime.open_calls import OpenCalls
from proxy.runtime.operator import OperatorHand
from proxy.runtime.recent import Recent
from proxy.runtime.references import References
from proxy.runtime.roster import Roster
from proxy.runtime.shared_counts import SharedCounts
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.streams import Streams
from proxy.runtime.syncer import Syncer
from proxy.runtime.traces import Traces
from proxy.runtime.turnstile import Turnstile
from proxy.runtime.upstream import Upstream
from proxy.settings import INSTANCE_FOLDER, ROOT, Settings, environment, load_settings
from proxy.store.db import Database
from proxy.store.vault import Vault
from proxy.web.app import Gateway

__version__ = "0.1.0"

# Beyond two for each worker, which a reload needs: for those that an operator adds by signals.
MORE_ROWS = 8


def create_app(settings: Settings | None = None) -> Flask:
    """The composition root: the only function that knows all parts.

    Connects to nothing and starts nothing; `Parts.start` does. Raises SettingError.
    """
    settings = settings or load_settings()
    app = Gateway("proxy", instance_path=str(INSTANCE_FOLDER))
    app.extensions[EXTENSION] = make_parts(settings)
    web.register(app, version=__version__)
    cli.register(app)
    return app


def make_parts(settings: Settings) -> Parts:
    vault = Vault(settings.secret_key, settings.secret_key_file)
    database = Database(settings.database_url, vault)
    tokens = Tokens(
        Identity(
            settings.entra_credential,
            settings.entra_client_id,
            settings.entra_scope,
            settings.ca_bundle,
        )
    )
    ours = [vault.path, database.file, ROOT / ".env"]
    references = References(environment(), tuple(path for path in ours if path is not None))
    snapshots = Snapshots(database, references, tokens)
    state = State(peers=Peers(settings.workers - 1, settings.sync_interval_seconds))
    rows = 2 * settings.workers + MORE_ROWS
    clients, board = ClientState(SharedCounts(rows)), Board(rows)
    recent = Recent(rows)
    turnstile = Turnstile()
    open_calls = OpenCalls(settings.threads, before_wait=turnstile.leave)
    estimates = Estimates()
    upstream = Upstream(
        connections=settings.threads,
        connect_timeout_seconds=settings.connect_timeout_ms / 1000,
        ca_bundle=settings.ca_bundle,
        allow_private=settings.allow_private_upstreams,
        tokens=tokens,
    )
    alerts = Alerts(
        upstream, url=settings.alert_webhook_url, form=settings.alert_format, rows=rows
    )
    forward = Forward(
        snapshots,
        state,
        upstream,
        policy=settings.policy,
        max_wait_seconds=settings.max_wait_ms / 1000,
        waiting_places=settings.max_waiting,
        stream_idle_seconds=settings.stream_idle_seconds,
        estimates=estimates,
        fairness=Fairness(board),
    )
    syncer = Syncer(
        database,
        state,
        snapshots,
        clients,
        interval_seconds=settings.sync_interval_seconds,
        kept=settings.usage_kept,
    )
    traces = None
    if settings.traces:
        traces = Traces(
            version=__version__,
            propagates=settings.traces_propagate,
            config_of=lambda name: snapshots.current.configs.get(name),
        )
    roster = Roster(
        rows,
        calls=open_calls,
        waiting=forward.waiting,
        syncer=syncer,
        snapshots=snapshots,
        state=state,
    )
    return Parts(
        settings=settings,
        database=database,
        snapshots=snapshots,
        state=state,
        clients=clients,
        upstream=upstream,
        tokens=tokens,
        estimates=estimates,
        board=board,
        least_connections=LeastConnections(rows),
        forward=forward,
        operator=OperatorHand(database, state),
        config_hand=ConfigHand(database, state, snapshots),
        admin_key_watch=KeyWatch(WrongKeys()),
        # Nobody guesses 256 random bits, so no client is turned away for it; but one line a
        # minute says whose key was forgotten, and keeps a broken client from filling the log.
        client_key_watch=KeyWatch(WrongKeys(free=1, first_wait_seconds=LONGEST_WAIT_SECONDS)),
        turnstile=turnstile,
        open_calls=open_calls,
        streams=Streams(),
        kept_streams=KeptStreams(),
        draining=Draining(),
        fragments=Fragments(),
        syncer=syncer,
        roster=roster,
        metrics=Metrics(
            version=__version__,
            workers=settings.workers,
            most_clients=settings.metrics_clients,
            database=database,
            snapshots=snapshots,
            state=state,
            clients=clients,
            roster=roster,
        ),
        recent=recent,
        alerts=alerts,
        traces=traces,
        log_writer=LogWriter(
            settings, recent, alerts.note, traces.tell if traces is not None else None
        ),
    )


loading.is_over()
