import json
import os
import threading
import time
from types import SimpleNamespace

import pytest

from proxy import create_app
from proxy.cli import doctor
from proxy.context import EXTENSION
from proxy.core.deltas import WHOLE_INSTANCE, Deltas, Rest
from proxy.core.findings import RESTORE_NEWEST
from proxy.runtime.verify import Check
from proxy.simulator import Resource, Simulator
from proxy.store import instances, keys, schema, states
from tests.builders import AUTHOR, SECRET_KEY, config
from tests.store.test_damage import spoil
from tests.store.test_lost import backup_of
from tests.web.conftest import log_kept

KEY = "planted-key-of-a-0123456789"
ADMIN_KEY = "planted-admin-key-0123456789"


@pytest.fixture
def make_app(make_settings, database_file):
    os.chmod(database_file, 0o600)
    with log_kept():
        # At the port nobody listens: no gateway runs.
        yield lambda **more: create_app(
            make_settings(**({"admin_api_key": ADMIN_KEY, "port": 9} | more))
        )


@pytest.fixture
def run(make_app):
    """A function from a command's arguments to its result."""

    def run(*arguments, app=None):
        return (app or make_app()).test_cli_runner().invoke(args=["doctor", *arguments])

    return run


@pytest.fixture
def add(database):
    def add(*configs):
        with database.session() as session:
            instances.add(session, configs, author=AUTHOR)
            keys.add(session, "app", {}, author=AUTHOR)

    return add


@pytest.fixture
def sim():
    with Simulator([Resource("sim", api_key=KEY)]) as simulator:
        yield simulator["sim"]


def found(result):
    return {
        (f["area"], f["severity"], f["what"].split(":")[0])
        for f in json.loads(result.stdout)["findings"]
    }


def test_of_a_gateway_that_is_well_it_says_so(run, add, sim):
    add(config("a", api_base=sim.url, api_key=KEY, supported_models=("gpt-4o",)))
    result = run()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "ok       instances    a, gpt-4o: Answered chat/completions." in lines
    assert lines[-1] == "Nothing is wrong, 2 not looked at."
    nobody = "No gateway answers at http://127.0.0.1:9: start one, or set PORT."
    assert f"skipped  gateway      {nobody}" in lines
    assert "skipped  clock        No upstream told the time." in lines
    assert result.stderr == ""


NEVER_REPLACED = (
    "The key of raw names a variable that nothing replaced, and is sent as it is written."
)


def test_an_error_has_code_1_and_each_has_a_remedy(run, add, sim, database_file):
    add(
        config("bad", api_base=sim.url, supported_models=("gpt-4o",), api_key="wrong-key-123"),
        config("gone", api_base="https://no-such-host.invalid", supported_models=("gpt-4o",)),
        config("lost", api_key="env:NO_SUCH_VARIABLE"),
        config("raw", enabled=False, api_key="${NO_SUCH_VARIABLE}"),
        config("off", enabled=False, api_base="https://also-not.invalid"),
    )
    os.chmod(database_file, 0o644)
    result = run("--json")
    assert result.exit_code == 1
    assert found(result) >= {
        ("instances", "error", "bad, gpt-4o"),
        ("instances", "error", "gone, gpt-4o"),
        ("dns", "error", "no-such-host.invalid"),
        ("secrets", "error", "Instance lost is out of service"),
        ("secrets", "warning", NEVER_REPLACED),
        ("files", "error", f"{database_file} can be read by others than its owner."),
    }
    shown = json.loads(result.stdout)
    assert not shown["ok"]
    assert all(f["remedy"] for f in shown["findings"] if f["severity"] in ("error", "warning"))
    assert "also-not" not in result.stdout  # nobody asks who is switched off
    assert "wrong-key-123" not in result.stdout


def test_offline_nobody_is_asked(run, add, sim):
    add(config("a", api_base=sim.url, api_key=KEY, supported_models=("gpt-4o",)))
    result = run("--offline", "--json")
    assert result.exit_code == 0
    assert ("network", "skipped", "Nobody was asked (--offline).") in found(result)
    assert sim.requests == []


def test_without_a_database_it_says_how_to_make_one(run, database_file):
    database_file.unlink()
    result = run()
    assert result.exit_code == 1
    assert "-> .venv/bin/alembic upgrade head" in result.stdout
    assert "Without the database nothing is known of them." in result.stdout


def test_a_database_that_is_gone_is_not_to_be_made_anew_while_a_gateway_runs(
    run, database_file, monkeypatch
):
    database_file.unlink()
    well = {"status": "ok", "problem": None, "calls": {}}
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: well)
    result = run()
    assert result.exit_code == 1
    assert f"-> Put it back; or stop the gateway, then {RESTORE_NEWEST}" in result.stdout
    assert "goes on with what it knows" in result.stdout
    assert "alembic" not in result.stdout


