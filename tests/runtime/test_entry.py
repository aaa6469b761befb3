import threading

from proxy.runtime.entry import Entry

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug


class Guest:
    """A thread that enters, and leaves when it is told."""

    def __init__(self, entry, inside):
        self.entered, self.leave = threading.Event(), threading.Event()
        self._entry, self._inside = entry, inside
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        self._entry.enter()
        self._inside.append(self)
        self.entered.set()
        assert self.leave.wait(WAIT_SECONDS)
        self._entry.leave()

    def out(self):
        self.leave.set()
        self.thread.join(WAIT_SECONDS)


def waiting(entry):
    return len(entry._waiting)


def guests(entry, count, inside):
    """One after the other: each is inside, or waits, before the next comes."""
    found = []
    for number in range(count):
        before = waiting(entry)
        found.append(Guest(entry, inside))
        while len(inside) < number + 1 and waiting(entry) == before:
            assert not found[-1].entered.wait(0.001) or found[-1] in inside
    return found


def test_only_so_many_are_inside_and_the_first_who_waits_is_next():
    entry, inside = Entry(places=2), []
    one, two, three, four = guests(entry, 4, inside)
    assert inside == [one, two]
    two.out()
    assert three.entered.wait(WAIT_SECONDS)
    assert not four.entered.is_set()
    one.out()
    assert four.entered.wait(WAIT_SECONDS)
    three.out()
    four.out()
    assert inside == [one, two, three, four]


def test_to_leave_twice_makes_no_place():
    entry = Entry(places=1)
    entry.enter()
    entry.leave()
    entry.leave()
    inside = []
    one, two = guests(entry, 2, inside)
    assert inside == [one]
    one.out()
    assert two.entered.wait(WAIT_SECONDS)
    two.out()


def test_who_never_entered_may_leave():
    entry, inside = Entry(places=1), []
    entry.leave()
    one, two = guests(entry, 2, inside)
    assert inside == [one]
    one.out()
    assert two.entered.wait(WAIT_SECONDS)
    two.out()


def test_of_many_who_come_and_go_no_more_are_inside_and_all_get_in():
    entry, inside, lock = Entry(places=2), [], threading.Lock()
    most, done = [], []

    def come_and_go():
        for _ in range(200):
            entry.enter()
            with lock:
                inside.append(1)
                most.append(len(inside))
            with lock:
                inside.pop()
            entry.leave()
        done.append(1)

    threads = [threading.Thread(target=come_and_go, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * WAIT_SECONDS)
    assert (len(done), len(most)) == (20, 20 * 200)
    assert max(most) <= 2
