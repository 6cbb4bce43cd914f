"""The frame around each page: its own template on the theme's, and the navigation drawn from `_toc.yml`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from book.extensions import progress
from book.extensions.path import children, parts
from book.notebooks import KINDS, Notebook

TEMPLATES = Path(__file__).parent / "templates"
BELOW = {"exercises": "Exercises", "solutions": "Solutions"}


@dataclass
class Entry:
    """A page in the navigation; `below` holds the exercises and solutions of the chapter one is in."""

    title: str
    uri: str
    current: bool
    below: list[Entry] = field(default_factory=list)


@dataclass
class Part:
    caption: str
    open: bool
    entries: list[Entry]


def navigation(app: Sphinx, here: str) -> list[Part]:
    """The parts of the book as seen from page `here`."""

    def uri(here: str, page: str) -> str:
        return app.builder.get_relative_uri(here, page) or "#"

    def title(docname: str) -> str:
        return BELOW.get(docname.split("/")[0]) or app.env.titles[docname].astext()

    shown = []
    for caption, pages in parts(app):
        entries, inside = [], False
        for page in pages:
            if page not in app.env.titles:
                continue
            below = [name for name in children(app, page) if name in app.env.titles]
            near = here == page or here in below
            inside = inside or near
            entry = Entry(title(page), uri(here, page), here == page)
            entry.below = [Entry(title(name), uri(here, name), here == name) for name in below] if near else []
            entries.append(entry)
        if entries:
            shown.append(Part(caption, inside, entries))
    return shown


def _context(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    context["metatags"] = re.sub(
        r'<meta[^>]*name="viewport"[^>]*>', "", context.get("metatags", "")
    )  # it is there already
    context["book_navigation"] = navigation(app, pagename)
    context["book_description"] = _description(app, pagename)
    context["book_home"] = app.builder.get_relative_uri(pagename, app.config.root_doc)
    context["book_is_home"] = pagename == app.config.root_doc
    kind, _, name = pagename.partition("/")
    context["book_chapter"] = name if kind in KINDS else ""
    context["book_checks"] = json.dumps(progress.checks(app, name)) if kind in KINDS else ""


def _description(app: Sphinx, pagename: str) -> str:
    """What search engines and previews show: a chapter's description, else the page's promise."""
    file = Path(app.srcdir, f"{pagename}.md")
    if not file.is_file():
        return ""
    if pagename.split("/")[0] == "chapters":
        return Notebook(Path(app.srcdir), pagename).card.get("description", "")
    if pagename in app.env.titles:
        return Notebook(Path(app.srcdir), pagename).promise if pagename.count("/") == 2 else ""
    return ""


def _updated(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Every page shows the navigation: write all again when a title or the order has changed."""
    shown = [
        (caption, [(page, env.titles[page].astext()) for page in pages if page in env.titles])
        for caption, pages in parts(app)
    ]
    before, env.book_shown = getattr(env, "book_shown", None), shown
    return [] if before in (None, shown) else sorted(env.found_docs)


def _templates(app: Sphinx, config) -> None:
    config.templates_path.insert(0, str(TEMPLATES))


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", _templates)
    app.connect("html-page-context", _context, priority=850)
    app.connect("env-updated", _updated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