def test_a_database_of_which_there_are_backups_is_to_be_put_back(run, database_file):
    backup = backup_of(database_file)
    database_file.unlink()
    text = run("--offline").stdout
    assert f"the newest is {backup}" in text
    assert f"-> Put it back; or stop the gateway, then {RESTORE_NEWEST}" in text


def test_while_another_process_writes_all_else_is_looked_at(run, add, monkeypatch):
    add(config("a"))

    def busy(_):
        raise schema.DatabaseBusy("It cannot be written now.")

    monkeypatch.setattr(schema, "check_writable", busy)
    result = run("--offline", "--json")
    assert result.exit_code == 0
    assert found(result) >= {
        ("database", "warning", "It cannot be written now."),
        ("instances", "ok", "1 of 1 instances are enabled."),
    }


def test_an_instance_that_workers_leave_alone_now_is_told_of(run, add, sim, database):
    more = {"api_base": sim.url, "api_key": KEY, "supported_models": ("gpt-4o",)}
    add(config("a", **more), config("b", **more), config("off", enabled=False, **more))
    now, deltas = time.time(), Deltas()
    for name, reason in (("a", "misconfigured"), ("b", "throttled"), ("off", "misconfigured")):
        deltas.add_rest((name, WHOLE_INSTANCE), Rest(now + 300, reason, now))
    with database.write() as connection:
        states.add(connection, deltas)
    result = run()
    assert "a is left alone now: it refuses the gateway, 5 min left." in result.stdout
    assert "flask instances verify a; what is well is asked again at once." in result.stdout
    assert result.stdout.count("left alone now") == 1
    assert "1 warning" in result.stdout


def test_a_database_that_is_damaged(run, database_file):
    spoil(database_file)
    result = run("--offline", "--json")
    assert result.exit_code == 1
    assert ("database", "error", "It is damaged") in found(result)
    assert database_file.exists()  # the next start sets it aside, not this


@pytest.fixture
def hurried(monkeypatch):
    """What is asked has less than a second, whatever --seconds says."""
    carried_out = doctor._carried_out
    monkeypatch.setattr(doctor, "_carried_out", lambda jobs, _: carried_out(jobs, 0.5))


def test_a_deployment_that_takes_too_long_is_given_up_and_hides_no_other(
    run, add, monkeypatch, hurried
):
    add(config("a", api_base="http://127.0.0.1:9", supported_models=("slow", "gpt-4o")))
    end = threading.Event()
    good = Check("deployment", ok=True, detail="Answered.", model="gpt-4o")
    looks = {"slow": lambda: end.wait(10), "gpt-4o": lambda: good}
    monkeypatch.setattr(doctor, "looks", lambda *_: looks)
    result = run("--json")
    end.set()
    assert ("instances", "warning", "a, slow") in found(result)
    assert ("instances", "ok", "a, gpt-4o") in found(result)


def test_an_instance_whose_deployments_are_all_silent_hides_no_other(
    run, add, monkeypatch, hurried
):
    add(*(config(name, api_base="http://127.0.0.1:9") for name in ("a", "b")))
    end = threading.Event()
    silent = {f"slow-{n}": lambda: end.wait(10) for n in range(2 * doctor.THREADS)}
    fine = {"gpt-4o": lambda: Check("deployment", ok=True, detail="Answered.", model="gpt-4o")}
    monkeypatch.setattr(
        doctor, "looks", lambda _, each, __: silent if each.name == "a" else fine
    )
    result = run("--json")
    end.set()
    assert ("instances", "ok", "b, gpt-4o") in found(result)


def test_the_running_workers_are_asked(run, make_app, add, monkeypatch):
    asked = []

    def health(address, *, seconds):
        asked.append(address)
        late = "State was last synced 30 s ago." if len(asked) == 2 else None
        return {"status": "ok", "problem": late, "calls": {}}

    monkeypatch.setattr("proxy.runtime.running.health", health)
    app = make_app(workers=2, bind="0.0.0.0", port=8123)
    result = run("--json", app=app)
    assert asked == ["http://127.0.0.1:8123"] * 6
    assert ("gateway", "error", "A worker says") in found(result)


@pytest.fixture
def lost_key(make_app, make_settings, tmp_path, add, database, sim):
    """An app whose key for secrets went away after an instance was stored with it, and one that
    it could not read before either."""
    path = tmp_path / "secret.key"
    path.write_text(f"{SECRET_KEY}\n")
    path.chmod(0o600)
    add(
        config("a", api_base=sim.url, api_key=KEY, supported_models=("gpt-4o",)),
        config("lost", api_base=sim.url, api_key="env:NO_SUCH_VARIABLE"),
    )
    path.unlink()
    return make_app(secret_key=(), secret_key_file=path)


def say(monkeypatch, **said):
    answer = {"status": "ok", "problem": None, "calls": {}} | said
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: answer)


