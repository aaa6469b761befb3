"""The old YAML: two files put together, variables, and what YAML makes of plain text."""

from pathlib import Path

import pytest

from migrations.legacy import yaml_files
from migrations.legacy.records import Era
from tests.migrations.legacy.files import KEY, told

BASE, LOCAL = Path("config/base.yaml"), Path("config/production.yaml")


def read(text, variables=None):
    (reading,) = yaml_files.read([(BASE, text)], variables or {})
    return reading


def only(text, variables=None):
    reading = read(text, variables)
    assert reading.problems == ()
    (found,) = reading.records
    return found


def instance(line):
    return only(f"instances:\n  - name: a\n    {line}\n", {"KEY": KEY})


@pytest.mark.parametrize(
    "text, place",
    [
        ("instances:\n- {name: a, priority: 1}", "instances[0]"),
        ("instances:\n  a: {priority: 1}", "key 'a'"),
        ('{"instances": {"a": {"priority": 1}}}', "key 'a'"),
    ],
)
def test_instances_are_a_list_or_a_mapping_by_name(text, place):
    found = only(text)
    assert (found.name, found.place, found.config["priority"]) == ("a", place, 1)
    assert (found.layout, found.era, found.state) == ("Y1", Era.YAML, {})


def test_base_and_environment_are_put_together():
    texts = [(BASE, "instances: [{name: a}]"), (LOCAL, "instances: [{name: b}]")]
    readings = yaml_files.read(texts, {})
    assert [(r.file, [each.name for each in r.records]) for r in readings] == [
        (BASE, ["a"]),
        (LOCAL, ["b"]),
    ]


def test_of_two_instances_with_one_name_the_later_wins():
    texts = [
        (BASE, f"instances: [{{name: a, priority: 1, api_key: {KEY}, tag: x}}, {{name: b}}]"),
        (LOCAL, "instances: [{name: a, priority: 2}]"),
    ]
    base, local = yaml_files.read(texts, {})
    earlier, other = base.records
    (later,) = local.records
    assert (earlier.name, other.name, later.name) == ("a", "b", "a")
    assert earlier.recency < later.recency
    # The plan tells that it is shadowed, and keeps its unknown keys.
    assert earlier.extra == {"tag": "x"}
    assert KEY not in told(local)


def test_an_instance_that_is_twice_in_one_file_is_two_records():
    first, second = read("instances: [{name: a}, {name: a}]").records
    assert first.recency < second.recency


def test_records_without_a_name_do_not_replace_each_other():
    assert len(read("instances: [{priority: 1}, {priority: 2}]").records) == 2


def test_a_variable_is_replaced_as_a_whole_value():
    found = instance('api_key: "${KEY}"')
    assert (found.config["api_key"], found.notes) == (KEY, ())


def test_a_missing_variable_is_empty_and_named():
    found = instance("api_key: ${NONE}")
    assert found.config["api_key"] == ""
    assert found.notes == ("`api_key` is empty: the variable NONE is not set",)


def test_a_variable_within_a_value_stays():
    found = instance("api_base: https://${KEY}.example.com")
    assert found.config["api_base"] == "https://${KEY}.example.com"
    assert "did not replace it" in found.notes[0]


def test_variables_are_replaced_in_lists_and_mappings_too():
    found = instance("supported_models: ['${KEY}', x]")
    assert found.config["supported_models"] == [KEY, "x"]


@pytest.mark.parametrize("version", ["2024-05-15", "2024-5-15 10:00:00"])
def test_a_date_without_quotes_is_text_again(version):
    found = instance(f"api_version: {version}")
    assert found.config["api_version"] == version
    assert found.notes == ("`api_version` is a date without quotes: it was read as text",)


@pytest.mark.parametrize("text", ["0123", "1_000", "12:30:45", "no", "1e3", "1.50"])
def test_numbers_are_text_where_text_belongs(text):
    assert instance(f"api_key: {text}").config["api_key"] == text


def test_numbers_are_numbers_elsewhere():
    found = instance("max_tpm: 30000\n    weight: '5'\n    enabled: no")
    assert [found.config[key] for key in ("max_tpm", "weight", "enabled")] == [
        30000,
        "5",
        False,
    ]
    assert found.notes == ()


def test_a_name_that_looks_like_a_number_is_a_name():
    assert only("instances: [{name: 1}]").name == "1"
    assert only("instances: {1: {priority: 2}}").name == "1"


