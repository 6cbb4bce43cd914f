"""A progress bar that says what runs, how much is done and how long is left.

On a terminal it is one live line under the finished items; in a log, a line per finished item.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text


class _Left(ProgressColumn):
    """Time left, from what each item took last time."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(f"about {self.progress.left():.0f} s left" if self.progress.expected else "")


class Progress:
    """Use as a context manager: `expect` the work, then `start` and `done` (or `skip`) each item."""

    def __init__(self, title: str, quiet: bool = False):
        self.title, self.quiet = title, quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.bar = Bar(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), _Left(self),
            TextColumn("{task.fields[running]}", style="dim"),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.expected: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self.workers, self.total, self.finished = 1, 0, 0

    def __enter__(self) -> Progress:
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=None, running="")
        return self

    def __exit__(self, *exception) -> None:
        self.bar.stop()

    def expect(self, seconds: dict[str, float], workers: int = 1) -> None:
        """The items to come and the seconds each took last time."""
        self.expected, self.workers, self.total = dict(seconds), workers, len(seconds)
        self._show()

    def start(self, item: str) -> None:
        self.running[item] = time.perf_counter()
        self._show()

    def skip(self, item: str) -> None:
        """The item needs no work."""
        self.expected.pop(item, None)
        self.finished += 1
        self._show()

    def done(self, item: str, failed: bool = False) -> None:
        self.expected.pop(item, None)
        took = time.perf_counter() - self.running.pop(item)
        self.finished += 1
        word = "FAILED" if failed else f"{took:5.1f} s"
        left = f"  about {self.left():.0f} s left" if self.expected else ""
        self.console.print(f"{self.title} {self.finished}/{self.total}  {item}  {word}{left}", markup=False)
        self._show()

    def stage(self, name: str, percent: int, item: str) -> None:
        """One long job that tells its own share of a stage."""
        self.expected, self.total = {}, 100
        self.bar.update(self.task, description=f"{self.title}: {name}", total=100, completed=percent, running=item)

    def left(self) -> float:
        """Seconds left, from what each item took last time."""
        now = time.perf_counter()
        spent = {item: now - since for item, since in list(self.running.items())}
        return sum(max(t - spent.get(item, 0.0), 0.5) for item, t in list(self.expected.items())) / self.workers

    def _show(self) -> None:
        running = ", ".join(self.running)
        self.bar.update(self.task, total=self.total or None, completed=self.finished, running=running)
