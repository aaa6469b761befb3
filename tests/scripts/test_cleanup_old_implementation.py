"""Old checkouts, small ones, cleaned and put back."""

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import tokenize
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import SETTINGS

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import cleanup_old_implementation
from cleanup import backup, changes, envfile, imports, rewrite
from cleanup.changes import Change

SUCCESSOR = "from app.instance.instance_context import instance_manager\n"
BACKUP = "backup_old_implementation"
KEY = "planted-key-of-a-0123456789"

REMOVED = {
    "app/instance/factory.py": "class InstanceFactory:\n    pass\n",
    "app/instance/manager.py": (
        "from app.instance.factory import InstanceFactory\n\n\n"
        "class InstanceManager:\n    factory = InstanceFactory\n\n\n"
        "instance_manager = InstanceManager()\n"
    ),
    "migration/initialize_new_implementation.py": "from init_factory import init\n",
    "migration/init_factory.py": (
        "from app.instance.factory import InstanceFactory\n\n\ndef init():\n"
        "    return InstanceFactory()\n"
    ),
}
OTHERS = {
    "app/__init__.py": "",
    "app/instance/__init__.py": "from .manager import instance_manager\n",
    "app/instance/instance_context.py": "instance_manager = 'the new one'\n",
    "app/main.py": "from app.instance.manager import instance_manager\n\napp = 'FastAPI'\n",
    "app/admin.py": "from app.main import app, instance_manager  # noqa: F401\n",
    "app/api/routes.py": (
        "def status():\n"
        "    from ..main import instance_manager as manager\n"
        "    return manager\n"
    ),
    "tests/test_all.py": "from app.instance.manager import (\n    instance_manager,\n)\n",
    ".env": (
        "# production keys\n"
        "USE_NEW_IMPLEMENTATION=true   # for now\n"
        f"API_INSTANCE_A_API_KEY='{KEY} # no comment'\n"
        "LOG_LEVEL=debug # loud\n"
        'PORT="8000"\n'
    ),
    "app/.env": "USE_NEW_IMPLEMENTATION=false",
    "instance_states.json": "{}",
}
OLD = OTHERS | REMOVED
TOUCHED = {
    *REMOVED,
    *("app/instance/__init__.py", "app/main.py", "app/admin.py", "app/api/routes.py"),
    *("tests/test_all.py", ".env", "app/.env"),
}


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    """Does not wait for the disk: no test cuts the power, and it is most of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def checkout(tmp_path):
    """Makes an old checkout with what is named beside, or instead of, the usual files."""

    def make(**files):
        return write(tmp_path / "old", OLD | files)

    return make


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def git(root, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", "-C", str(root), *identity, *arguments]
    subprocess.run(command, check=True, capture_output=True)


def commit(root):
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=old")
    return root


def clean(root, *options):
    return cleanup_old_implementation.main(["--root", str(root), *options])


def tree(root, *without):
    """Path, mode and content of every file; folders too."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in root.rglob("*")
        if not path.relative_to(root).parts[0].startswith(("backup_", *without))
    }


def text(root, path):
    return (root / path).read_bytes().decode()


def source(path, content):
    """What becomes of one file: its text, and the findings in it."""
    content = content if isinstance(content, bytes) else content.encode()
    parsed = imports.parsed(content)
    after = rewrite.rewritten(content, path) if imports.has_moves(parsed, path) else content
    left = imports.uses(imports.parsed(after), path)
    return after.decode(), [(use.line, use.what) for use in left]


# The whole of it.


def test_a_checkout_is_cleaned(checkout, capsys):
    root = checkout()
    assert clean(root) == 0
    assert capsys.readouterr().err == ""
    assert not any((root / path).exists() for path in REMOVED)
    assert text(root, "app/instance/__init__.py") == SUCCESSOR
    assert text(root, "app/main.py") == f"{SUCCESSOR}\napp = 'FastAPI'\n"
    assert text(root, "app/admin.py") == f"from app.main import app  # noqa: F401\n{SUCCESSOR}"
    assert text(root, "app/api/routes.py") == (
        "def status():\n"
        "    from app.instance.instance_context import instance_manager as manager\n"
        "    return manager\n"
    )
    assert text(root, "tests/test_all.py") == (
        "from app.instance.instance_context import (\n    instance_manager,\n)\n"
    )
    assert text(root, ".env") == (
        "# production keys\n"
        f"API_INSTANCE_A_API_KEY='{KEY} # no comment'\n"
        "PROXY_LOG_LEVEL=debug # loud\n"
        'PORT="8000"\n'
    )
    assert text(root, "app/.env") == ""
    assert text(root, "instance_states.json") == "{}"


def test_a_cleaned_program_starts(checkout):
    root = checkout()
    clean(root)
    code = "import app.admin, app.api.routes; print(app.api.routes.status())"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "the new one\n"


def test_every_source_compiles_afterwards(checkout):
    root = checkout()
    clean(root)
    for path in root.rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")


def test_the_current_folder_is_the_default(checkout, monkeypatch):
    monkeypatch.chdir(checkout())
    assert cleanup_old_implementation.main([]) == 0
    assert not Path("app/instance/manager.py").exists()


def test_cleaning_again_finds_nothing_and_makes_no_backup(checkout, capsys):
    root = checkout()
    clean(root)
    before = tree(root, "nothing")
    assert clean(root) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert tree(root, "nothing") == before
    assert not (root / f"{BACKUP}_2").exists()


# What is refused.


def test_a_folder_that_is_no_old_checkout_is_refused(tmp_path, capsys):
    root = write(tmp_path, {"app/main.py": SUCCESSOR, ".env": "USE_NEW_IMPLEMENTATION=1\n"})
    before = tree(root)
    assert clean(root) == 2
    assert clean(root, "--force") == 2
    assert tree(root) == before
    assert "no checkout of the old program" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert clean(tmp_path / "x") == 2
    assert clean(tmp_path / "x", "--restore") == 2


