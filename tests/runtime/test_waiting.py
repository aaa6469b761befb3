import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.core.contention import Contention
from proxy.runtime import waiting as module
from proxy.runtime.fairness import Fairness
from proxy.runtime.line import Line
from proxy.runtime.waiting import Full, Waiter, WaitingRoom

WAIT_SECONDS = 5.0  # for what comes at once; it is reached only by a bug
FOREVER = 1e9


class Room:
    """What calls wait for. `free` of it is there; to ask takes one."""

    def __init__(self):
        self.free = 0
        self.wait_seconds = FOREVER
        self.asked = []
        self.changed = threading.Condition()

    def asking(self, name):
        def ask(_free):
            with self.changed:
                self.asked.append(name)
                self.changed.notify_all()
                if not self.free:
                    return None, self.wait_seconds
                self.free -= 1
                return name, 0.0

        return ask

    def wait_until_asked(self, name):
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.asked, WAIT_SECONDS)


@pytest.fixture
def room():
    return Room()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as pool:
        yield pool


def soon(seconds=WAIT_SECONDS):
    return time.monotonic() + seconds


def test_room_that_is_there_is_taken_at_once(room):
    room.free = 1
    got = WaitingRoom(places=1).wait("m", room.asking("a"), until=soon(0.1), line=Line())
    assert (got, room.asked) == ("a", ["a"])


def test_who_would_have_to_wait_too_long_does_not_wait(room):
    room.wait_seconds = WAIT_SECONDS + 1
    hall = WaitingRoom(places=1)
    started = time.monotonic()
    assert hall.wait("m", room.asking("a"), until=soon(), line=Line()) is None
    assert time.monotonic() - started < 1
    assert hall.count == 0


def test_who_waits_asks_again_when_there_should_be_room(room):
    room.wait_seconds = 0.01

    def ask(free):
        if room.asked:
            room.free = 1
        return room.asking("a")(free)

    got = WaitingRoom(places=1).wait("m", ask, until=soon(), line=Line())
    assert (got, room.asked) == ("a", ["a", "a"])


