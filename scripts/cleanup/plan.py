"""Everything that will be done, worked out before anything is."""

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleanup import envfile, imports, rewrite, tree
from cleanup.changes import Access, Change, Finding

ENV_FILES = (".env", "app/.env")


@dataclass(frozen=True, slots=True)
class Plan:
    """`changes` in an order that leaves a program that starts, wherever it is interrupted.

    `findings` have the line numbers of now, `findings_after` those of afterwards. `kept`
    are files that should go but are still imported.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    findings_after: tuple[Finding, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _File:
    """A source as it is and as it will be. Files without uses and changes are not kept."""

    path: str
    before: bytes
    after: bytes
    uses: tuple[imports.Use, ...] = ()
    uses_after: tuple[imports.Use, ...] = ()


def plan(root: Path) -> Plan:
    """For a resolved `root`; reads only."""
    found = tree.sources(root)
    there = [path for path in imports.REMOVED_FILES if (root / path).is_file()]
    removable = [path for path in there if not tree.is_link(root, path)]
    findings = [
        *found.findings,
        *(Finding(p, 1, "is reached through a link") for p in there if p not in removable),
    ]
    files: dict[str, _File] = {}
    for path in found.files:
        try:
            if file := _file(root, path, found.files):
                files[path] = file
        except imports.CannotParse as error:
            if path not in removable:
                findings.append(Finding(path, error.line, str(error)))
        except OSError as error:
            findings.append(Finding(path, 1, f"cannot be read: {error.strerror}"))
    kept = _still_needed(files, removable)
    going = [path for path in removable if path not in kept]
    staying = [file for path, file in files.items() if path not in removable or path in kept]
    env_changes, env_findings = _env(root)
    findings += env_findings
    of_sources = [file for file in staying if file.path not in kept]
    return Plan(
        changes=(
            *(_change(root, f.path, f.before, f.after) for f in staying if f.before != f.after),
            *env_changes,
            *(_change(root, path, (root / path).read_bytes(), None) for path in going),
        ),
        findings=_sorted(findings, _findings(of_sources, after=False)),
        findings_after=_sorted(findings, _findings(of_sources, after=True)),
        kept=tuple(sorted(kept)),
    )


def diff(change: Change) -> str:
    """A unified diff; of an env file, of what may be seen of it."""
    before, after = change.before, change.after
    if change.path in ENV_FILES:
        old, new = envfile.masked(before), envfile.masked(after or b"")
    else:
        old, new = _text(before), _text(after or b"")
    target = "/dev/null" if after is None else f"b/{change.path}"
    lines = difflib.unified_diff(
        _lines(old), _lines(new), f"a/{change.path}", target, lineterm="\n"
    )
    text = "".join(_ended(line) for line in lines)
    # Of an empty file that goes, difflib finds nothing to say.
    return text or f"--- a/{change.path}\n+++ {target}\n"


def _file(root: Path, path: str, all_paths: Sequence[str]) -> _File | None:
    if tree.is_link(root, path) and tree.target(root, path) in all_paths:
        return None
    content = (root / path).read_bytes()
    if not imports.WORDS.search(content):
        return None
    parsed = imports.parsed(content)
    after, obstacle = content, _obstacle(root, path)
    if not obstacle and imports.has_moves(parsed, path):
        try:
            after = rewrite.rewritten(content, path)
        except rewrite.CannotRewrite as error:
            obstacle = str(error)
    uses = tuple(imports.uses(parsed, path, obstacle))
    changed: ast.Module = parsed if after == content else imports.parsed(after)
    return _File(path, content, after, uses, tuple(imports.uses(changed, path, obstacle)))


def _obstacle(root: Path, path: str) -> str | None:
    """Why nothing is rewritten in this file."""
    if path == imports.SUCCESSOR_FILE:
        return "it would import itself"
    if not (root / imports.SUCCESSOR_FILE).is_file():
        return f"there is no {imports.SUCCESSOR_FILE} to import it from"
    if tree.is_link(root, path):
        return "this file is a link that leads elsewhere"
    return None


def _still_needed(files: Mapping[str, _File], removable: Sequence[str]) -> set[str]:
    """Of those, the ones that are imported by a file that stays, also by another of them."""
    kept: set[str] = set()
    while True:
        needed = {
            use.file
            for path, file in files.items()
            if path not in removable or path in kept
            for use in file.uses
            if use.file and use.file in removable
        }
        if needed == kept:
            return kept
        kept = needed


def _findings(files: Sequence[_File], *, after: bool) -> Iterator[Finding]:
    for file in files:
        for use in file.uses_after if after else file.uses:
            yield Finding(file.path, use.line, use.what)


def _sorted(*findings: Iterator[Finding] | Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted((f for each in findings for f in each), key=lambda f: (f.path, f.line)))


def _env(root: Path) -> tuple[list[Change], list[Finding]]:
    changes, findings = [], []
    for path in ENV_FILES:
        if not (root / path).is_file():
            continue
        if tree.is_link(root, path) and tree.target(root, path) in ENV_FILES:
            continue
        before = (root / path).read_bytes()
        after, problems = envfile.updated(before)
        findings += [Finding(path, problem.line, problem.what) for problem in problems]
        if before == after:
            continue
        if tree.is_link(root, path):
            findings.append(
                Finding(path, 1, "has old settings, but is a link: see to it by hand")
            )
        else:
            changes.append(_change(root, path, before, after))
    return changes, findings


def _change(root: Path, path: str, before: bytes, after: bytes | None) -> Change:
    return Change(path, before, after, Access.of(root / path))


def _text(content: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        # "utf-8-sig" would leave the BOM out.
        return content.decode(encoding.removesuffix("-sig"))
    except (SyntaxError, UnicodeDecodeError):
        return content.decode(errors="backslashreplace")


def _lines(text: str) -> list[str]:
    # Not str.splitlines: to it, a form feed ends a line, which is not so for `patch`.
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
