import threading

from proxy.runtime.turnstile import Turnstile

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug


class Guest:
    """A thread that enters, and leaves when it is told."""

    def __init__(self, turnstile, inside):
        self.entered, self.leave = threading.Event(), threading.Event()
        self._turnstile, self._inside = turnstile, inside
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        self._turnstile.enter()
        self._inside.append(self)
        self.entered.set()
        assert self.leave.wait(WAIT_SECONDS)
        self._turnstile.leave()

    def out(self):
        self.leave.set()
        self.thread.join(WAIT_SECONDS)


def waiting(turnstile):
    return len(turnstile._waiting)


def guests(turnstile, count, inside):
    """One after the other: each is inside, or waits, before the next comes."""
    found = []
    for number in range(count):
        before = waiting(turnstile)
        found.append(Guest(turnstile, inside))
        while len(inside) < number + 1 and waiting(turnstile) == before:
            assert not found[-1].entered.wait(0.001) or found[-1] in inside
    return found


def test_only_so_many_are_inside_and_the_first_who_waits_is_next():
    turnstile, inside = Turnstile(places=2), []
    one, two, three, four = guests(turnstile, 4, inside)
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
    turnstile = Turnstile(places=1)
    turnstile.enter()
    turnstile.leave()
    turnstile.leave()
    inside = []
    one, two = guests(turnstile, 2, inside)
    assert inside == [one]
    one.out()
    assert two.entered.wait(WAIT_SECONDS)
    two.out()


def test_who_never_entered_may_leave():
    turnstile, inside = Turnstile(places=1), []
    turnstile.leave()
    one, two = guests(turnstile, 2, inside)
    assert inside == [one]
    one.out()
    assert two.entered.wait(WAIT_SECONDS)
    two.out()


def test_of_many_who_come_and_go_no_more_are_inside_and_all_get_in():
    turnstile, inside, lock = Turnstile(places=2), [], threading.Lock()
    most, done = [], []

    def come_and_go():
        for _ in range(200):
            turnstile.enter()
            with lock:
                inside.append(1)
                most.append(len(inside))
            with lock:
                inside.pop()
            turnstile.leave()
        done.append(1)

    threads = [threading.Thread(target=come_and_go, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * WAIT_SECONDS)
    assert (len(done), len(most)) == (20, 20 * 200)
    assert max(most) <= 2
