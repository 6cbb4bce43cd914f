"""`make write`: serve the book while it is written.

A saved notebook is executed again only if its code changed, the site is rebuilt incrementally,
and the open page reloads. What is wrong is printed; the last good site stays.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from watchfiles import watch

from book import execution, press, server, site
from book.errors import BookError
from book.notebooks import Book

WATCHED = ("chapters", "solutions", "groundup", "book", "_config.yml", "_toc.yml")


def write(book: Book, only: str | None, port: int, **options) -> int:
    """Serve, watch and rebuild until interrupted; `options` are those of `server.serve`."""
    rebuild(book.root, only)
    if not site.published(book).exists():
        return 1
    threading.Thread(target=_watch, args=(book.root, only), daemon=True).start()
    print("Watching chapters/, solutions/ and book/; save a file to rebuild.", flush=True)
    return server.serve(site.published(book), port=port, reload=True, **options)


def _watch(root: Path, only: str | None) -> None:
    for changes in watch(*(root / name for name in WATCHED if (root / name).exists()), debounce=300):
        paths = {Path(path).relative_to(root) for _, path in changes}
        if all("__pycache__" in path.parts or path.suffix in (".pyc", ".tmp") for path in paths):
            continue
        rebuild(root, only, paths)


def rebuild(root: Path, only: str | None, changed: set[Path] = frozenset()) -> bool:
    """Bring the draft site up to date; print what is wrong and return False when it cannot be."""
    started = time.perf_counter()
    book = Book(root)  # read anew: the order may have changed too
    try:
        press.prepare(book)
        ran = execution.execute(book, book.select(only))
        whole = any(
            p.parts[0] == "book" and p.suffix != ".md" or p.name in ("_config.yml", "_toc.yml") for p in changed
        )
        built = site.draft(book, only, whole)
    except BookError as error:
        for problem in error.problems:
            print(f"error: {problem}", flush=True)
        return False
    if built:
        names = ", ".join(nb.address for nb in ran) or "nothing"
        print(f"Rebuilt in {time.perf_counter() - started:.1f} s; executed {names}.", flush=True)
    return True
