"""A bar for work that takes long. Loads rich: to be loaded only where one is shown."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Each = TypeVar("Each")


def with_bar(
    found: Iterable[Each], *, total: int, label: str, console: Console | None = None
) -> Iterator[Each]:
    """Passes on what comes, and shows on standard error how many did; the bar goes with the
    last. Nothing is shown where that is no terminal."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # or an empty line would remain
    ) as progress:
        task = progress.add_task(label, total=total)
        for each in found:
            progress.advance(task)
            yield each
