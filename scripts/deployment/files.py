"""The texts: two systemd services, a timer, a logrotate file, and how to install them."""

import shlex
from pathlib import Path

from deployment.place import Place

NAME = "azure-openai-gateway"
SERVICE = f"{NAME}.service"
BACKUP = f"{NAME}-backup.service"
TIMER = f"{NAME}-backup.timer"
LOGROTATE = f"{NAME}.logrotate"
README = "README.txt"

KEPT_BACKUPS = 14
# After gunicorn's own deadline: counting, writing and leaving take a moment.
STOP_MARGIN_SECONDS = 15
# A first start may migrate, and import ten thousand instances.
START_SECONDS = 300
SPARE_FILES = 1024  # databases, logs, idle connections to instances
SPARE_TASKS = 64
PRIVILEGED_PORTS = 1024  # below it, Linux wants a capability

HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077"""


def texts(place: Place) -> dict[str, str]:
    """By file name."""
    found = {SERVICE: service(place), LOGROTATE: logrotate(place)}
    if place.database:
        found |= {BACKUP: backup_service(place), TIMER: backup_timer()}
    return {**found, README: readme(place, list(found))}


def service(place: Place) -> str:
    settings = place.settings
    stop_seconds = settings.graceful_timeout_seconds + STOP_MARGIN_SECONDS
    return f"""\
[Unit]
Description=Azure OpenAI gateway
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=120
StartLimitBurst=10

[Service]
# gunicorn says when it listens. `python -m proxy` becomes gunicorn, so it is the main process.
Type=notify
NotifyAccess=main
{_as_user(place)}
# No EnvironmentFile= for settings: the gateway reads .env in this folder itself, and so do the
# commands. systemd would take a comment after a value for a part of it, and what it says would
# win. What is no setting, such as AZURE_CLIENT_SECRET: README.md says how (Entra ID).
ExecStart={_quoted(place.python)} -m proxy
TimeoutStartSec={START_SECONDS}
# The first process tells the others; open answers go on for
# PROXY_GRACEFUL_TIMEOUT_SECONDS={settings.graceful_timeout_seconds}.
KillMode=mixed
TimeoutStopSec={stop_seconds}
Restart=on-failure
RestartSec=5
# Of a worker: two sockets a stream (PROXY_THREADS={settings.threads}), as many idle, some more.
LimitNOFILE={4 * settings.threads + SPARE_FILES}
# All workers' threads ({settings.workers} workers); the usual limit is lower on many hosts.
TasksMax={settings.workers * (settings.threads + SPARE_TASKS) + SPARE_TASKS}
# stderr goes to the journal, which limits itself. For a file instead, which {LOGROTATE}
# keeps short, make one that is {place.user}'s, and take the # away:
# StandardError=append:{_escaped(place.stderr_log)}

{HARDENING}
{_capabilities(settings.port)}
ReadWritePaths={" ".join(map(_quoted, place.folders))}

[Install]
WantedBy=multi-user.target
"""


def backup_service(place: Place) -> str:
    script = place.root / "scripts/backup_monitor.py"
    return f"""\
[Unit]
Description=Backup of the Azure OpenAI gateway's database

[Service]
Type=oneshot
{_as_user(place)}
ExecStart={_quoted(place.python)} {_quoted(script)} backup --keep {KEPT_BACKUPS}
Nice=10

{HARDENING}
CapabilityBoundingSet=
ReadWritePaths={" ".join(map(_quoted, place.folders))}
"""


def backup_timer() -> str:
    return f"""\
[Unit]
Description=Each day a backup of the Azure OpenAI gateway's database

[Timer]
OnCalendar=*-*-* 03:10:00
# Short: `backup_monitor.py monitor` allows 25 hours between two.
RandomizedDelaySec=10min
# Also after a night in which the host was off.
Persistent=yes
Unit={BACKUP}

[Install]
WantedBy=timers.target
"""


def logrotate(place: Place) -> str:
    return f"""\
# Only for a stderr.log, if {SERVICE} is told to write one. Never for
# proxy.log: the gateway rotates it itself, and its workers share it.
"{place.stderr_log}" {{
    daily
    maxsize 100M
    rotate 14
    missingok
    notifempty
    compress
    delaycompress
    # systemd keeps the file open for as long as the gateway runs.
    copytruncate
    su {place.user} {place.group}
}}
"""


def readme(place: Place, names: list[str]) -> str:
    """The commands to install what is there, for this user and these folders."""
    user, root = place.user, place.root
    instance, *others = place.folders
    folder, env_file = shlex.quote(str(instance)), shlex.quote(str(root / ".env"))
    # Not ours to give away: they may be /var/log and the like.
    more = "".join(f"\n  {user} must be able to write to {other}, too.\n" for other in others)
    units = [name for name in names if name != LOGROTATE]
    enabled = " ".join(name for name in units if name != BACKUP)
    command = f"{shlex.quote(str(place.python))} scripts/deploy.py --check"
    no_backup = "" if place.database else NO_BACKUP
    return f"""\
Files for systemd and logrotate, to be reviewed. Nothing is installed yet.

  {root} is the gateway's folder, {user} its user, {place.python} its Python.
  Limits and folders are those of its .env as it is now; the number of workers, if `auto`,
  is that of this host. Make the files again when you change these.
{no_backup}
1. The user, if there is none, and what it owns:

  sudo useradd --system --shell /usr/sbin/nologin {user}
  sudo install -d -m 0700 {folder}
  sudo chown -R {user}: {folder} {env_file}
  sudo chmod 600 {env_file}
{more}
2. The files, from this folder:

  sudo install -m 0644 {" ".join(units)} /etc/systemd/system/
  sudo install -m 0644 {LOGROTATE} /etc/logrotate.d/{NAME}
  sudo systemctl daemon-reload
  sudo systemctl enable --now {enabled}

3. Whether it works, from {root}:

  systemctl status {SERVICE}
  journalctl -u {SERVICE} -n 50
  read -rs ADMIN_API_KEY && export ADMIN_API_KEY
  {command}

After a change of .env: sudo systemctl restart {SERVICE}
To take it away: sudo systemctl disable --now {enabled}
and delete the files from /etc/systemd/system and /etc/logrotate.d.
"""


NO_BACKUP = """
  The database is no SQLite file, so there is no backup timer: use its own tools (pg_dump).
"""


def _as_user(place: Place) -> str:
    return f"User={place.user}\nWorkingDirectory={_escaped(place.root)}"


def _capabilities(port: int) -> str:
    if 0 < port < PRIVILEGED_PORTS:
        name = "CAP_NET_BIND_SERVICE"
        return f"# For PORT={port}.\nAmbientCapabilities={name}\nCapabilityBoundingSet={name}"
    return "CapabilityBoundingSet="


def _escaped(path: Path) -> str:
    """systemd.unit(5), specifiers: a percent sign is written twice."""
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    return f'"{_escaped(path)}"' if " " in str(path) else _escaped(path)
