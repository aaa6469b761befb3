"""The objects one app is made of, found from a request."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

from flask import current_app

from proxy.logs import LogWriter
from proxy.runtime.alerts import Alerts
from proxy.runtime.board import Board
from proxy.runtime.clients import ClientState
from proxy.runtime.config_hand import ConfigHand
from proxy.runtime.draining import Draining
from proxy.runtime.entra import Tokens
from proxy.runtime.estimates import Estimates
from proxy.runtime.forward import Forward
from proxy.runtime.fragments import Fragments
from proxy.runtime.kept_stream import KeptStreams
from proxy.runtime.key_watch import KeyWatch
from proxy.runtime.least_connections import LeastConnections
from proxy.runtime.metrics import Metrics
from proxy.runtime.open_calls import OpenCalls
from proxy.runtime.operator import OperatorHand
from proxy.runtime.recent import Recent
from proxy.runtime.roster import Roster
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.streams import Streams
from proxy.runtime.syncer import Syncer
from proxy.runtime.tell import tell
from proxy.runtime.traces import Traces
from proxy.runtime.turnstile import Turnstile
from proxy.runtime.upstream import Upstream
from proxy.settings import Settings
from proxy.store.db import Database

EXTENSION = "proxy"
# In which clients are told, when a worker ends, that there is no more of their streams.
FAREWELL_SECONDS = 0.5
LOOK_SECONDS = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """Made by create_app. `start` after the fork, `stop` before the process ends."""

    settings: Settings
    database: Database
    snapshots: Snapshots
    state: State
    clients: ClientState
    upstream: Upstream
    tokens: Tokens
    estimates: Estimates
    board: Board
    least_connections: LeastConnections
    forward: Forward
    operator: OperatorHand
    config_hand: ConfigHand
    admin_key_watch: KeyWatch
    client_key_watch: KeyWatch
    turnstile: Turnstile
    open_calls: OpenCalls
    streams: Streams
    kept_streams: KeptStreams
    draining: Draining
    fragments: Fragments
    syncer: Syncer
    recent: Recent
    alerts: Alerts
    roster: Roster
    metrics: Metrics
    traces: Traces | None
    log_writer: LogWriter

    def start(self) -> None:
        self.log_writer.start()
        if self.traces is not None:
            self.traces.start()
        tell(logger, "worker_started", "a worker is ready")
        self.forward.start()
        self.tokens.start()
        self.clients.begin()
        self.syncer.start()
        self.open_calls.start()
        self.streams.start()
        self.upstream.start()
        self.alerts.start()
        self.roster.start()

    def stop(self) -> int:
        """How many calls were still open: they are counted as they stand. Idempotent.

        Order matters: what is stopped last may still be used by the others.
        """
        with ExitStack() as steps:  # the last that is pushed is the first; each whatever fails
            # It may wait for an endpoint that does not answer, when all else is done.
            steps.callback(self.tokens.stop)
            if self.traces is not None:
                steps.callback(self.traces.stop)
            steps.callback(self.log_writer.stop)
            steps.callback(self.database.dispose)
            steps.callback(self.upstream.close)
            steps.callback(self.alerts.stop)
            steps.callback(self.syncer.stop)
            steps.callback(self.roster.stop)
            self.open_calls.stop()
            until = time.monotonic() + FAREWELL_SECONDS
            taken_up = self.kept_streams.break_off()
            cut_off = self.forward.end_open(FAREWELL_SECONDS) + taken_up
            while cut_off and self._is_busy() and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
            self.streams.stop()
            if self.log_writer.is_started:
                said = "the worker ends; %d calls were still open"
                tell(logger, "worker_stopped", said, cut_off, cut_off=cut_off)
            return cut_off

    def _is_busy(self) -> bool:
        """A thread of the server's has something to do, such as to write a client's answer."""
        return self.roster.threads is not None and self.roster.threads.busy > 0


def parts() -> Parts:
    """Those of the app that handles the present request or command."""
    # As werkzeug's proxies give it at once; by their attributes they look for it longer.
    app = cast(Any, current_app)._get_current_object()
    return cast(Parts, app.extensions[EXTENSION])
