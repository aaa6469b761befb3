"""Whatever keys a record has, in any layout: each is in config, state or extra."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrations.legacy import csv_files, database, env_files, json_files, yaml_files
from migrations.legacy.records import CARRIED_STATE_KEYS, CONFIG_KEYS

KNOWN = (*CONFIG_KEYS, *CARRIED_STATE_KEYS, "usage_window", "status", "tags")
letters = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))
keys = st.sampled_from(KNOWN) | st.text(letters, min_size=1, max_size=8)
# Bytes that the old writers could not read; JSON alone can hold such text.
halves = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=("Cs",))
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(letters, max_size=8)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(keys, scalars, max_size=2)
stats = st.none() | scalars | st.dictionaries(keys, scalars, max_size=4)
plain = st.dictionaries(keys.filter(lambda key: key != "stats"), values, max_size=8)
records = plain | st.builds(lambda record, stats: record | {"stats": stats}, plain, stats)
names = st.text(letters, min_size=1, max_size=5)
listed = st.lists(records, max_size=3)
by_name = st.dictionaries(names, records, max_size=3)


odd_texts = names | st.builds(
    lambda *two: "".join(two), st.sampled_from("ab"), st.text(halves, max_size=3)
)
odd_plain = st.dictionaries(keys.filter(lambda key: key != "stats") | odd_texts, values)
odd_listed = st.lists(odd_plain | records, max_size=3)
odd_by_name = st.dictionaries(odd_texts, odd_plain | records, max_size=3)


def whole(value):
    """As it is to be read: no half of a character is left, and no two texts become one."""
    if isinstance(value, dict):
        return {whole(key): whole(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return "".join(f"\ufffd{ord(c):x}" if "\udc80" <= c <= "\udcff" else c for c in value)
    return value


def assert_all_there(found, written):
    """`found` is a Record, `written` what stood in the file."""
    everything = {"config": found.config, "state": found.state, "extra": found.extra}
    for key, value in written.items():
        if key == "stats":
            _assert_stats_there(found, value)
        else:
            values = [group[key] for group in everything.values() if key in group]
            assert value in values, f"{key} is nowhere"


def _assert_stats_there(found, value):
    if not isinstance(value, dict):
        assert found.extra.get("stats") == value
        return
    left = found.extra.get("stats", {})
    for key, inner in value.items():
        if inner is not None:  # a null overrules nothing, and says nothing
            assert found.state.get(key, left.get(key)) == inner


def assert_records(reading, written):
    assert reading.problems == ()
    assert len(reading.records) == len(written)
    for found, each in zip(reading.records, written, strict=True):
        assert_all_there(found, each)


@settings(max_examples=40, deadline=None)
@given(odd_listed, st.sampled_from(["timestamp", "last_updated", "version"]))
def test_json_lists(written, envelope):
    text = json.dumps({envelope: 1, "instances": written})
    assert_records(json_files.read(Path("a.json"), text), [whole(each) for each in written])


@settings(max_examples=40, deadline=None)
@given(odd_by_name, st.booleans())
@example({"00": {"error_count": None}, "0": {"name": {"api_key": None}}}, False)
def test_json_by_name(written, has_scalars):
    written.pop("instances", None)
    scalars = {k: 1 for k in ("timestamp", "worker_id") if has_scalars and k not in written}
    reading = json_files.read(Path("a.json"), json.dumps(written | scalars))
    refused = [
        each
        for each in whole(written).values()
        if reading.layout == "S2" and json_files._is_config_in_other_words(each)
    ]
    assert len(reading.bad) == len(refused)  # and told: it would be lost
    others = [each for each in whole(written).values() if each not in refused]
    assert_records(reading, others)
    named = {name for name in whole(written) if name.strip()}
    assert named <= {each.name for each in (*reading.records, *reading.bad)}


@settings(max_examples=20, deadline=None)
@given(odd_listed)
def test_the_database(written):
    with TemporaryDirectory() as folder:
        file = Path(folder, "a.db")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE current_version (version_id TEXT)")
            connection.execute(
                "CREATE TABLE instance_versions (id INTEGER, version_id TEXT, data TEXT)"
            )
            connection.execute("INSERT INTO current_version VALUES ('v')")
            row = (json.dumps(written),)
            connection.execute("INSERT INTO instance_versions VALUES (1, 'v', ?)", row)
        assert_records(database.read(file), [whole(each) for each in written])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, plain, max_size=3))
def test_yaml(written):
    # Two names inside would be one instance that replaces another.
    written = {name: record | {"name": name} for name, record in written.items()}
    # In quotes, everything that is text stays text; numbers under text keys are another test.
    for record in written.values():
        for key in yaml_files.TEXT_KEYS:
            if key in record and not isinstance(record[key], str):
                del record[key]
    text = yaml.safe_dump({"instances": list(written.values())}, allow_unicode=True)
    (reading,) = yaml_files.read([(Path("a.yaml"), text)], {})
    assert_records(reading, list(written.values()))


suffixes = st.sampled_from(
    [*env_files.SUFFIXES, "MODEL_MAP_GPT_4O", "MODEL_MAP_X", "DEPLOYMENT_NAME", "Y_Z"]
)
words = st.text("abcdef0123456789", min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.dictionaries(suffixes, words), min_size=1))
def test_env_files(written):
    lines = [f"API_INSTANCES={','.join(written)}"]
    for name, fields in written.items():
        lines += [f"API_INSTANCE_{name.upper()}_{key}={v}" for key, v in fields.items()]
    reading = env_files.read(Path(".env"), "\n".join(lines))
    assert (reading.problems, reading.settings) == ((), {})
    for found in reading.records:
        prefix = f"API_INSTANCE_{found.name.upper()}_"
        for key, value in written[found.name].items():
            in_config = found.config.get(env_files.SUFFIXES.get(key, ""))
            assert value in (in_config, found.extra.get(prefix + key)) or in_config == [value]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(names.map(str.strip).filter(lambda name: len(name) > 2), unique=True, max_size=3),
    st.lists(st.tuples(words, words, words), min_size=1, max_size=4),
)
def test_csv(columns, written):
    columns = [c for c in columns if c.casefold() not in ("status",)]
    header = ["ID", "API_KEY1", "API_BASE", *columns]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(header)
    for row in written:
        writer.writerow([*row, *("x" for _ in columns)])
    reading = csv_files.read(Path("a.csv"), stream.getvalue())
    assert reading.problems == ()
    assert {each.name for each in reading.records} == {row[0] for row in written}
    assert all(set(each.extra) == set(columns) for each in reading.records)
