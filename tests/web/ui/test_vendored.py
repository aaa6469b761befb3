"""What is vendored is what it says it is."""

import hashlib

from proxy.settings import ROOT

FOLDERS = [ROOT / "proxy/web/ui/static/vendor", ROOT / "tests/browser/vendor"]


def test_each_vendored_file_is_the_one_of_its_package():
    for folder in FOLDERS:
        lines = (folder / "vendored.txt").read_text().splitlines()
        rows = [line.split() for line in lines if not line.startswith("#")]
        found = {
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
            for _, file, _ in rows
        }
        assert found == {file: digest for digest, file, _ in rows}
        present = {path.name for path in folder.iterdir()} - {"vendored.txt"}
        assert present == set(found), "say in vendored.txt where it is from"
        for _, file, package in rows:
            assert [r for r in rows if r[2] == package and r[1].endswith(".LICENSE")], file
