"""What a key may do holds for all workers together: through gunicorn with two of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from proxy.simulator import Simulator
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port, until
from tests.e2e.test_own_faults import workers

PARALLEL = 4
RPM = 10


@pytest.fixture(scope="module")
def limited(
    tmp_path_factory: pytest.TempPathFactory, simulator: Simulator
) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("limited"), free_port())
    gateway.start()
    add_instance(gateway, simulator["east"])
    yield gateway
    gateway.stop(signal.SIGKILL)


def use_client(gateway: Gateway, name: str, **limits: int) -> None:
    """Its key is the one that is used from now on, and all workers know it."""
    made = requests.post(
        f"{gateway.url}/admin/keys",
        headers={"X-Admin-API-Key": ADMIN_KEY},
        json={"name": name, **limits},
        timeout=10,
    )
    assert made.status_code == 201, made.text
    gateway.client_key = made.json()["key"]
    until(gateway.is_settled, "all workers know the key")


def open_requests(gateway: Gateway, name: str) -> int:
    """As whichever worker answers counts those of all."""
    shown = requests.get(
        f"{gateway.url}/admin/keys/{name}", headers={"X-Admin-API-Key": ADMIN_KEY}, timeout=10
    )
    return int(shown.json()["state"]["in_flight"])


def test_no_more_streams_are_open_than_the_key_allows_whoever_serves_them(
    limited: Gateway, simulator: Simulator
):
    use_client(limited, "parallel", max_parallel_requests=PARALLEL)
    simulator["east"].faults["*"] = "stall-in-middle"
    with ExitStack() as stack:
        answers = [stack.enter_context(limited.chat(stream=True)) for _ in range(30)]
        served = [a for a in answers if a.status_code == 200]
        refused = [a for a in answers if a.status_code == 429]
        assert (len(served), len(refused)) == (PARALLEL, 30 - PARALLEL)
        assert all(a.json()["error"]["code"] == "rate_limit_exceeded" for a in refused)
        # What a worker held that is killed is free again.
        before = workers(limited)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(workers(limited)) == 2 and before[0] not in workers(limited), "anew")
    simulator["east"].reset()
    until(lambda: open_requests(limited, "parallel") == 0, "those whose clients left are over")
    with ExitStack() as stack:
        simulator["east"].faults["*"] = "stall-in-middle"
        answers = [stack.enter_context(limited.chat(stream=True)) for _ in range(20)]
        assert [a.status_code for a in answers].count(200) == PARALLEL


def test_no_more_requests_are_made_in_a_minute_than_the_key_allows(limited: Gateway):
    use_client(limited, "minute", max_rpm=RPM)
    answers = [limited.chat() for _ in range(4 * RPM)]
    assert [a.status_code for a in answers].count(200) == RPM
    last = answers[-1]
    assert last.status_code == 429
    assert 0 < int(last.headers["retry-after-ms"]) <= 61_000
    assert last.headers["x-ratelimit-remaining-requests"] == "0"