@pytest.mark.parametrize("options", [["--backup", "x"], ["--unknown"]])
def test_wrong_usage(checkout, options):
    with pytest.raises(SystemExit) as exit_:
        clean(checkout(), *options)
    assert exit_.value.code == 2


def test_uncommitted_changes_are_refused_unless_forced(checkout, capsys):
    root = commit(checkout())
    write(root, {"app/main.py": text(root, "app/main.py") + "x = 1\n"})
    os.utime(root / "app/admin.py", (1, 1))  # git status would like to write that down
    before = tree(root)
    assert clean(root) == 2
    assert "app/main.py" in capsys.readouterr().err
    assert tree(root) == before
    assert clean(root, "--force") == 0
    assert text(root, "app/main.py").endswith("x = 1\n")


def test_a_staged_file_is_not_committed(checkout, capsys):
    root = commit(checkout())
    write(root, {"README.md": "new"})
    git(root, "add", "README.md")
    assert clean(root) == 2
    assert "README.md" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path, content, expected",
    [
        ("app/new.py", SUCCESSOR.replace("instance_context", "manager"), 2),
        ("app/new.py", "", 0),  # not touched, so nothing of it can be lost
        ("notes.txt", "", 0),
        ("app/.env", "USE_NEW_IMPLEMENTATION=1", 0),  # does not belong into git
    ],
)
def test_files_that_git_does_not_know(checkout, path, content, expected):
    root = checkout()
    (root / "app/.env").unlink()
    commit(root)
    write(root, {path: content})
    assert clean(root) == expected


def test_a_checkout_below_the_repositorys_root(tmp_path):
    root = write(tmp_path / "repository" / "old", OLD)
    commit(root.parent)
    write(root.parent, {"elsewhere.py": "x"})
    git(root.parent, "add", "elsewhere.py")
    write(root, {"app/new.py": "from app.main import instance_manager"})
    assert clean(root) == 2
    (root / "app/new.py").unlink()
    assert clean(root) == 0


def test_after_a_commit_the_backup_is_nothing_new_to_git(checkout):
    root = commit(checkout())
    assert clean(root) == 0
    git(root, "add", "--all")
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files"], capture_output=True, text=True
    )
    assert BACKUP not in listed.stdout


def test_a_repository_git_cannot_read_is_refused(checkout, capsys):
    root = checkout(**{".git/config": "nonsense"})
    assert clean(root) == 2
    assert "git cannot say" in capsys.readouterr().err
    assert clean(root, "--force") == 0


def test_without_git_a_repository_is_refused(checkout, monkeypatch):
    root = commit(checkout())
    monkeypatch.setenv("PATH", "")
    assert clean(root) == 2


# The dry run.


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_dry_run_writes_nothing(checkout, capsys, options):
    root = commit(checkout(**{"app/left.py": "import app.instance.manager\n"}))
    before = tree(root, "nothing")
    assert clean(root, "--dry-run", *options) == 1
    assert tree(root, "nothing") == before
    out, err = capsys.readouterr()
    # What is done is what is left to do by hand allows.
    assert "--- a/app/main.py\n" in out
    assert "--- a/app/instance/manager.py\n" not in out
    assert "app/left.py:1: imports app.instance.manager, which goes" in err
    assert "app/instance/manager.py: stays, app/left.py still needs it" in err


def test_the_diff_of_sources_is_what_is_done(checkout, capsys, tmp_path):
    # No final newline, a BOM, an empty file that goes.
    files = {
        "app/end.py": b"\xef\xbb\xbffrom app.main import instance_manager",
        "app/crlf.py": b"from app.main import app, instance_manager\r\nx = 1\r\n",
        "migration/init_factory.py": "",
        ".env": "",
        "app/.env": "",
    }
    patched = write(tmp_path / "patched", OLD | files)
    root = checkout(**files)
    assert clean(root, "--dry-run") == 0
    (tmp_path / "patch").write_bytes(capsys.readouterr().out.encode())
    (patched / "migration/init_factory.py").unlink()  # not in what git calls a patch
    assert clean(root) == 0
    git(patched, "init")
    kept = (tmp_path / "patch").read_bytes().split(b"--- a/migration/init_factory.py\n")[0]
    (tmp_path / "patch").write_bytes(kept)
    git(patched, "apply", "--whitespace=nowarn", str(tmp_path / "patch"))
    for path in files.keys() | {"app/main.py", "app/admin.py"}:
        assert (patched / path).exists() == (root / path).exists()
        if (root / path).exists():
            assert text(patched, path) == text(root, path)


def test_the_diff_names_empty_files_that_go(checkout, capsys):
    clean(checkout(**{"app/instance/factory.py": ""}), "--dry-run")
    assert "--- a/app/instance/factory.py\n+++ /dev/null\n" in capsys.readouterr().out


def test_no_secret_is_printed(checkout, capsys):
    env = (
        f"# old: {KEY}\n#API_KEY={KEY}\n"
        f"A_API_KEY={KEY}\nexport B_API_KEY = '{KEY}'\n"
        f'PEM="first\n{KEY}\n{KEY}=="\n'
        f"{KEY}\n{KEY}=={KEY}\nbroken='{KEY}\n"
        f"USE_NEW_IMPLEMENTATION=true # {KEY}\n"
        f"LOG_LEVEL={KEY}\nREDIS_URL=redis://:{KEY}@localhost\nURL=${{LOG_LEVEL}}{KEY}\n"
    )
    root = checkout(**{".env": env, "app/.env": f"USE_NEW_IMPLEMENTATION='{KEY}"})
    for options in (["--dry-run"], [], ["--force"], ["--restore"]):
        clean(root, *options)
        out, err = capsys.readouterr()
        assert "0123456789" not in out + err
        assert "cannot be read" in err or "--restore" in options


