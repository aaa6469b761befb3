import os

import pytest

from proxy.runtime.references import MAX_BYTES, References
from proxy.store.sealed import Unreadable
from tests.builders import config

ENVIRON = {
    "KEY": " sk-from-there ",
    "EMPTY": " ",
    "LOOP": "env:KEY",
    "URL": "http://u:p@proxy:1",
}


def resolved(references=None, **fields):
    references = references or References(ENVIRON)
    return references.resolved([config(**fields)])


def used(**fields):
    return resolved(**fields).configs["a"]


def why(references=None, **fields):
    found = resolved(references, **fields)
    assert found.configs == {}
    return found.problems["a"]


def test_a_secret_that_is_written_is_used_as_it_is():
    written = config("a", proxy_url="http://u:p@h:1")
    assert resolved(proxy_url="http://u:p@h:1").configs == {"a": written}


def test_a_variable_is_used_without_the_space_around_it():
    assert used(api_key="env:KEY").api_key == "sk-from-there"


def test_a_proxy_is_named_by_a_reference_too():
    assert used(proxy_url="env:URL").proxy_url == "http://u:p@proxy:1"


def test_without_a_proxy_there_is_none():
    assert used().proxy_url is None


def test_a_file_is_used_without_the_space_around_it(tmp_path):
    path = tmp_path / "a key"
    path.write_text("sk-in-file\n")
    path.chmod(0o444)  # as containers mount them
    found = resolved(api_key=f"file:{path}")
    assert found.configs["a"].api_key == "sk-in-file"
    assert list(found.files) == [str(path)]


def test_a_file_is_read_once_for_all(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("k")
    opened = []
    monkeypatch.setattr("builtins.open", lambda *a, _o=open: opened.append(a) or _o(*a))
    written = [config(n, api_key=f"file:{path}") for n in "abc"]
    assert References({}).resolved(written).configs.keys() == {"a", "b", "c"}
    assert len(opened) == 1


@pytest.mark.parametrize(
    "fields, said",
    [
        (
            {"api_key": "env:NONE"},
            "api_key: the gateway's environment has no variable NONE; set",
        ),
        ({"api_key": "env:EMPTY"}, "api_key: EMPTY is empty; put the secret there."),
        ({"api_key": "env:LOOP"}, "api_key: LOOP holds a reference itself"),
        ({"proxy_url": "env:KEY"}, "proxy_url: KEY holds no http:// or https:// URL"),
        # To go without the proxy is not what was meant.
        ({"proxy_url": "env:EMPTY"}, "proxy_url: EMPTY is empty; put the secret there."),
        ({"api_key": "file:/none/key"}, "api_key: /none/key cannot be read: No such file"),
        ({"api_key": "file:/"}, "api_key: / is no file."),
        ({"api_key": "file:/dev/zero"}, "api_key: /dev/zero is no file."),
        ({"api_key": "file:/a\0b"}, "cannot be read: it has no such name"),
    ],
)
def test_what_leads_nowhere_says_where_and_what_to_do(fields, said):
    assert said in why(**fields)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b"two words", "holds no key: it must be printable ASCII"),
        (b"\xff\xfe", "holds no key"),
        (b"k\nother", "holds no key"),
        (b"${AZURE_KEY}", "names another variable, which nothing replaced"),
        (b"k" * (MAX_BYTES + 1), "is larger than 16384 bytes, as no secret is"),
    ],
)
def test_a_file_that_holds_no_key_is_told_and_not_quoted(tmp_path, content, said):
    path = tmp_path / "key"
    path.write_bytes(content)
    told = why(api_key=f"file:{path}")
    assert said in told
    assert not content or content.decode("latin-1") not in told


def test_a_pipe_that_nobody_writes_to_holds_up_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in why(api_key=f"file:{tmp_path / 'pipe'}")


def test_it_can_be_asked_of_one_alone_before_anybody_uses_it(tmp_path):
    file = tmp_path / "key"
    file.write_text("")
    references = References({"THERE": "sk-1"})
    assert references.problem("api_key", "env:THERE") is None
    assert "no variable MISSING" in references.problem("api_key", "env:MISSING")
    assert references.problem("api_key", f"file:{file}").startswith("api_key: ")


def test_the_gateways_own_files_are_sent_to_nobody(tmp_path):
    own, link = tmp_path / "secret.key", tmp_path / "link"
    own.write_text("the-key-of-the-vault")
    link.symlink_to(own)
    references = References({}, (own,))
    assert "is the gateway's own" in why(references, api_key=f"file:{link}")


def test_a_secret_that_cannot_be_decrypted_is_not_taken_for_none():
    lost = Unreadable.because("the key is missing", "fernet:x")
    assert why(api_key=lost) == (
        "api_key: it cannot be decrypted, because the key is missing; put the right key back,"
        " or set api_key anew."
    )
    assert why(proxy_url=lost).startswith("proxy_url: it cannot be decrypted")


def test_a_file_that_changes_appears_or_goes_is_noticed(tmp_path):
    path = tmp_path / "key"
    references = References({})
    fields = {"api_key": f"file:{path}"}
    before = resolved(references, **fields).files
    assert not references.changed(before)
    path.write_text("k")
    assert references.changed(before)
    there = resolved(references, **fields).files
    assert not references.changed(there)
    path.write_text("kk")
    assert references.changed(there)
    path.unlink()
    assert references.changed(there)
    assert not references.changed(before)


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path):
    """How Kubernetes changes a mounted secret."""
    one, two, link = (tmp_path / n for n in ("one", "two", "link"))
    one.write_text("same")
    two.write_text("size")
    os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    link.symlink_to(one)
    files = resolved(References({}), api_key=f"file:{link}").files
    link.unlink()
    link.symlink_to(two)
    assert References({}).changed(files)
