"""GET /metrics: what the gateway measures, as Prometheus reads it."""

import hmac
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate

from flask import Flask, Response, request
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from proxy.context import Parts, parts
from proxy.core.histogram import BOUNDS_MS
from proxy.core.metrics import FAMILIES, HISTOGRAM, Family
from proxy.core.sources import is_in, source
from proxy.errors import Forbidden, Unauthorized
from proxy.runtime.metrics import Reading
from proxy.web.auth import note_wrong_token

PATH = "/metrics"
# What a proxy in front adds. From one that is not trusted it says at least that whoever asks is
# not at the other end of the connection.
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")
BOUNDS = (*(f"{bound / 1000}" for bound in BOUNDS_MS), "+Inf")
# Put into words at once; then others may have the interpreter for a moment, or requests would
# wait for it until a switch of threads is forced. In no time at all nobody would take it.
TOGETHER = 100
PAUSE_SECONDS = 0.0005


def register(app: Flask) -> None:
    app.add_url_rule(PATH, "metrics", metrics)


def metrics() -> Response:
    mine = parts()
    _check_that_it_may_be_read(mine)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    # As Prometheus' own libraries let one choose.
    only = frozenset(request.args.getlist("name[]"))
    body = encode(_Readings(mine.metrics.read(only)))
    return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def _check_that_it_may_be_read(mine: Parts) -> None:
    """By its token, or for who is in one of the networks. Raises Unauthorized, Forbidden."""
    settings = mine.settings
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected = settings.metrics_token
    # An empty one would be equal to one that is not set.
    if expected and scheme.lower() == "bearer" and given:
        # WSGI gives headers as Latin-1 and the system settings as UTF-8.
        if hmac.compare_digest(
            given.strip().encode("latin-1", "replace"),
            expected.encode("utf-8", "surrogateescape"),
        ):
            return
        note_wrong_token(mine)
        raise Unauthorized("The bearer token is not the one in PROXY_METRICS_TOKEN.")
    if _is_near(mine):
        return
    if expected:
        raise Unauthorized(
            "The metrics need the token in PROXY_METRICS_TOKEN, as `Authorization: Bearer`.",
            code="missing_api_key",
        )
    raise Forbidden(
        "The metrics may not be read from here. Name your network in PROXY_METRICS_NETWORKS,"
        " or set PROXY_METRICS_TOKEN and send it as `Authorization: Bearer`.",
        code="source_not_allowed",
    )


def _is_near(mine: Parts) -> bool:
    environ, trusted = request.environ, mine.settings.trusted_proxies
    peer = environ.get("REMOTE_ADDR", "")
    told = environ.get("HTTP_X_FORWARDED_FOR", "")
    is_forwarded = any(name in request.headers for name in FORWARDED)
    if is_forwarded and not (told and is_in(source(peer, "", ()), trusted)):
        return False  # for whom, nobody says who is to be believed
    asking = source(peer, told, trusted)
    return is_in(asking, mine.settings.metrics_networks)


class _Readings(Collector):
    """What was read, family by family."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._pace = _Pace()
        self._found: dict[str, list[Reading]] = {family.name: [] for family in FAMILIES}
        for reading in readings:
            self._found[reading.family].append(reading)

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            readings = self._found[family.name]
            if readings:
                name = family.name.removesuffix("_total")
                metric = Metric(name, family.help, family.kind)
                metric.samples = _Samples(family, readings, self._pace)  # type: ignore[assignment]
                yield metric


class _Pace:
    """Of what takes long and is not urgent."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._steps % TOGETHER == 0:
            time.sleep(PAUSE_SECONDS)


class _Samples:
    """Made one by one while they are put into words."""

    def __init__(self, family: Family, readings: list[Reading], pace: _Pace) -> None:
        self._family = family
        self._readings = readings
        self._pace = pace

    def __iter__(self) -> Iterator[Sample]:
        samples = _histograms if self._family.kind == HISTOGRAM else _values
        for sample in samples(self._family, self._readings):
            yield sample
            self._pace.step()


def _values(family: Family, readings: Iterable[Reading]) -> Iterator[Sample]:
    for reading in readings:
        labels = dict(zip(family.labels, reading.labels, strict=True))
        yield Sample(family.name, labels, reading.value)


def _histograms(family: Family, readings: Iterable[Reading]) -> Iterator[Sample]:
    for reading in readings:
        labels = dict(zip(family.labels, reading.labels, strict=True))
        counts = list(accumulate(reading.counts))
        for bound, count in zip(BOUNDS, counts, strict=True):
            yield Sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
        yield Sample(f"{family.name}_count", labels, counts[-1])
        yield Sample(f"{family.name}_sum", labels, reading.value)
