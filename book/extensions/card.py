"""The card after a chapter's promise, and the strip at the head of exercise and solution pages.

What the chapter says of itself comes from `book:` in its front matter, what was measured from the press.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

from book.extensions import exercise, records
from book.notebooks import KINDS, Notebook

logger = logging.getLogger(__name__)

WORDS_A_MINUTE = 200
SECONDS_A_CODE_LINE = 3
SECONDS_A_FORMULA = 10


def seconds_to_read(part: nodes.Element) -> float:
    """Seconds that the prose, visible code and display formulas of a page or section take."""
    words = lines = formulas = 0
    for node in part.findall():
        if isinstance(node, nodes.paragraph):
            words += len(node.astext().split())
        elif isinstance(node, nodes.container) and node.get("nb_element") == "cell_code_source":
            if "tag_hide-input" in node.parent["classes"]:
                continue
            lines += sum(bool(line.strip()) for line in node.astext().splitlines())
        elif isinstance(node, nodes.math_block):
            formulas += 1
    return 60 * words / WORDS_A_MINUTE + SECONDS_A_CODE_LINE * lines + SECONDS_A_FORMULA * formulas


def minutes_to_read(doctree: nodes.document) -> int:
    """The same for a whole page, in minutes, at least one."""
    return max(1, round(seconds_to_read(doctree) / 60))


def inline(app: Sphinx, text: str) -> list[nodes.Node]:
    """One line of MyST Markdown as nodes, to stand inside a paragraph."""
    settings = app.env.settings | {"env": app.env}
    document = new_document(app.env.doc2path(app.env.docname))
    document.settings.__dict__.update(settings)
    MystParser().parse(text, document)
    for found in list(document.findall(nodes.Text)):
        if not isinstance(found.parent, (nodes.literal, nodes.math)):  # Sphinx curls quotes before this page event
            found.parent.replace(found, nodes.Text(re.sub(r"(?<=\w)'", "’", found)))
    return list(document.children[0].children) if document.children else []


def link(docname: str, text: str = "") -> nodes.Node:
    """A link to the page `docname` that shows `text`, or else the page's title."""
    shown = nodes.inline("", text)
    return pending_xref(
        "", shown, refdomain="std", reftype="doc", reftarget=f"/{docname}", refexplicit=bool(text), refwarn=True
    )


def download(here: str, address: str, text: str) -> nodes.Node:
    """A link from page `here` to the executed notebook of `address`."""
    uri = relative_uri(f"{here}.html", f"_downloads/{address}.ipynb")
    return nodes.raw("", f'<a class="download" href="{uri}" download>{text}</a>', format="html")


def separated(items: Iterable[nodes.Node], by: str = ", ") -> list[nodes.Node]:
    joined: list[nodes.Node] = []
    for item in items:
        joined += [nodes.Text(by), item] if joined else [item]
    return joined


def _row(name: str, *content: nodes.Node, classes: Iterable[str] = ()) -> nodes.definition_list_item:
    body = nodes.definition("", nodes.paragraph("", "", *content))
    return nodes.definition_list_item("", nodes.term("", name, classes=list(classes)), body)


def _prerequisites(app: Sphinx, chapter: Notebook) -> list[nodes.Node]:
    shown = []
    for name in chapter.card.get("prerequisites") or []:
        address = f"chapters/{name}"
        if not (Path(app.srcdir) / f"{address}.md").is_file():
            logger.warning(
                "`book: prerequisites` names %s, but there is no %s.md; write part/slug of an earlier chapter",
                name, address, location=(app.env.docname, 1),
            )  # fmt: skip
            continue
        known = address in app.env.found_docs  # not when only a part of the book is built
        shown.append(link(address) if known else nodes.Text(Notebook(Path(app.srcdir), address).title))
    shown = separated(shown)
    if assumes := chapter.card.get("assumes"):
        shown += [nodes.Text(". " if shown else ""), *inline(app, assumes)]
    return shown or [nodes.Text("nothing yet")]


def _measured(record: dict | None) -> str:
    if not record:
        return "not measured yet"
    machine = f", on {record['machine']}" if record.get("machine") else ""
    return f"{records.duration(record['seconds'])} to run, {records.size(record['memory'])} peak{machine}, 1 thread"


def downloads(app: Sphinx, here: str, addresses: dict[str, str]) -> list[nodes.Node]:
    """Links to the executed notebooks among `addresses` (address: what to call it)."""
    return separated(
        download(here, address, text) for address, text in addresses.items() if records.notebook(app.srcdir, address)
    )


