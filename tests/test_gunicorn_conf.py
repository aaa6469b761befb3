from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from proxy import gunicorn_conf


def test_a_worker_has_threads_before_the_first_call_comes():
    with ThreadPoolExecutor(gunicorn_conf.READY_THREADS * 2) as pool:
        gunicorn_conf._begin_threads(SimpleNamespace(tpool=pool))
        assert len(pool._threads) == gunicorn_conf.READY_THREADS
        assert pool.submit(lambda: "served").result(5) == "served"
