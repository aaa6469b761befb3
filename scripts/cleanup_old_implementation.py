"""Takes the old implementation out of a checkout of the older proxy (package `app/`).

    python scripts/cleanup_old_implementation.py --root /srv/old-proxy --dry-run
    python scripts/cleanup_old_implementation.py --root /srv/old-proxy
    python scripts/cleanup_old_implementation.py --root /srv/old-proxy --restore

In every .py file, `instance_manager` is imported from app.instance.instance_context; the
old implementation's four files go; in .env and app/.env, USE_NEW_IMPLEMENTATION goes and
old names of settings become new ones. Before that, every file that is touched is copied to
backup_old_implementation/, or to _2, _3, ... beside it. The copies hold keys: delete the
folder when you need it no more.

What has no successor (InstanceFactory, InstanceManager, `import app.instance.manager`,
names of modules in strings) is listed with file and line, and so is a file that cannot be
parsed, if it names one of these modules at all; all the rest is done. A file that such a
place still needs stays, or the program would not start: change these places by hand,
commit, and run it again; then it goes.

Exit codes: 0 done, 1 something is left to do by hand, 2 refused, nothing was changed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cleanup import backup, tree
from cleanup.changes import Finding, Refused
from cleanup.plan import Kept, Plan, diff, plan

EXIT_LEFT, EXIT_REFUSED = 1, 2
SHOWN_FILES = 10  # of those that are not committed


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parsed(argv)
    root = arguments.root.resolve()
    try:
        if arguments.restore:
            return _restore(root, arguments)
        return _clean(root, arguments)
    except Refused as error:
        print(f"Refused: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except (OSError, KeyboardInterrupt) as error:
        print(f"Stopped: {str(error) or 'interrupted'}", file=sys.stderr)
        print("If a backup was made, --restore undoes all of it.", file=sys.stderr)
        return EXIT_LEFT


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the checkout, default: the current folder"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing; print a unified diff, with the values in .env masked",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="go on with uncommitted changes; with --restore: also put back files that were "
        "changed since",
    )
    parser.add_argument(
        "--restore",
        action="store_true",
        help="put back, byte for byte, all that the last run changed, or the one of --backup",
    )
    parser.add_argument(
        "--backup",
        metavar="FOLDER",
        help="to restore from, in the checkout; default: the newest",
    )
    arguments = parser.parse_args(argv)
    if arguments.backup and not arguments.restore:
        parser.error("--backup is for --restore; where to put a new one is not asked")
    return arguments


def _clean(root: Path, arguments: argparse.Namespace) -> int:
    if not tree.is_old_checkout(root):
        raise Refused(f"{root} is no checkout of the old program: none of its files is there")
    planned = plan(root)
    if arguments.dry_run:
        print("".join(map(diff, planned.changes)), end="")
        _list_kept(planned.kept, sys.stderr)
        _list(planned.findings)
        return EXIT_LEFT if planned.findings else 0
    if not arguments.force:
        _refuse_uncommitted(root, planned)
    _carry_out(root, planned)
    _list_kept(planned.kept, sys.stdout)
    _list(planned.findings_after)
    return EXIT_LEFT if planned.findings_after else 0


def _refuse_uncommitted(root: Path, planned: Plan) -> None:
    sources = {change.path for change in planned.changes if change.path.endswith(".py")}
    files = tree.uncommitted(root, sources)
    if files:
        shown = "".join(f"\n  {path}" for path in files[:SHOWN_FILES])
        more = f"\n  and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
        raise Refused(f"not committed; commit or stash, or use --force:{shown}{more}")


def _carry_out(root: Path, planned: Plan) -> None:
    if not planned.changes:
        print("There is nothing to change.")
        return
    folder = backup.make(root, planned.changes)
    print(f"{folder.name}: {len(planned.changes)} files, read back and verified")
    for change in planned.changes:
        change.make(root)
        print(f"{change.path}: {'removed' if change.after is None else 'rewritten'}")
    rest = " but for what is listed" if planned.findings_after else ""
    print(f"Done{rest}. --restore undoes this run, --backup {folder.name} beside it later on.")


def _restore(root: Path, arguments: argparse.Namespace) -> int:
    folder = root / arguments.backup if arguments.backup else backup.newest(root)
    paths = backup.restore(root, folder, force=arguments.force, dry_run=arguments.dry_run)
    for path in paths:
        print(f"{path}: {'would be put back' if arguments.dry_run else 'put back'}")
    if not paths:
        print(f"Everything is as in {folder.name}.")
    return 0


def _list_kept(files: Sequence[Kept], stream: TextIO) -> None:
    for kept in files:
        print(f"{kept.path}: stays, {kept.needed_by} still needs it", file=stream)


def _list(findings: Sequence[Finding]) -> None:
    if findings:
        print("To be done by hand:", file=sys.stderr)
    for finding in findings:
        print(finding, file=sys.stderr)


if __name__ == "__main__":
    # Sources are in any encoding; a terminal need not know every character of theirs.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
