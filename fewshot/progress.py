"""Progress over pictures: a bar where stderr is a terminal, and one last line that says how fast it was."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self


class Progress:
    """Counts pictures while used as a context manager; silent when `show` is false."""

    def __init__(self, total: int | None, device: str, *, show: bool = True) -> None:
        self.total = total
        self.device = device
        self.show = show
        self.done = 0  # pictures embedded
        self.skipped = 0

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        self._bar = None
        if self.show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn()
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("embed", total=self.total, speed="")
            self._bar.start()
        return self

    def advance(self, done: int, skipped: int = 0, other: int = 0) -> None:
        """Count pictures embedded, skipped, and `other` ones that needed neither."""
        self.done += done
        self.skipped += skipped
        if self._bar is not None:
            speed = f"{self.rate():.0f} images/s on {self.device}" + (
                f", {self.skipped} skipped" if self.skipped else ""
            )
            self._bar.update(self._task, advance=done + skipped + other, speed=speed)

    def rate(self) -> float:
        """Return pictures embedded a second so far."""
        return self.done / max(time.perf_counter() - self.start, 1e-9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.show and self.done:
            seconds = time.perf_counter() - self.start
            tail = f", {self.skipped} skipped" if self.skipped else ""
            line = f"{self.done} images in {seconds:.1f} s on {self.device} ({self.rate():.0f} images/s){tail}"
            sys.stderr.write(line + "\n")
