"""The files for systemd, and the check of a gateway that runs."""

import json
import shutil
import subprocess
import sys
import threading
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from werkzeug.serving import make_server

from proxy.settings import ROOT
from tests.web.conftest import ADMIN_KEY, make_world, simulator  # noqa: F401  # fixtures

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import deploy
from deployment import checks, files
from deployment import place as place_module
from deployment.place import Place, Refused, hindrances

SYSTEMD = shutil.which("systemd-analyze")
LOGROTATE = shutil.which("logrotate")
POLL_SECONDS = 0.01  # how often the server looks whether it is to end
ALL = {files.SERVICE, files.BACKUP, files.TIMER, files.LOGROTATE, files.README}


@pytest.fixture
def checkout(tmp_path):
    """Makes a gateway's folder with these settings, and what systemd looks for there."""

    def make(settings="", name="gateway"):
        root = tmp_path / name
        (root / ".venv/bin").mkdir(parents=True)
        (root / ".venv/bin/python").symlink_to(sys.executable)
        (root / ".env").write_text(settings)
        return root

    return make


def written(root, out, *options):
    arguments = ["--out", str(out), "--root", str(root), "--user", "gateway", *options]
    assert deploy.main(arguments) == 0
    return {path.name: path.read_text() for path in out.iterdir()}


