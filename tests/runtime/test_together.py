import threading

import pytest

from proxy.runtime.together import Done, together


def test_each_is_told_with_its_result():
    found = together([lambda: "a", lambda: "b", lambda: "c"], threads=2, seconds=5)
    assert sorted(found, key=lambda d: d.number) == [Done(0, "a"), Done(1, "b"), Done(2, "c")]


def test_of_no_jobs_there_is_nothing():
    assert list(together([], threads=2, seconds=5)) == []


def test_they_are_done_side_by_side():
    """Each waits for the other."""
    meeting = threading.Barrier(2)
    found = together([lambda: meeting.wait(5)] * 2, threads=2, seconds=5)
    assert {d.result for d in found} == {0, 1}


def test_what_is_late_is_not_waited_for_and_what_waits_is_not_begun():
    end, begun = threading.Event(), []
    jobs = [lambda: end.wait(10), lambda: begun.append(1)]
    assert list(together(jobs, threads=1, seconds=0.05)) == [Done(0, None), Done(1, None)]
    (late,) = [t for t in threading.enumerate() if t.name == "together"]
    end.set()
    late.join(5)
    assert late.daemon  # nor does the process wait for it, at its end
    assert begun == []


def test_what_a_job_raises_is_raised():
    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(together([fail], threads=1, seconds=5))
