"""Files written by the old program itself; these tests need them beside the project."""

import shutil

import pytest

from migrations.legacy import discover
from proxy.settings import ROOT

SAMPLES = ROOT.parent / "shared" / "legacy"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples here")

ALL = ["Azure East US/1", "azure2", "azure3", "azure4", "azure5", "azure6", "generic1"]


def read(name):
    file = SAMPLES / name
    (reading,) = discover.read(file, [file], {"AZURE_API_KEY_4": "fake"})
    return reading


@pytest.mark.parametrize(
    "name, layout, names",
    [
        ("shared_state_timestamp.json", "M1", ALL),
        ("instance_state.json", "M2", ALL),
        ("instance_state_load_state.json", "M2'", ALL[1:]),
        ("instance_state.db", "D1", ALL[1:]),  # the first was deleted
        ("flat_mixed.json", "M3", ALL),
        ("flat_mixed_with_scalars.json", "M3", ALL),
        ("instance_configs.json", "S1", ALL),
        ("instance_states.json", "S2", ALL),
        ("instance_states_late.json", "S2", ALL),
        ("config/base.yaml", "Y1", ["azure2"]),
        ("env.old", "E2", ["azure1", "generic1"]),
        ("instances.csv", "C1", ["Azure2", "Azure3"]),
    ],
)
def test_each_sample_is_read_whole(name, layout, names):
    reading = read(name)
    assert (reading.layout, reading.problems) == (layout, ())
    assert [each.name for each in reading.records] == names


def test_all_of_the_late_state_is_state():
    (first, *_) = read("instance_states_late.json").records
    assert (set(first.config), first.extra, len(first.state)) == ({"name"}, {}, 46)


def test_unknown_keys_of_the_flat_sample_are_kept():
    for each in read("flat_mixed.json").records:
        assert set(each.extra) == {"is_healthy", "total_tokens"}


def test_damaged_records_do_not_hide_the_others():
    reading = read("damaged_records.json")
    assert [each.name for each in reading.records] == [
        *("azure2", None, "azure2", "azure4", "azure5", "azure6", "az-strint", "az-neg")
    ]
    assert [each.problem.record for each in reading.bad] == ["instances[8]"]


def test_a_file_cut_in_the_middle_says_where():
    (problem,) = read("truncated.json").problems
    assert "line 29" in problem.message


def test_the_environments_yaml_replaces(tmp_path):
    shutil.copytree(SAMPLES / "config", tmp_path / "config")
    base, production = discover.read(tmp_path, discover.find(tmp_path, {}), {})
    (earlier,) = base.records
    azure2, azure3 = production.records
    assert (earlier.name, earlier.recency < azure2.recency) == ("azure2", True)
    assert azure3.config["api_version"] == "2024-05-15"
    assert "`api_key` is empty: the variable AZURE_API_KEY_0 is not set" in azure3.notes


def test_the_env_sample_maps_what_it_can():
    azure1, generic1 = read("env.old").records
    assert azure1.extra == {"API_INSTANCE_AZURE1_MODEL_MAP_GPT4O_2024_11_20": "gpt-4o"}
    assert generic1.config["model_deployments"] == {"gpt-4o-2024-11-20": "gpt-4o"}
