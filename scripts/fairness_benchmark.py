"""How fairly a model's room is shared: three clients that never stop, one of them with far
more connections than the others.

    python scripts/fairness_benchmark.py [--seconds 183] [--workers 2] [--max-tpm 30000]
                                         [--latency-ms 300] [--json FILE]

A gateway's only instance has `max_tpm`, and all clients together ask for several times as
much; what is refused is asked for again a tenth of a second later. Behind it is a simulated
resource without limits, which takes so long for each answer. Prints what each client got,
in all and minute by minute, beside its fair share: an equal part, or what it can use if that
is less. Waiting is counted from the first time a request was made until it was answered,
refusals included, less what the resource took. Figures are reported, never judged.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from load_test import EXIT_INTERRUPTED, as_interrupt, number, positive_number, whole_number
from loadlib import fairness
from loadlib.bar import Bar
from loadlib.gateway import GatewayGone


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    signal.signal(signal.SIGTERM, as_interrupt)
    shown = Bar(sys.stderr)
    try:
        options = fairness.Options(
            arguments.seconds, arguments.workers, arguments.max_tpm, arguments.latency_ms
        )
        report = asyncio.run(fairness.run(options, shown.show))
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
        "--seconds", type=positive_number, default=183.0, help="default: %(default)g"
    )
    parser.add_argument("--workers", type=whole_number, default=2, help="default: %(default)s")
    parser.add_argument(
        "--max-tpm", type=whole_number, default=30_000, help="default: %(default)s"
    )
    parser.add_argument(
        "--latency-ms", type=number, default=300.0, help="of each answer, default: %(default)g"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
