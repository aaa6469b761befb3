"""Imports rewritten in place: each is taken apart by libcst, put together, and put back.

libcst keeps comments and layout. It gets the statement only, because of whole files it
forgets form feeds and blanks in an empty last line. The result is looked at with Python's
own parser.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import libcst as cst
from libcst.helpers import get_full_name_for_node

from cleanup.imports import (
    SUCCESSOR,
    CannotParse,
    absolute,
    has_moves,
    moves,
    moving,
    package_of,
    parsed,
)

# What Python takes for a line; str.splitlines knows more ends.
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
NEWLINE = re.compile(r"\r\n|\r|\n")
REST_OF_LINE = re.compile(r"[ \t\f]*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")

_Gap = cst.BaseParenthesizableWhitespace


class CannotRewrite(Exception):
    """Not without changing what is none of our business."""


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """An import as it will be. Of one that becomes two, `second` and its comments as well."""

    first: str
    second: str = ""
    comments: tuple[str, ...] = ()


def rewritten(content: bytes, path: str) -> bytes:
    """The file with `instance_manager` imported from its successor, all else untouched.

    `content` compiles. Raises CannotRewrite.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    text = content.decode(encoding)
    if text.encode(encoding) != content:
        raise CannotRewrite(f"written as {encoding}, other lines would change as well")
    spans = [_span(text, node) for node in moving(parsed(content), path)]
    for start, end in sorted(spans, reverse=True):
        text = _put(text, start, end, _statement(text[start:end], package_of(path)))
    result = text.encode(encoding)
    try:
        still_there = has_moves(parsed(result), path)
    except CannotParse as error:
        raise CannotRewrite("the rewritten file would not compile") from error
    if still_there:
        raise CannotRewrite("libcst and Python read this file differently")
    return result


def _span(text: str, node: ast.ImportFrom) -> tuple[int, int]:
    """Where the statement begins and ends in the text; Python counts lines and bytes."""
    lines = LINE.findall(text)

    def offset(line: int, column_bytes: int) -> int:
        before = lines[line - 1].encode()[:column_bytes].decode()
        return sum(map(len, lines[: line - 1])) + len(before)

    assert node.end_lineno is not None  # the parser fills them in
    assert node.end_col_offset is not None
    return offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)


def _put(text: str, start: int, end: int, new: _Rewritten) -> str:
    """A second import gets a line of its own if the first has one, else it stands beside it."""
    before, after = text[:start], text[end:]
    if not new.second:
        return before + new.first + after
    margin = re.split(r"[\r\n]", before)[-1]
    is_continued = before.removesuffix(margin).rstrip("\r\n").endswith("\\")
    rest = REST_OF_LINE.match(after)
    if margin.strip() or is_continued or not rest:
        if new.comments:
            raise CannotRewrite("a comment would be lost; give the import a line of its own")
        return f"{before}{new.first}; {new.second}{after}"
    after = after[rest.end() :]
    found = NEWLINE.search(after) or NEWLINE.search(text)
    newline = found.group() if found else "\n"
    second = "  ".join([new.second, *new.comments])
    return f"{before}{new.first}{rest.group()}{newline}{margin}{second}{after}"


def _statement(text: str, package: Sequence[str]) -> _Rewritten:
    try:
        module = cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise CannotRewrite("libcst cannot parse this import") from error
    line = cst.ensure_type(module.body[0], cst.SimpleStatementLine)
    node = cst.ensure_type(line.body[0], cst.ImportFrom)
    if module.code != text or isinstance(node.names, cst.ImportStar):
        raise CannotRewrite("libcst and Python read this import differently")
    name = get_full_name_for_node(node.module) if node.module else None
    origin = absolute(name or "", len(node.relative), package)
    leaving = [alias for alias in node.names if moves(origin, alias.evaluated_name)]
    if len(leaving) == len(node.names):
        return _Rewritten(module.code_for_node(_from_successor(node)))
    staying, comments = _without(node, lambda alias: alias in leaving)
    second = cst.ImportFrom(module=cst.Name("_"), names=[_plain(alias) for alias in leaving])
    return _Rewritten(
        module.code_for_node(staying),
        module.code_for_node(_from_successor(second)),
        tuple(comment.value for comment in comments),
    )


