"""Files to run the gateway as a service, and a check of one that runs.

    python scripts/deploy.py --out FOLDER --user gateway
    ADMIN_API_KEY=... python scripts/deploy.py --check --verify

--out writes a systemd unit, a backup service with its timer, a logrotate file, and README.txt
with the commands that install them. It installs nothing itself. Limits and folders are those
of the settings in .env.

--check asks a running gateway: /health, /ready, each instance's status, and on its own host
the age of the database's newest backup. With --verify each enabled instance is called for
real. The key comes from ADMIN_API_KEY in the environment.

Exit codes: 0 done and well, 1 a check failed, 2 refused or wrong usage, nothing was done.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).resolve().parent.parent))

from deployment import checks, files
from deployment.place import Place, Refused, hindrances

from proxy.settings import ROOT, SettingError, load_settings

EXIT_FAILED, EXIT_REFUSED = 1, 2
KEY_VARIABLE = "ADMIN_API_KEY"
BACKUP_TOOL = ROOT / "scripts/backup_monitor.py"

# Which options belong to which of the two.
OUT_OPTIONS = ("force", "user", "root", "python")
CHECK_OPTIONS = ("url", "verify", "json")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parsed(argv)
    try:
        return _check(arguments) if arguments.check else _write(arguments)
    except Refused as error:
        print(f"Refused: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the files")
    what.add_argument("--check", action="store_true", help="look at a gateway that runs")
    out = parser.add_argument_group("with --out")
    out.add_argument("--force", action="store_true", help="overwrite files that are there")
    out.add_argument("--user", metavar="NAME", help="it runs as; default: whoever calls this")
    out.add_argument("--root", type=Path, metavar="PATH", help="its folder; default: this one")
    out.add_argument(
        "--python", type=Path, metavar="PATH", help="default: .venv/bin/python in its folder"
    )
    check = parser.add_argument_group("with --check")
    check.add_argument("--url", help="default: where the settings say it listens")
    check.add_argument("--verify", action="store_true", help="call each instance; this costs")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    for name in OUT_OPTIONS if arguments.check else CHECK_OPTIONS:
        if getattr(arguments, name):
            parser.error(f"--{name} is not for --{'check' if arguments.check else 'out'}")
    return arguments


def _write(arguments: argparse.Namespace) -> int:
    place = Place.of(arguments.user, arguments.root or ROOT, arguments.python)
    folder: Path = arguments.out
    texts = files.texts(place)
    present = [name for name in texts if os.path.lexists(folder / name)]
    if present and not arguments.force:
        raise Refused(f"{folder} has {', '.join(present)} already; --force overwrites them.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
            print(folder / name)
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        return EXIT_FAILED
    if not place.python.exists():
        print(f"{place.python} is not there; ./scripts/run makes it.", file=sys.stderr)
    for hindrance in hindrances(place):
        print(f"The service may not start: {hindrance}", file=sys.stderr)
    print(f"Nothing is installed; {files.README} says how.")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isprintable() or not key:
        raise Refused(f"Set {KEY_VARIABLE} in the environment to the gateway's admin key.")
    url = _url(arguments.url)
    done: list[checks.Check] = []
    with closing(checks.Gateway(url, key)) as gateway:
        for each in checks.check(gateway, verify=arguments.verify, backup_tool=BACKUP_TOOL):
            done.append(each)
            if not arguments.json:
                print(each, flush=True)
    ok = all(each.result != checks.FAILED for each in done)
    if arguments.json:
        print(json.dumps({"ok": ok, "url": url, "checks": [each.to_dict() for each in done]}))
    return 0 if ok else EXIT_FAILED


def _url(given: str | None) -> str:
    try:
        url = given or load_settings().address
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in url
    except SettingError as error:
        raise Refused(f"{error}.") from error
    except ValueError:
        is_usable = False
    if not is_usable:
        # Not repeated: it may hold a password.
        raise Refused("--url: http:// or https:// and a host is needed, without a password.")
    return url.rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
