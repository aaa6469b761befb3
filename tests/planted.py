"""Watches that nothing tells a secret, while the whole suite runs.

Secrets of tests have the word "planted" in them, or are of a form of our own: clients' keys,
the keys of the vault, what is encrypted. `watch` looks at whatever goes out: each answer of the
app, each line that is logged, each error made for somebody to read, each value that goes to a
database, and what commands and other processes print. A test in which one is found fails.
"""

import contextlib
import io
import itertools
import logging
import re
import subprocess

import click.testing
import requests
from sqlalchemy import Engine, event

from migrations.legacy.backup import BackupFailed
from proxy.errors import ProxyError
from proxy.runtime.references import LeadsNowhere
from proxy.runtime.upstream import UpstreamError
from proxy.settings import SettingError
from proxy.store.schema import SchemaProblem
from proxy.store.statements import Prepared
from proxy.store.vault import CannotOpen
from proxy.web.app import Gateway

ERRORS = (ProxyError, SettingError, SchemaProblem, BackupFailed, LeadsNowhere, CannotOpen)
ERRORS += (UpstreamError,)

WORD = b"planted"
# Cheap to look for; only where one of them is, the patterns are.
BEGINNINGS = (WORD, b"gw-", b"gw_", b"gwa_", b"gAAAAAB", b"dGVzdHMt")
PATTERNS = (
    re.compile(rb"(?<![a-z])planted"),  # in others' files something may be transplanted
    # A client's or an admin's key.
    re.compile(rb"(?<![A-Za-z0-9_-])(gw-|gw_|gwa_)[A-Za-z0-9_-]{30,}"),
    re.compile(rb"gAAAAAB[A-Za-z0-9_-]{30,}"),  # what was encrypted
    re.compile(rb"dGVzdHMt[A-Za-z0-9_-]{20,}"),  # SECRET_KEY of the builders
)
# What a database may be given: keyed hashes, and what is encrypted.
OF_DATABASES = PATTERNS[:2]

# Where a key is shown, this once: (method, path) of the admin API and the console, and words of
# commands.
SHOWN_ONCE = (
    ("POST", "/admin/keys"),
    ("POST", "/admin/admin-keys"),
    ("POST", "/admin/ui/key/save"),
    ("POST", "/admin/ui/key/rotate"),
)
COMMANDS_THAT_SHOW = (
    ("keys", "add"),
    ("keys", "rotate"),
    ("admins", "add"),
    ("secrets", "key"),
)

AROUND = 60  # characters that a finding shows on each side
OVERLAP = 80  # of pieces of a body, so that a secret may lie across two

_found: list[str] = []
_watches = False


def look(where, value, patterns=PATTERNS):
    """Notes each secret that is in the text or bytes."""
    data = value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
    if not any(beginning in data for beginning in BEGINNINGS):
        return
    for pattern in patterns:
        for match in pattern.finditer(data):
            begin = max(0, match.start() - AROUND)
            excerpt = data[begin : match.end() + AROUND].decode("utf-8", "replace")
            _found.append(f"{where}: ...{excerpt}...")


def taken():
    """What was found since the last time."""
    found = _found[:]
    _found.clear()
    return found


@contextlib.contextmanager
def ignored():
    """For what is meant to show one. Whatever was found before still counts."""
    before = _found[:]
    yield
    _found[:] = before


def watch():
    """Once a process: there is no way back."""
    global _watches
    if _watches:
        return
    _watches = True
    _watch_answers()
    _watch_log()
    _watch_errors()
    _watch_databases()
    _watch_commands()
    _watch_processes()


# Answers.


def _watch_answers():
    original = Gateway.__call__

    def call(app, environ, start_response):
        method, path = environ.get("REQUEST_METHOD"), environ.get("PATH_INFO", "")
        shows = any(method == m and path.startswith(p) for m, p in SHOWN_ONCE)
        patterns = PATTERNS[:1] if shows else PATTERNS
        where = f"the answer to {method} {path}"

        def start(status, headers, *more):
            look(where, f"{status} {headers}", patterns)
            return start_response(status, headers, *more)

        return _Body(original(app, environ, start), where, patterns)

    Gateway.__call__ = call


