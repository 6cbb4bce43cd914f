"""Find and read the book's notebooks, and refuse what is wrong with a message that helps.

A notebook's address is its path without suffix, `chapters/foundations/calculus`, everywhere:
in `_toc.yml`, in `_build/executed`, in the site. `_toc.yml` alone knows the order.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml
from myst_nb.core.read import MystMetadataParsingError, read_myst_markdown_notebook

from book.errors import BookError, at

KINDS = ("chapters", "exercises", "solutions")
HAND_WRITTEN = ("artifacts", "checks", "datasets", "explore", "plotting")
WIDTH = 100  # characters of a line of code that the page shows without scrolling
TAGS = {
    "export",
    "hide-cell",
    "hide-input",
    "hide-output",
    "nbval-ignore-output",
    "raises-exception",
    "remove-cell",
    "remove-input",
    "remove-output",
    "solution-only",
}
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
REQUIRED = {"description": str, "prerequisites": list, "builds": str, "checked": str}
OPTIONAL = {"assumes": str, "produces": list, "needs": list, "comments": bool}


@dataclass(frozen=True)
class Cell:
    """A code or markdown cell: `number` counts from 1, `line` is where its text starts in the file."""

    number: int
    kind: str
    source: str
    line: int
    tags: frozenset[str]
    raw: nbformat.NotebookNode = field(repr=False, compare=False)

    def tree(self, path: Path | str) -> ast.Module:
        """The cell's syntax tree, its line numbers those of the file."""
        try:
            return _tree(self.source, self.line)
        except SyntaxError as error:
            line = self.line + (error.lineno or 1) - 1
            magic = self.source.lstrip().startswith(("%", "!"))
            remedy = "magics and shell lines are not used in this book" if magic else "mend the cell"
            raise BookError(f"{at(path, line, self.number)}: {error.msg}; {remedy}") from None


@cache
def _tree(source: str, line: int) -> ast.Module:
    return ast.increment_lineno(ast.parse(source), line - 1)


