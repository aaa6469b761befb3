"""An OpenTelemetry collector that keeps what it is sent: OTLP over HTTP, on loopback."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(ThreadingHTTPServer):
    """`sent` has the headers of each request; `status` is how it answers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status = 200
        self.sent = []
        self.received = []

    def spans(self):
        """(resource's attributes, span) of each."""
        return [
            ({a.key: a.value.string_value for a in part.resource.attributes}, span)
            for request in self.received
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.sent.append((self.path, dict(self.headers)))
        if self.server.status == 200:
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@contextmanager
def collecting():
    with Collector() as collector, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(collector.serve_forever, 0.01)
        try:
            yield collector
        finally:  # a test that fails says so: the pool would wait for ever
            collector.shutdown()
        serving.result()
