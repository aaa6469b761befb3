import os
import re
from dataclasses import fields
from pathlib import Path

import pytest
import trustme

from proxy import settings
from proxy.core.routing import POLICIES
from proxy.core.sources import networks
from proxy.settings import ROOT, SETTINGS, SettingError, Settings, load_settings

BY_NAME = {s.name: s for s in SETTINGS}

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)


def load(env_file=None, **environ):
    return load_settings(environ, env_file)


def refusal(env_file=None, **environ):
    with pytest.raises(SettingError) as caught:
        load(env_file, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def env_file(tmp_path):
    def write(content):
        path = tmp_path / ".env"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# The table.


@each_setting
def test_a_default_can_be_used(setting):
    setting.parse(setting.default)


@each_setting
def test_help_is_a_sentence(setting):
    assert setting.help[0] == "`" or setting.help[0].isupper()
    assert setting.help.endswith(".")
    assert "|" not in setting.help  # it stands in a table


def test_a_setting_and_its_field_have_one_name_each():
    assert len({s.name for s in SETTINGS}) == len({s.field for s in SETTINGS}) == len(SETTINGS)


def test_the_type_has_exactly_the_tables_fields():
    assert [f.name for f in fields(Settings)] == [s.field for s in SETTINGS]


@each_setting
def test_a_field_is_named_as_its_setting(setting):
    assert setting.field == setting.name.removeprefix("PROXY_").lower()


# Values.

FERNET_KEY = "bWFkZS11cC1tYWRlLXVwLW1hZGUtdXAtbWFkZS11cC0="

GOOD = [
    ("PROXY_SECRET_KEY", FERNET_KEY, (FERNET_KEY,)),
    ("PROXY_SECRET_KEY", f"{FERNET_KEY}  {FERNET_KEY}", (FERNET_KEY, FERNET_KEY)),
    ("PROXY_SECRET_KEY_FILE", "/etc/gateway.key", Path("/etc/gateway.key")),
    ("ADMIN_API_KEY", "k", "k"),
    ("ADMIN_API_KEY", "  k e y ", "k e y"),
    ("PORT", "1", 1),
    ("PORT", "65535", 65535),
    ("PROXY_BIND", "::1", "::1"),
    ("PROXY_ALERT_WEBHOOK_URL", "https://h.example/x?y", "https://h.example/x?y"),
    ("PROXY_WORKERS", "1", 1),
    ("PROXY_WORKERS", "64", 64),
    ("PROXY_THREADS", "10000", 10000),
    ("PROXY_SYNC_INTERVAL_MS", "10", 10),
    ("PROXY_CLIENT_AUTH", "OFF", "off"),
    ("PROXY_TRUSTED_PROXIES", "10.0.0.0/8, ::1", networks(["10.0.0.0/8", "::1/128"])),
    ("PROXY_TRUSTED_PROXIES", "192.0.2.1 192.0.2.2", networks(["192.0.2.1", "192.0.2.2"])),
    ("PROXY_MAX_BODY_BYTES", "1024", 1024),
    ("PROXY_LOG_LEVEL", "Warning", "warning"),
    *[("PROXY_ALLOW_PRIVATE_UPSTREAMS", t, True) for t in ("true", "YES", "On", "1")],
    *[("PROXY_ALLOW_PRIVATE_UPSTREAMS", t, False) for t in ("false", "NO", "Off", "0")],
    ("PROXY_DATABASE_URL", "postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    ("PROXY_DATABASE_URL", "postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    *[("PROXY_POLICY", name, name) for name in POLICIES],
]


@pytest.mark.parametrize("name, text, value", GOOD)
def test_a_good_value_is_taken(name, text, value):
    assert getattr(load(**{name: text}), BY_NAME[name].field) == value


BAD = [
    *[("PORT", text) for text in ("-1", "0", "65536", "8000.0", "http", "8 000", "0x50")],
    *[
        ("PROXY_ALERT_WEBHOOK_URL", text)
        for text in ("hooks.example/x", "ftp://hooks.example/x", "http://169.254.169.254/x")
    ],
    ("PROXY_ALERT_FORMAT", "teams"),
    ("PROXY_WORKERS", "0"),
    ("PROXY_WORKERS", "65"),
    ("PROXY_WORKERS", "many"),
    ("PROXY_THREADS", "0"),
    ("PROXY_THREADS", "10001"),
    ("PROXY_SYNC_INTERVAL_MS", "9"),
    ("PROXY_SYNC_INTERVAL_MS", "60001"),
    ("PROXY_CLIENT_AUTH", "none"),
    ("PROXY_TRUSTED_PROXIES", "10.0.0.1/8"),
    ("PROXY_TRUSTED_PROXIES", "proxy.example"),
    ("PROXY_TRUSTED_PROXIES", "*"),
    ("PROXY_POLICY", "random"),
    ("PROXY_MAX_BODY_BYTES", "1023"),
    ("PROXY_MAX_BODY_BYTES", "64MB"),
    ("PROXY_CONNECT_TIMEOUT_MS", "0"),
    ("PROXY_GRACEFUL_TIMEOUT_SECONDS", "0"),
    ("PROXY_USAGE_RETENTION_DAYS", "0"),
    ("PROXY_CA_BUNDLE", "/no/such/file.pem"),
    ("PROXY_CA_BUNDLE", "proxy"),  # a folder
    ("PROXY_LOG_MAX_BYTES", "9999"),
    ("PROXY_LOG_LEVEL", "trace"),
    ("PROXY_ALLOW_PRIVATE_UPSTREAMS", "maybe"),
    ("PROXY_ALLOW_PRIVATE_UPSTREAMS", "2"),
]


@pytest.mark.parametrize("name, text", BAD)
def test_a_bad_value_is_refused_in_a_line_that_says_what_is_allowed(name, text):
    allowed, is_secret = BY_NAME[name].allowed, BY_NAME[name].secret
    shown = "its value" if is_secret else repr(text)
    assert refusal(**{name: text}) == f"{name}: {shown} cannot be used; allowed is {allowed}"


def test_the_first_bad_setting_of_the_table_is_named():
    assert refusal(PROXY_THREADS="x", PORT="y").startswith("PORT: ")


def test_workers_are_one_for_each_core_we_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3, 5})
    assert [load().workers, load(PROXY_WORKERS="Auto").workers] == [3, 3]


