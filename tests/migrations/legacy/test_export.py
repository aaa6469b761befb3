import json
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations.legacy.convert import OLD_TOTALS
from migrations.legacy.export import CONFIG_FILE, STATE_FILE, export
from migrations.legacy.records import CARRIED_STATE_KEYS, CONFIG_KEYS
from proxy.core.deltas import Deltas, Rest
from proxy.store import instances, states
from proxy.store.schema import SchemaProblem
from tests.builders import AUTHOR, config
from tests.migrations.legacy.files import write
from tests.migrations.legacy.imports import CONFIG, LATER, imported
from tests.migrations.legacy.test_apply import add_deltas
from tests.migrations.legacy.test_samples import SAMPLES

RECORD = CONFIG | {"name": "a"}
STATE = {
    "name": "a",
    "total_requests": 20,
    "successful_requests": 10,
    "error_count": 2,
    "avg_latency_ms": 512.25,
    "total_errors_503": 7,
    "last_used": 1.5e9,
    "rate_limited_until": LATER,
}


def exported(database, folder):
    """What stands in the two files: configs, states."""
    with database.read() as connection:
        made = export(connection, folder)
    return [json.loads((made / name).read_text()) for name in (CONFIG_FILE, STATE_FILE)]


def there_and_back(database, folder, configs, old_states):
    write(folder, "old/instance_configs.json", configs)
    write(folder, "old/instance_states.json", old_states)
    imported(database, folder / "old")
    return exported(database, folder)


def emptied(database):
    with database.write() as connection:
        for table in ("instance_config", "instance_state", "deployment_state"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        connection.exec_driver_sql("DELETE FROM config_revision")


def test_the_files_are_only_their_owners(database, tmp_path):
    with database.read() as connection:
        folders = [export(connection, tmp_path / "out") for _ in range(2)]
    assert len(set(folders)) == 2
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {p.name for p in folder.iterdir()} == {CONFIG_FILE, STATE_FILE}
        assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}


def test_a_config_has_the_old_programs_keys_and_what_was_unknown(database, tmp_path):
    record = RECORD | {"provider_type": "generic", "tags": ["x"]}
    configs, _ = there_and_back(database, tmp_path, {"a": record}, {})
    assert set(configs["a"]) == {*CONFIG_KEYS, "tags"}
    assert configs["a"].items() >= record.items()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples here")
def test_a_state_has_all_keys_of_the_last_release(database, tmp_path):
    late = json.loads((SAMPLES / "instance_states_late.json").read_text())
    _, old_states = there_and_back(database, tmp_path, {"a": RECORD}, {"a": STATE})
    assert old_states["a"].keys() >= next(iter(late.values())).keys()


def test_what_the_proxy_did_since_is_in_the_files(database, tmp_path):
    there_and_back(database, tmp_path, {"a": RECORD}, {"a": STATE})
    add_deltas(database, total_requests=5, successful_requests=5, latency_total_ms=1500)
    with database.session() as session:
        instances.change(session, "a", {"priority": 7}, author=AUTHOR)
        instances.add(session, [config("b", provider_type="openai")], author=AUTHOR)
    configs, old_states = exported(database, tmp_path)
    assert configs["a"]["priority"] == 7
    assert configs["b"]["provider_type"] == "generic"
    a = old_states["a"]
    assert (a["total_requests"], a["successful_requests"]) == (25, 15)
    assert a["avg_latency_ms"] == pytest.approx((5122 + 1500) / 15)
    assert (old_states["b"]["total_requests"], old_states["b"]["avg_latency_ms"]) == (0, None)


@pytest.mark.parametrize("inner", ["", None, 0, False, "other", 5])
def test_a_name_inside_comes_back_as_it_was_whatever_it_is(database, tmp_path, inner):
    given = RECORD | {"name": inner}, STATE | {"name": inner}
    configs, old_states = there_and_back(database, tmp_path, {"a": given[0]}, {"a": given[1]})
    assert (configs["a"]["name"], old_states["a"]["name"]) == (inner, inner)


@pytest.mark.parametrize("state", [{}, {"name": "b"}, {"status": "healthy"}, {"tags": [1]}])
def test_a_state_without_a_config_comes_back_whatever_it_says(database, tmp_path, state):
    _, old_states = there_and_back(database, tmp_path, {"a": RECORD}, {"b": state})
    assert old_states["b"].items() >= state.items()


