"""Progress over the cells of a benchmark: a bar where stderr is a terminal, one line a cell elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import click

from fewshot.report_table import speed


class Cells:
    """Shows each cell with its episodes a second and the time left; used as a context manager."""

    def __enter__(self) -> Self:
        self._done = 0
        self._start = time.perf_counter()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            rate = TextColumn("{task.fields[rate]}")
            self._bar = Bar(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", rate="")
            self._bar.start()
        return self

    def say(self, note: str) -> None:
        """Print a note for the user."""
        click.echo(note, err=True)

    def advance(self, title: str, done: int, total: int) -> None:
        """Count episodes of the cell called `title`; a call with none done starts it and its clock."""
        if not done:
            self._done, self._start = 0, time.perf_counter()
            if self._bar is not None:
                self._bar.reset(self._task, total=total, description=title, rate="")
            return
        self._done += done
        rate = f"{speed(self._done / max(time.perf_counter() - self._start, 1e-9))} episodes/s"
        if self._bar is not None:
            self._bar.update(self._task, advance=done, rate=rate)
        elif self._done >= total:
            self.say(f"{title}: {total} episode{'' if total == 1 else 's'}, {rate}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
