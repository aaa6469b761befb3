"""Imports of what goes, found in the syntax tree. Only `instance_manager` has a successor."""

import ast
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

NAME = "instance_manager"
SUCCESSOR = "app.instance.instance_context"
SUCCESSOR_FILE = "app/instance/instance_context.py"
MANAGER = "app.instance.manager"
MOVED_FROM = (MANAGER, "app.main")

REMOVED_FILES = (
    "app/instance/factory.py",
    "app/instance/manager.py",
    "migration/initialize_new_implementation.py",
    "migration/init_factory.py",
)
# The file that a module's name stands for. Those in migration/ were started as scripts, which
# find their neighbours without the folder's name.
REMOVED = {file.removesuffix(".py").replace("/", "."): file for file in REMOVED_FILES}
NEIGHBOURS = {
    module.partition(".")[2]: file
    for module, file in REMOVED.items()
    if module.startswith("migration.")
}

# No file without one of these can import what goes; most need not be parsed.
WORDS = re.compile(rb"manager|factory|initialize_new_implementation")
MODULE_TEXT = re.compile(rf"({'|'.join(map(re.escape, REMOVED))})([.:][\w.:]*)?")


def named_in(content: bytes) -> set[str]:
    """The files that go whose module's last name stands in a source nobody can parse."""
    words = set(re.findall(rb"\w+", content))
    return {file for file in REMOVED_FILES if PurePosixPath(file).stem.encode() in words}


class CannotParse(Exception):
    """Python itself cannot; `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Use:
    """A place that a person has to change; `file` is what has to stay until then."""

    line: int
    what: str
    file: str | None


@dataclass(frozen=True, slots=True)
class _Imported:
    """One name of an import. `name` is None for `import module`; `local` is what it binds."""

    line: int
    module: str
    name: str | None
    local: str
    stands_for: str

    @property
    def moves(self) -> bool:
        return moves(self.module, self.name)


def parsed(content: bytes) -> ast.Module:
    """The tree of a file that compiles. Raises CannotParse."""
    with warnings.catch_warnings():
        # "\d" in somebody's string is not what we were asked about.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(content)
            compile(tree, "<file>", "exec", dont_inherit=True)
        except SyntaxError as error:
            raise CannotParse(f"does not compile: {error.msg}", error.lineno or 1) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise CannotParse(f"does not compile: {error}", 1) from error
    return tree


def has_moves(tree: ast.Module, path: str) -> bool:
    """Whether an import has to be rewritten."""
    return bool(moving(tree, path))


def moving(tree: ast.Module, path: str) -> list[ast.ImportFrom]:
    """The imports that have to be rewritten, at least in one of their names."""
    package = package_of(path)
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and any(moves(_module(node, package), alias.name) for alias in node.names)
    ]


def uses(tree: ast.Module, path: str, obstacle: str | None = None) -> list[Use]:
    """What needs a person, in the file's order.

    `obstacle` says why imports that have a successor are not rewritten in this file.
    """
    package = package_of(path)
    imported = list(_imported(tree, package))
    found = [use for each in imported if (use := _judged(each, obstacle))]
    found += _attributes(tree, imported)
    found += _strings(tree, package)
    return sorted(set(found), key=lambda use: (use.line, use.what))


def moves(module: str, name: str | None) -> bool:
    return name == NAME and module in MOVED_FROM


def package_of(path: str) -> list[str]:
    """Of a module in this file, also of a package's __init__: its folder."""
    return list(PurePosixPath(path).parent.parts)


def absolute(module: str, level: int, package: Sequence[str]) -> str:
    """The name of what `from <level dots><module> import` means; "" if that leads nowhere."""
    if not level:
        return module
    if level - 1 > len(package):
        return ""
    base = package[: len(package) - level + 1]
    return ".".join([*base, *([module] if module else [])])


def _module(node: ast.ImportFrom, package: Sequence[str]) -> str:
    return absolute(node.module or "", node.level, package)


def _removed_file(module: str) -> str | None:
    """Of the removed file that has to be there for the name `module` to mean something."""
    parts = module.split(".")
    prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return next((REMOVED[prefix] for prefix in prefixes if prefix in REMOVED), None)


def _imported(tree: ast.Module, package: Sequence[str]) -> Iterator[_Imported]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                stands_for = alias.name if alias.asname else first
                local = alias.asname or first
                yield _Imported(alias.lineno, alias.name, None, local, stands_for)
        elif isinstance(node, ast.ImportFrom):
            module = _module(node, package)
            for alias in node.names:
                local = alias.asname or alias.name
                stands_for = f"{module}.{alias.name}"
                yield _Imported(alias.lineno, module, alias.name, local, stands_for)


def _judged(each: _Imported, obstacle: str | None) -> Use | None:
    module, name = each.module, each.name
    neighbour = NEIGHBOURS.get(module.partition(".")[0])
    file = neighbour or _removed_file(module)
    if each.moves:
        return (
            Use(each.line, f"imports {NAME} from {module}: {obstacle}", file)
            if obstacle
            else None
        )
    if file and name not in (None, "*"):
        return Use(each.line, f"{name} of {module} has no successor", file)
    if file:
        everything = "everything from " if name else ""
        return Use(each.line, f"imports {everything}{module}, which goes", file)
    if name and (file := _removed_file(f"{module}.{name}")):
        return Use(each.line, f"imports {module}.{name}, which goes", file)
    return None


def _attributes(tree: ast.Module, imported: Sequence[_Imported]) -> Iterator[Use]:
    """`app.instance.manager` in an expression, under whatever names it was imported.

    Scopes are not told apart: a name that stands for two things stands for both.
    """
    meanings = defaultdict(set)
    for each in imported:
        meanings[each.local].add(each.stands_for)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = _dotted(node).partition(".")
            for meaning in meanings[first] if first else ():
                module = f"{meaning}.{rest}"
                if module in REMOVED:
                    yield Use(node.lineno, f"uses {module}, which goes", REMOVED[module])


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of such an expression; "" if it begins with anything but a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _strings(tree: ast.Module, package: Sequence[str]) -> Iterator[Use]:
    """Names of modules in strings, for importlib, mocks and the like."""
    done = set()  # ast.walk comes to a call, or a sum, before it comes to what is in it
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _called(node)
            if called == "getLogger":
                done |= {id(argument) for argument in node.args}
            elif called == "import_module" and (module := _relative_text(node, package)):
                yield from _named(module, node.lineno)
        elif isinstance(node, ast.Constant | ast.BinOp) and (text := _text(node)) is not None:
            if id(node) not in done and MODULE_TEXT.fullmatch(text):
                yield from _named(text, node.lineno)
            done |= {id(part) for part in ast.iter_child_nodes(node)}


def _text(node: ast.expr) -> str | None:
    """What a string says, also one that is put together from constants with `+`."""
    texts: list[str] = []
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            waiting += (part.right, part.left)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            texts.append(part.value)
        else:
            return None
    return "".join(texts)


def _named(text: str, line: int) -> Iterator[Use]:
    file = _removed_file(text.replace(":", "."))
    if file:
        yield Use(line, f"names {text!r} in a string, and {file} goes", file)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else _dotted(function)


def _relative_text(node: ast.Call, package: Sequence[str]) -> str:
    """What `import_module(".manager", "app.instance")` imports; "" if it is not relative.

    A package that is not written out, as `__package__`, is taken for the file's own.
    """
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    name, given = (*(_text(each) for each in arguments[:2]), None, None)[:2]
    if name is None or not name.startswith("."):
        return ""
    module = name.lstrip(".")
    base = package if given is None else given.split(".")
    return absolute(module, len(name) - len(module), base)
