"""`make new CHAPTER=part/slug`: a chapter with exercises and solutions that already passes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from book import exercises, export
from book.errors import BookError
from book.execution import write_atomically
from book.notebooks import Book

TEMPLATES = Path(__file__).parent / "templates"


def new(book: Book, name: str) -> list[Path]:
    """Write the notebooks of a new chapter `part/slug`, enter them in `_toc.yml`, and return their paths."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*/[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BookError(f"“{name}” is not part/slug in lower-case words joined by -, such as language/attention")
    part, slug = name.split("/")
    taken = next((c for c in book.chapters if c.slug == slug), None)
    if taken:
        raise BookError(f"{taken.file} has the slug “{slug}” already; slugs are unique across parts")
    files = [f"{kind}/{name}.md" for kind in ("chapters", "solutions", "exercises")]
    there = next((file for file in files if (book.root / file).exists()), None)
    if there:
        raise BookError(f"{there} exists already and would be overwritten; enter it in _toc.yml, or move it away first")
    title = slug.replace("-", " ").capitalize()
    last = next((c.name for c in reversed(book.chapters) if c.part == part), None)
    values = {"title": title, "slug": slug, "name": slug.replace("-", "_"), "part": part,
              "prerequisites": f"[{last}]" if last else "[]"}  # fmt: skip
    written = []
    for kind in ("chapters", "solutions"):
        text = (TEMPLATES / f"{kind}.md").read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"<<{key}>>", value)
        path = book.root / kind / f"{name}.md"
        write_atomically(path, text)
        written.append(path)
    _enter(book, part, name)
    fresh = Book(book.root)
    fresh.check(generated=False)
    written += export.export(fresh) + exercises.exercises(fresh)
    for path in written:
        print(f"wrote {path.relative_to(book.root)}")
    print(f"Now: make write ONLY={name}")
    return written


def _enter(book: Book, part: str, name: str) -> None:
    """Add the three notebooks to `_toc.yml`: at the end of their part, or as a new part before the last."""
    path = book.root / "_toc.yml"
    text = path.read_text(encoding="utf-8")
    entry = "\n".join(
        [f"      - file: chapters/{name}", "        sections:",
         f"          - file: exercises/{name}", f"          - file: solutions/{name}"]
    )  # fmt: skip
    lines = text.splitlines()
    mine = [i for i, line in enumerate(lines) if re.search(rf"file: \w+/{re.escape(part)}/", line)]
    if mine:
        lines.insert(mine[-1] + 1, entry)
    else:
        captions = [i for i, line in enumerate(lines) if re.match(r"  - caption:", line)]
        caption = f"  - caption: {part.replace('-', ' ').capitalize()}\n    chapters:"
        chapters = [i for i, line in enumerate(lines) if "file: chapters/" in line]
        after = next((i for i in captions if chapters and i > chapters[-1]), len(lines))
        lines.insert(after, f"{caption}\n{entry}")
    result = "\n".join(lines) + "\n"
    yaml.safe_load(result)
    write_atomically(path, result)