def _from_successor(node: cst.ImportFrom) -> cst.ImportFrom:
    module = cst.parse_expression(SUCCESSOR)
    space = node.whitespace_after_from
    if space.empty:  # `from.manager import x`
        space = cst.SimpleWhitespace(" ")
    return node.with_changes(module=module, relative=(), whitespace_after_from=space)


def _plain(alias: cst.ImportAlias) -> cst.ImportAlias:
    """Without the line breaks that are allowed in parentheses only."""
    asname = cst.AsName(name=alias.asname.name) if alias.asname else None
    return cst.ImportAlias(name=alias.name, asname=asname)


def _without(
    node: cst.ImportFrom, leaves: Callable[[cst.ImportAlias], bool]
) -> tuple[cst.ImportFrom, list[cst.Comment]]:
    """The import without some of its names, laid out as before, and these names' comments."""
    assert not isinstance(node.names, cst.ImportStar)  # the caller looked
    opening: _Gap = node.lpar.whitespace_after if node.lpar else cst.SimpleWhitespace("")
    kept: list[cst.ImportAlias] = []
    gaps = [opening]  # before the first name that is kept, and after each
    comments = []
    for alias in node.names:
        after = _gap_after(node, alias)
        if not leaves(alias):
            kept.append(alias)
            gaps.append(after)
            continue
        comments += _own_comment(after)
        gaps[-1] = _merged(gaps[-1], after, is_last=alias is node.names[-1])
    return _laid_out(node, kept, gaps), comments


def _gap_after(node: cst.ImportFrom, alias: cst.ImportAlias) -> _Gap:
    if isinstance(alias.comma, cst.Comma):
        return alias.comma.whitespace_after
    return node.rpar.whitespace_before if node.rpar else cst.SimpleWhitespace("")


def _own_comment(gap: _Gap) -> list[cst.Comment]:
    comment = gap.first_line.comment if isinstance(gap, cst.ParenthesizedWhitespace) else None
    return [comment] if comment else []


def _merged(before: _Gap, after: _Gap, *, is_last: bool) -> _Gap:
    """What stands where a name and the gaps around it stood; only the name's comment goes."""
    if isinstance(after, cst.ParenthesizedWhitespace):
        if isinstance(before, cst.ParenthesizedWhitespace):
            lines = [*before.empty_lines, *after.empty_lines]
            return after.with_changes(first_line=before.first_line, empty_lines=lines)
        line = cst.TrailingWhitespace(newline=after.first_line.newline)
        return after.with_changes(first_line=line)
    has_comments = isinstance(before, cst.ParenthesizedWhitespace) and (
        before.first_line.comment or before.empty_lines
    )
    return after if is_last and not has_comments else before


def _laid_out(
    node: cst.ImportFrom, names: Sequence[cst.ImportAlias], gaps: Sequence[_Gap]
) -> cst.ImportFrom:
    assert not isinstance(node.names, cst.ImportStar)  # the caller looked
    had_comma = isinstance(node.names[-1].comma, cst.Comma)
    laid_out = []
    for alias, gap in zip(names, gaps[1:], strict=True):
        is_last = alias is names[-1]
        comma: cst.Comma | cst.MaybeSentinel = cst.Comma(whitespace_after=gap)
        if is_last and not had_comma:
            comma = cst.MaybeSentinel.DEFAULT
        laid_out.append(alias.with_changes(comma=comma))
    node = node.with_changes(names=laid_out)
    if node.lpar and node.rpar:
        lpar = node.lpar.with_changes(whitespace_after=gaps[0])
        rpar = node.rpar.with_changes(
            whitespace_before=node.rpar.whitespace_before if had_comma else gaps[-1]
        )
        node = node.with_changes(lpar=lpar, rpar=rpar)
    return node