def test_what_is_defined_once_and_used_twice_is_noted_at_both():
    reading = read(
        "defaults: &d {api_version: 2024-05-15}\n"
        "instances:\n- {<<: *d, name: a}\n- {<<: *d, name: b, api_version: x}"
    )
    assert [each.config["api_version"] for each in reading.records] == ["2024-05-15", "x"]
    assert all(each.notes for each in reading.records)


def test_all_other_keys_are_settings():
    text = "port: 3010\nrouting: {strategy: failover}\nlogging: {hook: '${X}'}\nw: [15, 30]"
    assert read(text).settings == {
        "port": "3010",
        "routing.strategy": "failover",
        "logging.hook": "${X}",
        "w": "15, 30",
    }


@pytest.mark.parametrize("text", ["# nothing", "instances:", "port: 1", "instances: []"])
def test_a_file_without_instances_is_no_problem(text):
    reading = read(text)
    assert (reading.records, reading.problems) == ((), ())


def test_an_entry_that_is_no_mapping_is_a_problem_and_the_others_are_read():
    reading = read(
        f"instances: [{{name: a}}, {KEY}, {{name: b, x: !secret {KEY}}}, {{name: c}}]"
    )
    assert [each.name for each in reading.records] == ["a", "c"]
    assert [(each.place, each.name) for each in reading.bad] == [
        ("instances[1]", None),
        ("instances[2]", "b"),
    ]
    assert KEY not in told(reading)


@pytest.mark.parametrize(
    "line",
    [
        *("x: !!int many", "x: !!python/name:os.system ''", "? [1]\n  : 2"),
        # Python has it, and JSON, in which it would be kept, has not.
        *("x: {!!binary aGk=: 1}", "!!binary aGk=: 1", "x: &t [*t]", "x: &t {y: *t}"),
    ],
)
def test_what_plain_yaml_does_not_have_is_a_problem_of_one_record(line):
    reading = read(f"instances:\n- name: a\n- name: b\n  {line}\n")
    assert [each.name for each in reading.records] == ["a"]
    assert [each.place for each in reading.bad] == ["instances[1]"]
    assert line in reading.bad[0].raw  # as it is written, for rejected.json


@pytest.mark.parametrize("items", ["- {0}\n- {1}", "  a: {0}\n  b: {1}"])
@pytest.mark.parametrize("twice", ["weight: 1, weight: 2", "tags: [{x: 1, x: 2}]"])
def test_a_key_that_stands_twice_in_a_record_is_a_problem_of_that_one(items, twice):
    records = f"{{name: a, api_key: {KEY}, {twice}}}", "{name: b}"
    reading = read("instances:\n" + items.format(*records))
    assert [each.name for each in reading.records] == ["b"]
    assert reading.problems == ()
    (bad,) = reading.bad
    assert (bad.name, bad.raw) == ("a", records[0])
    assert "stands twice in one mapping (line 2)" in bad.problem.message
    assert KEY not in told(reading)


def test_numbers_within_a_value_are_numbers_whatever_they_are_called():
    assert instance("tags: {name: 1}").extra == {"tags": {"name": 1}}


@pytest.mark.parametrize(
    "text, message",
    [
        (f"a: 1\napi_key: *{KEY}\n", "No YAML at line 2"),
        (f"instances:\n- api_key: '{KEY}\n", "No YAML at line"),
        ("a: \x01", "forbids"),
        ("a: 1\n---\nb: 2", "No YAML at line 2"),
        ("a: 1\nb: 2\na: 3", "The key 'a' stands twice in one mapping (line 3)"),
        ("[" * 100_000, "nested too deeply to be read (line 1)"),
        ("- a", "no settings by name"),
        ("text", "no settings by name"),
    ],
)
def test_damaged_yaml_is_a_problem_that_says_where(text, message):
    reading = read(text)
    assert reading.records == ()
    assert message in reading.problems[0].message
    assert KEY not in told(reading)


@pytest.mark.parametrize("text", ["a: 'x", "instances:\n- {name: a,", 'a: "x\\'])
def test_a_file_that_is_cut_says_so(text):
    assert read(text).problems[0].message.endswith(" The file seems to be cut off.")


def test_yaml_that_holds_itself_comes_to_an_end():
    reading = read("instances:\n- &a {name: a, tags: [*a]}\nx: &x [*x]\ny: &y {z: *y}")
    assert [each.name for each in reading.bad] == ["a"]
