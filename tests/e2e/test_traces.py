"""Workers of gunicorn that send their spans to a collector, each by a thread of its own."""

import signal
import subprocess
import sys

from proxy.settings import ROOT
from proxy.simulator import Resource, Simulator
from tests.collector import collecting
from tests.e2e.conftest import Gateway, add_instance

CALLS = 6


def test_each_worker_sends_its_spans_and_the_last_ones_when_it_ends(
    stopped_gateway: Gateway,
) -> None:
    gateway = stopped_gateway
    resource = Resource("east", api_key="planted-key-of-east")
    with collecting() as collector, Simulator([resource]):
        gateway.start(
            PROXY_TRACES="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=of-the-collector",
            OTEL_BSP_SCHEDULE_DELAY="60000",
        )
        add_instance(gateway, resource)
        for number in range(CALLS):
            assert gateway.chat(stream=number % 2 == 0).status_code == 200
        assert collector.sent == []
        assert gateway.stop(signal.SIGTERM) == 0
    names = sorted(span.name for _, span in collector.spans())
    assert names == ["POST /v1/chat/completions"] * CALLS + ["chat gpt-4o"] * CALLS
    for path, headers in collector.sent:
        assert path == "/v1/traces"
        assert headers["x-collector-key"] == "of-the-collector"
    assert "of-the-collector" not in gateway.log


def test_what_cannot_work_stops_the_start_with_a_sentence(stopped_gateway: Gateway) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy"],
        cwd=ROOT,
        env=stopped_gateway.environment(PROXY_TRACES="true", OTEL_TRACES_EXPORTER="console"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "OTEL_TRACES_EXPORTER: 'console' cannot be used; allowed is otlp" in done.stderr
    assert "Traceback" not in done.stderr
