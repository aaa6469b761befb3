"""Imports go down only, and libraries stay where they belong."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy.settings import ROOT

# A part imports itself and those above it in this list. Parts in one line do not know
# each other.
LAYERS = (
    ("errors", "loading", "simulator"),
    ("core",),
    ("settings",),
    ("store",),
    ("runtime",),
    ("logs",),
    ("context",),
    ("web", "cli.told", "cli.progress"),
    ("legacy", "cli.look"),
    (
        "cli.legacy",
        "cli.admins",
        "cli.keys",
        "cli.mock",
        "cli.secrets",
        "cli.config",
        "cli.instances",
        "cli.logs",
        "cli.doctor",
        "cli.top",
        "cli.usage",
    ),
    ("cli",),
    ("__init__",),
    ("start",),
    ("demo",),
    ("server", "server.answer_writer", "server.known_heads", "server.method_queue"),
    ("server.request_reader",),
    ("server.worker",),
    ("__main__", "gunicorn_conf", "wsgi", "migrations"),
)
# Rooms whose files are parts of their own.
BY_FILE = ("cli", "server")
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

# Parts that may know less than their layer allows; besides themselves.
ONLY = {
    "simulator": set(),  # it stands for other people's machines
    "loading": set(),
    "logs": {"core", "settings", "runtime"},
    "server.known_heads": set(),
    "server.method_queue": set(),
    "server.request_reader": {"core", "server.known_heads"},
    "server.answer_writer": set(),
    "server.worker": {
        "errors",
        "core",
        "runtime",
        "context",
        "server.known_heads",
        "server.method_queue",
        "server.request_reader",
        "server.answer_writer",
    },
    "migrations": {"settings", "store", "legacy"},
    # A config from outside is checked as the web's are, and written out as it is used.
    "legacy": {"core", "store", "runtime", "web"},
}
# Parts that are for some only.
ONLY_FOR = {
    "simulator": {"cli.mock", "demo"},
    "cli": {"__init__"},
    "loading": {"__init__"},
    "logs": {"context", "__init__"},
    "web": {
        "__init__",
        "legacy",
        "cli.keys",
        "cli.config",
        "cli.look",
        "cli.top",
        "cli.usage",
    },  # which check as it does, or show what it shows
    "legacy": {"cli.legacy", "migrations"},
}

# Whoever else needs one of these asks the owner for a function, or has a reason to be here.
OWNERS = {
    "alembic": ("migrations/",),
    "azure": ("proxy/runtime/azure_token.py",),
    "certifi": ("proxy/runtime/dialling.py",),
    "click": ("proxy/cli/",),
    "cryptography": ("proxy/store/vault.py",),
    "dotenv": ("proxy/settings.py", "migrations/legacy/env_files.py"),
    "flask": (
        "proxy/web/",
        "proxy/context.py",
        "proxy/cli/",
        "proxy/__init__.py",
        "proxy/gunicorn_conf.py",  # the type of what the workers load
    ),
    # marshmallow's schemas are in web/schemas*.py; documented.py names the type, and
    # config_import.py tells all errors of many.
    "flask_smorest": (
        "proxy/web/admin.py",
        "proxy/web/admin_keys.py",
        "proxy/web/config.py",
        "proxy/web/docs.py",
        "proxy/web/documented.py",
        "proxy/web/explain.py",
        "proxy/web/keys.py",
        "proxy/web/prices.py",
        "proxy/web/stats.py",
        "proxy/web/quota_groups.py",
        "proxy/web/requests.py",
    ),
    "flask_swagger_ui": ("proxy/web/docs.py",),
    "gunicorn": (
        "proxy/gunicorn_conf.py",
        "proxy/server/answer_writer.py",
        "proxy/server/method_queue.py",
        "proxy/server/request_reader.py",
        "proxy/server/worker.py",
        "proxy/runtime/wire_errors.py",
        "proxy/web/body.py",
    ),  # the last two: its errors
    "itsdangerous": ("proxy/web/ui/session.py",),
    "httptools": ("proxy/runtime/answer_reader.py",),
    "marshmallow": (
        "proxy/web/schemas",
        "proxy/web/documented.py",
        "proxy/web/config_import.py",
    ),
    "opentelemetry": ("proxy/runtime/otel.py",),
    "orjson": (
        "proxy/web/",
        "proxy/runtime/log_forms.py",
        "proxy/store/held.py",
        "proxy/store/states.py",
        "proxy/store/db.py",
    ),
    "rich": (
        "proxy/cli/progress.py",
        "proxy/cli/top.py",
    ),
    "prometheus_client": ("proxy/web/metrics.py",),
    "requests": (
        "proxy/runtime/upstream.py",
        "proxy/runtime/transport.py",
        "proxy/runtime/dialling.py",  # its exceptions
    ),
    "sqlalchemy": ("proxy/store/", "migrations/"),
    "urllib3": ("proxy/runtime/connection.py", "proxy/runtime/dialling.py"),
    "werkzeug": ("proxy/web/",),
    "yaml": ("migrations/legacy/yaml_files.py", "proxy/web/config_text.py"),
}

# What reads a clock, draws by chance, waits, locks, or reaches outside the process.
NOT_IN_CORE = frozenset(
    "asyncio calendar concurrent contextvars datetime ftplib glob http importlib io logging"
    " multiprocessing os pathlib platform queue secrets select selectors shutil signal smtplib"
    " socket socketserver sqlite3 ssl subprocess sys tempfile threading time uuid"
    " urllib.request".split()
)
CALLS_NOT_IN_CORE = frozenset(
    "open print input Random now utcnow today urandom getrandbits exec eval __import__".split()
)


class Import(NamedTuple):
    file: str
    line: int
    module: str  # with the imported name, where that is a module or a name of one

    def __str__(self):
        return f"{self.file}:{self.line} imports {self.module}"


def _files():
    found = [*ROOT.glob("proxy/**/*.py"), *ROOT.glob("migrations/**/*.py"), ROOT / "wsgi.py"]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def _tree(file):
    return ast.parse((ROOT / file).read_text(), filename=file)


def _imports_of(file):
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}")


FILES = _files()
IMPORTS = {file: list(_imports_of(file)) for file in FILES}
CORE = [file for file in FILES if file.startswith("proxy/core/")]


def of_each(files):
    """One test for all files: to tell thousands apart takes longer than to run them."""

    def decorate(test):
        def of_all():
            for file in files:
                test(file)

        of_all.__name__ = test.__name__
        return of_all

    return decorate


each_file, each_file_of_core = of_each(FILES), of_each(CORE)


def part_of_file(file):
    """Whatever it is, listed or not."""
    first, *rest = Path(file).with_suffix("").parts
    if (first, *rest[:1]) == ("migrations", "legacy"):
        return "legacy"
    if first != "proxy":
        return first
    room, *name = rest
    return f"{room}.{name[0]}" if room in BY_FILE and name[0] != "__init__" else room


def part_of_module(module):
    """`proxy.create_app` is of `__init__`, `proxy.web.errors` of `web`, `proxy.cli.keys` a part
    of its own; None if not ours."""
    first, *rest = module.split(".")
    if (first, *rest[:1]) == ("migrations", "legacy"):
        return "legacy"
    if first != "proxy":
        return first if first in RANKS else None
    return next((p for p in (".".join(rest[:2]), *rest[:1]) if p in RANKS), "__init__")


def library(module):
    first = module.partition(".")[0]
    is_ours = first in ("proxy", "wsgi", "migrations")
    return None if is_ours or first in sys.stdlib_module_names else first


def file_of(module):
    """Of our modules; the name that is imported from it may be part of `module`."""
    path = ROOT.joinpath(*module.split("."))
    for each in (path, path.parent):
        for found in (each.with_suffix(".py"), each / "__init__.py"):
            if found.is_file():
                return str(found.relative_to(ROOT))
    raise AssertionError(f"no file of {module}")


def none(bad, why):
    assert not bad, "\n".join(f"{each}: {why}" for each in map(str, bad))


def test_every_part_has_a_layer():
    assert {part_of_file(file) for file in FILES} == set(RANKS)


@each_file
def test_imports_go_down_only(file):
    own = part_of_file(file)
    bad = [
        each
        for each in IMPORTS[file]
        if (part := part_of_module(each.module)) not in (None, own)
        and RANKS[part] >= RANKS[own]
    ]
    none(bad, f"{own} is not above it")


@each_file
def test_no_part_knows_more_than_it_needs(file):
    own = part_of_file(file)
    bad = []
    for each in IMPORTS[file]:
        part = part_of_module(each.module)
        if part in (None, own):
            continue
        if part not in ONLY.get(own, {part}) or own not in ONLY_FOR.get(part, {own}):
            bad.append(each)
    none(bad, f"not for {own}")


@each_file
def test_libraries_stay_where_they_belong(file):
    bad = [
        each
        for each in IMPORTS[file]
        if (name := library(each.module)) and not file.startswith(OWNERS.get(name, ("-",)))
    ]
    none(bad, "the library belongs elsewhere (see OWNERS)")


@pytest.mark.parametrize("name", OWNERS)
def test_an_owner_uses_what_it_owns(name):
    users = {f for f in FILES for each in IMPORTS[f] if library(each.module) == name}
    unused = [o for o in OWNERS[name] if not any(user.startswith(o) for user in users)]
    assert not unused, f"{name} is not used any more in {unused}"


@each_file
def test_imports_are_at_the_top_and_absolute(file):
    tree = _tree(file)
    top = {id(node) for node in tree.body}
    bad = [
        f"{file}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and (id(node) not in top or getattr(node, "level", 0))
    ]
    none(bad, "imports are absolute, and at the top of the file")


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {
        file: {
            file_of(each.module) for each in IMPORTS[file] if each.module.startswith("proxy.")
        }
        - {file}
        for file in FILES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@each_file_of_core
def test_core_imports_the_standard_library_and_itself(file):
    bad = [
        each
        for each in IMPORTS[file]
        if library(each.module) or part_of_module(each.module) not in (None, "core", "errors")
    ]
    none(bad, "core knows the standard library, itself and errors")


@each_file_of_core
def test_core_has_no_clock_no_chance_and_no_outside(file):
    bad = [
        each
        for each in IMPORTS[file]
        if each.module.partition(".")[0] in NOT_IN_CORE
        or each.module.startswith("urllib.request")
        # A type of what is passed in; to make one is forbidden below.
        or (each.module.startswith("random") and each.module != "random.Random")
    ]
    none(bad, "core decides: moments, chance and bytes are passed in")


@each_file_of_core
def test_core_calls_nothing_that_does_something(file):
    bad = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in CALLS_NOT_IN_CORE:
                bad.append(f"{file}:{node.lineno} calls {name}")
    none(bad, "core decides, it does nothing")


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("proxy/simulator/")])
def test_the_simulator_needs_the_standard_library_alone(file):
    none(
        [each for each in IMPORTS[file] if library(each.module)], "not of the standard library"
    )
