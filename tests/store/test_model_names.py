import pytest

from proxy.core.deltas import Deltas
from proxy.store import model_names, usage
from proxy.store.model_names import ModelNames

MINUTE = 1_700_000_040


def spelling(model):
    """The config names "gpt-4o" alone."""
    return "gpt-4o" if model.lower() == "gpt-4o" else None


class Worker:
    """It writes usage, each model's of one request."""

    def __init__(self, database):
        self.database = database
        self.names = ModelNames()

    def writes(self, *models, minute=MINUTE, **counts):
        """The names under which it was kept."""
        deltas = Deltas()
        for model in models:
            deltas.add_usage((minute, "a", model, "app"), {"requests": 1} | counts)
        with self.database.write() as connection:
            names = self.names.kept(connection, deltas.usage, spelling)
            usage.add(connection, deltas, names)
        return [names[model] for model in models]


@pytest.fixture
def worker(database):
    return Worker(database)


@pytest.fixture
def requests(database):
    """Of each name, how many are kept."""

    def read():
        with database.read() as connection:
            found = usage.totals(connection)
        return {model: counts["requests"] for (_, model, _), counts in found.items()}

    return read


def test_a_name_of_the_configs_is_kept_in_its_spelling(worker, requests):
    worker.writes("gpt-4o", "GPT-4O", "Gpt-4o")
    assert requests() == {"gpt-4o": 3}


def test_another_is_kept_from_its_first_answer_on(worker, requests):
    assert worker.writes("llama", failed=1) == [""]
    assert worker.writes("llama", succeeded=1) == ["llama"]
    assert worker.writes("made-up", failed=1) == [""]
    assert worker.writes("llama", limited=1) == ["llama"]
    assert requests() == {"": 2, "llama": 2}


def test_all_workers_together_admit_no_more_than_there_is_room_for(
    database, requests, monkeypatch
):
    monkeypatch.setattr(model_names, "MOST_UNNAMED", 3)
    one, other = Worker(database), Worker(database)
    assert one.writes("a", "gpt-4o", succeeded=1) == ["a", "gpt-4o"]
    assert other.writes("b", "a", succeeded=1) == ["b", "a"]
    assert one.writes("c", "d", succeeded=1) == ["c", ""]
    assert other.writes("e", "c", "GPT-4o", succeeded=1) == ["", "c", "gpt-4o"]
    assert set(requests()) == {"", "a", "b", "c", "gpt-4o"}


def test_a_name_stays_when_a_worker_starts_and_the_minute_is_rolled_up(database, worker):
    worker.writes("llama", succeeded=1)
    with database.write() as connection:
        usage.roll_up(connection, MINUTE + 3600)
    assert Worker(database).writes("llama", "made-up", failed=1) == ["llama", ""]


def test_of_too_many_from_before_those_with_the_most_answers_stay(database, monkeypatch):
    Worker(database).writes("often", "rare", succeeded=1)
    Worker(database).writes("often", succeeded=1)
    monkeypatch.setattr(model_names, "MOST_UNNAMED", 1)
    assert Worker(database).writes("often", "rare", "new", succeeded=1) == ["often", "", ""]


def test_what_was_not_written_takes_no_room(database, worker, monkeypatch):
    monkeypatch.setattr(model_names, "MOST_UNNAMED", 1)
    with pytest.raises(ZeroDivisionError):
        fail(database, worker.names)
    assert worker.writes("other", succeeded=1) == ["other"]


def fail(database, names):
    deltas = Deltas()
    deltas.add_usage((MINUTE, "a", "lost", "app"), {"succeeded": 1})
    with database.write() as connection:
        usage.add(connection, deltas, names.kept(connection, deltas.usage, spelling))
        raise ZeroDivisionError


def test_with_another_database_it_begins_anew(database, worker, monkeypatch):
    monkeypatch.setattr(model_names, "MOST_UNNAMED", 1)
    worker.writes("a", succeeded=1)
    worker.writes("a", succeeded=1)
    with database.write() as connection:
        connection.execute(usage.UsageRow.__table__.delete())
    worker.names.forget()
    assert worker.writes("b", succeeded=1) == ["b"]
