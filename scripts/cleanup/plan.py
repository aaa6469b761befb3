"""Everything that will be done, worked out before anything is."""

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cleanup import envfile, imports, rewrite, tree
from cleanup.changes import Access, Change, Finding

ENV_FILES = (".env", "app/.env")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that should go, and one that still needs it."""

    path: str
    needed_by: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`changes` in an order that leaves a program that starts, wherever it is interrupted.

    `findings` have the line numbers of now, `findings_after` those of afterwards.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    findings_after: tuple[Finding, ...]
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class _File:
    """A source as it is and as it will be. Files without uses and changes are not kept."""

    path: str
    before: bytes
    after: bytes
    uses: tuple[imports.Use, ...] = ()
    uses_after: tuple[imports.Use, ...] = ()


@dataclass(slots=True)
class _Sources:
    """What was read. `needs` is by source: the files it imports that should go."""

    files: dict[str, _File] = field(default_factory=dict)
    needs: dict[str, set[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def plan(root: Path) -> Plan:
    """For a resolved `root`; reads only.

    All that can be done is, whatever is left. Only one thing waits for the rest: a file that
    should go stays while a source that stays imports it, by an import that cannot be
    rewritten, or names its module in a string; and while one that cannot be parsed has the
    module's name in it, or one cannot be read at all, since these may import it. Otherwise
    the program would not start, and the person who has to mend those places could not try
    it. A file that stays may need another, as the manager needs the factory: that stays too.
    """
    found = tree.sources(root)
    there = [path for path in imports.REMOVED_FILES if (root / path).is_file()]
    removable = [path for path in there if not tree.is_link(root, path)]
    sources = _read(root, found.files, removable)
    sources.findings += found.findings
    links = (path for path in there if path not in removable)
    sources.findings += (Finding(path, 1, "is reached through a link") for path in links)
    kept = _still_needed(sources.needs, removable)
    going = [path for path in removable if path not in kept]
    staying = [file for path, file in sources.files.items() if path not in going]
    env_changes, env_findings = _env(root)
    findings = [*sources.findings, *env_findings]
    # What a file that stays for now imports is told when it goes.
    told = [file for file in staying if file.path not in kept]
    return Plan(
        changes=(
            *(_change(root, f.path, f.before, f.after) for f in staying if f.before != f.after),
            *env_changes,
            *(_change(root, path, (root / path).read_bytes(), None) for path in going),
        ),
        findings=_sorted(findings, _findings(told, after=False)),
        findings_after=_sorted(findings, _findings(told, after=True)),
        kept=tuple(Kept(path, needed_by) for path, needed_by in sorted(kept.items())),
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


def _read(root: Path, paths: Sequence[str], removable: Sequence[str]) -> _Sources:
    found = _Sources()
    for path in paths:
        try:
            file = _file(root, path, paths)
        except imports.CannotParse as error:
            found.needs[path] = imports.named_in((root / path).read_bytes())
            if path not in removable:
                found.findings.append(Finding(path, error.line, str(error)))
        except OSError as error:
            found.needs[path] = set(removable)
            found.findings.append(Finding(path, 1, f"cannot be read: {error.strerror}"))
        else:
            if file:
                found.files[path] = file
                found.needs[path] = {use.file for use in file.uses if use.file}
    return found


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


def _still_needed(
    needs: Mapping[str, Collection[str]], removable: Sequence[str]
) -> dict[str, str]:
    """Of those, the ones that a file which stays needs, also another of them; and which."""
    kept: dict[str, str] = {}
    while True:
        needed = {
            file: path
            for path in sorted(needs, reverse=True)  # of several, the first is named
            if path not in removable or path in kept
            for file in needs[path]
            if file in removable and file != path
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