def test_answers_without_a_known_latency_do_not_make_the_average_smaller(database, tmp_path):
    state = {"successful_requests": 10, "avg_latency_ms": None}
    _, before = there_and_back(database, tmp_path, {"a": RECORD}, {"a": state})
    assert before["a"]["avg_latency_ms"] is None
    add_deltas(database, successful_requests=5, latency_total_ms=1500)
    _, after = exported(database, tmp_path)
    assert after["a"]["avg_latency_ms"] == 300


def test_the_longest_rest_is_the_instances(database, tmp_path):
    deltas = Deltas()
    for deployment, until in (("", 1.0), ("x", LATER), ("y", LATER - 1)):
        deltas.add_rest(("a", deployment), Rest(until, "throttled", LATER))
    deltas.add_rest(("b", ""), Rest(1.0, "throttled", LATER))  # it is over
    with database.session() as session:
        instances.add(session, [config("a"), config("b")], author=AUTHOR)
    with database.write() as connection:
        states.add(connection, deltas)
    _, old_states = exported(database, tmp_path)
    assert old_states["a"]["rate_limited_until"] == LATER
    assert old_states["b"]["rate_limited_until"] is None
    assert [old_states[n]["status"] for n in "ab"] == ["rate_limited", "healthy"]


def test_state_without_a_config_comes_back_too(database, tmp_path):
    configs, old_states = there_and_back(database, tmp_path, {}, {"gone": STATE})
    assert configs == {}
    assert old_states["gone"]["total_requests"] == 20


def test_a_folder_that_cannot_be_written_is_a_sentence(database, tmp_path):
    with pytest.raises(SchemaProblem, match=r"cannot be written in .*: Not a directory\."):
        exported(database, write(tmp_path, "file", "") / "folder")


def test_unknown_keys_come_back_in_the_file_they_came_from(database, tmp_path):
    record = RECORD | {"tags": ["x"], "note": 1}
    state = STATE | {"mood": "fine", "note": 2, "weight": 7}  # a state's weight is no weight
    configs, old_states = there_and_back(database, tmp_path, {"a": record}, {"a": state})
    assert configs["a"].items() >= {"tags": ["x"], "note": 1, "weight": 100}.items()
    assert "mood" not in configs["a"]
    assert old_states["a"].items() >= {"mood": "fine", "note": 2, "weight": 7}.items()
    assert "tags" not in old_states["a"]


def test_unknown_keys_alone_are_a_state_that_comes_back(database, tmp_path):
    state = {"name": "a", "mood": 1}
    _, old_states = there_and_back(database, tmp_path, {"a": RECORD}, {"a": state})
    assert old_states["a"]["mood"] == 1


BLANK = {"proxy_url": "", "api_version": "", "max_tpm": None, "supported_models": None}
NEVER = {
    "last_used": None,
    "last_error_time": 0.0,
    "total_requests": None,
    "avg_latency_ms": "",
}


def test_what_was_written_for_nothing_comes_back_as_it_was_written(database, tmp_path):
    files = {"a": RECORD | BLANK}, {"a": {"name": "a", "error_count": 1} | NEVER}
    configs, old_states = there_and_back(database, tmp_path, *files)
    assert configs["a"].items() >= BLANK.items()
    assert old_states["a"].items() >= NEVER.items()


def test_what_came_in_the_place_of_nothing_is_in_the_files(database, tmp_path):
    files = {"a": RECORD | BLANK}, {"a": {"name": "a", "error_count": 1} | NEVER}
    there_and_back(database, tmp_path, *files)
    add_deltas(database, total_requests=5)
    proxy = "http://10.0.0.5:3128"
    with database.session() as session:
        instances.change(session, "a", {"proxy_url": proxy, "max_tpm": 7}, author=AUTHOR)
    configs, old_states = exported(database, tmp_path)
    assert (configs["a"]["proxy_url"], configs["a"]["max_tpm"]) == (proxy, 7)
    assert configs["a"]["api_version"] == ""
    assert (old_states["a"]["total_requests"], old_states["a"]["last_used"]) == (5, None)


def test_another_name_inside_comes_back(database, tmp_path):
    files = {"a": RECORD | {"name": "b"}}, {"a": STATE | {"name": "c"}}
    configs, old_states = there_and_back(database, tmp_path, *files)
    assert (configs["a"]["name"], old_states["a"]["name"]) == ("b", "c")


