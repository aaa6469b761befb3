"""`flask secrets`: the key that secrets are encrypted with, and whether all can be read."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from flask.cli import AppGroup

from proxy.cli.told import author, told, with_reason
from proxy.context import parts
from proxy.core.references import FILE, is_reference
from proxy.core.types import InstanceConfig
from proxy.runtime.references import Resolved
from proxy.store import checkup, instances, secrets
from proxy.store.secrets import Loss, Survey
from proxy.store.vault import Vault, new_key

SHOWN = 20  # of what cannot be decrypted; where the key is lost, that is all

secrets_cli = AppGroup("secrets", help="The key that secrets are encrypted with.")


@secrets_cli.command("key")
def key() -> None:
    """Print a new key, for PROXY_SECRET_KEY or the first line of its file."""
    click.echo(new_key())


@secrets_cli.command("rotate")
@click.option("--forget-old", is_flag=True, help="Make no new key; take older ones away.")
@click.option(
    "--restarted",
    is_flag=True,
    help="With PROXY_SECRET_KEY: the gateway was started anew since a key was put before it.",
)
def rotate(forget_old: bool, restarted: bool) -> None:
    """Encrypt all secrets with a new key, while the gateway goes on.

    The new key is put before the others in its file, where running workers find it, then all
    is encrypted with it, in one transaction. What was interrupted is finished by the next
    `rotate`, which makes no further key then. Older keys stay in the file, because backups of
    the database need them, until `--forget-old`.

    With PROXY_SECRET_KEY: put the new key before the old one, with a space between, start the
    gateway anew, then run this with `--restarted`.
    """
    with told():
        database, vault = parts().database, parts().database.vault
        _check_workers_know(vault, restarted)
        # The write lock comes first: of two rotations at once, the second finds the first's.
        with database.write() as connection:
            if vault.path is not None and not forget_old:
                _add_key(vault, secrets.survey(connection, vault))
            done = secrets.reseal(connection, vault)
        forgotten = vault.forget_old() if vault.path is not None and forget_old else 0
    _tell_rotated(vault, done, forgotten, forget_old=forget_old)
    if done.unopened:
        sys.exit(1)


def _check_workers_know(vault: Vault, restarted: bool) -> None:
    if vault.path is None and not restarted:
        raise click.UsageError(
            "PROXY_SECRET_KEY is read at the start of the gateway. Put the new key (`flask"
            " secrets key`) before the old one, start the gateway anew, then add --restarted."
        )
    if vault.path is not None and restarted:
        raise click.UsageError(
            f"--restarted is for PROXY_SECRET_KEY. The key is in {vault.path}, which running"
            " workers read again by themselves: leave it out."
        )


def _add_key(vault: Vault, before: Survey) -> None:
    """Unless there is one already that not all is encrypted with."""
    if not before.behind:
        vault.add_key()


def _tell_rotated(vault: Vault, done: Survey, forgotten: int, *, forget_old: bool) -> None:
    opened = done.sealed - len(done.unopened)
    click.echo(f"{opened} secrets are encrypted with the first key of {vault.source}.")
    if done.unopened:
        _tell_unopened(done)
    if forgotten:
        click.echo(f"Older keys taken away: {forgotten}. Backups from before need them.")
    elif vault.path is None and vault.count > 1:
        click.echo("The older keys can leave PROXY_SECRET_KEY; backups from before need them.")
    elif vault.count > 1 and not forget_old:
        click.echo(
            "The older keys are kept, because backups from before need them; `flask secrets"
            " rotate --forget-old` takes them away. The new key is in no backup: copy the file."
        )


@secrets_cli.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_reason
def reset(yes: bool, reason: str | None) -> None:
    """Go on without the key for secrets, when it is lost for good.

    What can still be decrypted stays. Keys of clients and admins are worth nothing from then
    on if they cannot be checked, and have to be made anew; instances whose secrets cannot be
    read have to be given these again; revisions lose what they kept of secrets. Limits, prices,
    usage and all other config stay.

    A key file that is missing is made; with PROXY_SECRET_KEY, set a new one first.
    """
    with told():
        database, vault = parts().database, parts().database.vault
        with database.read() as connection:
            found, lost = secrets.survey(connection, vault), secrets.loss(connection, vault)
        if not found.unopened:
            click.echo(f"All secrets can be decrypted with {vault.source}: nothing is lost.")
            return
        if not yes:
            _tell_loss(lost)
            click.confirm("Is the key lost for good, also in backups?", abort=True)
        vault.make_key()
        with database.session() as session:
            lost = secrets.reset(session, vault, author=author(reason))
    click.echo(f"Secrets are encrypted with {vault.source} from now on; keep a copy of it.")
    _tell_loss(lost)


def _tell_loss(lost: Loss) -> None:
    for names, remedy in (
        (lost.clients, "Clients that need a new key (`flask keys rotate NAME`)"),
        (lost.admins, "Admin keys that are to be made anew (`flask admins add NAME`)"),
        (
            [f"{name} ({', '.join(fields)})" for name, fields in lost.to_set.items()],
            "Instances whose secrets have to be set again (PATCH /admin/instances/NAME)",
        ),
    ):
        if names:
            click.echo(f"{remedy}: {', '.join(names)}.")


@secrets_cli.command("check")
def check() -> None:
    """Tell what cannot be decrypted, references that lead nowhere, and who may read files.

    Seen with the environment and the rights of this command, which may be others than the
    gateway's. Exit code 1 if something is wrong.
    """
    with told(writes=False):
        database, vault = parts().database, parts().database.vault
        with database.read() as connection:
            found = secrets.survey(connection, vault)
            configs = [each.config for each in instances.load_all(connection)]
            resolved = parts().snapshots.references.resolved(configs)
    click.echo(
        f"{found.sealed} secrets are encrypted; {found.sealed - len(found.unopened)} of them"
        f" can be decrypted with {vault.source}."
    )
    if found.behind:
        click.echo(
            f"{found.behind} of them are not encrypted with its first key; `flask secrets"
            " rotate` does that."
        )
    _tell_unopened(found)
    wrong = [
        *([vault.problem] if vault.problem else []),
        *_wrong(configs, resolved),
        *_exposed(),
    ]
    for line in wrong:
        click.echo(line)
    for line in _shared(configs):
        click.echo(line)
    if found.unopened or wrong:
        sys.exit(1)


def _tell_unopened(found: Survey) -> None:
    for each in found.unopened[:SHOWN]:
        click.echo(
            f"{each.table} {each.row!r}: {each.column} cannot be decrypted: {each.reason}."
        )
    if len(found.unopened) > SHOWN:
        click.echo(f"... and {len(found.unopened) - SHOWN} more.")


def _wrong(configs: Iterable[InstanceConfig], resolved: Resolved) -> Iterator[str]:
    """References that lead nowhere; what cannot be decrypted was told."""
    for config in configs:
        problem = resolved.problems.get(config.name)
        if problem and any(map(is_reference, _secrets(config))):
            yield f"instance {config.name!r}: {problem}"


def _secrets(config: InstanceConfig) -> tuple[str, str]:
    return config.api_key, config.proxy_url or ""


def _exposed() -> Iterator[str]:
    for path in checkup.exposed(parts().database):
        yield f"{path} can be read by others; `chmod 600 {path}` keeps them out."


def _shared(configs: Iterable[InstanceConfig]) -> Iterator[str]:
    """Files of references are somebody else's to protect: containers mount them readable."""
    written = {value for config in configs for value in _secrets(config)}
    paths = {v.removeprefix(FILE) for v in written if v.startswith(FILE)}
    for path in sorted(paths):
        if checkup.mode(Path(path)) & checkup.OTHERS:
            yield f"Note: {path} can be read by others than its owner."
