"""`make test`: everything that CI runs, in order, each step timed, the first failure fatal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from book import execution, press, site
from book.errors import BookError
from book.notebooks import Book

#: without these, Chromium asks its maker's hosts at every start
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """The browser for the browser tests: $CHROMIUM, or one on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)


@dataclass
class Served:
    """A server in a process of its own; `lines` is what it has said after it was ready."""

    address: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)


@contextlib.contextmanager
def served(html: Path, data: Path | None = None, **options) -> Iterator[str]:
    """The address at which the book's own server serves `html` meanwhile, in a process of its own.

    With `data` it keeps comments in that folder; `options` are those of `book.trial.serve`.
    """
    with serving(html, data, **options) as found:
        yield found.address


@contextlib.contextmanager
def serving(html: Path, data: Path | None = None, **options) -> Iterator[Served]:
    """The same for a test that looks at the process, or ends it."""
    given = {"html": str(html), "data": data and str(data), **options}
    root = Path(__file__).resolve().parent.parent
    code = "import json, sys; from book.trial import serve; sys.exit(serve(**json.loads(sys.argv[1])))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(given)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        ready, _, _ = select.select([process.stdout], [], [], 90)
        line = process.stdout.readline() if ready else ""
        address = re.search(r"http://[^/\s]+(?=/)", line)
        if not address:
            how = f"ended at once, with exit code {process.wait()}" if ready else "did not start within 90 s"
            raise BookError(f"the server of {html} {how}")
        found = Served(address[0], process)
        threading.Thread(target=lambda: found.lines.extend(process.stdout), daemon=True).start()
        yield found
    finally:
        process.terminate()
        process.wait()


def test(book: Book) -> int:
    """Run every step; return 0 when all passed."""
    took: dict[str, float] = {}

    def step(title: str, action: Callable[[], object]) -> None:
        print(f"\n== {title}", flush=True)
        started = time.perf_counter()
        action()
        took[title] = time.perf_counter() - started

    step("Generated files are up to date, and nothing is wrong in the sources", lambda: press.prepare(book, check=True))
    step("Python is tidy (ruff)", lambda: _run(book, "ruff", "check", "."))
    step("Execute the notebooks", lambda: execution.execute(book, book.notebooks))
    step("Execute them again in fresh kernels and compare (nbval)", lambda: nbval(book))
    step("Build the site, strictly", lambda: site.build(book))
    step(
        "Tests of the library and the press",
        lambda: _pytest(book, "tests", "--ignore=tests/browser", "-n2", "--dist=worksteal"),
    )
    if chromium():
        step("Tests in the browser", lambda: _pytest(book, "tests/browser", "-n2", "--dist=loadfile"))
    elif os.environ.get("CI"):
        raise BookError("no Chromium found: install it, or name it in CHROMIUM; CI does not skip the browser tests")
    else:
        print("\nThe browser tests are skipped: no Chromium found. Install it, or name it in CHROMIUM, to run them.")
    print()
    for title, seconds in took.items():
        print(f"{seconds:7.1f} s  {title}")
    print(f"{sum(took.values()):7.1f} s  in all: everything passed")
    return 0


def nbval(book: Book, *folders: Path) -> None:
    """Execute every executed notebook again and compare outputs; artifacts made again must be the same."""
    _pytest(
        book,
        *map(str, folders or (book.build / "executed",)),
        "--nbval",
        f"--nbval-sanitize-with={Path(__file__).parent / 'nbval.cfg'}",
        f"--nbval-cell-timeout={execution.CELL_SECONDS}",
        "-n2",
        "--dist=loadfile",
        env=execution.environment(book, GROUNDUP_VERIFY="1"),
    )


def _pytest(book: Book, *arguments: str, env: dict[str, str] | None = None) -> None:
    _run(book, "pytest", "-q", "--no-header", *arguments, env=env)


def _run(book: Book, module: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=book.root, env=env)
    if done.returncode:
        raise BookError(f"{module} failed (see above): {' '.join([module, *arguments])}")
