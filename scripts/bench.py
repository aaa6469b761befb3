"""What the gateway costs on this machine: one table, all of it measured in one run.

    scripts/bench --quick                       # about two minutes
    scripts/bench --rounds 5 --with litellm,portkey,nginx --json found.json --charts docs/images
    scripts/bench --only plain,streams

Builds its own upstream and client in C, starts a gateway with client keys, limits, accounting
and request log, and measures it beside what it is compared with, taking turns: the upstream
itself, an empty Flask view on the same gunicorn, and where --with names them other gateways
(they are installed into environments of their own) and the system's nginx, which only passes on
what comes. Figures are medians over the rounds; what is in brackets is the ratio to the base.
The gateway's settings are the defaults, or what the environment says: PROXY_LOG_LEVEL=warning
scripts/bench --only plain. Exit code 1 if any request failed: then the figures are worth
nothing. Timings are reported, never judged.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchlib import charts, machine, places, running, tools
from benchlib.loads import Broken
from benchlib.peers import PEERS
from benchlib.stage import Options
from load_test import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    as_interrupt,
    positive_number,
    whole_number,
)
from loadlib.bar import Bar
from loadlib.gateway import GatewayGone

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PEERS_FOLDER = CACHE / "azure-openai-gateway-bench"

QUICK_ROUNDS, QUICK_SECONDS = 1, 1.5


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    signal.signal(signal.SIGTERM, as_interrupt)
    options = Options(arguments.rounds, arguments.seconds, arguments.quick, arguments.long)
    shown = Bar(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            with running.stage(
                options,
                tools.built(folder),
                folder,
                arguments.peers_wanted,
                arguments.peers,
                shown.show,
            ) as stage:
                results = running.measure(stage, arguments.only)
                lines = charts.measured(stage) if arguments.charts else []
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (GatewayGone, places.DidNotStart, tools.NotBuilt, Broken) as error:
        sys.exit(str(error))
    finally:
        shown.clear()
    facts = machine.facts(options.rounds, options.seconds)
    print(results.to_markdown(facts, [places.GATEWAY, *PEERS]))
    if arguments.charts:
        charts.write(lines, arguments.charts)
    if arguments.json:
        found = results.to_dict(facts) | {"charts": [chart.to_dict() for chart in lines]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return EXIT_FAILED if results.failures else 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked. Exits with what is wrong with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ",".join(running.ROWS)
    parser.add_argument("--only", metavar="ROW,...", help=f"of {rows}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"one short round, without {' and '.join(running.SLOW_ROWS)}",
    )
    parser.add_argument("--long", action="store_true", help="a million requests for `memory`")
    parser.add_argument("--rounds", type=whole_number, help="default: 3")
    parser.add_argument("--seconds", type=positive_number, help="of each; default: 5")
    parser.add_argument(
        "--with",
        dest="peers_wanted",
        metavar="PEER,...",
        default="",
        help=f"of {','.join(PEERS)}; for plain, latency and streams",
    )
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", default=PEERS_FOLDER, help="default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="measure and draw them")
    arguments = parser.parse_args(argv)
    defaults = (QUICK_ROUNDS, QUICK_SECONDS) if arguments.quick else (3, 5.0)
    arguments.rounds = arguments.rounds or defaults[0]
    arguments.seconds = arguments.seconds or defaults[1]
    rows_wanted = list(running.ROWS)
    if arguments.only is not None:
        rows_wanted = _chosen(parser, "--only", arguments.only, rows_wanted)
    elif arguments.quick:
        rows_wanted = [row for row in rows_wanted if row not in running.SLOW_ROWS]
    arguments.only = rows_wanted
    arguments.peers_wanted = _chosen(parser, "--with", arguments.peers_wanted, list(PEERS))
    return arguments


def _chosen(
    parser: argparse.ArgumentParser, option: str, text: str, known: Sequence[str]
) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            parser.error(f"{option}: there is no {name!r}; it may be {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