def test_the_diff_of_an_env_file_shows_names(checkout, capsys):
    clean(checkout(), "--dry-run")
    assert (
        "--- a/.env\n+++ b/.env\n@@ -1,5 +1,4 @@\n # ***\n-USE_NEW_IMPLEMENTATION=true\n"
        " API_INSTANCE_A_API_KEY=***\n-LOG_LEVEL=debug\n+PROXY_LOG_LEVEL=debug\n PORT=***\n"
    ) in capsys.readouterr().out


# Imports.

MIXED = "from app.instance.manager import InstanceManager, instance_manager\n"


@pytest.mark.parametrize(
    "before, after",
    [
        ("from app.instance.manager import instance_manager\n", SUCCESSOR),
        ("from app.main import instance_manager\n", SUCCESSOR),
        ("from .manager import instance_manager\n", SUCCESSOR),
        ("from.manager import instance_manager\n", SUCCESSOR),
        ("from ..main import instance_manager\n", SUCCESSOR),
        ("from ..instance.manager import instance_manager\n", SUCCESSOR),
        ("from ...app.main import instance_manager\n", SUCCESSOR),
        ("from app . main import instance_manager\n", SUCCESSOR),
        (
            "from app.main import instance_manager as m, instance_manager\n",
            f"{SUCCESSOR[:-1]} as m, instance_manager\n",
        ),
        (
            "from app.main import (  # a\n    instance_manager as m  # b\n)  # c\n",
            "from app.instance.instance_context import (  # a\n"
            "    instance_manager as m  # b\n)  # c\n",
        ),
        (
            "from app.main import \\\n    instance_manager\n",
            "from app.instance.instance_context import \\\n    instance_manager\n",
        ),
        (
            "from app.main import instance_manager, app\n",
            f"from app.main import app\n{SUCCESSOR}",
        ),
        (
            "from app.main import a, instance_manager, b\n",
            f"from app.main import a, b\n{SUCCESSOR}",
        ),
        (
            "from app.main import app, \\\n    instance_manager\n",
            f"from app.main import app\n{SUCCESSOR}",
        ),
        (
            "from app.main import (app, instance_manager)\n",
            f"from app.main import (app)\n{SUCCESSOR}",
        ),
        (
            "from app.main import (\n    # of FastAPI\n    app,  # the app\n"
            "    instance_manager,  # the manager\n    # of ours\n    other,  # more\n)\n",
            "from app.main import (\n    # of FastAPI\n    app,  # the app\n"
            "    # of ours\n    other,  # more\n)\n" + SUCCESSOR[:-1] + "  # the manager\n",
        ),
        (
            "from app.main import (\n    app,  # the app\n    instance_manager  # the manager\n"
            ")\n",
            "from app.main import (\n    app  # the app\n)\n"
            + SUCCESSOR[:-1]
            + "  # the manager\n",
        ),
        (
            "from app.main import (\n    app,  # the app\n    instance_manager)\n",
            f"from app.main import (\n    app  # the app\n    )\n{SUCCESSOR}",
        ),
        (
            "from app.main import (\n    app,\n    instance_manager as\n    m,\n)\n",
            f"from app.main import (\n    app,\n)\n{SUCCESSOR[:-1]} as m\n",
        ),
        (
            "if 1: from app.main import app, instance_manager\n",
            f"if 1: from app.main import app; {SUCCESSOR}",
        ),
        (
            "x = 1; from app.main import app, instance_manager; y = 1\n",
            f"x = 1; from app.main import app; {SUCCESSOR[:-1]}; y = 1\n",
        ),
        (
            "try:\n\tfrom app.main import app, instance_manager\nexcept ImportError:\n\tpass\n",
            f"try:\n\tfrom app.main import app\n\t{SUCCESSOR}except ImportError:\n\tpass\n",
        ),
        # What is not ours.
        ("from app.instance import instance_manager\n", None),
        ("from app.main import app\n", None),
        ("from app.main import *\n", None),
        ("from manager import instance_manager\n", None),
        ("from other.app.main import instance_manager\n", None),
        ("from .main import instance_manager\n", None),  # app.instance.main
        ("from ....main import instance_manager\n", None),
        ("import app.main\napp.main.instance_manager\n", None),
        ("x = 'from app.main import instance_manager'\n", None),
        ("# from app.main import instance_manager\n", None),
        ("class A:\n    manager = app = None\n    x = app.instance.manager\n", None),
        ("import logging\nlogging.getLogger('app.instance.manager')\n", None),
        ("import logging\nlogging.getLogger('app.instance.' + 'manager')\n", None),
        ("NAME = 'app.instance.manager' + '_of_ours'\n", None),
        ('"""Was app.instance.manager once."""\n', None),
    ],
)
def test_imports_that_have_a_successor(before, after):
    assert source("app/instance/other.py", before) == (before if after is None else after, [])


@pytest.mark.parametrize(
    "before, after",
    [
        ("x = 1\r\n@, instance_manager\r\n", "x = 1\r\n@\r\n+\r\n"),
        ("x = 1\r\n@, instance_manager", "x = 1\r\n@\r\n+"),
        ("@, instance_manager", "@\n+"),
        ("@, instance_manager  # c\ny = 1\r\n", "@  # c\n+\ny = 1\r\n"),
        ("x = 1\n@, instance_manager\r\n", "x = 1\n@\r\n+\r\n"),
        ("@, instance_manager\r\ny = 1\n", "@\r\n+\r\ny = 1\n"),
        ("if x:\r  @, instance_manager\r", "if x:\r  @\r  +\r"),
        ("if x: \\\n  @, instance_manager\n", "if x: \\\n  @; +\n"),
    ],
)
def test_line_ends_stay(before, after):
    def full(text):
        return text.replace("@", "from app.main import app").replace("+", SUCCESSOR[:-1])

    assert source("app/x.py", full(before))[0] == full(after)