def chapter_card(app: Sphinx, doctree: nodes.document) -> nodes.Node:
    """What a chapter needs, builds, is checked against and costs, as a definition list."""
    here = app.env.docname
    chapter = Notebook(Path(app.srcdir), here)
    card, found, path = chapter.card, app.env.found_docs, here.removeprefix("chapters/")
    rows = [_row("You need", *_prerequisites(app, chapter))]
    rows.append(_row("You build", *inline(app, card["builds"])))
    rows.append(_row("Checked against", *inline(app, card["checked"])))
    cost = f"{minutes_to_read(doctree)} min to read; {_measured(records.read(app.srcdir).get(here))}"
    rows.append(_row("Time", nodes.Text(cost)))
    practice = []
    if f"exercises/{path}" in found:
        practice.append(
            link(f"exercises/{path}", exercise.summary(Path(app.srcdir, f"exercises/{path}.md")) or "exercises")
        )
    if f"solutions/{path}" in found:
        practice.append(link(f"solutions/{path}", "solutions"))
    if practice:
        rows.append(_row("Practice", *separated(practice, " · "), classes=["screen"]))
    notebooks = {here: "chapter", f"exercises/{path}": "exercises", f"solutions/{path}": "solutions"}
    if links := downloads(app, here, notebooks):
        rows.append(_row("Notebooks", *links, classes=["screen"]))
    return nodes.definition_list("", *rows, classes=["chapter-card"])


def strip(app: Sphinx) -> nodes.Node:
    """Links from an exercise or solution page to its chapter and its counterpart."""
    here, found = app.env.docname, app.env.found_docs
    kind, path = here.split("/", 1)
    links = []
    if f"chapters/{path}" in found:
        links.append(link(f"chapters/{path}", f"Chapter: {Notebook(Path(app.srcdir), f'chapters/{path}').title}"))
    other = "solutions" if kind == "exercises" else "exercises"
    if f"{other}/{path}" in found:
        links.append(link(f"{other}/{path}", other.capitalize()))
    links += downloads(app, here, {here: "Notebook"})
    box = nodes.container("", classes=["page-strip", kind])
    if kind == "solutions":
        words = "These are solutions: try the exercises first."
        box += nodes.paragraph("", "", nodes.strong("", words))
    box += nodes.paragraph("", "", *separated(links, " · "))
    return box


def _insert(app: Sphinx, doctree: nodes.document) -> None:
    here = app.env.docname
    kind = here.split("/")[0]
    if kind not in KINDS:
        return
    section = next(doctree.findall(nodes.section), None)
    if section is None:
        logger.warning("this page has no title; begin it with `# Title`", location=(here, 1))
        return
    if kind != "chapters":
        section.insert(1, strip(app))
        return
    card = Notebook(Path(app.srcdir), here).card
    missing = [key for key in ("description", "builds", "checked") if not card.get(key)]
    if missing:
        keys = ", ".join(missing)
        logger.warning("the front matter's `book:` has no %s; the chapter's card needs it", keys, location=(here, 1))
        return
    first = next((i for i, node in enumerate(section.children) if isinstance(node, nodes.paragraph)), 0)
    section.insert(first + 1, chapter_card(app, doctree))


@cache
def _seen(root: Path) -> dict[str, tuple]:
    """What the pages show of each notebook's execution; a page is stale when this changes."""
    measured = records.read(root)
    files = {
        file.relative_to(root / records.EXECUTED).with_suffix("").as_posix(): file.stat().st_size
        for file in (root / records.EXECUTED).rglob("*.ipynb")
    }
    return {name: (str(measured.get(name)), name in files) for name in measured.keys() | files.keys()}


def _outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """Pages whose measurements or downloads have changed since they were built."""
    _seen.cache_clear()
    before, now = getattr(env, "book_seen", {}), _seen(Path(app.srcdir))
    env.book_seen = now
    stale = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    chapters = {f"chapters/{name.split('/', 1)[1]}" for name in stale if "/" in name}
    return sorted((stale | chapters) & env.found_docs)


def _copy_downloads(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    for docname in app.env.found_docs:
        if docname.split("/")[0] in KINDS and (file := records.notebook(app.srcdir, docname)):
            target = app.outdir / "_downloads" / f"{docname}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", _insert)
    app.connect("env-get-outdated", _outdated)
    app.connect("build-finished", _copy_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
