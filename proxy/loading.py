"""Imported before all else: while modules are loaded there is no garbage, and to look for some
in all that is there, again and again, takes a tenth of a start."""

import gc

_WAS_ENABLED = gc.isenabled()
gc.disable()


def is_over() -> None:
    """Garbage is looked for again, but never in what was loaded, which stays."""
    gc.freeze()
    if _WAS_ENABLED:
        gc.enable()
