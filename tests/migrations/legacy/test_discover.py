"""Which files there are, which reader each is for, and files nobody can read."""

import gzip
import os
import sqlite3
from contextlib import closing

import pytest

from migrations.legacy import discover
from tests.migrations.legacy.files import KEY, RECORD, STATE, told, write


def found(folder, environ=None):
    return [os.path.relpath(file, folder) for file in discover.find(folder, environ or {})]


def read(folder, environ=None):
    files = discover.find(folder, environ or {})
    return discover.read(folder, files, environ or {})


def test_the_known_files_of_a_folder_are_found_at_their_places(tmp_path):
    names = [
        ".env",
        ".temp/instance_state.json",
        "app/.env",
        "config/base.yaml",
        "config/production.yaml",
        "data/instance_states.json",
        "instance_configs.json",
        "instance_state.db",
        "instances.csv",
    ]
    for name in [*names, "package.json", "deep/er/instances.json", "config/x.txt"]:
        write(tmp_path, name, "x")
    assert found(tmp_path) == names


def test_a_file_is_itself_also_where_it_is_not_there(tmp_path):
    file = write(tmp_path, "any.json", {})
    assert discover.find(file, {}) == [file]
    missing = tmp_path / "none"
    (reading,) = discover.read(missing, discover.find(missing, {}), {})
    assert reading.problems[0].message == "There is no such file or folder."


def test_the_env_files_name_further_files(tmp_path):
    folder = tmp_path / "old"
    elsewhere = write(tmp_path, "elsewhere/state.db", "x")
    write(tmp_path, "elsewhere/unnamed.json", "x")
    write(folder, "my/configs.json", {})
    write(folder, ".env", "INSTANCE_CONFIG_FILE='my/configs.json' # here\n")
    write(folder, "app/.env", f"INSTANCE_MANAGER_DB_PATH={elsewhere}\n")
    assert found(folder) == [
        *("../elsewhere/state.db", ".env", "app/.env", "my/configs.json"),
    ]


def test_the_home_folder_is_read_only_if_it_is_named(tmp_path):
    folder, home = tmp_path / "old", tmp_path / "home"
    write(home, ".azure_openai_proxy/instance_state.db", "x")
    write(folder, ".env", "PORT=1")
    environ = {"HOME": str(home)}
    assert found(folder, environ) == [".env"]
    value = "~/.azure_openai_proxy/instance_state.db"
    write(folder, ".env", f"INSTANCE_MANAGER_DB_PATH={value}")
    assert "../home/.azure_openai_proxy/instance_state.db" in found(folder, environ)


