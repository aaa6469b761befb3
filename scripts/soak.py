"""A gateway under mixed faults at most of what it can do, for long: what does it lose?

    python scripts/soak.py                 # 30 minutes
    python scripts/soak.py --seconds 60

Starts a simulated Azure and a gateway of its own. Results go to stdout as a Markdown table.
Exit code 1 if more requests failed than may, if threads or sockets were left behind or, in a
run of 10 minutes or more, if memory grew by over 5 %. A stream whose instance failed when its
text had begun, and that was told so, has not failed.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from load_test import EXIT_FAILED, EXIT_INTERRUPTED, as_interrupt, positive_number
from loadlib import soaking
from loadlib.bar import Bar
from loadlib.gateway import GatewayGone


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=positive_number, default=1800.0, help="default: %(default)g"
    )
    parser.add_argument(
        "--load", type=positive_number, default=0.8, help="of the most; default: %(default)g"
    )
    parser.add_argument(
        "--allowed",
        type=share,
        default=0.0,
        help="share of the requests that may fail, from 0 to 1; default: %(default)g",
    )
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, as_interrupt)
    shown = Bar(sys.stderr)
    try:
        options = soaking.Options(arguments.seconds, arguments.load, arguments.allowed)
        soaked = soaking.run(options, shown.show)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except GatewayGone as error:
        sys.exit(str(error))
    finally:
        shown.clear()
    print(soaked.report.to_markdown())
    return 0 if soaked.is_good else EXIT_FAILED


def share(text: str) -> float:
    """Raises ValueError, as argparse expects."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
