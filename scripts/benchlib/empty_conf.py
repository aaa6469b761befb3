"""gunicorn's settings for the empty app: the gateway's own, without what makes its parts."""

import gc

from gunicorn.config import KNOWN_SETTINGS
from gunicorn.workers.base import Worker

from proxy import gunicorn_conf

_HOOKS = {setting.name for setting in KNOWN_SETTINGS if setting.section == "Server Hooks"}
_NAMES = {setting.name for setting in KNOWN_SETTINGS} - _HOOKS
globals().update({n: v for n, v in vars(gunicorn_conf).items() if n in _NAMES})

worker_class = "gthread"  # gunicorn's own; the gateway's is a part of what is measured
proc_name = "empty-flask"


def post_worker_init(_worker: Worker) -> None:
    gc.freeze()
