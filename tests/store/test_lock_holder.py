import os
import subprocess
import sys

import pytest

from proxy.store import lock_holder
from proxy.store.lock_holder import _writer, described, holders

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "line, found",
    [
        ("3: POSIX  ADVISORY  WRITE 16427 fe:00:2304378 120 120", (16427, 2304378)),
        ("3: POSIX  ADVISORY  WRITE 16427 fe:00:2304378 0 EOF", (16427, 2304378)),
        ("3: POSIX  ADVISORY  WRITE -1 fe:00:2304378 120 120", (0, 2304378)),
        ("3: POSIX  ADVISORY  READ 16427 fe:00:2304378 120 120", (0, None)),
        ("3: POSIX  ADVISORY  WRITE 16427 fe:00:2304378 123 123", (0, None)),
        ("3: FLOCK  ADVISORY  WRITE 16427 fe:00:2304378 0 EOF", (0, None)),
        # Who waits for one that another has.
        ("3: -> POSIX  ADVISORY  WRITE 16427 fe:00:2304378 120 120", (0, None)),
        ("", (0, None)),
    ],
)
def test_who_has_the_write_lock_is_in_the_systems_list(line, found):
    assert _writer(line) == found


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the system tells of no locks")
def test_who_writes_is_found_and_nobody_else(database, database_file):
    with database.write():
        pass  # the shared memory is there
    assert holders(database_file) == []
    command = [sys.executable, "-c", HOLD, str(database_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert holders(database_file) == [writer.pid]
        assert described([writer.pid]).startswith(f"{writer.pid} (python")
        writer.stdin.close()
    assert holders(database_file) == []


def test_where_the_system_does_not_tell_nobody_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_holder, "PROC", tmp_path)
    assert holders(tmp_path / "proxy.db") == []
    assert described([7]) == "7 (unknown)"
