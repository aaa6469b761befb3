import builtins
import subprocess
import sys
import threading

import pytest

from proxy.runtime.traces import Traces
from proxy.settings import ROOT, SettingError


@pytest.fixture
def traces(monkeypatch):
    """Not started, with none of OpenTelemetry's variables."""
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    traces = Traces(version="1", propagates=False, config_of=lambda _name: None)
    yield traces
    traces.stop()


def problem(traces):
    with pytest.raises(SettingError) as caught:
        traces.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def not_installed(monkeypatch):
    """A function that takes a library away."""
    there = builtins.__import__

    def take_away(name):
        for module in [*sys.modules]:
            if module == "proxy.runtime.otel" or f"{module}.".startswith(f"{name}."):
                monkeypatch.delitem(sys.modules, module)

        def without(module, *arguments, **named):
            if f"{module}.".startswith(f"{name}."):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return there(module, *arguments, **named)

        monkeypatch.setattr(builtins, "__import__", without)

    return take_away


def test_with_the_library_there_is_no_problem_and_no_thread_is_left(traces):
    before = threading.active_count()
    traces.check()
    assert threading.active_count() == before
    assert traces.begin({}) is None


@pytest.mark.parametrize("name", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_without_the_library_its_installation_is_the_remedy(traces, not_installed, name):
    not_installed(name)
    said = problem(traces)
    assert said.startswith(f"PROXY_TRACES: opentelemetry is not installed ({name})")
    assert "pip install -r requirements-otel.txt" in said


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc' cannot be used; allowed is http/prot"),
        ("OTEL_TRACES_EXPORTER", "console", "'console' cannot be used; allowed is otlp"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "max_export_batch_size must be a positive"),
        # What the library only warns of, and ignores.
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "parse value for OTEL_BSP_SCHEDULE_DELAY as int"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "Couldn't recognize sampler …"),
    ],
)
def test_variables_that_cannot_be_used_stop_the_start(traces, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    assert said in problem(traces)


def test_of_a_collectors_key_that_is_not_understood_nothing_is_told(traces, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "the-key-alone")
    said = problem(traces)
    assert said.startswith("PROXY_TRACES: OpenTelemetry says: Header format invalid!")
    assert "the-key" not in said


def test_the_library_is_not_loaded_while_traces_are_off():
    # In a process of its own: here others have loaded it.
    program = (
        "import sys, proxy;"
        " parts = proxy.make_parts(proxy.load_settings({}, None));"
        " print(parts.traces, [m for m in sys.modules"
        " if m.partition('.')[0] in ('opentelemetry', 'google') or m == 'proxy.runtime.otel'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None []\n"
