import time

import pytest

from proxy.core.config_document import shown
from proxy.errors import BadRequest, TooLarge
from proxy.store.sealed import Unreadable
from proxy.web import config_text
from proxy.web.config_text import from_json, from_yaml, to_json, to_yaml
from tests.builders import document, thing

ODD = document(
    instance=[
        thing("instance", "on", api_version="2024-10-21", api_key="env:A_KEY"),
        thing("instance", "Käse: 1", supported_models=["no", "1e3", "~", "0x1"]),
    ],
    client=[thing("client", "12:30", labels={"team": "007", "yes": ""}, expires_at=1.5e9)],
)


def refused(text, error=BadRequest):
    with pytest.raises(error) as caught:
        from_yaml(text)
    return caught.value.message


def test_what_is_written_is_read_as_it_was():
    readable = document(
        **{"instance": ODD["instances"]},
        client=[ODD["clients"][0] | {"expires_at": "2017-07-14T02:40:00Z"}],
    )
    assert from_yaml(to_yaml(ODD).encode()) == readable
    assert from_json(to_json(ODD).encode()) == ODD
    assert from_yaml(to_json(ODD).encode()) == ODD  # as far as JSON is YAML


def test_what_is_written_has_the_order_of_the_document():
    lines = to_yaml(shown(ODD)).splitlines()
    assert lines[:2] == ["instances:", "- name: 'Käse: 1'"]
    assert lines.index("clients:") < lines.index("prices: []")
    assert to_json(ODD).startswith('{\n  "instances": [\n    {\n      "name": "Käse: 1",')


def test_a_secret_that_cannot_be_decrypted_is_written_as_none():
    unreadable = Unreadable.because("another key", "fernet:x")
    odd = document(instance=[thing("instance", "a", api_key=unreadable)])
    for text in (to_yaml(shown(odd)), to_json(shown(odd))):
        assert from_yaml(text.encode())["instances"][0]["api_key"] == ""


@pytest.mark.parametrize("name", ["1e3", "1e+100", "-1E-3", ".5e1", "0o17", "017", "1.", "1"])
def test_text_that_others_take_for_a_number_is_quoted(name):
    text = to_yaml(document(client=[thing("client", name)]))
    assert f"- name: '{name}'\n" in text
    assert from_yaml(text.encode())["clients"] == [thing("client", name)]


def test_a_date_is_the_text_that_was_meant():
    assert from_yaml(b"api_version: 2024-10-21") == {"api_version": "2024-10-21"}


@pytest.mark.parametrize(
    "text, where",
    [
        (b"a: &x 1\nb: *x", " (line 2)"),
        (b"a: &x {}\nb: {<<: *x}", " (line 2)"),
        (b"- &x [*x]", " (line 1)"),
    ],
)
def test_aliases_are_refused(text, where):
    message = refused(text)
    assert message == f"YAML aliases (*name) are not read{where}; write the values themselves."


def test_a_bomb_of_aliases_takes_no_time():
    lines = [b"a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [
        b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30)
    ]
    start = time.process_time()
    refused(b"\n".join(lines))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("text", [b"[" * 21, b"[" * 100_000, b"{a: " * 21 + b"1" + b"}" * 21])
def test_what_is_nested_deeply_is_refused(text):
    assert refused(text) == "The YAML is nested deeper than 20."


def test_of_a_key_that_stands_twice_nobody_knows_which_counts():
    message = refused(b"instances:\n- name: a\n  weight: 1\n  weight: 2")
    assert message == "A key stands twice in one mapping (line 4)."


@pytest.mark.parametrize(
    "text",
    [
        b"a: [",
        b"a: b: planted",
        b"!!python/object/apply:os.system ['planted']",
        b"!!int planted",
        b"? [planted]\n: 1",
        b"a: \xff",
        b"a: \x00",
        b"--- planted\n--- planted",
        b"9" * 10_000,
        b'a: "\\ud800"',
    ],
)
def test_what_is_no_plain_yaml_is_refused_and_not_quoted(text):
    message = refused(text)
    assert message.startswith("The text is not plain YAML")
    assert "planted" not in message


def test_what_is_too_large_is_not_read(monkeypatch):
    monkeypatch.setattr(config_text, "MAX_YAML_BYTES", 10)
    assert from_yaml(b"a: 4567890") == {"a": 4567890}
    assert "send JSON" in refused(b"a: 45678901", TooLarge)


@pytest.mark.parametrize("text", [b"", b"# nothing", b"null"])
def test_an_empty_text_is_nothing(text):
    assert from_yaml(text) is None


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"NaN"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(BadRequest, match="not valid JSON"):
        from_json(text)
