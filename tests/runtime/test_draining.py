import os

from proxy.runtime.draining import Draining


def test_it_has_not_begun_until_somebody_says_so():
    draining = Draining()
    assert not draining.has_begun
    draining.begin()
    draining.begin()
    assert draining.has_begun


def test_processes_that_were_forked_hear_of_it():
    draining = Draining()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.read(reading, 1)
        os._exit(0 if draining.has_begun else 1)
    draining.begin()
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reading)
    os.close(writing)
