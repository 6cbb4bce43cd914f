"""Errors that are the author's or the reader's to mend: shown without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class BookError(Exception):
    """One or more problems, each a line that names the place, what is wrong and the remedy."""

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def at(path: Path | str, line: int | None = None, cell: int | None = None) -> str:
    """`file:line: cell 3`, the way editors and terminals make clickable."""
    place = str(path) if line is None else f"{path}:{line}"
    return place if cell is None else f"{place}: cell {cell}"
