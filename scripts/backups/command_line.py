"""Commands, options and what they may hold."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from proxy.settings import INSTANCE_FOLDER

DEFAULT_FOLDER = INSTANCE_FOLDER / "backups"
# Not PROXY_...: the proxy refuses to start with settings it does not know.
WEBHOOK_VARIABLE = "BACKUP_WEBHOOK_URL"
MAX_AGE_SECONDS = 25 * 3600.0  # a backup each day, and an hour in which it is taken
TIMEOUT_SECONDS = 5.0
URL = re.compile(r"\w+://\S+")

Run = Callable[[argparse.Namespace], Any]


class Parser(argparse.ArgumentParser):
    """Never repeats a URL, which may hold a token or a password."""

    def error(self, message: str) -> NoReturn:
        super().error(URL.sub("(a URL)", message))


def parser(about: str | None, **runs: Run) -> argparse.ArgumentParser:
    """`runs` are the commands' functions by name."""
    parser = Parser(
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    taking_ = _command(commands, "backup", runs, "copy database and files, checked")
    _takes_sources(taking_)
    _takes_keep(taking_)

    verifying = _command(commands, "verify", runs, "whether FILE is whole")
    verifying.add_argument("file", type=Path, metavar="FILE")

    putting = _command(commands, "restore", runs, "put FILE back; the proxy must not run")
    which = putting.add_mutually_exclusive_group(required=True)
    which.add_argument("backup", type=Path, metavar="FILE", nargs="?")
    which.add_argument("--newest", action="store_true", help="the newest that is whole")
    _takes_folder(putting)
    place = putting.add_mutually_exclusive_group()
    place.add_argument("--database", help="path or URL, instead of PROXY_DATABASE_URL's")
    place.add_argument("--file", help="the old JSON file it is a backup of")

    showing = _command(commands, "list", runs, "the backups, oldest first")
    _takes_folder(showing)

    looking = _command(commands, "monitor", runs, "look once; alerts end with exit code 1")
    _takes_sources(looking)
    _takes_limits(looking)

    lasting = _command(commands, "job", runs, "backup and monitor, again and again")
    lasting.add_argument(
        "--interval",
        type=positive_seconds,
        required=True,
        metavar="SECONDS",
        help="between two",
    )
    _takes_sources(lasting)
    _takes_keep(lasting)
    _takes_limits(lasting)
    return parser


def _command(
    commands: Any, name: str, runs: Mapping[str, Run], help_text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    parser.set_defaults(run=runs[name])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _takes_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="of backups, default: %(default)s"
    )


def _takes_sources(parser: argparse.ArgumentParser) -> None:
    _takes_folder(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--database", help="path or URL, instead of PROXY_DATABASE_URL's")
    which.add_argument("--no-database", action="store_true", help="only what --file names")
    parser.add_argument(
        "--file", action="append", default=[], help="an old JSON file; may be repeated"
    )
    parser.add_argument(
        "--timeout-seconds",
        type=positive_seconds,
        default=TIMEOUT_SECONDS,
        help="how long to wait for a locked database, default: %(default)s",
    )


def _takes_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", type=at_least_one, metavar="N", help="delete a source's older backups but N"
    )


def _takes_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-age-seconds",
        type=positive_seconds,
        default=MAX_AGE_SECONDS,
        help="of the newest backup, default: %(default)s",
    )
    parser.add_argument(
        "--max-file-age-seconds",
        type=positive_seconds,
        help="since the database and each --file was written; by default not looked at",
    )
    parser.add_argument(
        "--min-bytes", type=at_least_one, default=1, help="of sources and backups"
    )
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help=f"POST alerts there as JSON; better in {WEBHOOK_VARIABLE}, as others of this host"
        " can see command lines",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="append alerts to it")


def at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("it must be a whole number of at least 1")
    return int(text)


def positive_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):  # which nan is not either
        raise argparse.ArgumentTypeError("it must be a number above 0")
    return value