def test_of_a_key_that_only_running_workers_have_it_says_what_the_next_start_lacks(
    run, lost_key, monkeypatch
):
    say(monkeypatch, secret_key="in memory", out_of_service=0)
    result = run(app=lost_key)
    assert result.exit_code == 1
    assert "The key for secrets is gone: the key is missing: it belongs in" in result.stdout
    assert "still has it in memory and goes on" in result.stdout
    assert "before the gateway is started anew" in result.stdout
    assert "skipped  instances    In service, but not asked by this command" in result.stdout
    assert "Instance lost is in service, but would not be" in result.stdout
    assert "is out of service" not in result.stdout
    assert "cannot be decrypted" not in result.stdout


def test_who_is_out_of_service_without_the_key_too_is_told_so(run, lost_key, monkeypatch):
    say(monkeypatch, secret_key="in memory", out_of_service=1)
    result = run(app=lost_key)
    assert "Instance lost is out of service" in result.stdout
    assert "Instance a is" not in result.stdout


def test_a_key_that_only_this_command_cannot_read_is_not_gone(run, lost_key, monkeypatch):
    say(monkeypatch, secret_key="there", out_of_service=0)
    result = run("--json", app=lost_key)
    assert result.exit_code == 0
    assert ("secrets", "warning", "This command cannot read the key for secrets") in found(
        result
    )
    assert "out of service" not in result.stdout


@pytest.mark.parametrize(
    "said",
    [
        {"secret_key": "gone", "out_of_service": 2},  # they were started anew since
        {},  # of an older version
    ],
)
def test_without_a_key_in_memory_instances_are_out_of_service(run, lost_key, monkeypatch, said):
    say(monkeypatch, **said)
    result = run(app=lost_key)
    assert "Instance a is out of service" in result.stdout
    assert "secrets cannot be decrypted" in result.stdout


def test_the_gateway_is_asked_once_also_where_the_key_is_gone(run, lost_key, monkeypatch):
    asked = []
    well = {"status": "ok", "problem": None, "calls": {}, "secret_key": "in memory"}
    monkeypatch.setattr(
        "proxy.runtime.running.health", lambda *_, **__: asked.append(1) or well
    )
    run(app=lost_key)
    workers = lost_key.extensions[EXTENSION].settings.workers
    assert len(asked) == doctor.ASKED_FOR_EACH_WORKER * workers


def test_who_is_in_service_is_not_said_where_workers_say_that_some_are_not(
    run, lost_key, monkeypatch
):
    say(monkeypatch, secret_key="in memory", out_of_service=2)
    text = run(app=lost_key).stdout
    assert "In service, but" not in text
    assert "instances    In service or not, and not asked by this command" in text


@pytest.mark.parametrize("answers", [0, 1])
def test_a_gateway_that_does_not_answer_takes_no_longer_than_all_may(
    run, lost_key, monkeypatch, answers
):
    end, asked = threading.Event(), []

    def health(*_, **__):
        asked.append(1)
        if len(asked) > answers:
            end.wait(10)
        return {"status": "ok", "problem": None, "calls": {}}

    monkeypatch.setattr("proxy.runtime.running.health", health)
    began = time.monotonic()
    run("--seconds", "1", app=lost_key)
    end.set()
    assert time.monotonic() - began < 9  # and not the ten that an answer takes


def test_all_others_have_the_time_that_the_gateway_left(run, monkeypatch):
    now, given = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)

    def hear(_mine, seconds):
        now[0] += 4.0
        return [None]

    monkeypatch.setattr(doctor, "time", clock)
    monkeypatch.setattr(doctor, "_heard", hear)
    for name in ("_of_network", "_carried_out"):
        monkeypatch.setattr(doctor, name, lambda _, seconds: given.append(seconds) or [])
    run("--seconds", "10")
    assert given == [6.0, 6.0]


def test_offline_the_gateway_is_not_asked(run, lost_key, database_file, monkeypatch):
    asked = []
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: asked.append(1))
    text = run("--offline", app=lost_key).stdout
    assert "Instance a is out of service" in text
    assert " gateway " not in text
    database_file.unlink()
    run("--offline", app=lost_key)
    assert asked == []


def test_a_key_that_is_gone_while_nothing_runs_or_nobody_is_asked(run, lost_key):
    for arguments in ((), ("--offline",)):
        result = run(*arguments, app=lost_key)
        assert "Instance a is out of service" in result.stdout


def test_nothing_stays_open(run, make_app, add, sim):
    add(config("a", api_base=sim.url, api_key=KEY, supported_models=("gpt-4o",)))
    app = make_app()
    run(app=app)
    assert app.extensions[EXTENSION].database.engine.pool.checkedin() == 0


def test_a_damaged_database_that_was_set_aside_is_not_replaced_by_an_empty_one(
    run, database_file
):
    os.rename(database_file, f"{database_file}.damaged-20260101T000000Z")
    text = run().stdout
    assert "was set aside as" in text
    assert "restore --newest" in text
    assert "alembic upgrade head" not in text
