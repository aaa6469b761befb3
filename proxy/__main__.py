"""`python -m proxy`: brings the database up to date and starts gunicorn."""

import argparse
import sys
from importlib import import_module

from proxy.settings import SettingError, load_settings
from proxy.start import serve
from proxy.store.schema import SchemaProblem


def main() -> int:
    arguments = _arguments()
    try:
        settings = load_settings()
        if arguments.demo:
            return int(import_module("proxy.demo").run_demo(settings))
        return serve(settings)
    except (SettingError, SchemaProblem) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proxy", description=__doc__)
    parser.add_argument(
        "--demo",
        action="store_true",
        help="with three simulated instances and a database of its own, to try it out",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
