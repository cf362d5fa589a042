"""How far something is, drawn where a person waits."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ("Advance", "progress")

Advance = Callable[[int], object]  # Told of bytes that are done.


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Draw a bar on a terminal as long as the context lasts; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield int
        return
    # Loaded only here: in a pipe nothing is drawn.
    from rich import progress as drawn
    from rich.console import Console

    columns = (
        drawn.TextColumn("{task.description}"),
        drawn.BarColumn(),
        drawn.DownloadColumn(binary_units=True),
        drawn.TransferSpeedColumn(),
        drawn.TimeRemainingColumn(),
    )
    with drawn.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda size: bars.advance(task, size)
