"""How far the scoring is: a bar on a terminal, a line now and then elsewhere."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


@dataclass
class Summary:
    """What a scoring came to, with what earlier runs of it wrote."""

    rows: int
    bad: int
    failures: list[str] = field(default_factory=list)  # what could not be read now

    @property
    def done(self) -> int:
        """The rows that are dealt with."""
        return self.rows + self.bad


class ScoringProgress:
    """Shows how the summary grows to `total` rows."""

    def __init__(self, console: Console, total: int, summary: Summary) -> None:
        self._console, self._total, self._summary = console, total, summary
        self._begun_rows, self._begun = summary.done, time.monotonic()
        self._line_due = self._begun + LINE_SECONDS
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(self._text(), total=total, completed=self._begun_rows)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self) -> None:
        """Show how far it is now."""
        if self._bar:
            self._bar.update(self._task, completed=self._summary.done, description=self._text())
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + LINE_SECONDS
            self._console.print(self._text(), soft_wrap=True)

    def _text(self) -> str:
        summary = self._summary
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = (summary.done - self._begun_rows) / seconds
        return (
            f"{summary.rows:,} of {self._total:,} images scored, {summary.bad:,} bad rows, "
            f"{speed:,.0f} images/s"
        )
