import subprocess
import sys

import pytest

from proxy.settings import ROOT


def said(program):
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    return result.stdout.split()


def test_nothing_is_looked_through_while_it_is_loaded():
    program = """
import gc
def looked():  # but for the youngest, which are few until the first of our modules is found
    return [generation["collections"] for generation in gc.get_stats()[1:]]
before = looked()
import proxy
print(looked() == before, gc.isenabled())
"""
    assert said(program) == ["True", "True"]


def test_what_was_loaded_is_never_looked_through():
    program = "import gc, proxy; print(gc.get_freeze_count() > 10 * len(gc.get_objects()))"
    assert said(program) == ["True"]


@pytest.mark.parametrize("act, is_on", [("gc.enable()", "True"), ("gc.disable()", "False")])
def test_it_is_looked_for_as_it_was_before(act, is_on):
    assert said(f"import gc; {act}; import proxy; print(gc.isenabled())") == [is_on]
