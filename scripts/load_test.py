"""Load for a gateway, and what it does to it: the client and the benchmark.

    LOAD_TEST_KEY=... python scripts/load_test.py --url http://127.0.0.1:8000 --streams 200
    python scripts/load_test.py --self

The first asks a gateway that runs already; what it asks is charged by whatever is behind
it. The second starts a simulated Azure and a gateway of its own and compares the two.
Results go to stdout as a Markdown table: percentiles, and failures by their kind. A bar on
the terminal shows how far it is. Exit code 1 if any request failed; timings are reported,
never judged.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from loadlib import client
from loadlib.bar import Bar
from loadlib.client import Asking, Plan, Progress
from loadlib.stats import Load, Report, Row, plain_rows, stream_rows

ROOT = Path(__file__).resolve().parent.parent
KEY_VARIABLE = "LOAD_TEST_KEY"
PLAIN_SECONDS = 4.0
PLAIN_CONNECTIONS = 16  # of the benchmark
RAMP_MS = 1000.0  # of the benchmark
PLACE = "gateway"

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

RowsOf = Callable[[str, Mapping[str, Load]], list[Row]]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    signal.signal(signal.SIGTERM, as_interrupt)
    shown = Bar(sys.stderr)
    measure = benchmark if arguments.self else load
    try:
        report = measure(arguments, shown.show)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        shown.clear()
    print(report.to_markdown())
    if arguments.json:
        arguments.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return EXIT_FAILED if report.failures else 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked. Exits with what is wrong with it."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.url:
        try:
            client.split_url(arguments.url)
        except ValueError as error:
            parser.error(str(error))
    if arguments.self and arguments.requests is not None:
        parser.error("--self makes as many plain requests as it can; use --seconds")
    if not (arguments.self or arguments.streams or arguments.plain or arguments.abort):
        parser.error("nothing to do: --streams, --plain and --abort are all 0")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help=f"a running gateway; its client key is in {KEY_VARIABLE}")
    where.add_argument("--self", action="store_true", help="the benchmark")
    parser.add_argument("--model", default="gpt-4o", help="default: %(default)s")
    parser.add_argument(
        "--streams", type=whole_number, default=200, help="at a time, default: %(default)s"
    )
    parser.add_argument(
        "--plain", type=whole_number, help="connections for requests that do not stream"
    )
    parser.add_argument(
        "--abort", type=whole_number, default=0, help="streams that are left after 3 events"
    )
    parser.add_argument("--ramp-ms", type=number, help="begin the streams over so long")
    parser.add_argument(
        "--timeout-seconds", type=positive_number, default=120.0, help="of a request"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "--seconds", type=positive_number, help="how long to begin new ones; for plain ones 4"
    )
    how_long.add_argument(
        "--requests", type=whole_number, help="how many; streams: one for each"
    )
    bench = parser.add_argument_group("of the simulated Azure, with --self")
    bench.add_argument("--stream-seconds", type=positive_number, default=5.0)
    bench.add_argument("--events-per-second", type=positive_number, default=10.0)
    bench.add_argument("--latency-ms", type=number, default=0.0, help="to the first byte")
    return parser


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):  # which nan is not either
        raise ValueError
    return value


def positive_number(text: str) -> float:
    value = number(text)
    if not value:
        raise ValueError
    return value


def benchmark(arguments: argparse.Namespace, progress: Progress) -> Report:
    sys.path.append(str(ROOT))
    # Here, because it needs the package and what that needs; a load client needs nothing.
    from loadlib import bench

    options = bench.Options(
        model=arguments.model,
        streams=arguments.streams,
        stream_seconds=arguments.stream_seconds,
        events_per_second=arguments.events_per_second,
        latency_ms=arguments.latency_ms,
        ramp_ms=RAMP_MS if arguments.ramp_ms is None else arguments.ramp_ms,
        plain=PLAIN_CONNECTIONS if arguments.plain is None else arguments.plain,
        seconds=arguments.seconds or PLAIN_SECONDS,
        abort=arguments.abort,
        timeout_seconds=arguments.timeout_seconds,
    )
    try:
        return bench.run(options, progress)
    except bench.GatewayGone as error:
        sys.exit(str(error))


def load(arguments: argparse.Namespace, progress: Progress) -> Report:
    """Against a gateway that runs: one kind of load after the other."""
    key = os.environ.get(KEY_VARIABLE, "")
    target = client.gateway_target(arguments.url, key=key, model=arguments.model)
    client.allow_files(max(arguments.streams, arguments.plain or 0, arguments.abort))
    rows: list[Row] = []
    failures: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for title, ask, plan, rows_of in _loads(arguments):
        titled = partial(_titled, progress, title)
        done = asyncio.run(client.run(ask, [target], plan, titled))
        rows += rows_of(title, {PLACE: done})
        failures += done.failures
        examples = {**done.examples, **examples}
    facts = {"model": target.model, "Python": platform.python_version()}
    return Report(facts, rows, failures, examples)


def _loads(arguments: argparse.Namespace) -> Iterator[tuple[str, Asking, Plan, RowsOf]]:
    """Streams, then plain requests, then streams that are left, each if asked for."""
    seconds, requests = arguments.seconds, arguments.requests
    limits = {"timeout_seconds": arguments.timeout_seconds}
    if arguments.streams:
        count = arguments.streams
        total = requests if seconds or requests else count
        plan = Plan(count, total, seconds, arguments.ramp_ms or 0.0, **limits)
        yield f"{count} streams", client.streaming(), plan, stream_rows
    if arguments.plain:
        count = arguments.plain
        duration = None if requests else seconds or PLAIN_SECONDS
        plan = Plan(count, requests, duration, **limits)
        yield f"plain requests on {count} connections", client.plain, plan, plain_rows
    if arguments.abort:
        count = arguments.abort
        plan = Plan(count, count, **limits)
        leaving = client.streaming(leave_after=client.LEAVE_AFTER_EVENTS)
        yield f"{count} streams left early", leaving, plan, stream_rows


def _titled(progress: Progress, title: str, text: str, share: float | None) -> None:
    # The title last: of what does not fit in a line, the counts are to be seen.
    progress(f"{text} | {title}", share)


def as_interrupt(_number: int, _frame: FrameType | None) -> None:
    # Not an exception from here: asyncio has a way of its own to end at Ctrl-C.
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
