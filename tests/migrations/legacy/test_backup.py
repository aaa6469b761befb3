import hashlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta, timezone

import pytest

from migrations.legacy import backup
from migrations.legacy.backup import MANIFEST, BackupFailed, changed_since, make_backup
from tests.migrations.legacy.files import write

NOW = datetime(2025, 6, 15, 12, 30, 5, tzinfo=UTC)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def copies(folder):
    return [p.read_bytes() for p in sorted(folder.iterdir()) if p.name != MANIFEST]


@pytest.fixture
def old(tmp_path):
    """Files as no writer of JSON would write them again, in a folder of their own."""
    first = write(tmp_path, "old/instances.json", b'\xef\xbb\xbf{"a" :1.0e1,\r\n"b":\xff}')
    return [first, write(tmp_path, "old/app/instances.json", "{}")]


def test_every_file_is_copied_byte_for_byte(old, tmp_path):
    folder = make_backup(old, tmp_path / "backups", NOW)
    assert folder.name == "backup_20250615T123005Z"
    assert copies(folder) == [file.read_bytes() for file in old]


def test_only_its_owner_can_read_it(old, tmp_path):
    before = os.umask(0)
    try:
        folder = make_backup(old, tmp_path / "backups", NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {0o600}


def test_the_manifest_names_each_source_with_its_sum(old, tmp_path):
    folder = make_backup(old, tmp_path, NOW)
    entries = json.loads((folder / MANIFEST).read_text())
    assert [entry["source"] for entry in entries] == [str(file) for file in old]
    for entry, file in zip(entries, old, strict=True):
        assert (folder / entry["copy"]).read_bytes() == file.read_bytes()
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert entry["bytes"] == file.stat().st_size


def test_two_in_one_second_do_not_collide(old, tmp_path):
    names = []
    for text in ("one", "two", "three"):
        old[0].write_text(text)
        folder = make_backup(old, tmp_path, NOW)
        assert copies(folder) == [text.encode(), old[1].read_bytes()]
        names.append(folder.name)
    assert [name[-2:] for name in names] == ["5Z", "_2", "_3"]


def test_what_did_not_change_is_not_copied_again(old, tmp_path):
    """A service that fails and is started again every few seconds would fill the disk."""
    folder = make_backup(old, tmp_path, NOW)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}
    for _ in range(3):
        assert make_backup(old, tmp_path, NOW + timedelta(days=1)) == folder
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()} == before
    assert list(tmp_path.glob("backup_*")) == [folder]


def test_a_backup_that_was_made_before_another_is_found_too(old, tmp_path):
    first = make_backup(old, tmp_path, NOW)
    content = old[0].read_bytes()
    old[0].write_text("for a while")
    make_backup(old, tmp_path, NOW)
    old[0].write_bytes(content)
    assert make_backup(old, tmp_path, NOW) == first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "001_instances.json").write_text("damaged"),
        lambda folder: (folder / "001_instances.json").unlink(),
        lambda folder: (folder / "001_instances.json").chmod(0o644),
        lambda folder: folder.chmod(0o755),
        lambda folder: (folder / MANIFEST).unlink(),  # the one before was interrupted
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text('[{"source": 1}]'),
        lambda folder: (folder / MANIFEST).write_text("[]"),
    ],
)
def test_a_backup_that_is_not_whole_and_private_does_not_count(old, tmp_path, spoil):
    first = make_backup(old, tmp_path, NOW)
    spoil(first)
    second = make_backup(old, tmp_path, NOW)
    assert second != first
    assert copies(second) == [file.read_bytes() for file in old]


def test_other_files_of_the_same_content_are_others(old, tmp_path):
    first = make_backup(old, tmp_path, NOW)
    moved = old[0].rename(old[0].with_name("other.json"))
    assert make_backup([moved, old[1]], tmp_path, NOW) != first


def test_one_more_file_is_another_backup(old, tmp_path):
    first = make_backup(old, tmp_path, NOW)
    assert make_backup([*old, write(tmp_path, "old/more.json", "{}")], tmp_path, NOW) != first


def test_the_manifest_names_files_from_the_root(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_backup([p.relative_to(tmp_path) for p in old], tmp_path, NOW)
    assert [e["source"] for e in json.loads((folder / MANIFEST).read_text())] == [
        *map(str, old)
    ]


def test_the_name_is_in_utc_wherever_it_is_made(tmp_path):
    there = NOW.astimezone(timezone(timedelta(hours=8)))
    assert make_backup([], tmp_path, there).name == "backup_20250615T123005Z"


def test_a_copy_that_is_not_what_was_written_is_found(old, tmp_path, monkeypatch):
    def lying(path, content):
        path.write_bytes(content[:-1])

    monkeypatch.setattr(backup, "write_private", lying)
    with pytest.raises(BackupFailed, match="is not what was written: the disk lies"):
        make_backup(old, tmp_path, NOW)


def test_a_full_disk_is_a_sentence(old, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "write_private", full)
    with pytest.raises(BackupFailed, match=r"cannot be written: No space left on device\."):
        make_backup(old, tmp_path, NOW)
    assert list(tmp_path.glob("backup_*")) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(old, tmp_path):
    with pytest.raises(BackupFailed, match="No backup can be made in"):
        make_backup(old, write(tmp_path, "file", "") / "backups", NOW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_sentence(old, tmp_path):
    old[0].chmod(0)
    with pytest.raises(BackupFailed, match=r"cannot be copied: Permission denied\."):
        make_backup(old, tmp_path, NOW)


def test_what_is_no_file_is_passed_over(old, tmp_path):
    # What is wrong with them, their reader says; of a pipe there would be no end.
    os.mkfifo(tmp_path / "pipe")
    strange = [tmp_path / "missing.json", tmp_path / "pipe", tmp_path / "old"]
    folder = make_backup([*strange, old[0]], tmp_path, NOW)
    assert copies(folder) == [old[0].read_bytes()]


def test_what_sqlite_keeps_beside_a_database_is_copied_too(tmp_path):
    file = write(tmp_path, "old/state.db", "database")
    write(tmp_path, "old/state.db-wal", "log")
    (tmp_path / "link.db").symlink_to(file)
    for given in (file, tmp_path / "link.db"):
        assert copies(make_backup([given], tmp_path, NOW)) == [b"database", b"log"]


def test_what_changed_since_is_known(old, tmp_path):
    folder = make_backup(old, tmp_path, NOW)
    assert changed_since(folder) == []
    old[0].write_text("changed")
    old[1].unlink()
    assert changed_since(folder) == [str(file) for file in old]
