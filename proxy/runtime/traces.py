"""Traces of calls, if they are asked for: what there is of them without OpenTelemetry's
library, which runtime/otel.py knows."""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from proxy.core.record import Record
from proxy.core.types import InstanceConfig
from proxy.settings import SettingError

NOT_INSTALLED = (
    "PROXY_TRACES: opentelemetry is not installed ({}): pip install -r requirements-otel.txt,"
    " then start the gateway again; or set PROXY_TRACES=false"
)
# Of what OpenTelemetry's own variables choose, what there is here.
ONLY: Mapping[str, str] = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}


class Trace(Protocol):
    """Of one call, from its beginning to its end."""

    @property
    def begin_attempt(self) -> Callable[[], Mapping[str, str]] | None:
        """For each attempt, before it is sent: the headers by which its upstream goes on with
        the trace. None: it is not to."""


class Spans(Protocol):
    """What runtime/otel.py does."""

    problem: str

    def begin(self, environ: Mapping[str, Any]) -> Trace: ...
    def tell(self, trace: Any, record: Record) -> None: ...
    def stop(self) -> None: ...


class Traces:
    """`check` before the fork; `start` once a process, after it. There is none of these where
    traces are off.

    `propagates`: upstreams are told of the trace. `config_of` knows the instances by name.
    """

    def __init__(
        self,
        *,
        version: str,
        propagates: bool,
        config_of: Callable[[str], InstanceConfig | None],
    ) -> None:
        self._version = version
        self._propagates = propagates
        self._config_of = config_of
        self._spans: Spans | None = None

    def check(self) -> None:
        """Raises SettingError if there can be no traces. What it loads is shared by workers."""
        for name, value in ONLY.items():
            given = os.environ.get(name, "")
            if given not in ("", value):
                raise SettingError(
                    f"{name}: {given!r} cannot be used; allowed is {value}, or nothing"
                )
        try:
            spans = self._made()
            spans.stop()
            if spans.problem:
                raise ValueError(spans.problem)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("opentelemetry", "google"):
                raise
            raise SettingError(NOT_INSTALLED.format(error.name)) from None
        except (ValueError, RuntimeError, OSError) as error:
            raise SettingError(f"PROXY_TRACES: OpenTelemetry says: {error}") from None

    def start(self) -> None:
        """It can be started again after `stop`."""
        self._spans = self._made()

    def begin(self, environ: Mapping[str, Any]) -> Trace | None:
        """Of a call that came with these; None: it is not traced."""
        spans = self._spans
        return spans.begin(environ) if spans is not None else None

    def tell(self, trace: Trace, record: Record) -> None:
        """When it is over. Not on a request's thread: this takes long."""
        if self._spans is not None:
            self._spans.tell(trace, record)

    def stop(self) -> None:
        """Idempotent. What is left is sent, if that does not take long."""
        if self._spans is not None:
            self._spans.stop()

    def _made(self) -> Spans:
        # Loaded when it is asked for: most gateways have no traces, and it takes 5 MB.
        otel = import_module("proxy.runtime.otel")
        spans: Spans = otel.Spans(
            version=self._version, propagates=self._propagates, config_of=self._config_of
        )
        return spans
