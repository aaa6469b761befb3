import sqlite3
from contextlib import closing

import pytest


@pytest.fixture
def other_process(database_file):
    """A connection that knows nothing of ours, as another process has one."""
    with closing(sqlite3.connect(database_file, timeout=0, isolation_level=None)) as connection:
        yield connection