class Notebook:
    """One Jupytext notebook of the book, read once."""

    def __init__(self, root: Path, address: str):
        self.root, self.address = root, address
        self.kind, self.part, self.slug = address.split("/")
        self.file = Path(f"{address}.md")

    def __repr__(self) -> str:
        return f"Notebook({self.address})"

    @property
    def name(self) -> str:
        """`foundations/calculus`: what the reader types."""
        return f"{self.part}/{self.slug}"

    @property
    def module(self) -> str:
        """The `groundup` module that a chapter of this slug becomes."""
        return self.slug.replace("-", "_")

    @cached_property
    def text(self) -> str:
        return (self.root / self.file).read_text(encoding="utf-8")

    @cached_property
    def raw(self) -> nbformat.NotebookNode:
        """The notebook as the site reads it: the same reader, so the same cells."""
        return read(self.text, self.file)

    @cached_property
    def cells(self) -> list[Cell]:
        lines, cells = self.text.splitlines(), []
        for number, (raw, start) in enumerate(zip(self.raw.cells, self.raw.metadata["source_map"]), 1):
            line = _first_line(lines, raw.source, start) if raw.cell_type == "code" else start
            tags = frozenset(raw.metadata.get("tags", ()))
            cells.append(Cell(number, raw.cell_type, raw.source, line + 1, tags, raw))
        return cells

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    @cached_property
    def card(self) -> dict[str, Any]:
        """The `book:` part of a chapter's front matter."""
        return dict(self.raw.metadata.get("book") or {})

    @property
    def prose(self) -> str:
        """The text after the front matter."""
        return self.text.split("\n---\n", 1)[-1]

    @cached_property
    def title(self) -> str:
        found = re.search(r"^# +(.+)$", self.prose, re.M)
        return found[1].strip() if found else self.slug

    @cached_property
    def promise(self) -> str:
        """The first paragraph after the title, as plain text."""
        found = re.search(r"^# .+\n+((?:.+\n?)+)", self.prose, re.M)
        text = re.sub(r"\{[\w:]+\}`([^`<]+?)(?: *<[^>]+>)?`", r"\1", found[1] if found else "")
        text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
        return " ".join(text.split())

    def imports(self) -> Iterator[tuple[int, str, str | None]]:
        """`(line, module, name)` of everything imported from `groundup`."""
        for cell in self.code:
            for node in ast.walk(cell.tree(self.file)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "groundup":
                    module = node.module.removeprefix("groundup").lstrip(".")
                    for alias in node.names:
                        yield (node.lineno, module, alias.name) if module else (node.lineno, alias.name, None)
                elif isinstance(node, ast.Import):
                    for alias in node.names:
                        if alias.name.startswith("groundup."):
                            yield node.lineno, alias.name.split(".")[1], None

    def problems(self) -> Iterator[str]:
        """What is wrong with this notebook taken alone."""
        header = self.raw.metadata
        kernel = (header.get("kernelspec") or {}).get("name")
        flavour = ((header.get("jupytext") or {}).get("text_representation") or {}).get("format_name")
        if kernel != "python3" or flavour != "myst":
            yield (
                f"{at(self.file, 1)}: the front matter must name kernelspec python3 and the Jupytext format myst; "
                "copy the first lines of another notebook"
            )
        if self.kind == "chapters":
            yield from self._card_problems()
        elif not isinstance(self.card.get("comments", True), bool):
            yield f"{at(self.file, 1)}: `book: comments` must be {_WANTED[bool]}"
        for cell in self.cells:
            for tag in sorted(cell.tags - TAGS):
                yield (
                    f"{at(self.file, cell.line, cell.number)}: unknown tag “{tag}”; "
                    f"the tags are {', '.join(sorted(TAGS))}"
                )
            shown = cell.kind == "code" and not cell.tags & FOLDED
            for offset, text in enumerate(cell.source.splitlines() if shown else ()):
                if len(text) > WIDTH:
                    yield (
                        f"{at(self.file, cell.line + offset, cell.number)}: {len(text)} characters of code; "
                        f"the page shows {WIDTH} without scrolling: break the line"
                    )
            if self.kind == "chapters" and "solution-only" in cell.tags:
                yield f"{at(self.file, cell.line, cell.number)}: solution-only belongs in solutions/, not in a chapter"
            if self.kind != "chapters" and "export" in cell.tags:
                yield f"{at(self.file, cell.line, cell.number)}: only chapters export; move the cell or remove the tag"

    def _card_problems(self) -> Iterator[str]:
        place, card = at(self.file, 1), self.card
        if not card:
            yield f"{place}: the front matter has no `book:` part; it needs {', '.join(REQUIRED)}"
            return
        for key in sorted(card.keys() - REQUIRED.keys() - OPTIONAL.keys()):
            yield f"{place}: `book: {key}` is unknown; the keys are {', '.join([*REQUIRED, *OPTIONAL])}"
        for key, kind in {**REQUIRED, **OPTIONAL}.items():
            if key in REQUIRED and not card.get(key) and kind is str or key in REQUIRED and key not in card:
                yield f"{place}: `book: {key}` is missing; write {_WANTED[kind]} for the chapter's card"
            elif key in card and not isinstance(card[key], kind):
                yield f"{place}: `book: {key}` must be {_WANTED[kind]}"


_WANTED = {str: "one line of text", list: "a list, [] if empty", bool: "true or false"}


def read(text: str, file: Path | str) -> nbformat.NotebookNode:
    """Read MyST notebook `text`; `file` only names it in errors."""
    try:
        front = re.match(r"---\n(.*?)\n---\n", text, re.S)
        if front is None:
            raise BookError(
                f"{at(file, 1)}: no front matter between --- lines; copy the first lines of another notebook"
            )
        if not isinstance(yaml.safe_load(front[1]), dict):
            raise BookError(f"{at(file, 1)}: the front matter is not a mapping of keys to values")
        return read_myst_markdown_notebook(text, add_source_map=True, path=file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        raise BookError(
            f"{at(file, line)}: broken front matter: {getattr(error, 'problem', error)}; mend the YAML"
        ) from None
    except MystMetadataParsingError as error:
        found = re.search(r"line (\d+)", str(error))
        raise BookError(f"{at(file, int(found[1]) if found else 1)}: {error}; mend the cell's options") from None


def _first_line(lines: list[str], source: str, start: int) -> int:
    """Where in `lines` (from 0) a code cell's text begins: after its options."""
    body = source.splitlines()
    for line in range(start, len(lines) - len(body) + 1):
        if [text.strip() for text in lines[line : line + len(body)]] == [text.strip() for text in body]:
            return line
    return start


class Book:
    """The repository at `root`: its order, its notebooks."""

    def __init__(self, root: Path | str):
        self.root = Path(root).resolve()
        self.build = self.root / "_build"
        self._notebooks: dict[str, Notebook] = {}

    @cached_property
    def order(self) -> list[str]:
        """Every file of `_toc.yml`, in reading order, without suffix."""
        try:
            toc = yaml.safe_load((self.root / "_toc.yml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BookError(f"{self.root}: no _toc.yml here; run from the root of the book") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise BookError(
                f"{at('_toc.yml', mark.line + 1 if mark else 1)}: {getattr(error, 'problem', error)}"
            ) from None
        files: list[str] = []

        def walk(node: Any) -> None:
            if isinstance(node, dict):
                files.extend(str(node[key]).removesuffix(".md") for key in ("root", "file") if key in node)
                for value in node.values():
                    walk(value)
            elif isinstance(node, list):
                for value in node:
                    walk(value)

        walk(toc)
        return files

    def notebook(self, address: str) -> Notebook:
        if address not in self._notebooks:
            self._notebooks[address] = Notebook(self.root, address)
        return self._notebooks[address]

    def reread(self) -> None:
        """Forget what was read: files have been written since."""
        self._notebooks.clear()
        for name in ("order", "producers"):
            self.__dict__.pop(name, None)

    def of(self, kind: str) -> list[Notebook]:
        """The notebooks of one kind, in reading order."""
        return [self.notebook(a) for a in self.order if a.startswith(f"{kind}/") and a.count("/") == 2]

    @property
    def chapters(self) -> list[Notebook]:
        return self.of("chapters")

    @property
    def notebooks(self) -> list[Notebook]:
        return [self.notebook(a) for a in self.order if a.split("/")[0] in KINDS and a.count("/") == 2]

    def select(self, only: str | None) -> list[Notebook]:
        """The notebooks of a part, a chapter (`part/slug`, or `slug`), or all of them."""
        if not only:
            return self.notebooks
        only = re.sub(r"^(chapters|exercises|solutions)/", "", only.strip("/").removesuffix(".md"))
        chosen = [nb for nb in self.notebooks if only in (nb.part, nb.name, nb.slug)]
        if not chosen:
            parts = list(dict.fromkeys(nb.part for nb in self.chapters))
            names = ", ".join([*parts, *(nb.name for nb in self.chapters)])
            raise BookError(f"“{only}” is neither a part nor a chapter; there are {names}")
        return chosen

    def check(self, generated: bool = True) -> None:
        """Raise :class:`BookError` with every problem that can be seen without running anything.

        With `generated` false, exercises may be missing: they are about to be written.
        """
        problems = list(self._file_problems(generated))
        for notebook in self.notebooks:
            if (self.root / notebook.file).exists():
                try:
                    problems.extend(notebook.problems())
                except BookError as error:
                    problems.extend(error.problems)
        if not problems:
            problems = [*self._order_problems(), *self._artifact_problems()]
        if problems:
            raise BookError(problems)

    def _file_problems(self, generated: bool) -> Iterator[str]:
        listed = set(self.order)
        for address in self.order:
            if not generated and address.startswith("exercises/"):
                continue
            if not (self.root / f"{address}.md").exists():
                yield f"_toc.yml: {address} has no file {address}.md; write it or remove the entry"
        for address in sorted({a for a in self.order if self.order.count(a) > 1}):
            yield f"_toc.yml: {address} is listed twice; keep one"
        for kind in KINDS:
            for path in sorted((self.root / kind).rglob("*.md")):
                if ".ipynb_checkpoints" in path.parts:
                    continue
                address = path.relative_to(self.root).with_suffix("").as_posix()
                if address.count("/") != 2:
                    yield f"{address}.md: a notebook lies at {kind}/<part>/<slug>.md; move it"
                elif address not in listed:
                    yield f"{address}.md: not in _toc.yml; add it where it is to be read, or delete the file"
        seen: dict[str, Notebook] = {}
        for chapter in self.chapters:
            if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", chapter.slug):
                yield f"{chapter.file}: a slug is lower-case words joined by -; rename the file"
            if chapter.module in HAND_WRITTEN:
                yield f"{chapter.file}: groundup/{chapter.module}.py is written by hand; choose another slug"
            if chapter.slug in seen:
                yield f"{chapter.file}: the slug is also {seen[chapter.slug].file}; slugs are unique across parts"
            seen[chapter.slug] = chapter
            for kind in ("exercises", "solutions"):
                if f"{kind}/{chapter.name}" not in listed:
                    yield f"_toc.yml: {chapter.address} has no {kind}/{chapter.name}; add it below the chapter"
        names = {chapter.name for chapter in self.chapters}
        for address in self.order:
            kind, _, name = address.partition("/")
            if kind in ("exercises", "solutions") and name not in names:
                yield f"_toc.yml: {address} belongs to no chapter; add chapters/{name} or remove it"

    def _order_problems(self) -> Iterator[str]:
        earlier: set[str] = set()
        names = {chapter.name for chapter in self.chapters}
        for chapter in self.chapters:
            for needed in chapter.card["prerequisites"]:
                if needed not in names:
                    yield f"{at(chapter.file, 1)}: prerequisite “{needed}” is no chapter; write part/slug"
                elif needed not in earlier:
                    yield f"{at(chapter.file, 1)}: prerequisite “{needed}” comes later in _toc.yml; reorder one of them"
            earlier.add(chapter.name)

    def _artifact_problems(self) -> Iterator[str]:
        producer: dict[str, Notebook] = {}
        for chapter in self.chapters:
            for name in chapter.card.get("needs", ()):
                if name not in producer:
                    yield (
                        f"{at(chapter.file, 1)}: needs the artifact “{name}”, which no earlier chapter produces; "
                        "add it to that chapter's `produces:`"
                    )
            for name in chapter.card.get("produces", ()):
                if name in producer:
                    yield f"{at(chapter.file, 1)}: the artifact “{name}” is also produced by {producer[name].file}; rename one"
                producer[name] = chapter

    @cached_property
    def producers(self) -> dict[str, Notebook]:
        """artifact name -> the chapter that makes it."""
        return {name: chapter for chapter in self.chapters for name in chapter.card.get("produces", ())}

    def needs(self, notebook: Notebook) -> list[str]:
        """The artifacts a notebook reads; exercises and solutions read what their chapter reads or makes."""
        chapter = self.notebook(f"chapters/{notebook.name}")
        needs = list(chapter.card.get("needs", ()))
        return needs if notebook.kind == "chapters" else needs + list(chapter.card.get("produces", ()))