# The round trip. Normalised: a rest that is over is none; text that is plainly an integer is
# one; of a model named twice one is left.

names = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8
).map(lambda name: f"n{name}n")
words = st.sampled_from(["gpt-4o", "GPT-4o", "o3-mini", "text-embedding-3-large", "德"])
whole = st.integers(0, 2**31 - 1)
either = whole | whole.map(str) | st.none() | st.just("")
UNKNOWN = ("tags", "mood", "weight")
old_configs = st.fixed_dictionaries(
    {
        "provider_type": st.sampled_from(["azure", "generic"]),
        "api_key": st.sampled_from(["fake-0123456789abcdef", "NONE"]),
        "api_base": st.sampled_from(["https://a.example/", "http://b.example:8080/x"]),
        "api_version": st.sampled_from(["2023-05-15", "2025-01-01-preview"]),
        "proxy_url": st.sampled_from([None, "", "http://user:pa%40ss@10.0.0.5:3128"]),
        "priority": either,
        "weight": either,
        "max_tpm": either,
        "max_input_tokens": either,
        "supported_models": st.lists(words, max_size=4) | st.none(),
        "model_deployments": st.dictionaries(words, words, max_size=3) | st.none(),
    },
    optional={
        "enabled": st.booleans(),
        "timeout_seconds": st.floats(0.5, 3600),
        "retry_count": st.integers(0, 100),
        "rate_limit_enabled": st.booleans(),
        "tags": st.lists(words, max_size=2),
    },
)
counts = st.integers(0, 2**53)
moments = st.none() | st.just(0.0) | st.floats(1.0, LATER)
old_states_of = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            (*OLD_TOTALS, *(k for k in CARRIED_STATE_KEYS if "total" in k)), counts
        ),
        "error_count": counts | st.none() | st.just(""),
        "successful_requests": st.integers(0, 10**6),
        "avg_latency_ms": st.none() | st.floats(0, 1e6),
        "last_error": st.none()
        | st.text(st.characters(exclude_categories=("Cs",)), max_size=9),
        "last_error_time": moments,
        "last_used": moments,
        "rate_limited_until": st.sampled_from([None, 1.5e9, LATER, int(LATER)]),
        "status": st.sampled_from(["healthy", "rate_limited", "error"]),
        "usage_window": st.dictionaries(st.just("1742198400"), counts),
        "tags": st.lists(words, max_size=2),
        "mood": words,
        "weight": whole,
    },
)
deployments = st.dictionaries(
    names, st.tuples(old_configs, st.none() | old_states_of), max_size=4
)


def normalised_config(name, values):
    whole_numbers = ("priority", "weight", "max_tpm", "max_input_tokens")
    return values | {
        "name": name,
        **{key: values[key] and int(values[key]) for key in whole_numbers},
        "supported_models": values["supported_models"]
        and list(dict.fromkeys(values["supported_models"])),
    }


def normalised_state(values):
    carried = {k: v for k, v in values.items() if k in (*CARRIED_STATE_KEYS, *OLD_TOTALS)}
    if carried.get("rate_limited_until") == 1.5e9:
        carried["rate_limited_until"] = None
    unknown = {k: v for k, v in values.items() if k in UNKNOWN}
    return carried | unknown


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deployments)
def test_split_files_come_back_with_equal_json_for_all_that_is_carried(
    database, tmp_path, deployment
):
    emptied(database)
    configs = {name: {"name": name, **each} for name, (each, _) in deployment.items()}
    given_states = {name: each for name, (_, each) in deployment.items() if each is not None}
    back, states_back = there_and_back(database, Path(tmp_path), configs, given_states)
    assert back.keys() == configs.keys()
    for name, values in configs.items():
        expected = normalised_config(name, values)
        assert {k: back[name][k] for k in expected} == expected
    for name, values in given_states.items():
        expected = normalised_state(values)
        assert {k: states_back[name][k] for k in expected} == expected


def test_the_old_program_knew_keys_only(database, tmp_path):
    configs, _ = there_and_back(database, tmp_path, {"a": RECORD | {"auth": "entra"}}, {})
    with database.read() as connection:
        (stored,) = instances.load_all(connection)
    assert (stored.config.auth, stored.config.api_key) == ("key", RECORD["api_key"])
    assert configs["a"]["auth"] == "entra"  # whoever wrote it there may know what it meant