def test_the_environment_of_this_process_names_no_files(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    file = write(tmp_path, "configs.json", {})
    assert found(folder, {"INSTANCE_CONFIG_FILE": str(file)}) == []


def test_a_named_file_that_is_not_there_is_a_problem(tmp_path):
    write(tmp_path, ".env", "INSTANCE_STATE_FILE=/mnt/none/states.json")
    _, reading = sorted(read(tmp_path), key=lambda r: r.file.name)
    assert "it is not there" in reading.problems[0].message


def test_a_path_of_a_container_is_no_problem_where_the_file_was_found(tmp_path):
    write(tmp_path, ".env", "INSTANCE_CONFIG_FILE=/mnt/none/instance_configs.json")
    write(tmp_path, "data/instance_configs.json", {})
    assert found(tmp_path) == [".env", "data/instance_configs.json"]


def test_each_file_is_there_once(tmp_path):
    write(tmp_path, "data/instance_configs.json", {})
    (tmp_path / "instance_configs.json").symlink_to("data/instance_configs.json")
    write(tmp_path, ".env", "INSTANCE_CONFIG_FILE=./data/../data/instance_configs.json")
    assert found(tmp_path) == [".env", "data/instance_configs.json"]


@pytest.mark.parametrize(
    "environment, environ, files",
    [
        ("production", {}, ["base", "production"]),
        ("production", {"ENVIRONMENT": "staging"}, ["base", "production"]),
        ("", {"ENVIRONMENT": "staging"}, ["base", "staging"]),
        ("", {}, ["base", "production", "staging"]),
        ("other", {}, ["base"]),
    ],
)
def test_the_environment_names_the_yaml_beside_the_base(tmp_path, environment, environ, files):
    for name in ("base", "production", "staging"):
        write(tmp_path, f"config/{name}.yaml", "port: 1")
    write(tmp_path, ".env", f"ENVIRONMENT={environment}\n")
    assert found(tmp_path, environ)[1:] == [f"config/{name}.yaml" for name in files]


def test_without_an_environment_there_is_no_guess_between_two(tmp_path):
    for name in ("base", "dev", "production"):
        write(tmp_path, f"config/{name}.yaml", f"instances: [{{name: {name}}}]")
    base, *others = read(tmp_path)
    assert [each.name for each in base.records] == ["base"]
    assert all("ENVIRONMENT" in reading.problems[0].remedy for reading in others)


def test_the_environments_yaml_comes_after_the_base(tmp_path):
    write(tmp_path, "config/base.yaml", "instances: [{name: a, weight: 1}]")
    write(tmp_path, "config/alpha.yaml", "instances: [{name: a, weight: 2}]")
    alpha, base = read(tmp_path)
    assert alpha.records[0].recency > base.records[0].recency


def test_variables_of_yaml_are_of_the_env_files_and_then_of_the_environment(tmp_path):
    write(tmp_path, "config/base.yaml", "instances: [{name: '${A}', x: '${B}', y: '${C}'}]")
    write(tmp_path, ".env", "A=file\nB=\n")
    _, reading = read(tmp_path, {"A": "process", "B": "process", "C": "process"})
    (only,) = reading.records
    assert (only.name, only.extra) == ("file", {"x": "process", "y": "process"})


@pytest.mark.parametrize(
    "name, content, layout",
    [
        ("instances.json", {"timestamp": 1, "instances": [RECORD]}, "M1"),
        ("instances.json", {"last_updated": 1, "instances": [RECORD]}, "M2"),
        ("instances.json", {"version": "v", "instances": [RECORD]}, "M2'"),
        ("instances.json", {"a": RECORD | STATE}, "M3"),
        ("instances.json", {"a": RECORD}, "M3"),  # never a split one, whatever it holds
        ("old.json", {"a": RECORD}, "S1"),
        ("old.json", {"a": STATE}, "S2"),
        ("state", [RECORD], "M1"),
        ("wrong.csv", [RECORD], "M1"),
        ("instances.json.bak", {"a": RECORD}, "S1"),
        ("list.csv", "\ufeffID,API_KEY1,API_BASE\na,k,b", "C1"),
        ("list.txt", "ID;API_KEY1;API_BASE\na;k;b", "C1"),
        (".env", "API_INSTANCES=a", "E2"),
        ("env.old", "\ufeffAZURE_INSTANCES=a", "E1"),
        ("secrets", "# comment\n\nexport API_INSTANCES=a", "E2"),
        ("base.yaml", '{"instances": [{"name": "a"}]}', "Y1"),
        ("settings", "# comment\ninstances:\n- name: a", "Y1"),
    ],
)
def test_what_a_file_holds_says_who_reads_it(tmp_path, name, content, layout):
    file = write(tmp_path, name, content)
    (reading,) = discover.read(file, [file], {})
    assert (reading.layout, reading.problems) == (layout, ())
    assert [each.name for each in reading.records] == ["a"]


def test_a_database_is_one_whatever_its_name(tmp_path):
    file = tmp_path / "instances.json"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    (reading,) = discover.read(file, [file], {})
    assert (reading.layout, len(reading.problems)) == ("D1", 1)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("instances.json", b"", "empty"),
        ("instances.json", b" \n", "empty"),
        ("instance_state.db", b"", "empty"),
        ("instance_state.db", b"text, and quite a lot of it", "no SQLite database"),
        ("instances.json", b"\0" * 4096, "NUL bytes (line 1)"),
        ("instances.json", b'{\n"a": "\0"}', "NUL bytes (line 2)"),
        ("instances.json", '{\n"a": "é"}'.encode("latin-1"), "not UTF-8 (line 2)"),
        ("instances.csv", "ID,API_KEY1,模型名字".encode("gbk"), "not UTF-8 (line 1)"),
        (
            "instances.json",
            '{\n"a": "é'.encode()[:-1],
            "within a character (line 2). The file seems",
        ),
        ("instances.json", '{"a": 1}'.encode("utf-16"), "UTF-16"),
        ("instances.json", f'{{"a": {{"api_key": "{KEY}'.encode(), "line 1, column 19"),
        ("instances.json", b'{"instances": [], "instances": []}', "stands twice"),
        ("instances.json", b"[" * 100_000, "nested too deeply"),
        ("instances.json", b"plain text", "line 1, column 1"),
        ("notes", b"plain text", "none of the old program's files"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_and_the_others_are_read(
    tmp_path, name, content, message
):
    bad, good = write(tmp_path, name, content), write(tmp_path, "good.json", [RECORD])
    readings = discover.read(tmp_path, [bad, good], {})
    assert [each.file for each in readings] == [bad, good]
    (problem,) = readings[0].problems
    assert message in problem.message
    assert problem.file == bad
    assert problem.remedy
    assert [each.name for each in readings[1].records] == ["a"]
    assert KEY not in told(readings[0])


def test_a_folder_in_the_place_of_a_file_is_a_problem(tmp_path):
    (tmp_path / "instance_configs.json").mkdir()
    (reading,) = read(tmp_path)
    assert "a folder" in reading.problems[0].message


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "instances.json")
    (reading,) = read(tmp_path)
    assert "no regular file" in reading.problems[0].message


def test_a_link_that_leads_nowhere_is_told_as_one(tmp_path):
    (tmp_path / "instances.json").symlink_to("/nowhere/instances.json")
    (reading,) = read(tmp_path)
    said = "This is a link to /nowhere/instances.json, which is not there."
    assert reading.problems[0].message == said


def test_what_is_compressed_is_told_to_be_unpacked(tmp_path):
    (tmp_path / "instances.json").write_bytes(gzip.compress(b"{}"))
    (reading,) = read(tmp_path)
    (problem,) = reading.problems
    assert (problem.message, problem.remedy) == (
        "The file is compressed (gzip).",
        "Unpack it first.",
    )


def test_links_in_a_circle_are_a_problem(tmp_path):
    (tmp_path / "instances.json").symlink_to("instances.json")
    (reading,) = read(tmp_path)
    assert "cannot be read" in reading.problems[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["instances.json", ".temp", ""])
def test_what_may_not_be_read_is_a_problem(tmp_path, name):
    write(tmp_path, "instances.json", [RECORD])
    write(tmp_path, ".temp/instance_state.json", [RECORD])
    (tmp_path / name).chmod(0)
    readings = {each.file: each for each in read(tmp_path)}
    (tmp_path / name).chmod(0o700)
    assert "may not be" in readings[tmp_path / name].problems[0].message


def test_each_file_is_read_once(tmp_path, monkeypatch):
    for name in (".env", "config/base.yaml", "config/x.yaml", "instances.json"):
        write(tmp_path, name, "A=1" if name == ".env" else "{}")
    files = discover.find(tmp_path, {})
    opened = []
    real = discover.Path.open

    def counted(self, *args, **kwargs):
        opened.append(self)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(discover.Path, "open", counted)
    discover.read(tmp_path, files, {})
    assert sorted(opened) == files


def test_readings_are_in_the_order_of_the_files(tmp_path):
    for name in ("instances.json", "config/base.yaml", "config/a.yaml", ".env"):
        write(tmp_path, name, "A=1" if name == ".env" else "{}")
    assert [each.file for each in read(tmp_path)] == discover.find(tmp_path, {})