class _Body:
    """As the app gave it; looked at while it is read."""

    def __init__(self, body, where, patterns):
        self._body, self._pieces = body, iter(body)
        self._pass = _looking(where, patterns)

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self._pieces)
        self._pass(piece)
        return piece

    def close(self):
        if hasattr(self._body, "close"):
            self._body.close()


def _looking(where, patterns=PATTERNS):
    """A function of the pieces of a body, one after the other."""
    before = b""

    def look_at(piece):
        nonlocal before
        before += piece
        look(where, before, patterns)
        before = before[-OVERLAP:]

    return look_at


def watch_requests():
    """Also what comes over the network, by `requests`: of tests that run a gateway. Returns a
    function that ends it."""
    original = requests.Response.iter_content

    def iter_content(response, *arguments, **named):
        look_at = _looking(f"the answer to {response.url}")
        look(f"the answer to {response.url}", str(response.headers))
        for piece in original(response, *arguments, **named):
            look_at(piece if isinstance(piece, bytes) else piece.encode())
            yield piece

    requests.Response.iter_content = iter_content

    def end():
        requests.Response.iter_content = original

    return end


# Lines and errors.


def _watch_log():
    """What a line is made of when it is logged, and the line when it is put into words, which
    may be in another thread."""
    make, into_words = logging.getLogRecordFactory(), logging.Formatter.format

    def record(*arguments, **named):
        made = make(*arguments, **named)
        given = made.args.values() if isinstance(made.args, dict) else made.args or ()
        for each in (made.msg, *given):
            if isinstance(each, str | bytes | BaseException):
                look(f"a line of the log {made.name}", str(each))
        error = made.exc_info[1] if made.exc_info else None
        while error is not None:
            look(f"a traceback in the log {made.name}", f"{type(error).__name__}: {error}")
            error = error.__cause__ or error.__context__
        return made

    def words(formatter, made):
        look(f"a line of the log {made.name}", made.getMessage())
        return into_words(formatter, made)

    logging.setLogRecordFactory(record)
    logging.Formatter.format = words


def _watch_errors():
    for kind in ERRORS:
        _watch_error(kind)


def _watch_error(kind):
    original = kind.__init__

    def init(error, *arguments, **named):
        original(error, *arguments, **named)
        look(f"a {kind.__name__}", f"{error} {arguments} {named}")

    kind.__init__ = init


# Databases.


def _watch_databases():
    @event.listens_for(Engine, "before_cursor_execute")
    def before(_connection, _cursor, statement, parameters, _context, _many):
        _look_at_values(statement, parameters)

    for name in ("rows", "many"):
        _watch_prepared(name)


def _watch_prepared(name):
    original = getattr(Prepared, name)

    def execute(prepared, connection, *arguments, **named):
        _look_at_values("a prepared statement", (arguments, named))
        return original(prepared, connection, *arguments, **named)

    setattr(Prepared, name, execute)


def _look_at_values(statement, values):
    if isinstance(values, str | bytes):
        look(f"a value of {statement[:60]!r}", values, OF_DATABASES)
    elif isinstance(values, dict):
        _look_at_values(statement, list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            _look_at_values(statement, value)


# What is printed.


def _patterns_of(words):
    words = " ".join(map(str, words)).split()  # one may be a whole script
    pairs = set(itertools.pairwise(words))
    return PATTERNS[:1] if pairs & set(COMMANDS_THAT_SHOW) else PATTERNS


def _watch_commands():
    original = click.testing.CliRunner.invoke

    def invoke(runner, *arguments, **named):
        result = original(runner, *arguments, **named)
        given = named.get("args") or next(iter(arguments[1:]), None) or ()
        words = given.split() if isinstance(given, str) else list(given)
        look(f"what `{' '.join(words[:2])}` printed", result.output, _patterns_of(words))
        return result

    click.testing.CliRunner.invoke = invoke


def _watch_processes():
    original = subprocess.run

    def run(*arguments, **named):
        done = original(*arguments, **named)
        words = done.args if isinstance(done.args, list | tuple) else [done.args]
        for said in (done.stdout, done.stderr):
            if isinstance(said, str | bytes):
                look(f"what {words[-3:]} printed", said, _patterns_of(words))
        return done

    subprocess.run = run


def look_at_file(path, patterns=PATTERNS):
    """Of a gateway that ran: its log, its database."""
    with contextlib.suppress(FileNotFoundError), io.FileIO(path) as file:
        look(f"the file {path}", file.readall(), patterns)