def values(unit):
    """Key to value, over all sections."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(unit)
    return {
        key: value for section in parser.sections() for key, value in parser[section].items()
    }


def service(checkout, settings="", name="gateway"):
    place = Place.of("gateway", checkout(settings, name), None)
    return values(files.service(place))


def test_writes_what_there_is_to_review(checkout, tmp_path, capsys):
    found = written(checkout(), tmp_path / "out")
    assert set(found) == ALL
    assert "Nothing is installed; README.txt says how." in capsys.readouterr().out


@pytest.mark.skipif(SYSTEMD is None, reason="no systemd here")
@pytest.mark.parametrize("name", ["gateway", "100% of a gateway"])
def test_systemd_finds_nothing_to_say(checkout, tmp_path, name):
    written(checkout("PORT=443\nPROXY_LOG_DIR=log files", name), tmp_path / "out")
    units = [
        str(tmp_path / "out" / unit) for unit in (files.SERVICE, files.BACKUP, files.TIMER)
    ]
    done = subprocess.run(
        [SYSTEMD, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    # An unknown setting is only a warning to it, and the exit code 0.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(LOGROTATE is None, reason="no logrotate here")
def test_logrotate_can_read_its_file(checkout, tmp_path):
    written(checkout(), tmp_path / "out")
    command = [LOGROTATE, "--debug", str(tmp_path / "out" / files.LOGROTATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "error" not in done.stderr.replace("unknown user", "")


def test_runs_the_proxy_of_that_folder_with_its_own_python(checkout, tmp_path):
    unit = service(checkout)
    root = tmp_path / "gateway"
    assert unit["Type"] == "notify"
    assert unit["WorkingDirectory"] == str(root)
    assert unit["ExecStart"] == f"{root}/.venv/bin/python -m proxy"
    assert "EnvironmentFile" not in unit


def test_says_notify_because_gunicorn_does():
    from gunicorn import arbiter

    assert "sd_notify" in Path(arbiter.__file__).read_text()


def test_systemd_waits_longer_than_the_last_answer_may_take(checkout):
    assert service(checkout, "PROXY_GRACEFUL_TIMEOUT_SECONDS=120")["TimeoutStopSec"] == "135"


def test_there_are_files_and_threads_enough(checkout):
    unit = service(checkout, "PROXY_THREADS=2000\nPROXY_WORKERS=8")
    assert int(unit["LimitNOFILE"]) > 2 * 2 * 2000
    assert int(unit["TasksMax"]) > 8 * 2000


def test_writes_only_where_it_has_to(checkout, tmp_path):
    settings = "PROXY_LOG_DIR=/var/log/gateway\nPROXY_DATABASE_URL=sqlite:////srv/db/p.db"
    unit = service(checkout, settings)
    assert unit["ProtectSystem"] == "strict"
    paths = f"{tmp_path}/gateway/instance /srv/db /var/log/gateway"
    assert unit["ReadWritePaths"] == paths


def test_folders_that_others_use_too_are_not_given_away(checkout, tmp_path):
    found = written(checkout("PROXY_LOG_DIR=/var/log"), tmp_path / "out")
    changes = [line for line in found[files.README].splitlines() if "chown" in line]
    assert changes
    assert not [line for line in changes if "/var/log" in line]


@pytest.mark.parametrize("port, capability", [(8000, ""), (443, "CAP_NET_BIND_SERVICE")])
def test_has_no_rights_but_for_a_low_port(checkout, port, capability):
    assert service(checkout, f"PORT={port}")["CapabilityBoundingSet"] == capability


def test_a_percent_sign_is_no_specifier(checkout):
    unit = service(checkout, name="50%i")
    assert unit["WorkingDirectory"].endswith("/50%%i")
    assert "/50%%i/.venv" in unit["ExecStart"]


@pytest.mark.parametrize("name", ["a\nb", 'a"b', "a$b", "a*", "a\\b", "a'b"])
def test_refuses_a_path_that_means_something_else(checkout, tmp_path, capsys, name):
    arguments = ["--out", str(tmp_path / "out"), "--user", "gateway", "--root", f"/srv/{name}"]
    assert deploy.main(arguments) == 2
    assert "cannot be written to a unit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("user", ["root", "a b", "a\nUser=root", "%i", "-x"])
def test_refuses_a_user_that_is_none(checkout, user):
    with pytest.raises(Refused, match="--user"):
        Place.of(user, checkout(), None)


def test_whoever_calls_it_is_the_user_but_not_root(checkout, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Refused, match="Not root"):
        Place.of(None, checkout(), None)


def test_refuses_settings_that_the_gateway_would_refuse(checkout, tmp_path, capsys):
    root = checkout("PROXY_THREADS=many")
    arguments = ["--out", str(tmp_path / "out"), "--user", "gateway", "--root", str(root)]
    assert deploy.main(arguments) == 2
    assert "PROXY_THREADS: 'many' cannot be used" in capsys.readouterr().err


def test_the_backup_is_a_command_that_exists(checkout, tmp_path):
    root = checkout()
    unit = values(written(root, tmp_path / "out")[files.BACKUP])
    python, script, *arguments = unit["ExecStart"].split()
    assert python == str(root / ".venv/bin/python")
    assert arguments == ["backup", "--keep", "14"]
    ours = ROOT / Path(script).relative_to(root)
    done = subprocess.run([sys.executable, ours, "backup", "--help"], capture_output=True)
    assert b"--keep" in done.stdout


def test_of_postgresql_there_is_no_backup(checkout, tmp_path):
    url = "postgresql://gateway:secret-of-db@db/gateway"
    found = written(checkout(f"PROXY_DATABASE_URL={url}"), tmp_path / "out")
    assert set(found) == ALL - {files.BACKUP, files.TIMER}
    assert "pg_dump" in found[files.README]
    assert not [name for name, text in found.items() if "secret-of-db" in text]


def test_no_file_holds_the_admin_key(checkout, tmp_path):
    found = written(checkout(f"ADMIN_API_KEY={ADMIN_KEY}"), tmp_path / "out")
    assert not [name for name, text in found.items() if ADMIN_KEY in text]


@pytest.fixture
def known(monkeypatch):
    """The user is known here, by a number that owns nothing."""
    account = SimpleNamespace(pw_uid=12_345, pw_gid=12_345)
    monkeypatch.setattr(place_module.pwd, "getpwnam", lambda _: account)
    monkeypatch.setattr(place_module.os, "getgrouplist", lambda *_: [12_345])
    monkeypatch.setattr(place_module.grp, "getgrgid", lambda _: SimpleNamespace(gr_name="g"))
    monkeypatch.setattr(place_module, "PRIVATE", ())


def test_a_folder_that_its_user_may_not_enter_is_told(checkout, tmp_path, known, capsys):
    root = checkout()
    tmp_path.chmod(0o700)
    written(root, tmp_path / "out")
    assert f"{tmp_path} may not be entered by gateway." in capsys.readouterr().err


@pytest.mark.parametrize("mode, uid, gid, may", [
    (0o700, 12_345, 1, True),
    (0o070, 1, 12_345, True),
    (0o007, 1, 1, True),
    (0o077, 12_345, 12_345, False),  # its owner is none of the others
    (0o770, 1, 1, False),
])  # fmt: skip
def test_who_may_enter_a_folder_is_what_the_system_says(
    mode, uid, gid, may, checkout, tmp_path, known, monkeypatch
):
    place = Place.of("gateway", checkout(), None)
    status = SimpleNamespace(st_mode=mode, st_uid=uid, st_gid=gid)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    assert (hindrances(place) == []) is may


def test_an_interpreter_in_somebodys_home_is_looked_for_behind_its_link(
    checkout, tmp_path, known, monkeypatch
):
    root, home = checkout(), tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "python").touch()
    (root / ".venv/bin/python").unlink()
    (root / ".venv/bin/python").symlink_to(home / "python")
    found = hindrances(Place.of("gateway", root, None))
    assert f"{home} may not be entered by gateway." in found


def test_what_its_private_tmp_hides_is_told(checkout, tmp_path, known, monkeypatch):
    monkeypatch.setattr(place_module, "PRIVATE", (tmp_path,))
    (found,) = [h for h in hindrances(Place.of("gateway", checkout(), None)) if "Tmp" in h]
    assert found == f"What is below {tmp_path} is hidden from the service (PrivateTmp)."


def test_of_a_user_who_is_not_known_here_nothing_is_said(checkout):
    assert hindrances(Place.of("no-such-user", checkout(), None)) == []


def test_never_overwrites_unless_forced(checkout, tmp_path, capsys):
    root, out = checkout(), tmp_path / "out"
    out.mkdir()
    (out / files.TIMER).write_text("mine")
    arguments = ["--out", str(out), "--root", str(root), "--user", "gateway"]
    assert deploy.main(arguments) == 2
    assert f"has {files.TIMER} already" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [files.TIMER]
    assert deploy.main([*arguments, "--force"]) == 0
    assert (out / files.TIMER).read_text() != "mine"


def test_a_folder_that_cannot_be_written_is_told(checkout, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["--out", str(tmp_path / "file/out"), "--root", str(checkout())]
    assert deploy.main([*arguments, "--user", "gateway"]) == 1
    assert "cannot be written: Not a directory." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--check", "--out", "x"],
        ["--check", "--force"],
        ["--out", "x", "--verify"],
        ["--out", "x", "--url", "http://h"],
    ],
)
def test_what_does_not_belong_together_is_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stopped:
        deploy.main(arguments)
    assert stopped.value.code == 2


@contextmanager
def served(app):
    """The address of an app on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def world(make_world):  # noqa: F811
    return make_world()


