import io
import json

import pytest

from proxy.runtime import log_files
from proxy.runtime.log_files import files, find_in_files, find_in_stream, lines_backwards


def line(request_id, **more):
    return json.dumps({"event": "request", "id": request_id, **more}, separators=(",", ":"))


def write(path, *lines):
    path.write_text("".join(f"{each}\n" for each in lines))
    return path


@pytest.mark.parametrize("block", [1, 2, 7, 65_536])
@pytest.mark.parametrize("text", [b"", b"one", b"one\n", b"one\ntwo\n\nfour", b"\n"])
def test_lines_come_the_last_first_wherever_a_block_ends(block, text, monkeypatch):
    monkeypatch.setattr(log_files, "BLOCK_BYTES", block)
    assert list(lines_backwards(io.BytesIO(text))) == text.split(b"\n")[::-1]


def test_a_line_without_end_takes_no_memory(monkeypatch):
    monkeypatch.setattr(log_files, "BLOCK_BYTES", 10)
    monkeypatch.setattr(log_files, "MAX_LINE_BYTES", 20)
    found = list(lines_backwards(io.BytesIO(b"first\n" + b"x" * 1000 + b"\nlast")))
    assert (found[0], found[-1]) == (b"last", b"first")
    assert max(map(len, found)) <= 30


def test_the_newest_of_an_id_is_found_in_the_newest_file(tmp_path):
    write(tmp_path / "proxy.log.2", line("mine", ms=1))
    write(tmp_path / "proxy.log.1", line("mine", ms=2), line("mine", ms=3), line("other"))
    write(tmp_path / "proxy.log", line("other"))
    (tmp_path / "proxy.log.bak").touch()
    found = files(tmp_path)
    assert [path.name for path in found] == ["proxy.log", "proxy.log.1", "proxy.log.2"]
    assert find_in_files("mine", found).record["ms"] == 3
    assert find_in_files("min", found) is None


def test_other_lines_that_name_it_are_not_its_record(tmp_path):
    others = [json.dumps({"event": "no_answer", "id": "mine"}, separators=(",", ":"))]
    others += [line("other", client="mine"), '{"id":"mine", broken', '"mine"']
    assert find_in_files("mine", [write(tmp_path / "log", *others)]) is None


def test_of_a_stream_the_last_counts_whatever_stands_before_it():
    lines = [f"Jan 31 host gw[7]: {line('mine', ms=n)}\n".encode() for n in (1, 2)]
    assert find_in_stream("mine", [*lines, b"noise\n"]).record["ms"] == 2
    assert find_in_stream("mine", []) is None


def test_of_a_log_of_text_the_line_is_found():
    text = "2026-01-31 09:30:00,125 INFO [7] request id=mine method=GET path=/ status=200"
    other = text.replace("mine", "mine-too")
    found = find_in_stream("mine", [f"{each}\n".encode() for each in (text, other)])
    assert (found.record, found.line) == (None, text)
