"""Whether we live, and whether we can serve: for supervisors and load balancers."""

import time
from collections.abc import Collection
from typing import Any

from flask import Flask

from proxy.context import parts
from proxy.core.findings import KEY_GONE, KEY_IN_MEMORY, KEY_THERE
from proxy.runtime.roster import Entry
from proxy.runtime.snapshot import NO_CONFIG


def register(app: Flask) -> None:
    app.add_url_rule("/health", "health", health)
    app.add_url_rule("/ready", "ready", ready)


def health() -> dict[str, Any]:
    """Always 200 while we can answer at all; `problem` is what a person should look at.
    Of this worker: `lacks_token`: Entra ID gives none, though an instance needs one;
    `secret_key`: whether the key for secrets is there, in memory alone, or gone;
    `out_of_service`: how many instances are, though they are enabled.

    `calls` are those of all workers: open, waiting for room, and how many they can hold. Of
    the others as of the last second.
    """
    snapshot, workers = parts().snapshots.current, list(parts().roster.read().values())
    problem = sync_problem() or keys_problem() or _secrets_problem()
    problem = problem or parts().log_writer.problem or _silence(workers)
    return {
        "status": "degraded" if problem else "ok",
        "problem": problem,
        "calls": {
            "open": sum(worker.calls_open for worker in workers),
            "waiting": sum(worker.calls_waiting for worker in workers),
            "ceiling": sum(worker.calls_limit for worker in workers),
        },
        "workers": len(workers),
        "lacks_token": snapshot.lack is not None,
        "secret_key": _secret_key(),
        "out_of_service": len(snapshot.out_of_service),
    }


def _secret_key() -> str:
    vault = parts().database.vault
    if vault.problem is None:
        return KEY_THERE
    return KEY_IN_MEMORY if vault.count else KEY_GONE


def ready() -> tuple[dict[str, Any], int]:
    """503 while nobody could be served: no enabled instance, keys that cannot be checked, a
    database that is away, or the server is about to stop."""
    problem = sync_problem()
    if parts().draining.has_begun:
        problem = "the gateway is stopping"
    problem = problem or keys_problem() or _instances_problem()
    return {"ready": problem is None, "problem": problem}, 503 if problem else 200


def sync_problem() -> str | None:
    syncer = parts().syncer
    if syncer.problem and not parts().snapshots.is_read:
        return f"{syncer.problem} {NO_CONFIG}"
    if syncer.problem:
        return syncer.problem
    if not syncer.synced_at:
        return "The worker was not started: use ./scripts/run or python -m proxy."
    age_seconds = syncer.age_seconds()
    if age_seconds is not None:
        return f"State was last synced {int(age_seconds)} s ago."
    return None


def _silence(workers: Collection[Entry]) -> str | None:
    """Of workers that neither sync nor say why: they are stopped, or stuck."""
    now, late_seconds = time.time(), parts().syncer.late_seconds
    silent = [w for w in workers if 0 < w.synced_at < now - late_seconds and not w.sync_failed]
    if not silent:
        return None
    seconds = int(now - min(worker.synced_at for worker in silent))
    return (
        f"Of {len(workers)} workers {len(silent)} did not sync for {seconds} s, and did not say"
        " why: it may be stuck."
    )


def keys_problem() -> str | None:
    """Why clients cannot be told from others; None if they can, or need not."""
    mine = parts()
    snapshot = mine.snapshots.current
    if mine.settings.client_auth == "off" or not (snapshot.keys and snapshot.keys_are_closed):
        return None
    return (
        "No client can be served: the secret that keys are hashed with cannot be decrypted;"
        " `flask secrets check` says why."
    )


def _instances_problem() -> str | None:
    snapshot = parts().snapshots.current
    usable = (c for name, c in snapshot.configs.items() if name not in snapshot.problems)
    if any(config.enabled for config in usable):
        return None
    if snapshot.out_of_service:
        return "no instance that is enabled is in service"
    return "no instance is configured and enabled"


def _secrets_problem() -> str | None:
    """Not a reason to send nobody to us: others can be asked. Names none: everybody may ask."""
    snapshot = parts().snapshots.current
    out = snapshot.out_of_service
    if out:
        whose = "its" if len(out) == 1 else "their"
        why = f"{whose} secrets cannot be read" if set(out) - set(snapshot.configs) else ""
        if not set(out).isdisjoint(snapshot.configs):
            why += f"{' or ' if why else ''}Entra ID gives no token"
        return (
            f"{'1 instance is' if len(out) == 1 else f'{len(out)} instances are'} out of"
            f" service, because {why};"
            " GET /admin/instances?status=misconfigured says why."
        )
    if parts().database.vault.problem:
        return "No secret can be stored; `flask secrets check` says why."
    return None