@pytest.fixture
def check(world, monkeypatch, capsys, tmp_path):
    """Runs --check against the world, without the backup tool; exit code and results."""
    monkeypatch.setenv("ADMIN_API_KEY", ADMIN_KEY)
    monkeypatch.setattr(deploy, "BACKUP_TOOL", tmp_path / "backup_monitor.py")
    # A proxy would see the key; nobody answers there, so it is not asked.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with served(world.app) as url:

        def run(*options):
            code = deploy.main(["--check", "--url", url, "--json", *options])
            told = json.loads(capsys.readouterr().out)
            assert told["ok"] == (code == 0)
            return code, {c["name"]: (c["result"], c["text"]) for c in told["checks"]}

        yield run


def test_all_is_well(check, world):
    world.add("a")
    world.add("b", enabled=False)
    code, found = check()
    assert code == 0
    assert found == {
        "health": ("ok", "no problem"),
        "ready": ("ok", "clients can be served"),
        "instances": ("ok", "2 instances, 1 enabled"),
        "instance a": ("ok", "healthy"),
        "instance b": ("ok", "disabled"),
        "backups": ("skipped", "there is no backup_monitor.py"),
    }


def test_nobody_to_send_to_is_not_well(check):
    code, found = check()
    assert code == 1
    assert found["ready"] == ("failed", "no instance is configured and enabled")
    assert found["instances"] == ("failed", "0 instances, 0 enabled")


def test_an_instance_that_errs_is_not_well(check, world):
    world.add("a", api_key="not-its-key")
    world.ask()
    code, found = check()
    assert code == 1
    result, text = found["instance a"]
    assert result == "failed"
    assert text.startswith("misconfigured: ")


