"""The Jupyter Book build: strict, into a clean folder, checked, and published in one step.

`_build/html` is a link to the last good site; a build that fails leaves it where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from book import execution
from book.errors import BookError
from book.notebooks import KINDS, Book
from book.progress import Progress

KEPT = 2  # published sites that stay: the one being read, and the one before it


def published(book: Book) -> Path:
    """Where the last good site is."""
    return book.build / "html"


def build(book: Book, only: str | None = None) -> bool:
    """Build, check and publish the site; return False when there was nothing to do."""
    key = site_key(book, only)
    if _is_current(book, key):
        return False
    work = book.build / "press"
    shutil.rmtree(work, ignore_errors=True)
    strict = [] if only else ["-W", "-n"]  # links to chapters that are left out cannot resolve
    jupyter_book(book, work, ["--all", "--keep-going", *strict, *_choose(book, only)])
    html = work / "_build" / "html"
    if problems := list(problems_of(html, whole=not only)):
        raise BookError(problems)
    publish(book, html, key)
    return True


def draft(book: Book, only: str | None = None, whole: bool = False) -> bool:
    """Rebuild incrementally and publish, warnings printed and not fatal: for `make write`."""
    key = site_key(book, only)
    if _is_current(book, key, f"draft {key}"):
        return False
    work = book.build / "draft"
    log = jupyter_book(book, work, ["--keep-going", *(["--all"] if whole else []), *_choose(book, only)])
    html = work / "_build" / "html"
    for line in [line for line in log.splitlines() if "WARNING" in line] + list(problems_of(html, whole=not only)):
        print(f"warning: {_relative(book)(line)}", flush=True)
    copy = book.build / "draft-copy"  # what is published must not change under the server
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(html, copy)
    publish(book, copy, f"draft {key}")
    return True


def _is_current(book: Book, *keys: str) -> bool:
    stamp = book.build / "site.key"
    return published(book).exists() and stamp.exists() and stamp.read_text(encoding="utf-8") in keys


def _choose(book: Book, only: str | None) -> list[str]:
    """Fill the cache for the chosen notebooks; the options that limit the build to them."""
    selection = book.select(only)
    execution.fill_cache(book, selection)
    return [f"--toc={_toc_of(book, {nb.address for nb in selection})}"] if only else []


def site_key(book: Book, only: str | None) -> str:
    """A hash of everything the site is made from."""
    found = hashlib.sha256(repr(only).encode())
    paths = [book.root / f"{address}.md" for address in book.order]
    paths += [book.root / name for name in ("_config.yml", "_toc.yml", "package-lock.json", "constraints.txt")]
    paths += [p for p in (book.root / "book").rglob("*") if "__pycache__" not in p.parts]
    paths += (book.build / "executed").rglob("*.ipynb")
    paths += [book.root / "groundup" / "plotting.py", book.build / "executed" / "records.json"]
    for path in sorted(set(paths)):
        if path.is_file():
            found.update(path.relative_to(book.root).as_posix().encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _toc_of(book: Book, chosen: set[str]) -> Path:
    """A table of contents with the chosen notebooks and the pages that are not notebooks."""

    def keep(entry: dict) -> bool:
        return entry["file"].split("/")[0] not in KINDS or entry["file"] in chosen

    toc = yaml.safe_load((book.root / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        part["chapters"] = [entry for entry in part["chapters"] if keep(entry)]
        for entry in part["chapters"]:
            if "sections" in entry:
                entry["sections"] = [section for section in entry["sections"] if keep(section)]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    path = book.build / "toc.yml"
    execution.write_atomically(path, yaml.safe_dump(toc, sort_keys=False))
    return path


def jupyter_book(book: Book, output: Path, options: list[str], quiet: bool = False) -> str:
    """Run `jupyter-book build`; return its log, or raise BookError with its warnings."""
    program = "from jupyter_book.cli.main import main; main()"  # has no -m entry
    command = [sys.executable, "-c", program, "build", str(book.root), f"--path-output={output}", *options]
    env = execution.environment(book, PYTHONUNBUFFERED="1", GROUNDUP_BOOK=str(book.root), NO_COLOR="1")
    log: list[str] = []
    book.build.mkdir(exist_ok=True)
    with Progress("Building the site", quiet=quiet) as progress, (book.build / "build.log").open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=book.root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=1,
            start_new_session=True,
        )
        threading.Thread(target=_end_with, args=(process,), daemon=True).start()
        try:
            for line in process.stdout:
                line = re.sub(r"\x1b\[[0-9;]*[mK]", "", line.rstrip())
                log.append(line)
                file.write(line + "\n")
                if found := re.match(r"(reading sources|writing output|copying images)\.+ \[ *(\d+)%\] ?(.*)", line):
                    progress.stage(found[1], int(found[2]), found[3])
        finally:
            _kill_group(process)
            process.wait()
    text = "\n".join(log)
    warnings = [line for line in log if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    if process.returncode:
        if not warnings:  # Sphinx itself failed: its message comes before jupyter-book's own traceback
            told = next((i for i, line in enumerate(log) if re.search(r"Exception occurred|[Ee]rror:", line)), 0)
            warnings = ["jupyter-book failed:", *log[max(told - 5, 0) : told + 25]]
        raise BookError([*map(_relative(book), warnings), f"the whole log is in {book.build / 'build.log'}"])
    if "Executing notebook" in text:
        which = next(line for line in log if "Executing notebook" in line)
        raise BookError(f"the build executed a notebook instead of taking its outputs from the cache: {which}")
    return text


def _end_with(process: subprocess.Popen) -> None:
    """End what `process` started and left behind (the renderer of formulas), which would hold its output open."""
    process.wait()
    _kill_group(process)


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _relative(book: Book):
    return lambda line: line.replace(f"{book.root}/", "")


def publish(book: Book, html: Path, key: str) -> None:
    """Make `html` the site that is served, in one step; keep the one before."""
    sites = book.build / "sites"
    sites.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name) for p in sites.iterdir() if p.name.isdigit()), default=0)
    final = sites / f"{number:06d}"
    os.replace(html, final)
    link, new = published(book), book.build / "html.new"
    new.unlink(missing_ok=True)
    new.symlink_to(Path("sites") / final.name)
    os.replace(new, link)
    execution.write_atomically(book.build / "site.key", key)
    for old in sorted(p for p in sites.iterdir() if p.name.isdigit())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


class _Page(HTMLParser):
    """What the checks need of one page."""

    LOADS = {
        "script": "src",
        "img": "src",
        "source": "src",
        "iframe": "src",
        "video": "src",
        "audio": "src",
        "object": "data",
    }
    LINK_LOADS = {
        "stylesheet",
        "icon",
        "preload",
        "modulepreload",
        "manifest",
        "prefetch",
        "preconnect",
        "dns-prefetch",
    }

    EXPLORABLE = ("data-src", "data-module")

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.problems: list[str] = []
        self._pasted = False  # inside a glued value that has shown nothing yet
        self._quiet = 0  # inside code, maths or scripts, where anything may stand
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attributes}
        if "id" in has:
            if has["id"] in self.ids:
                self.problems.append(f"the id “{has['id']}” occurs twice")
            self.ids.add(has["id"])
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        if tag in self.LOADS and has.get(self.LOADS[tag]):
            self.loads.append(has[self.LOADS[tag]])
        self.loads += [has[name] for name in self.EXPLORABLE if has.get(name)]
        if tag == "link" and set(has.get("rel", "").split()) & self.LINK_LOADS:
            self.loads.append(has.get("href", ""))
        if tag == "img" and not has.get("alt", "").strip() and has.get("role") != "presentation":
            self.problems.append(f"the image {has.get('src', '')[:80]} has no alt text; give it `alt:`")
        self._pasted = "pasted-text" in has.get("class", "").split()
        if "katex-error" in has.get("class", ""):
            self.problems.append(f"KaTeX cannot render: {has.get('title', '')[:120]}")
        if tag in ("code", "pre", "script", "style", "svg", "math", "annotation"):
            self._quiet += 1

    def handle_endtag(self, tag: str) -> None:
        if self._pasted:
            self.problems.append("a glued value shows nothing; glue Python's own float(…) or int(…), not NumPy's")
            self._pasted = False
        if tag in ("code", "pre", "script", "style", "svg", "math", "annotation"):
            self._quiet -= 1

    def handle_data(self, data: str) -> None:
        if data.strip():
            self._pasted = False
        if not self._quiet and (found := re.search(r"\{[a-z:-]+\}`|\$\$|^:::?\{|\\begin\{", data)):
            self.problems.append(
                f"markup was left unrendered: “{data[max(0, found.start() - 30) : found.end() + 30].strip()}”"
            )


def problems_of(html: Path, whole: bool = True) -> Iterator[str]:
    """What is wrong with a built site: broken links and anchors, foreign loads, images without alt text, …

    With `whole` false, links to pages that were left out are not counted.
    """
    pages = {p.relative_to(html).as_posix(): _Page(p.read_text(encoding="utf-8")) for p in html.rglob("*.html")}
    files = {p.relative_to(html).as_posix() for p in html.rglob("*") if p.is_file()}
    if not pages:
        yield f"{html} holds no pages"
    for name, page in sorted(pages.items()):
        if name.startswith(("_static/", "genindex", "search")) and name != "search.html":
            continue
        for problem in page.problems:
            yield f"{name}: {problem}"
        for target in page.loads:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or (parts.netloc and not parts.scheme):
                yield f"{name}: loads {target} from elsewhere; ship it with the site"
            elif parts.scheme != "data" and _resolve(name, parts.path) not in files:
                yield f"{name}: loads {target}, which does not exist"
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or (not parts.path and not parts.fragment):
                continue
            if parts.path.startswith("/-/"):  # the book's server answers there
                continue
            path = _resolve(name, parts.path) if parts.path else name
            if path not in files:
                if whole:
                    yield f"{name}: links to {target}, which does not exist"
            elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].ids:
                yield f"{name}: links to {target}, but that page has no such anchor"
    for style in html.rglob("*.css"):
        for target in re.findall(
            r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", style.read_text(encoding="utf-8")
        ):
            yield f"{style.relative_to(html)}: loads {target} from elsewhere; ship it with the site"


def _resolve(page: str, path: str) -> str:
    """The file that a relative address on `page` names."""
    target = os.path.normpath(os.path.join(os.path.dirname(page), unquote(path)))
    return os.path.join(target, "index.html").removeprefix("./") if path.endswith("/") or target == "." else target
