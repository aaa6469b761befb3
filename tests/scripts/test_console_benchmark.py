"""The benchmark of the console: that its pages ask as real ones do, and that it reports."""

import json
import sys
import threading
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from tests.web.conftest import ADMIN_KEY, make_world, simulator

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import console_benchmark
from console_benchmark import Console, Found

__all__ = ["make_world", "simulator"]


@pytest.fixture
def url(make_world):
    """Of a gateway that answers HTTP."""
    server = make_server("127.0.0.1", 0, make_world().app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("keeps", [True, False])
def test_one_that_keeps_what_it_shows_is_not_sent_it_again(url, keeps):
    console = Console(url, console_benchmark.signed_in(url, ADMIN_KEY), keeps=keeps)
    sizes = []
    for _ in range(2):
        console.tick()
        sizes.append(console.answer_bytes)
    console.close()
    assert sizes[0] > 0
    assert sizes[1] == (0 if keeps else sizes[0])


def test_people_get_lines_and_programs_json(capsys):
    rows = [Found("nothing changes", 50, 20, 1000, 0.0393, 0)]
    console_benchmark.report(rows, as_json=False)
    assert "50 consoles, 20 instances, nothing changes" in capsys.readouterr().out
    console_benchmark.report(rows, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["share"] == 0.0393