def test_verify_makes_a_real_call_to_each_that_is_enabled(check, world):
    world.add("a", supported_models=["gpt-4o"])
    world.add("b/1", enabled=False)
    world.add("c/1", supported_models=["gpt-4o"], api_key="not-its-key")
    code, found = check("--verify")
    assert code == 1
    assert found["verify a"] == ("ok", "1 deployments answered")
    assert found["verify c/1"][0] == "failed"
    assert "gpt-4o: The key was refused (401)" in found["verify c/1"][1]
    assert "verify b/1" not in found


def test_an_instance_that_names_no_model_is_not_tried_and_has_not_failed(check, world):
    """It serves any model, as most old ones did."""
    world.add("a")
    code, found = check("--verify")
    assert code == 0
    assert found["verify a"][0] == "skipped"
    assert found["verify a"][1].startswith("The instance names no model")


def test_all_pages_are_looked_at(check, world, monkeypatch):
    monkeypatch.setattr(checks, "PAGE", 2)
    for name in "abcde":
        world.add(name)
    _, found = check()
    assert sum(name.startswith("instance ") for name in found) == 5


def test_a_wrong_key_is_told_and_not_shown(check, world, monkeypatch):
    monkeypatch.setenv("ADMIN_API_KEY", "wrong-key-0123456789")
    code, found = check()
    assert code == 1
    assert (
        "HTTP 401. The key in the header X-Admin-API-Key opens nothing here"
        in found["gateway"][1]
    )
    assert "wrong-key" not in str(found)


def test_a_line_for_each_check(world, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ADMIN_API_KEY", ADMIN_KEY)
    monkeypatch.setattr(deploy, "BACKUP_TOOL", tmp_path / "none.py")
    world.add("a")
    with served(world.app) as url:
        assert deploy.main(["--check", "--url", url + "/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok       health: no problem"
    assert len(lines) == 5


@pytest.mark.parametrize(
    "status, headers, body, said",
    [
        ("200 OK", [], b"<html>", "HTTP 200 without JSON"),
        ("200 OK", [], b"[]", "HTTP 200 with other JSON"),
        ("502 Bad Gateway", [], b"", "HTTP 502 without JSON"),
        # Followed, it would carry the key to another host.
        ("302 Found", [("Location", "http://127.0.0.1:9/")], b"", "HTTP 302 without JSON"),
    ],
)
def test_another_program_there_is_told(status, headers, body, said):
    def app(environ, start_response):
        start_response(status, headers)
        return [body]

    with served(app) as url:
        assert said in str(checked(url)[0])


def test_nobody_there_is_told(capsys):
    with served(lambda *_: []) as url:
        pass
    first = checked(url)[0]
    assert (first.name, first.result) == ("gateway", "failed")
    assert "No answer (ConnectionError); does it run?" in first.text


def checked(url, tool=Path("/none")):
    gateway = checks.Gateway(url, ADMIN_KEY)
    try:
        return list(checks.check(gateway, verify=False, backup_tool=tool))
    finally:
        gateway.close()


@pytest.mark.parametrize("key", ["", " ", "a\nb"])
def test_without_a_key_there_is_no_check(monkeypatch, capsys, key):
    monkeypatch.setenv("ADMIN_API_KEY", key)
    assert deploy.main(["--check"]) == 2
    assert "Set ADMIN_API_KEY in the environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://h", "http://", "http://me:secret@h", "http://[::"]
)
def test_an_address_that_is_none_is_refused(monkeypatch, capsys, url):
    monkeypatch.setenv("ADMIN_API_KEY", ADMIN_KEY)
    assert deploy.main(["--check", "--url", url]) == 2
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "code, told, expected",
    [
        (0, {"alerts": [], "problems": []}, "ok"),
        (1, {"alerts": [{"text": "It is 3 days old."}], "problems": []}, "failed"),
        (1, {"problems": ["It cannot be read."]}, "failed"),
        (2, {"problems": ["The database is PostgreSQL."]}, "skipped"),
    ],
)
def test_the_backup_tool_is_asked(tmp_path, code, told, expected):
    tool = tmp_path / "tool.py"
    tool.write_text(f"import sys\nprint({json.dumps(told)!r})\nsys.exit({code})\n")
    last = checked("http://127.0.0.1:9", tool)[-1]
    assert (last.name, last.result) == ("backups", expected)


def test_the_backup_tool_is_not_asked_about_another_host(tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text("")
    assert checks.backups("https://gateway.example.com", tool).result == "skipped"
    # It says nothing, so something is wrong with it.
    assert checks.backups("http://localhost:8000", tool).result == "failed"
