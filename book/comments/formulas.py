"""Formulas of comments, set by a KaTeX process of our own; a formula that may not be shown is None."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import subprocess
import threading
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from book.errors import BookError
from book.node import node

START_SECONDS = 20.0  # for node to start, on a busy machine
SECONDS = 2.0  # for the formulas of one comment; then the process is replaced
LATEX = 4000  # characters of LaTeX in a comment; formulas after that are not set
LONGEST = 200_000  # characters of HTML for all of them
FARTHEST = 25.0  # em that a length may have in either direction


class Unavailable(Exception):
    """There is no KaTeX here, or it just ended: not the formula's fault."""


class Formulas:
    """One `node` with KaTeX, started when first needed and again after it was stopped."""

    def __init__(self, root: Path):
        self.katex = root / "node_modules" / "katex"
        self.version = self._version()
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._id = 0

    def _version(self) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((self.katex / "package.json").read_text(encoding="utf-8"))["version"])
        return None

    def html(self, formulas: Sequence[tuple[str, bool]]) -> list[str | None]:
        """Each (LaTeX, display) as HTML with MathML, or None where it is refused. Raises Unavailable."""
        if not formulas:
            return []
        taken, length = 0, 0
        while taken < len(formulas) and (length := length + len(formulas[taken][0]) + 20) <= LATEX:
            taken += 1
        with self._lock:
            found = self._ask(formulas[:taken]) if taken else []
        found += [None] * (len(formulas) - taken)
        total, checked = 0, []
        for html in found:
            total += len(html or "")
            checked.append(html if html and total <= LONGEST and is_harmless(html) else None)
        return checked

    def _ask(self, formulas: Sequence[tuple[str, bool]]) -> list[str | None]:
        self.start()
        assert self._process and self._process.stdin
        self._id += 1
        try:
            self._process.stdin.write(json.dumps({"id": self._id, "formulas": formulas}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=SECONDS)
            answer = json.loads(line) if line else None
        except queue.Empty:
            self._stop()
            return [None] * len(formulas)
        except (OSError, ValueError):
            answer = None
        if not answer or answer["id"] != self._id:
            self._stop()
            raise Unavailable("KaTeX's process ended")
        return answer["html"]

    def start(self) -> None:
        """Start the process if there is none. Raises Unavailable."""
        if self._process and self._process.poll() is None:
            return
        self._stop()
        if not self.version:
            raise Unavailable(f"no KaTeX at {self.katex}; run `npm ci`")
        script = Path(__file__).with_name("katex.cjs")
        try:
            self._process = subprocess.Popen(
                [node(), "--max-old-space-size=256", "--stack-size=700", str(script), str(self.katex)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        except (OSError, BookError) as error:
            raise Unavailable(str(error)) from None
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            first = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            first = None
        if not first:
            self._stop()
            raise Unavailable("KaTeX's process did not start")

    def _stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            self._process = None

    def close(self) -> None:
        with self._lock:
            self._stop()


def _read(stream, lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(None)


# --- what KaTeX may put into a page -------------------------------------------------------------------

_MATHML = "math semantics mrow mi mn mo ms mtext mspace msup msub msubsup mfrac msqrt mroot munder mover munderover mtable mtr mtd mstyle mpadded mphantom menclose mglyph mlabeledtr annotation"
_TAGS = {"span", "svg", "path", "line", *_MATHML.split()}
_ATTRIBUTES = {
    "class", "style", "aria-hidden", "xmlns", "encoding", "display", "mathvariant", "stretchy", "fence", "separator",
    "lspace", "rspace", "minsize", "maxsize", "symmetric", "accent", "accentunder", "movablelimits", "width", "height",
    "depth", "voffset", "linethickness", "rowspacing", "columnspacing", "columnalign", "rowalign", "columnlines",
    "rowlines", "side", "notation", "scriptlevel", "displaystyle", "mathcolor", "mathbackground", "mathsize", "viewbox",
    "preserveaspectratio", "d", "x1", "x2", "y1", "y2", "stroke-width", "form", "largeop", "linebreak",
}  # fmt: skip
_STYLES = {
    "height", "width", "min-width", "top", "bottom", "left", "vertical-align", "margin", "margin-left", "margin-right",
    "margin-top", "padding-left", "padding-right", "color", "background-color", "border", "border-color", "border-width",
    "border-style", "border-bottom-width", "border-top-width", "border-right-width", "border-right-style", "position",
    "text-shadow",
}  # fmt: skip
_VALUE = re.compile(r"-?\d*\.?\d+(?:em|px|%)?|[a-z]+|#[0-9a-f]+", re.I)


def is_harmless(html: str) -> bool:
    """Whether KaTeX's output holds only marks that draw: nothing that links, loads, runs or leaves its place."""
    return _Checker(html).harmless


class _Checker(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.harmless, self._open = True, []
        self.feed(html)
        self.close()
        self.harmless = self.harmless and not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self._check(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.harmless = False

    def handle_comment(self, data: str) -> None:
        self.harmless = False

    handle_decl = unknown_decl = handle_pi = handle_comment

    def _check(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if tag not in _TAGS or not _ATTRIBUTES.issuperset(names) or len(set(names)) < len(names):
            self.harmless = False
            return
        for name, value in attrs:
            if name == "style":
                self.harmless = self.harmless and _is_style(value or "")
            elif name == "xmlns":
                self.harmless = self.harmless and value in (
                    "http://www.w3.org/1998/Math/MathML",
                    "http://www.w3.org/2000/svg",
                )


def _is_style(style: str) -> bool:
    for part in filter(None, style.split(";")):
        name, _, value = part.partition(":")
        if name.strip() not in _STYLES or not all(map(_VALUE.fullmatch, value.split())):
            return False
        if name.strip() == "position" and value.strip() != "relative":
            return False
        if any(abs(float(number)) > FARTHEST for number in re.findall(r"([-+]?[\d.]+)em", value)):
            return False
    return True
