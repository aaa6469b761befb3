import io

import pytest
from rich.console import Console

from proxy.cli.progress import with_bar


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_for_terminals_and_what_comes_is_passed_on(is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=80)
    assert list(with_bar(iter("abc"), total=3, label="verify", console=console)) == [*"abc"]
    assert ("verify" in out.getvalue()) == is_terminal
    assert is_terminal or out.getvalue() == ""


def test_the_bar_goes_with_the_last():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    list(with_bar("a", total=1, label="verify", console=console))
    assert out.getvalue().endswith("\x1b[2K")  # the line is empty again
    assert "\x1b[?25h" in out.getvalue()  # and the cursor there


def test_it_goes_also_where_it_is_interrupted():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)

    def interrupted():
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(with_bar(interrupted(), total=2, label="verify", console=console))
    assert "\x1b[?25h" in out.getvalue()
