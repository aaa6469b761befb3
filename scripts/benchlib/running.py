"""A whole run: starts what all rows need, measures those that were asked for, stops all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchlib import bodies, growth, locked, peers, places, plain, starting, streams
from benchlib.loads import Ask, upstream
from benchlib.stage import Options, Progress, Stage
from benchlib.table import Results
from benchlib.tools import Tools

WARM_SECONDS, PEERS_WARM_SECONDS = 0.3, 5.0

# Their order is the table's.
ROWS: dict[str, Callable[[Stage], None]] = {
    "plain": plain.throughput,
    "latency": plain.latency,
    "streams": streams.spaced,
    "open": streams.many_open,
    "flat": streams.flat_out,
    "burst": streams.burst,
    "growth": growth.cost,
    "bodies": bodies.large,
    "locked": locked.requests,
    "start": starting.start,
    "memory": starting.memory,
}
# Left out of a quick run, unless it is asked for by name.
SLOW_ROWS = ("open", "memory")


@contextmanager
def stage(
    options: Options,
    tools: Tools,
    folder: Path,
    wanted_peers: Sequence[str],
    peers_folder: Path,
    progress: Progress,
) -> Iterator[Stage]:
    """Raises GatewayGone and DidNotStart."""
    results = Results()
    with ExitStack() as stack:
        fake = stack.enter_context(upstream(tools.upstream))
        progress("starting")
        empty = stack.enter_context(places.empty_view(folder))
        started = stack.enter_context(places.our_gateway(folder / "gateway", fake.url))
        others = []
        for name, peer in peers.PEERS.items():
            if name not in wanted_peers:
                results.notes.append(f"{name} was not measured: --with {name} measures it.")
                continue
            progress(f"installing and starting {name}")
            try:
                place = peers.installed(peer, peers_folder)
                others.append(stack.enter_context(peer.start(place, folder, fake.port)))
            except (peers.NotInstalled, places.DidNotStart) as error:
                results.notes.append(f"{name} {peer.version} was not measured: {error}")
        made = Stage(
            options,
            tools,
            fake,
            folder,
            progress,
            places.direct(fake.port),
            empty,
            places.through(started),
            folder / "gateway/proxy.db",
            others,
            results,
        )
        warm_up(made)
        yield made


def warm_up(made: Stage) -> None:
    """Some load most of what they need with the first requests only."""
    made.upstream.behave(events=5, interval_ms=0)
    for place in (made.empty, made.gateway, *made.peers):
        seconds = PEERS_WARM_SECONDS if place in made.peers else WARM_SECONDS
        plain_ask = Ask((made.body(),), connections=plain.CONNECTIONS, seconds=seconds)
        made.make("warming up", place, plain_ask)
        if place is not made.empty:
            body = made.body(stream=True)
            ask = Ask((body,), connections=plain.CONNECTIONS, seconds=seconds, events=5)
            made.make("warming up with streams", place, ask)


def measure(built: Stage, rows: Sequence[str]) -> Results:
    if left_out := [name for name in SLOW_ROWS if name not in rows]:
        built.results.notes.append(f"Left out: {', '.join(left_out)}; --only names them.")
    for name, row in ROWS.items():
        if name in rows:
            row(built)
    return built.results
