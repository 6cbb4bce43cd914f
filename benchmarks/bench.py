"""`make bench`: what the press and the pages cost on this machine. Measured, asserted nowhere."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import CLIENTS
from book import execution, testing
from book.errors import BookError
from book.notebooks import Book
from book.progress import Progress

EXECUTE = "from book import execution, press; from book.notebooks import Book; b = Book('.'); press.prepare(b); execution.execute(b, b.notebooks, quiet=True)"
BUILD = "from book import site; from book.notebooks import Book; site.build(Book('.'))"


def bench(book: Book, out: Path) -> dict[str, Any]:
    """Measure in a copy of the book, print tables, and write them to `out` as JSON."""
    found: dict[str, Any] = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": execution.machine(),
        "cores": os.cpu_count(),
    }
    steps = [
        "cold execution",
        "cold build",
        "warm execution",
        "warm build",
        "one prose edit",
        "one code edit",
        "algorithms",
        "pages",
        "serving",
    ]
    with tempfile.TemporaryDirectory() as folder, Progress("Measuring") as progress:
        copy = Path(folder) / "book"
        shutil.copytree(book.root, copy, ignore=lambda where, names: {
            n for n in names if n in (".git", ".venv", "_build", "node_modules", "__pycache__")
        })  # fmt: skip
        if (book.root / "node_modules").exists():
            (copy / "node_modules").symlink_to(book.root / "node_modules")
        seconds = found["seconds"] = {}
        progress.expect({step: 20 for step in steps})

        def measure(step: str, *codes: str) -> None:
            progress.start(step)
            started = time.perf_counter()
            for code in codes:
                _python(copy, "-c", code)
            seconds[step] = round(time.perf_counter() - started, 2)
            progress.done(step)

        measure("cold execution", EXECUTE)
        measure("cold build", BUILD)
        measure("warm execution", EXECUTE)
        measure("warm build", BUILD)
        chapter = copy / Book(copy).chapters[0].file
        text = chapter.read_text(encoding="utf-8")
        chapter.write_text(text + "\nOne more sentence.\n", encoding="utf-8")
        measure("one prose edit", EXECUTE, BUILD)
        chapter.write_text(text + "\n```{code-cell} python\nassert True\n```\n", encoding="utf-8")
        measure("one code edit", EXECUTE, BUILD)
        found["notebooks"] = {
            address: {"seconds": record["seconds"], "memory": record["memory"]}
            for address, record in execution.records(Book(copy)).items()
        }
        progress.start("algorithms")
        found["algorithms"] = json.loads(_python(copy, "-m", "benchmarks.algorithms"))
        progress.done("algorithms")
        progress.start("pages")
        with testing.served(copy / "_build" / "html") as address:
            found["pages"] = _pages(copy / "_build" / "html", address)
            found["lighthouse"] = _lighthouse(address, Book(copy), progress)
        progress.done("pages")
        progress.start("serving")
        found["serving"] = json.loads(_python(copy, "-m", "benchmarks.serving"))
        progress.done("serving")
    _print(found)
    execution.write_atomically(out, json.dumps(found, indent=1) + "\n")
    print(f"\nwritten to {out}")
    return found


def _python(folder: Path, *arguments: str) -> str:
    """What Python prints in `folder`, with the environment of the notebooks."""
    env = execution.environment(Book(folder))
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise BookError(f"a measured step failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _pages(site: Path, address: str) -> dict[str, dict[str, int]]:
    """Bytes transferred and requests made when each page is opened in a fresh browser profile."""
    browser_path = testing.chromium()
    if browser_path is None:
        return {}
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=testing.CHROMIUM_FLAGS)
        for path in sorted(site.rglob("*.html")):
            name = path.relative_to(site).as_posix()
            if name.startswith("_static"):
                continue
            context = browser.new_context(viewport={"width": 412, "height": 823})
            page = context.new_page()
            session = context.new_cdp_session(page)
            session.send("Network.enable")
            sizes: list[int] = []
            session.on(
                "Network.loadingFinished", lambda event, sizes=sizes: sizes.append(int(event["encodedDataLength"]))
            )
            page.goto(f"{address}/{name}", wait_until="networkidle")
            found[name] = {"bytes": sum(sizes), "requests": len(sizes)}
            context.close()
        browser.close()
    return found


def _lighthouse(address: str, book: Book, progress: Progress) -> dict[str, dict[str, int]]:
    """Lighthouse's mobile scores (0 to 100) of the front page and a chapter, where it is installed."""
    program = shutil.which("lighthouse", path=f"{book.root}/node_modules/.bin{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None or testing.chromium() is None:
        return {}
    found = {}
    for name in ("index.html", f"{book.chapters[0].address}.html"):
        flags = " ".join(["--headless=new", *testing.CHROMIUM_FLAGS])
        done = subprocess.run(
            [program, f"{address}/{name}", "--quiet", "--output=json", "--output-path=stdout", f"--chrome-flags={flags}",
             "--only-categories=performance,accessibility,best-practices,seo"],
            capture_output=True, text=True, env={**os.environ, "CHROME_PATH": testing.chromium()},
        )  # fmt: skip
        if done.returncode == 0:
            scores = json.loads(done.stdout)["categories"]
            found[name] = {category: round(100 * score["score"]) for category, score in scores.items()}
    return found


def _print(found: dict[str, Any]) -> None:
    print(f"\n{found['machine']}, {found['cores']} cores\n")
    for step, seconds in found["seconds"].items():
        print(f"{seconds:8.1f} s  {step}")
    print(f"\n{'seconds':>8} {'memory':>8}  notebook")
    for address, record in found["notebooks"].items():
        print(f"{record['seconds']:8.1f} {record['memory'] / 1e6:5.0f} MB  {address}")
    print()
    for name, value in found["algorithms"].items():
        print(f"{value:10,.2f}  {name}" if value < 1000 else f"{value:10,.0f}  {name}")
    print(f"\n{'a second':>10} {'median':>8} {'p99':>8}  over loopback, {CLIENTS} clients")
    for name, load in found["serving"].items():
        print(f"{load['per second']:10,.0f} {load['median ms']:5.1f} ms {load['p99 ms']:5.0f} ms  {name}")
    if not found["pages"]:
        print("\npages: not measured, no Chromium found")
    else:
        print(f"\n{'KB':>8} {'requests':>8}  page")
    for name, page in found["pages"].items():
        print(f"{page['bytes'] / 1000:8.0f} {page['requests']:8}  {name}")
    if not found["lighthouse"]:
        print("\nLighthouse: not installed (npm install --global lighthouse)")
    for name, scores in found["lighthouse"].items():
        print(f"\nLighthouse, mobile, {name}: " + ", ".join(f"{k} {v}" for k, v in scores.items()))
