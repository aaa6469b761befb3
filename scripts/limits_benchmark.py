"""How exactly limits hold: what two workers let through when far more is asked of them.

    python scripts/limits_benchmark.py [--seconds 75] [--workers 2] [--json FILE]

One gateway's only instance has `max_rpm`, another's has `max_tpm`; of three more the client's
key has `max_rpm`, `max_tpm` or `max_parallel_requests`. Clients ask for many times as much, all
at once and again and again. Behind them are simulated resources without limits, which count.
Prints the most that came within any ten seconds, or any minute, or was open at a time, beside
the limit: what is above it is the overshoot at the edge, by workers that did not know of each
other yet. Of keys they do.
Figures are reported, never judged.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from load_test import EXIT_INTERRUPTED, as_interrupt, positive_number, whole_number
from loadlib import limiting
from loadlib.bar import Bar
from loadlib.gateway import GatewayGone


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    signal.signal(signal.SIGTERM, as_interrupt)
    shown = Bar(sys.stderr)
    try:
        options = limiting.Options(arguments.seconds, arguments.workers)
        report = asyncio.run(limiting.run(options, shown.show))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except GatewayGone as error:
        sys.exit(str(error))
    finally:
        shown.clear()
    print(report.to_markdown())
    if arguments.json:
        arguments.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=positive_number, default=75.0, help="default: %(default)g"
    )
    parser.add_argument("--workers", type=whole_number, default=2, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