def test_who_is_told_of_room_asks_at_once(room, pool, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", FOREVER)
    room.wait_seconds = 1.0
    hall = WaitingRoom(places=1)
    waiting = pool.submit(hall.wait, "m", room.asking("a"), until=soon(), line=Line())
    room.wait_until_asked("a")
    room.free = 1
    hall.poke()
    assert waiting.result(0.9) == "a"


def test_at_the_end_of_the_time_nobody_waits(room):
    room.wait_seconds = 0.001  # it never comes true
    started = time.monotonic()
    got = WaitingRoom(places=1).wait("m", room.asking("a"), until=soon(0.05), line=Line())
    assert got is None
    assert 0.04 < time.monotonic() - started < 2


def test_first_come_first_served(room, pool):
    room.wait_seconds = 0.001
    hall = WaitingRoom(places=10)
    order = []

    def wait(name):
        order.append(hall.wait("m", room.asking(name), until=soon(), line=Line()))

    running = []
    for name in "abcdef":
        running.append(pool.submit(wait, name))
        while hall.count < len(running):
            pass  # until it stands in the queue
    room.wait_until_asked("a")
    assert set(room.asked) == {"a"}  # the others wait behind it
    for number in range(1, 7):
        room.free = 1
        while len(order) < number:
            pass
    assert order == list("abcdef")


def queued(hall, pool, *waits):
    """Each (name, client, `ask`) stands in the queue before the next comes."""
    running = {}
    for name, client, ask in waits:
        before = hall._waiting[client]
        running[name] = pool.submit(
            hall.wait, "m", ask, until=soon(), line=Line(), waiter=Waiter(client)
        )
        while hall._waiting[client] == before and not running[name].done():
            pass
    return running


def served(order, name, room):
    """An `ask` that notes when it was given something."""

    def ask(free):
        got = room.asking(name)(free)
        if got[0] is not None:
            order.append(name)
        return got

    return ask


def test_clients_take_turns_however_many_of_their_calls_wait(room, pool):
    room.wait_seconds = 0.001
    hall, order = WaitingRoom(places=10), []
    names = ["a1", "a2", "a3", "a4", "b1", "c1", "b2"]
    queued(hall, pool, *((name, name[0], served(order, name, room)) for name in names))
    for number in range(1, len(names) + 1):
        room.free = 1
        hall.poke()
        while len(order) < number:
            pass
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_a_large_call_counts_for_several_small_ones(room, pool):
    room.wait_seconds = 0.001
    hall, order = WaitingRoom(places=10), []
    for name, cost in (("a1", 2.0), ("a2", 2.0), ("b1", 1.0), ("b2", 1.0), ("b3", 1.0)):
        before = hall.count
        waiter = Waiter(name[0], cost)
        ask = served(order, name, room)
        pool.submit(hall.wait, "m", ask, until=soon(), line=Line(), waiter=waiter)
        while hall.count == before:
            pass
    for number in range(1, 6):
        room.free = 1
        hall.poke()
        while len(order) < number:
            pass
    assert order == ["a1", "b1", "b2", "a2", "b3"]


def test_who_had_more_lately_keeps_nobody_from_room_and_asks_for_none(room, pool, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    room.wait_seconds = 0.001
    fairness = Fairness()
    hall, order = WaitingRoom(places=10, fairness=fairness), []
    running = queued(hall, pool, ("heavy", "heavy", served(order, "heavy", room)))
    fairness.give("m", "heavy", 1000)
    running |= queued(hall, pool, ("light", "light", served(order, "light", room)))
    while fairness.contention("m").left_to("heavy") is None:
        pass  # until the view is a new one
    room.asked.clear()
    while room.asked.count("light") < 3:
        pass
    assert room.asked.count("heavy") <= 1  # it was about to
    room.free = 1
    hall.poke()
    assert running["light"].result(WAIT_SECONDS) == "light"
    # Its hunger is over a second later.
    room.free = 1
    assert running["heavy"].result(WAIT_SECONDS) == "heavy"
    assert order == ["light", "heavy"]


def test_a_newcomer_does_not_stand_behind_those_who_had_more_than_it(room, pool):
    room.wait_seconds = 0.001
    fairness = Fairness()
    hall = WaitingRoom(places=10, fairness=fairness)
    running = queued(hall, pool, ("heavy", "heavy", room.asking("heavy")))
    assert hall.left_by_others("m") == frozenset()
    fairness.give("m", "heavy", 1000)
    fairness.wait("m", "light", frozenset(), short=True)  # in another worker
    while hall.left_by_others("m") is not None:
        pass  # until the view is a new one
    room.free = 1
    assert running["heavy"].result(WAIT_SECONDS) == "heavy"


class Known(Fairness):
    """It knows beforehand what each had."""

    def __init__(self, **had):
        super().__init__()
        self._found = Contention(
            had, had, (), frozenset(had), frozenset(had), sum(had.values())
        )

    def contention(self, _model):
        return self._found


def test_who_had_less_goes_before_who_came_first_and_shares_with_it(room, pool):
    """What is kept for the one, the other may not take; but it stands before it."""
    room.wait_seconds = 0.001
    hall = WaitingRoom(places=10, fairness=Known(heavy=10.0, light=1.0))
    queued(hall, pool, ("heavy", "heavy", room.asking("heavy")))
    assert hall.left_by_others("m", "heavy") == frozenset()
    assert hall.left_by_others("m", "light") is None
    running = queued(hall, pool, ("light", "light", room.asking("light")))
    room.wait_until_asked("light")
    assert hall.left_by_others("m", "light") == frozenset()  # its own
    room.free = 2
    assert running["light"].result(WAIT_SECONDS) == "light"


def test_both_are_woken_where_only_the_second_may_have_what_there_is(room, pool, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", FOREVER)
    room.wait_seconds = WAIT_SECONDS / 2  # longer than the test takes
    hall = WaitingRoom(places=10, fairness=Known(heavy=10.0, light=1.0, lightest=0.5))
    queued(hall, pool, *((name, name, room.asking(name)) for name in ("heavy", "light")))
    room.wait_until_asked("light")
    queued(hall, pool, ("second", "light", room.asking("second")))
    queued(hall, pool, ("lightest", "lightest", room.asking("lightest")))
    room.wait_until_asked("lightest")
    room.asked.clear()
    hall.poke()
    for name in ("heavy", "light", "lightest"):
        room.wait_until_asked(name)
    assert "second" not in room.asked
    room.free = 4
    hall.poke()


def test_where_all_places_are_one_clients_another_gets_one(room, pool, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", FOREVER)
    room.wait_seconds = 0.5
    hall = WaitingRoom(places=3)
    names = ["a1", "a2", "a3"]
    running = queued(hall, pool, *((name, "a", room.asking(name)) for name in names))
    running |= queued(hall, pool, ("b1", "b", room.asking("b1")))
    with pytest.raises(Full):
        running["a3"].result(WAIT_SECONDS)  # it was last
    assert hall.count == 3
    # Neither takes one from the other: it would then have more.
    for client in "ab":
        with pytest.raises(Full):
            hall.wait("n", room.asking("x"), until=soon(), line=Line(), waiter=Waiter(client))
    for name in ("a1", "b1", "a2"):
        room.free += 1
        hall.poke()
        assert running[name].result(WAIT_SECONDS) == name
    assert (hall.count, hall._waiting, hall._queues) == (0, {}, {})


def test_the_place_that_is_taken_may_be_in_another_models_queue(room, pool):
    room.wait_seconds = 0.5
    hall = WaitingRoom(places=2)
    waiter = Waiter("a")
    for ask in (room.asking("a1"), room.asking("a2")):
        pool.submit(hall.wait, "n", ask, until=soon(), line=Line(), waiter=waiter)
    while hall.count < 2:
        pass
    running = queued(hall, pool, ("b1", "b", room.asking("b1")))
    room.wait_until_asked("b1")
    assert (hall.count, hall._waiting) == (2, {"a": 1, "b": 1})
    room.free = 2
    hall.poke()
    assert running["b1"].result(WAIT_SECONDS) == "b1"


def test_queues_of_different_models_do_not_wait_for_each_other(room, pool):
    room.wait_seconds = 0.001
    hall = WaitingRoom(places=10)
    first = pool.submit(hall.wait, "m", room.asking("a"), until=soon(), line=Line())
    room.wait_until_asked("a")
    assert (hall.left_by_others("m"), hall.left_by_others("n")) == (frozenset(), None)
    other = Room()
    other.free = 1
    assert hall.wait("n", other.asking("b"), until=soon(), line=Line()) == "b"
    room.free = 1
    assert first.result(WAIT_SECONDS) == "a"
    assert hall.left_by_others("m") is None


def test_without_a_place_nobody_waits(room, pool):
    room.wait_seconds = 0.001
    hall = WaitingRoom(places=1)
    first = pool.submit(hall.wait, "m", room.asking("a"), until=soon(), line=Line())
    room.wait_until_asked("a")
    for model in ("m", "n"):
        with pytest.raises(Full):
            hall.wait(model, room.asking("b"), until=soon(), line=Line())
    assert "b" not in room.asked
    room.free = 1
    assert first.result(WAIT_SECONDS) == "a"


class Rooms:
    """Instances and how many each can take; calls for any of them that they do not bar."""

    def __init__(self, **free):
        self.free = free
        self.asked = []

    def asking(self, name, barred=()):
        def ask(free):
            self.asked.append(name)
            for instance in self.free:
                may = instance not in barred and (free is None or instance in free)
                if may and self.free[instance]:
                    self.free[instance] -= 1
                    return instance, 0.0
            return None, 0.5

        return ask


def standing(hall, pool, rooms, *barred_of_each):
    """As many calls as there are sets of what they bar, one behind the other."""
    running = []
    for number, barred in enumerate(barred_of_each):
        waits = pool.submit(
            hall.wait,
            "m",
            rooms.asking(number, barred),
            until=soon(),
            line=Line(),
            waiter=Waiter(barred=frozenset(barred)),
        )
        running.append(waits)
        while hall.count < len(running):
            pass
    return running


def test_who_would_not_take_an_instance_keeps_nobody_from_it(pool, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", FOREVER)
    rooms, hall = Rooms(a=0, b=0), WaitingRoom(places=5)
    first, second, third = standing(hall, pool, rooms, "a", "a", "")
    assert hall.left_by_others("m") == set()  # the third would take it
    rooms.free["a"] = 1
    hall.poke()
    assert third.result(WAIT_SECONDS) == "a"
    assert hall.left_by_others("m") == {"a"}
    rooms.free["b"] = 2
    hall.poke()
    assert (first.result(WAIT_SECONDS), second.result(WAIT_SECONDS)) == ("b", "b")


def test_what_one_before_would_take_is_his(pool):
    rooms, hall = Rooms(a=0, b=0), WaitingRoom(places=5)
    first, second = standing(hall, pool, rooms, "a", "")
    rooms.free["b"] = 1
    hall.poke()
    assert first.result(WAIT_SECONDS) == "b"
    rooms.free["a"] = 1
    hall.poke()
    assert second.result(WAIT_SECONDS) == "a"


def test_who_has_nothing_to_ask_for_does_not_ask_and_does_not_give_up(pool):
    rooms, hall = Rooms(a=0), WaitingRoom(places=5)
    first, second = standing(hall, pool, rooms, "", "")
    rooms.free["a"] = 2
    hall.poke()
    assert (first.result(WAIT_SECONDS), second.result(WAIT_SECONDS)) == ("a", "a")
    assert rooms.asked.count(1) == 1


@pytest.mark.parametrize("position", [0, 1])
def test_a_client_that_leaves_waits_no_longer_and_holds_nobody_up(position, room, pool):
    room.wait_seconds = 0.5
    hall = WaitingRoom(places=3)
    lines = [Line(), Line()]
    running = []
    for name, line in zip("ab", lines, strict=True):
        running.append(pool.submit(hall.wait, "m", room.asking(name), until=soon(), line=line))
        while hall.count < len(running):
            pass
    room.wait_until_asked("a")
    lines[position].cut()
    assert running[position].result(WAIT_SECONDS) is None
    room.free = 1
    hall.poke()
    assert running[1 - position].result(WAIT_SECONDS) == "ba"[position]
    assert hall.count == 0


def test_a_client_that_left_before_does_not_wait(room):
    line = Line()
    line.cut()
    hall = WaitingRoom(places=1)
    assert hall.wait("m", room.asking("a"), until=soon(), line=line) is None
    assert (room.asked, hall.count) == ([], 0)


def test_an_error_while_asking_gives_the_place_back():
    hall = WaitingRoom(places=1)

    def broken(_free):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        hall.wait("m", broken, until=soon(), line=Line())
    assert (hall.count, hall.left_by_others("m")) == (0, None)


def test_to_poke_an_empty_room_takes_no_lock():
    hall = WaitingRoom(places=1)
    hall._lock = None
    hall.poke()


def test_when_it_is_closed_nobody_waits_any_longer_and_nobody_comes_in(room, pool):
    room.wait_seconds = 1.0
    hall = WaitingRoom(places=3)
    waits = [
        pool.submit(hall.wait, name, room.asking(name), until=soon(), line=Line())
        for name in "ab"
    ]
    for name in "ab":
        room.wait_until_asked(name)
    assert hall.close() == 2
    for each in waits:
        with pytest.raises(Full):
            each.result(WAIT_SECONDS)
    assert (hall.count, hall.close()) == (0, 0)
    with pytest.raises(Full):
        hall.wait("a", room.asking("c"), until=soon(), line=Line())
