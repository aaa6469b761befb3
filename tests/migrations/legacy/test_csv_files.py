"""The old list of instances as CSV: one row a model, and whether it worked."""

from pathlib import Path

import pytest

from migrations.legacy import csv_files
from migrations.legacy.records import Era
from tests.migrations.legacy.files import KEY, told

FILE = Path("instances.csv")
HEADER = "ID,API_KEY1,API_BASE,PROXY_URL,模型名字,模型版本,STATUS"


def read(*rows, header=HEADER):
    return csv_files.read(FILE, "\r\n".join([header, *rows]) + "\r\n")


def only(*rows, header=HEADER):
    reading = read(*rows, header=header)
    assert reading.problems == ()
    (found,) = reading.records
    return found


def test_a_row_is_an_instance():
    found = only(f"Azure2,{KEY},https://a,,gpt-4o,gpt-4o-2024-11-20,正常")
    assert (found.name, found.place, found.layout, found.era) == (
        *("Azure2", "row 2", "C1"),
        Era.CSV,
    )
    assert found.config == {
        "name": "Azure2",
        "api_key": KEY,
        "api_base": "https://a",
        "proxy_url": "",
        "supported_models": ["gpt-4o"],
        "model_deployments": {"gpt-4o": "gpt-4o-2024-11-20"},
    }
    assert (found.extra, found.notes) == ({"STATUS": "正常"}, ())


def test_rows_of_one_instance_are_its_models():
    found = only("a,k,b,,gpt-4o,v1,正常", "a,k,b,,gpt-4.1,,401", "a,k,b,,gpt-4o,v1,正常")
    assert found.place == "rows 2, 3, 4"
    assert found.config["supported_models"] == ["gpt-4o", "gpt-4.1"]
    assert found.config["model_deployments"] == {"gpt-4o": "v1"}
    assert found.extra == {"STATUS": ["正常", "401"]}


def test_rows_of_one_id_with_other_keys_are_records_of_one_name():
    reading = read("a,k1,b,,m1,,", "a,k2,b,,m2,,")
    assert [each.config["api_key"] for each in reading.records] == ["k1", "k2"]
    assert all("another key, base or proxy" in each.notes[0] for each in reading.records)


def test_a_status_that_is_a_number_is_noted():
    assert only("a,k,b,,m,,401").notes == ("row 2: STATUS is 401, not 正常",)


def test_a_status_that_may_be_anything_is_not_shown():
    reading = read(f"a,k,b,,m,,{KEY}")
    assert reading.records[0].extra == {"STATUS": KEY}
    assert KEY not in told(reading)


def test_a_proxy_with_a_password_is_config():
    assert (
        only("a,k,b,http://u:p%40@10.0.0.5:1,m,,").config["proxy_url"].startswith("http://u:p")
    )


def test_several_models_may_be_in_one_cell():
    found = only('a,k,b,,"m1, m2、m3",,')
    assert found.config["supported_models"] == ["m1", "m2", "m3"]


@pytest.mark.parametrize(
    "rows", [["a,k,b,,,v,"], ['a,k,b,,"m1,m2",v,'], ["a,k,b,,m,x,", "a,k,b,,m,v,"]]
)
def test_a_version_of_no_one_model_is_kept(rows):
    found = only(*rows)
    assert found.extra["模型版本"] == ["v"]
    assert "was not used" in found.notes[0]


def test_rows_without_an_id_are_records_without_a_name():
    reading = read(",k,b,,m,,", ",k,b,,m,,")
    assert [(each.name, each.place) for each in reading.records] == [
        (None, "row 2"),
        (None, "row 3"),
    ]


def test_blank_rows_are_nothing():
    assert only("", ",,,,,,", " , ,", "a,k,b,,m,,").place == "row 5"


def test_unknown_columns_and_cells_beyond_the_last_are_kept():
    found = only(f"a,k,b,{KEY},x,y,", header="ID,API_KEY1,API_BASE,API_KEY2")
    assert found.extra == {"API_KEY2": KEY, "beyond the last column": "x | y"}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_of_other_countries(delimiter):
    found = only(
        f"a,{KEY},b".replace(",", delimiter), header=f"id{delimiter}Api_Key1{delimiter}API_BASE"
    )
    assert (found.name, found.config["api_key"]) == ("a", KEY)


def test_a_short_row_has_what_it_has():
    assert only("a,k").config == {"name": "a", "api_key": "k"}


@pytest.mark.parametrize(
    "header, row, message",
    [
        ("name,key", "a,k", "names no columns"),
        ("ID,color", "a,k", "names no columns"),
        ("ID,API_KEY1,API_KEY1", "a,k,k", "Columns of one name: 'API_KEY1'"),
        (HEADER, f'a,"{KEY},b', "a quote is open"),
        (HEADER, f'a,"{KEY}"x,b', "a quote is open"),
    ],
)
def test_what_is_no_such_list_is_a_problem(header, row, message):
    reading = read(row, "b,k,b,,m,,", header=header)
    assert reading.records == ()
    assert message in reading.problems[0].message
    assert KEY not in told(reading)