@pytest.mark.parametrize("text", ["", "   ", "\t"])
@each_setting
def test_empty_counts_as_not_set(setting, text):
    assert load(**{setting.name: text}) == load()


# The database's URL.


@pytest.mark.parametrize(
    "url, used",
    [
        ("sqlite:///instance/proxy.db", f"sqlite:///{ROOT}/instance/proxy.db"),
        ("sqlite:///a.db?timeout=1", f"sqlite:///{ROOT}/a.db?timeout=1"),
        ("sqlite+pysqlite:///a.db", f"sqlite+pysqlite:///{ROOT}/a.db"),
        ("sqlite:////var/lib/a.db", "sqlite:////var/lib/a.db"),
        ("sqlite:///file:a.db?mode=ro&uri=true", "sqlite:///file:a.db?mode=ro&uri=true"),
    ],
)
def test_a_relative_path_starts_at_the_project(url, used, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(PROXY_DATABASE_URL=url).database_url == used


@pytest.mark.parametrize(
    "url",
    [
        "proxy.db",
        "/var/lib/secret.db",
        "mysql://u:secret@h/d",  # we add in SQL, which each dialect writes in its own way
        "://secret",
        # In memory each worker would have one of its own, without our tables.
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///:memory:?cache=shared",
    ],
)
def test_a_database_that_we_cannot_use_is_refused_without_telling_its_password(url):
    message = refusal(PROXY_DATABASE_URL=url)
    assert message.startswith("PROXY_DATABASE_URL: its value cannot be used; allowed is a URL")
    assert "secret" not in message


def test_relative_folders_and_files_start_at_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(PROXY_LOG_DIR="logs", PROXY_LEGACY_PATH="pyproject.toml")
    assert loaded.log_dir == ROOT / "logs"
    assert loaded.legacy_path == ROOT / "pyproject.toml"


def test_certificates_are_read_at_once(tmp_path):
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    assert load(PROXY_CA_BUNDLE=str(file)).ca_bundle == file
    assert "certificates" in refusal(PROXY_CA_BUNDLE=str(ROOT / "pyproject.toml"))
    assert load(PROXY_LOG_DIR="/var/log/p").log_dir.as_posix() == "/var/log/p"


def test_without_a_value_there_is_no_folder_and_no_file():
    assert (load().log_dir, load().ca_bundle) == (None, None)


# Names.


@pytest.mark.parametrize(
    "name, hint",
    [
        ("PROXY_THREAD", "Did you mean 'PROXY_THREADS'?"),
        ("PROXY_POLCY", "Did you mean 'PROXY_POLICY'?"),
        ("PROXY_PORT", "Known are"),
        ("PROXY_XYZZY_9", "Known are ADMIN_API_KEY, PORT, PROXY_ALERT_"),
    ],
)
def test_an_unknown_name_of_ours_is_refused_with_a_hint(name, hint):
    message = refusal(**{name: "hunter2"})
    assert message.startswith(f"{name}: there is no such setting.")
    assert hint in message
    assert "hunter2" not in message


def test_an_unknown_name_is_refused_even_if_it_is_empty():
    # An empty value switches a setting off; of a misspelt one it would not.
    assert "PROXY_LOGDIR" in refusal(PROXY_LOGDIR="")


def test_names_that_are_not_ours_do_not_matter():
    assert load(HTTPS_PROXY="http://p", PROXYCHAINS="x", http_proxy="y", PATH="z") == load()


def test_the_old_name_is_read_while_the_new_one_is_not_set():
    assert load(LOG_LEVEL="debug").log_level == "debug"
    assert load(LOG_LEVEL="debug", PROXY_LOG_LEVEL="").log_level == "debug"
    assert load(LOG_LEVEL="debug", PROXY_LOG_LEVEL="error").log_level == "error"


def test_a_bad_value_under_the_old_name_is_refused():
    assert refusal(LOG_LEVEL="loud").startswith("PROXY_LOG_LEVEL: 'loud' cannot be used")


# Environment and file.


def test_the_file_is_read(env_file):
    content = "# comment\nPORT=9001\nexport PROXY_BIND='0.0.0.0'\nADMIN_API_KEY=a$b{c}#d\n"
    loaded = load(env_file(content))
    assert (loaded.port, loaded.bind, loaded.admin_api_key) == (9001, "0.0.0.0", "a$b{c}#d")


def test_values_of_the_file_are_taken_as_they_are_written(env_file):
    assert load(env_file("ADMIN_API_KEY=${HOME}x\n"), HOME="/h").admin_api_key == "${HOME}x"


def test_the_environment_wins_over_the_file(env_file):
    loaded = load(env_file("PORT=9001\nPROXY_THREADS=7\n"), PORT="9002")
    assert (loaded.port, loaded.threads) == (9002, 7)


def test_an_empty_value_in_the_environment_switches_off_what_the_file_says(env_file):
    assert load(env_file("PROXY_LOG_DIR=logs\n"), PROXY_LOG_DIR="").log_dir is None


@pytest.mark.parametrize("line", ["PORT=", "PORT", 'PORT=""', "# PORT=1"])
def test_without_a_value_in_the_file_the_default_counts(env_file, line):
    assert load(env_file(f"{line}\n")) == load()


def test_the_file_is_as_strict_as_the_environment(env_file):
    assert refusal(env_file("PROXY_THREAD=1\n")).startswith("PROXY_THREAD: there is no such")
    assert refusal(env_file("PORT=x\n")).startswith("PORT: 'x' cannot be used")


def test_without_a_file_the_defaults_count(tmp_path):
    assert load(tmp_path / ".env") == load()


def test_a_file_that_is_not_text_is_refused(env_file):
    path = env_file(b"ADMIN_API_KEY=\xff\xfe\n")
    assert refusal(path) == f"{path} cannot be read: it is not UTF-8 text"


def test_a_file_that_cannot_be_read_is_refused(env_file, monkeypatch):
    path = env_file("PORT=1\n")

    def no_permission(*_arguments, **_named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(settings, "dotenv_values", no_permission)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


def test_the_process_environment_is_the_one_that_is_read(monkeypatch):
    monkeypatch.setenv("PORT", "9003")
    assert load_settings(env_file=None).port == 9003


# What may be shown.


def test_secrets_are_not_in_the_repr():
    loaded = load(
        ADMIN_API_KEY="hunter2",
        PROXY_DATABASE_URL="postgresql://u:swordfish@h/d",
        PROXY_SECRET_KEY=FERNET_KEY,
        PROXY_ALERT_WEBHOOK_URL="https://hooks.example/tunafish",
    )
    shown = repr(loaded)
    assert "tunafish" not in shown
    assert "hunter2" not in shown
    assert "swordfish" not in shown
    assert "port=8000, bind='127.0.0.1', " in shown
    assert FERNET_KEY not in shown


@pytest.mark.parametrize(
    "bind, address",
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("gateway.lan", "http://gateway.lan:8000"),
    ],
)
def test_the_address_is_one_that_this_host_can_ask(bind, address):
    assert load(PROXY_BIND=bind).address == address


def test_intervals_are_given_in_seconds_too():
    assert load(PROXY_SYNC_INTERVAL_MS="250").sync_interval_seconds == 0.25


# The documentation.


def test_the_readme_lists_exactly_the_settings_with_their_defaults():
    rows = re.findall(
        r"^\| `([A-Z][A-Z_]+)` \| *(?:`([^`|]*)`)? *\|",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    assert [(name, default.strip('"')) for name, default in rows] == [
        (s.name, s.default) for s in SETTINGS
    ]


def test_the_example_file_lists_exactly_the_settings_with_their_defaults():
    lines = re.findall(
        r"^(?:# ?)?([A-Z][A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    assert lines == [(s.name, s.default) for s in SETTINGS]


def test_the_example_file_can_be_used_as_it_is():
    assert load(ROOT / ".env.example") == load()


def test_minutes_are_kept_no_longer_than_hours_and_hours_no_longer_than_days():
    given = {
        "PROXY_USAGE_RETENTION_DAYS": "5",
        "PROXY_USAGE_MINUTES_RETENTION_DAYS": "7",
        "PROXY_USAGE_DAYS_RETENTION_DAYS": "3",
    }
    kept = load_settings(environ=given, env_file=None).usage_kept
    assert [kept.minutes, kept.hours, kept.days] == [5 * 86_400] * 3
