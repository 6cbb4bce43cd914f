"""The whole way from sources to site, in order."""

from __future__ import annotations

from book import execution, exercises, export, site
from book.notebooks import Book


def prepare(book: Book, check: bool = False) -> None:
    """Bring the generated files up to date (or, with `check`, refuse stale ones) and look for what is wrong."""
    book.check(generated=False)
    export.export(book, check)
    exercises.exercises(book, check)
    book.reread()
    book.check()
    export.check_imports(book)


def make(book: Book, only: str | None = None) -> None:
    """Execute what changed, build the site, check it, and publish it to `_build/html`."""
    prepare(book)
    execution.execute(book, book.select(only))
    site.build(book, only)