@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        "\n\n{}\n\n\n   \n",
        "\x0c{}\n\x0c\nx = 1\n",
        "{}\nx = '\\d'\n",  # Python warns, and warnings are errors in tests
        "x = 1\r{}\r\ny = 2\n",
        "x = 'é\u2028 \U0001f600'; {}; y = 'é'\n",
        "x = " + "+".join("1" * 900) + "\n{}\n",  # deep, for whoever visits trees
    ],
)
def test_all_else_stays_as_it_is(frame):
    after, found = source(
        "app/x.py", frame.format("from app.main import instance_manager as m")
    )
    assert after == frame.format(f"{SUCCESSOR[:-1]} as m")
    assert found == []


@pytest.mark.parametrize(
    "head, codec",
    [
        ("# -*- coding: latin-1 -*-\n", "latin-1"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1251 :\n", "cp1251"),
        ("\ufeff", "utf-8"),
        ("# coding: utf-8\r\n", "utf-8"),
    ],
)
def test_encodings_stay(head, codec):
    rest = "x = 'é'\n" if codec != "cp1251" else "x = 'я'\n"
    content = f"{head}from app.main import instance_manager\n{rest}".encode(codec)
    after = rewrite.rewritten(content, "app/x.py")
    assert after == f"{head}{SUCCESSOR}{rest}".encode(codec)


@pytest.mark.parametrize(
    "content, lines",
    [
        ("from app.instance.factory import InstanceFactory\n", [1]),
        ("from app.instance.factory import instance_manager\n", [1]),
        ("from app.instance.manager import (\n    InstanceManager,\n    X as y,\n)\n", [2, 3]),
        ("x = 1\nimport app.instance.manager\n", [2]),
        ("import app.instance.manager as m\n", [1]),
        ("import os, app.instance.factory\n", [1]),
        ("import app.instance.manager\napp.instance.manager.instance_manager\n", [1, 2]),
        ("import app.instance\n\n\napp.instance.manager.x.y()\n", [4]),
        ("import app\nx = [app.instance.factory]\n", [2]),
        ("import app.instance as i\ni.manager.x\n", [2]),
        ("from app import instance\ninstance.manager.x\n", [2]),
        ("from .. import instance as i\ni.factory.x\n", [2]),
        ("from app.instance import manager\n", [1]),
        ("from app.instance import other, manager as m\n", [1]),
        ("from . import factory\n", [1]),
        ("from .manager import *\n", [1]),
        ("from app.instance.manager import *\n", [1]),
        ("from migration import init_factory\n", [1]),
        ("from migration.initialize_new_implementation import run\n", [1]),
        ("import init_factory\n", [1]),  # how scripts in migration/ find each other
        ("import importlib\nimportlib.import_module('app.instance.manager')\n", [2]),
        ("__import__('app.instance.factory')\n", [1]),
        ("import_module('.manager', 'app.instance')\n", [1]),
        ("import_module('.' + 'manager', 'app.' + 'instance')\n", [1]),
        ("import_module('app.instance.' + 'manager')\n", [1]),
        ("NAME = (\n    'app.'\n    + 'instance.' + 'manager' + '.InstanceManager')\n", [2]),
        ("NAME = 'app.instance.manager' + '.InstanceManager'\n", [1]),
        ("NAME = 'app.instance.manager' + suffix\n", [1]),
        ("import_module(name='.manager', package=__package__)\n", [1]),
        ("patch('app.instance.manager.instance_manager')\n", [1]),
        ("load('app.instance.factory:InstanceFactory')\n", [1]),
        ("sys.modules['app.instance.manager']\n", [1]),
        ("if TYPE_CHECKING:\n    from app.instance.manager import InstanceManager\n", [2]),
        (
            "def f():\n    try:\n        from . import manager\n    finally:\n        pass\n",
            [3],
        ),
    ],
)
def test_what_has_no_successor_is_listed_and_stays(content, lines):
    after, found = source("app/instance/other.py", content)
    assert after == content
    assert [line for line, _ in found] == lines


def test_an_import_of_both_kinds_is_split():
    after, found = source("app/x.py", MIXED)
    assert after == f"from app.instance.manager import InstanceManager\n{SUCCESSOR}"
    assert found == [(1, "InstanceManager of app.instance.manager has no successor")]


@pytest.mark.parametrize(
    "content, why",
    [
        (b"if 1: from app.main import (a, # c\n instance_manager # d\n)\n", "comment"),
        # Back from text, Python would write another sequence of bytes.
        (b"# coding: utf-7\nfrom app.main import instance_manager\nx = '+AGE-'\n", "utf-7"),
    ],
)
def test_what_libcst_cannot_do_is_listed(checkout, capsys, content, why):
    root = checkout(**{"app/odd.py": content})
    assert clean(root) == 1
    assert (root / "app/odd.py").read_bytes() == content
    err = capsys.readouterr().err
    assert "app/odd.py:2: imports instance_manager from app.main: " in err
    assert why in err


NAMES = st.sampled_from(["instance_manager", "app", "InstanceManager", "x"])
ALIASES = st.tuples(NAMES, st.none() | st.sampled_from(["a", "b", "instance_manager"]))
MODULES = st.sampled_from(
    ["app.main", "app.instance.manager", ".manager", "..main", "..instance.manager", ".main"]
)
FRAMES = st.sampled_from(
    [
        "{}",
        "{}  # end",
        "x = 1; {}; y = 2",
        "if x: {}",
        "def f():\n\t{}\n\treturn 1",
        "try:\n    {}\nexcept ImportError: pass",
        "if TYPE_CHECKING:\n  # why\n\n  {}\nelse:\n  x = 1",
        "class A:\n    '''Doc.'''\n    {}\n",
    ]
)
COMMAS = st.sampled_from([", ", ",", " , ", ", \\\n"])
GAPS = st.sampled_from(["", " ", "\n", "\n    ", "  # note\n  ", " # one\n\n  # two\n"])


@st.composite
def statements(draw):
    names = [
        f"{name} as {alias}" if alias else name
        for name, alias in draw(st.lists(ALIASES, min_size=1, max_size=4))
    ]
    head = f"from {draw(MODULES)} import"
    if not draw(st.booleans()):
        return f"{head} {draw(COMMAS).join(names)}"
    inside = draw(GAPS) + "".join(f"{name},{draw(GAPS)}" for name in names[:-1]) + names[-1]
    end = draw(st.sampled_from(["", ","])) + draw(GAPS)
    return f"{head}{draw(st.sampled_from(['', ' ']))}({inside}{end})"


def bound(content):
    """What each name is after all imports, whoever imports it: (module, name, local)."""
    package = ["app", "instance"]
    return sorted(
        (
            imports.absolute(node.module or "", node.level, package),
            alias.name,
            alias.asname or "",
        )
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def expected(bindings):
    return sorted(
        (imports.SUCCESSOR if imports.moves(module, name) else module, name, alias)
        for module, name, alias in bindings
    )


def comments(content):
    tokens = tokenize.generate_tokens(io.StringIO(content).readline)
    return sorted(
        part
        for token in tokens
        if token.type == tokenize.COMMENT
        for part in token.string.split("  ")
    )


@given(st.lists(statements(), min_size=1, max_size=3), FRAMES, st.sampled_from(["", "\n"]))
def test_whatever_the_form_only_the_module_changes(forms, frame, end):
    content = "\n".join(frame.format(form) for form in forms) + end
    path = "app/instance/other.py"
    try:
        after = rewrite.rewritten(content.encode(), path).decode()
    except rewrite.CannotRewrite:
        # There is no place for a comment of a name that leaves.
        assert frame.startswith(("x = 1;", "if x:"))
        assert "#" in "".join(forms)
        return
    compile(after, path, "exec")
    assert bound(after) == expected(bound(content))
    assert comments(after) == comments(content)
    assert after.endswith("\n") == content.endswith("\n")
    assert rewrite.rewritten(after.encode(), path).decode() == after


# What cannot be done.


def test_all_but_what_cannot_be_rewritten_is_done_and_that_is_listed(checkout, capsys):
    other = "from app.main import app, instance_manager\n"
    root = checkout(**{"app/both.py": other + MIXED})
    assert clean(root) == 1
    assert text(root, "app/main.py") == f"{SUCCESSOR}\napp = 'FastAPI'\n"
    assert "USE_NEW_IMPLEMENTATION" not in text(root, ".env")
    # The manager imports the factory.
    there = {path for path in REMOVED if (root / path).exists()}
    assert there == {"app/instance/manager.py", "app/instance/factory.py"}
    out, err = capsys.readouterr()
    # The line after the change, where a person will look.
    assert "app/both.py:3: InstanceManager of app.instance.manager has no successor" in err
    assert "app/instance/manager.py:" not in err
    assert "app/instance/manager.py: stays, app/both.py still needs it\n" in out
    assert f"Done but for what is listed. --restore undoes this run, --backup {BACKUP} " in out
    assert "app/instance/factory.py: stays, app/instance/manager.py still needs it\n" in out


def test_once_the_rest_is_done_by_hand_the_next_run_removes_what_stayed(checkout, capsys):
    root = checkout(**{"app/both.py": MIXED})
    assert clean(root) == 1
    capsys.readouterr()
    assert clean(root) == 1  # nothing more can be done, and nothing is
    assert "There is nothing to change." in capsys.readouterr().out
    assert not (root / f"{BACKUP}_2").exists()
    (root / "app/both.py").write_text(SUCCESSOR)
    assert clean(root) == 0
    assert not any((root / path).exists() for path in REMOVED)


def test_what_cannot_be_rewritten_does_not_let_uncommitted_changes_pass(checkout, capsys):
    root = commit(checkout(**{"app/both.py": MIXED}))
    write(root, {"app/main.py": text(root, "app/main.py") + "x = 1\n"})
    before = tree(root)
    assert clean(root) == 2
    assert tree(root) == before
    assert "not committed" in capsys.readouterr().err


def test_every_source_that_compiled_still_does_whatever_is_left(checkout):
    sources = {
        "app/both.py": MIXED,
        "app/odd.py": b"if 1: from app.main import (a, # c\n instance_manager # d\n)\n",
        "app/broken.py": "from app.main import instance_manager\nif:\n",
        "app/star.py": "from app.instance.manager import *\n",
    }
    root = checkout(**sources)
    assert clean(root) == 1
    for path in root.rglob("*.py"):
        if path.name != "broken.py":
            compile(path.read_bytes(), str(path), "exec")


def test_a_program_of_which_a_part_is_left_still_starts(checkout):
    """A file that goes while another imports it would be a program that does not start."""
    root = checkout(**{"app/both.py": MIXED})
    clean(root)
    code = "import app.both, app.admin; print(app.both.InstanceManager.__name__)"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "InstanceManager\n"


def test_a_factory_that_is_needed_does_not_keep_the_manager(checkout):
    root = checkout(**{"app/f.py": "from app.instance.factory import InstanceFactory\n"})
    assert clean(root) == 1
    assert [path for path in REMOVED if (root / path).exists()] == ["app/instance/factory.py"]


@pytest.mark.parametrize(
    "content, line",
    [
        ("from .instance.manager import instance_manager\nif:\n", 2),
        ("from .instance.manager import instance_manager\nreturn 1\n", 2),
        # Latin-1, unsaid.
        (b"from .instance.manager import instance_manager\nx = '\xe9'\n", None),
        (b"# coding: nonsense\nfrom .instance.manager import instance_manager\n", None),
        (b"from .instance.manager import instance_manager\n\0\n", None),
    ],
)
def test_a_file_that_does_not_compile_is_listed_and_stays(checkout, capsys, content, line):
    content = content.encode() if isinstance(content, str) else content
    root = checkout(**{"app/bad.py": content})
    assert clean(root) == 1
    assert (root / "app/bad.py").read_bytes() == content
    assert f"app/bad.py:{line or ''}" in capsys.readouterr().err
    # Another Python may read it: what it names, it may import.
    assert (root / "app/instance/manager.py").exists()
    assert not (root / "migration/init_factory.py").exists()
    assert text(root, "app/main.py") == f"{SUCCESSOR}\napp = 'FastAPI'\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_that_may_not_be_read_may_import_anything(checkout):
    root = checkout(**{"app/secret.py": ""})
    (root / "app/secret.py").chmod(0)
    assert clean(root) == 1
    assert all((root / path).exists() for path in REMOVED)


@pytest.mark.parametrize(
    "content, stays",
    [
        ("from app.instance.factory import X\nif:", ["app/instance/factory.py"]),
        ("import init_factory\nif:", ["app/instance/factory.py", "migration/init_factory.py"]),
        ("manager_of_nothing = 1\nif:", []),
    ],
)
def test_a_source_that_cannot_be_parsed_keeps_what_it_names(checkout, content, stays):
    root = checkout(**{"app/bad.py": content})
    clean(root)
    assert [path for path in sorted(REMOVED) if (root / path).exists()] == stays


def test_broken_files_that_import_nothing_of_ours_are_not_our_business(checkout):
    assert clean(checkout(**{"app/python2.py": "print 'hello'\n"})) == 0


def test_a_broken_file_may_go(checkout):
    assert clean(checkout(**{"migration/init_factory.py": "if:  # manager\n"})) == 0


def test_the_successor_does_not_come_to_import_itself(checkout, capsys):
    content = "from app.instance.manager import instance_manager\n"
    root = checkout(**{"app/instance/instance_context.py": content})
    assert clean(root) == 1
    assert "instance_context.py:1: " in capsys.readouterr().err
    assert text(root, "app/instance/instance_context.py") == content
    assert (root / "app/instance/manager.py").exists()


def test_a_release_without_the_successor_keeps_its_imports(checkout, capsys):
    root = checkout()
    (root / "app/instance/instance_context.py").unlink()
    assert clean(root) == 1
    assert "app/main.py:1: " in capsys.readouterr().err
    assert text(root, "app/main.py") == OLD["app/main.py"]
    assert (root / "app/instance/manager.py").exists()


# Which files.


@pytest.mark.parametrize(
    "folder",
    [
        ".git/hooks",
        "node_modules/x",
        "old-env/lib/python3.8/site-packages",
        "venv/lib",
        f"{BACKUP}/app",
        f"{BACKUP}_7",
    ],
)
def test_folders_of_others_are_left_alone(checkout, folder):
    files = {f"{folder}/x.py": MIXED, f"{folder}/y.py": OLD["app/main.py"]}
    root = checkout(**files, **{"venv/pyvenv.cfg": ""})
    clean(root)
    assert {path: text(root, path) for path in files} == files


def test_a_folder_that_only_looks_like_a_backup_is_cleaned(checkout):
    path = f"{BACKUP}_tests/x.py"
    root = checkout(**{path: OLD["app/main.py"]})
    assert clean(root) == 0
    assert SUCCESSOR in text(root, path)


def test_modes_stay_also_of_files_that_are_read_only(checkout):
    root = checkout()
    modes = {"app/main.py": 0o444, ".env": 0o640, "app/admin.py": 0o755}
    for path, mode in modes.items():
        (root / path).chmod(mode)
    assert clean(root) == 0
    assert {path: (root / path).stat().st_mode & 0o777 for path in modes} == modes


def test_links_to_our_own_files_stay_links(checkout):
    root = checkout()
    (root / "app/link.py").symlink_to("main.py")
    (root / "app/.env").unlink()
    (root / "app/.env").symlink_to("../.env")
    (root / "again").symlink_to("app")
    (root / "app/gone.py").symlink_to("nowhere.py")
    assert clean(root) == 0
    assert os.readlink(root / "app/link.py") == "main.py"
    assert os.readlink(root / "app/.env") == "../.env"
    assert SUCCESSOR in text(root, "app/link.py")
    assert "PROXY_LOG_LEVEL" in text(root, "app/.env")


@pytest.mark.parametrize(
    "path, content",
    [
        ("app/main.py", OLD["app/main.py"]),
        (".env", OLD[".env"]),
        ("app/instance/manager.py", OLD["app/instance/manager.py"]),
    ],
)
def test_what_a_link_leads_to_elsewhere_is_not_touched(
    checkout, tmp_path, capsys, path, content
):
    root = checkout()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(content)
    (root / path).unlink()
    (root / path).symlink_to(elsewhere)
    assert clean(root) == 1
    assert elsewhere.read_text() == content
    assert (root / path).is_symlink()
    assert f"{path}:1: " in capsys.readouterr().err


# The env files.


@pytest.mark.parametrize(
    "before, after",
    [
        ("USE_NEW_IMPLEMENTATION=true\n", ""),
        ("A=1\nUSE_NEW_IMPLEMENTATION=true", "A=1\n"),
        ("A=1\r\n\r\nexport USE_NEW_IMPLEMENTATION = 'x'  # y\r\nB=2", "A=1\r\n\r\nB=2"),
        ("A=1\n\n  USE_NEW_IMPLEMENTATION\n\n# c\nB=1\n", "A=1\n\n\n# c\nB=1\n"),
        ("USE_NEW_IMPLEMENTATION=1\nUSE_NEW_IMPLEMENTATION=0\n", ""),
        ("USE_NEW_IMPLEMENTATION='a\nb'\nA=1\n", "A=1\n"),
        ("LOG_LEVEL=info\n", "PROXY_LOG_LEVEL=info\n"),
        ('  export   LOG_LEVEL = "info" # x\n', '  export   PROXY_LOG_LEVEL = "info" # x\n'),
        ("'LOG_LEVEL'=LOG_LEVEL", "'PROXY_LOG_LEVEL'=LOG_LEVEL"),
        ("\ufeffLOG_LEVEL=info\n", "\ufeffPROXY_LOG_LEVEL=info\n"),
        # What stays.
        ("# USE_NEW_IMPLEMENTATION=true\n# LOG_LEVEL=x\n", None),
        ("A='x\nUSE_NEW_IMPLEMENTATION=true\nLOG_LEVEL=x'\n", None),
        ("MY_LOG_LEVEL=1\nLOG_LEVELS=2\nUSE_NEW_IMPLEMENTATION_2=1\n", None),
        ("ADMIN_API_KEY='a # b'\nPORT=80 # c\n\n\nBAD='x\n=\n", None),
        ("", None),
    ],
)
def test_env_files(before, after):
    assert envfile.updated(before.encode()) == (
        (before if after is None else after).encode(),
        [],
    )


def test_bytes_that_are_no_text_stay():
    content = b"A=\xff\xe9\nLOG_LEVEL=info\n# \x80\n"
    assert envfile.updated(content)[0] == b"A=\xff\xe9\nPROXY_LOG_LEVEL=info\n# \x80\n"


@pytest.mark.parametrize(
    "content, line",
    [
        ("A=1\n\nLOG_LEVEL=info\nPROXY_LOG_LEVEL=debug\n", 3),
        ("A=1\n\n\nUSE_NEW_IMPLEMENTATION='x\n", 4),
        ("LOG_LEVEL=info\nA=1\nB=x${LOG_LEVEL}\n", 3),
    ],
)
def test_env_lines_for_a_person(content, line):
    _, problems = envfile.updated(content.encode())
    assert [problem.line for problem in problems] == [line]


def test_a_name_that_is_set_already_is_not_set_twice(checkout):
    content = "LOG_LEVEL=info\nPROXY_LOG_LEVEL=debug\n"
    assert clean(checkout(**{".env": content})) == 1
    assert envfile.updated(content.encode())[0] == content.encode()


def test_the_new_names_are_those_of_the_settings():
    assert {s.alias: s.name for s in SETTINGS if s.alias} == envfile.RENAMED


@given(st.text("AL_='\"#\\\n\r $", max_size=60))
def test_other_lines_stay_whatever_they_are(content):
    assert envfile.updated(content.encode())[0] == content.encode()
    assert envfile.masked(content.encode()).count("\n") == content.count("\n")


# The backup.


def test_the_backup_covers_every_file_that_is_touched(checkout):
    root = checkout()
    before = {path: (root / path).read_bytes() for path in TOUCHED}
    clean(root)
    manifest = json.loads(text(root, f"{BACKUP}/manifest.json"))
    entries = {entry["path"]: entry for entry in manifest["files"]}
    assert entries.keys() == TOUCHED
    for path, content in before.items():
        assert (root / BACKUP / path).read_bytes() == content
        assert entries[path]["sha256"] == hashlib.sha256(content).hexdigest()


def test_nobody_else_may_read_a_backup(checkout):
    root = checkout()
    clean(root)
    folder = root / BACKUP
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("owner", ["ours", "the old script's", "a file"])
def test_a_backup_is_never_overwritten(checkout, owner):
    root = checkout()
    if owner == "ours":
        clean(root)
        write(root, OLD)
    elif owner == "a file":
        (root / BACKUP).write_text("mine")
    else:
        write(root, {f"{BACKUP}/app/main.py": "from the old script"})
    before = {path: c for path, c in tree(root, "nothing").items() if path.startswith(BACKUP)}
    before |= {str(p): p.read_bytes() for p in (root / BACKUP).rglob("*") if p.is_file()}
    assert clean(root) == 0
    assert (root / f"{BACKUP}_2/manifest.json").is_file()
    after = {path: Path(path).read_bytes() for path in before if Path(path).is_absolute()}
    assert after == before
    write(root, OLD)
    (root / BACKUP).rename(root.parent / "moved")
    assert clean(root) == 0
    assert (root / f"{BACKUP}_3/manifest.json").is_file()


def test_a_copy_that_is_not_what_it_should_be_stops_everything(checkout, monkeypatch, capsys):
    def half(path, content, access):
        replace(path, content[: len(content) // 2], access)

    root = checkout()
    before = tree(root)
    replace = changes.replace
    monkeypatch.setattr(backup, "replace", half)
    assert clean(root) == 2
    assert tree(root) == before
    assert "the backup is damaged" in capsys.readouterr().err
    assert not (root / BACKUP / "manifest.json").exists()


def test_a_file_that_changed_meanwhile_stops_everything(checkout):
    root = checkout()
    access = changes.Access.of(root / "app/main.py")
    with pytest.raises(changes.Refused, match=r"app/main\.py"):
        backup.make(root, [Change("app/main.py", b"as it was", b"", access)])
    assert not (root / BACKUP).exists()


# Putting back.


def test_a_round_trip_is_byte_for_byte(checkout):
    odd = {
        "app/crlf.py": b"from app.main import a, instance_manager\r\n# \xc3\xa9",
        "app/latin.py": b"# coding: latin-1\nfrom app.main import instance_manager # \xe9",
        ".env": b"\xef\xbb\xbfLOG_LEVEL=x\r\nA='\xff'",
    }
    root = checkout(**odd)
    (root / "app/main.py").chmod(0o400)
    (root / "migration/init_factory.py").chmod(0o755)
    before = tree(root)
    assert clean(root) == 0
    assert tree(root) != before
    (root / "migration").rmdir()  # as git does with folders that are empty
    assert clean(root, "--restore") == 0
    after = tree(root)
    after["migration"] = before["migration"]
    assert after == before
    assert (root / BACKUP).is_dir()


def test_modes_are_put_back_too(checkout):
    root = checkout()
    before = tree(root)
    clean(root)
    clean(root, "--restore")
    (root / "app/main.py").chmod(0o777)
    clean(root, "--restore")
    assert tree(root) == before


def test_what_came_later_is_not_removed(checkout):
    root = checkout()
    clean(root)
    write(root, {"app/later.py": "x = 1\n"})
    clean(root, "--restore")
    assert text(root, "app/later.py") == "x = 1\n"


@pytest.mark.parametrize("step", range(len(TOUCHED)))
def test_a_crash_at_any_file_can_be_undone(checkout, monkeypatch, step):
    def crash(self, root, make=Change.make):
        if len(made) == step:
            raise SystemExit("as after a power cut")
        made.append(make(self, root))

    root, made = checkout(), []
    before = tree(root)
    monkeypatch.setattr(Change, "make", crash)
    with pytest.raises(SystemExit):
        clean(root)
    monkeypatch.undo()
    assert clean(root, "--restore") == 0
    assert tree(root) == before


def test_what_is_interrupted_still_starts(checkout, monkeypatch):
    """Files go last: until then, whoever imports them can."""
    made = []
    monkeypatch.setattr(Change, "make", lambda self, root: made.append(self.after is None))
    clean(checkout())
    assert made == sorted(made)


def test_a_disk_that_is_full_is_said(checkout, monkeypatch, capsys):
    def full(self, root):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Change, "make", full)
    assert clean(checkout()) == 1
    err = capsys.readouterr().err
    assert "No space left" in err
    assert "--restore" in err


def test_a_failed_write_leaves_the_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with suppress(ZeroDivisionError):
        changes.replace(path, b"new", changes.Access.of(path))
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_the_newest_complete_backup_is_the_default(checkout, capsys):
    root = checkout()
    clean(root)
    first = "app/new.py"
    write(root, {first: "from app.main import instance_manager\n"})
    clean(root)
    write(root, {f"{BACKUP}_10/app/main.py": "without a manifest"})
    capsys.readouterr()
    assert clean(root, "--restore") == 0
    assert capsys.readouterr().out == f"{first}: put back\n"
    assert clean(root, "--restore", "--backup", BACKUP) == 0
    assert text(root, "app/main.py") == OLD["app/main.py"]
    assert clean(root, "--restore", "--backup", BACKUP) == 0
    assert "Everything is as in" in capsys.readouterr().out


def test_work_done_since_is_not_lost_unless_forced(checkout, capsys):
    root = checkout()
    clean(root)
    write(root, {"app/main.py": "mine\n", "app/instance/manager.py": "mine too\n"})
    before = tree(root)
    assert clean(root, "--restore") == 2
    err = capsys.readouterr().err
    assert "app/main.py" in err
    assert "app/instance/manager.py" in err
    assert tree(root) == before
    assert clean(root, "--restore", "--force") == 0
    assert text(root, "app/main.py") == OLD["app/main.py"]


def test_a_dry_run_of_putting_back(checkout, capsys):
    root = checkout()
    clean(root)
    before = tree(root, "nothing")
    capsys.readouterr()
    assert clean(root, "--restore", "--dry-run") == 0
    assert tree(root, "nothing") == before
    assert "app/main.py: would be put back" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / ".env").write_text("x"),
        lambda folder: (folder / "app/main.py").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text('{"files": [{}]}'),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
)
def test_a_damaged_backup_is_not_put_back(checkout, damage):
    root = checkout()
    clean(root)
    damage(root / BACKUP)
    before = tree(root)
    assert clean(root, "--restore") == 2
    assert clean(root, "--restore", "--backup", BACKUP) == 2
    assert tree(root) == before


@pytest.mark.parametrize("path", ["../outside", "/tmp/outside", "app/../../outside"])
def test_a_manifest_that_leads_out_of_the_checkout_is_refused(checkout, path, capsys):
    root = checkout()
    clean(root)
    manifest = json.loads(text(root, f"{BACKUP}/manifest.json"))
    manifest["files"][0]["path"] = path
    write(root, {f"{BACKUP}/manifest.json": json.dumps(manifest)})
    assert clean(root, "--restore") == 2
    assert "is not in" in capsys.readouterr().err


def test_without_a_backup_nothing_can_be_put_back(checkout, capsys):
    assert clean(checkout(), "--restore") == 2
    assert "no backup" in capsys.readouterr().err


# The command.


def test_it_runs_as_a_script(checkout):
    script = Path(cleanup_old_implementation.__file__)
    odd = {"app/latin.py": "# coding: utf-8\n# é\nfrom app.main import instance_manager\n"}
    command = [sys.executable, str(script), "--dry-run"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=checkout(**odd), capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"+from app.instance.instance_context import instance_manager" in done.stdout


def test_help_says_what_force_does(capsys):
    with pytest.raises(SystemExit):
        cleanup_old_implementation.main(["--help"])
    help_ = capsys.readouterr().out
    assert "go on with uncommitted changes; with --restore: also put back" in " ".join(
        help_.split()
    )
