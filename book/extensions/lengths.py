"""How long each page and each of its sections takes to read, for what is reckoned from it elsewhere.

Directives that sum such lengths put a `later` node; it becomes text when all pages have been read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from book.extensions.card import seconds_to_read

Lengths = dict[str, tuple[str, float]]  # section id ("" the page): title, seconds


class later(nodes.General, nodes.Element):
    """Stands for what `REPLACE[node["what"]](app, docname, node)` returns once all pages are known."""


REPLACE: dict[str, Callable[[Sphinx, str, Any], list[nodes.Node]]] = {}


def of(app: Sphinx, docname: str) -> Lengths:
    """The lengths of page `docname`; empty when it is not part of this build."""
    return getattr(app.env, "book_lengths", {}).get(docname, {})


def minutes(seconds: float) -> int:
    return max(1, round(seconds / 60))


def hours(in_minutes: float) -> str:
    """`45 min`, `1 h 20 min`, `17 h`: exact to five minutes below three hours, to the hour above."""
    if in_minutes < 60:
        return f"{max(1, round(in_minutes))} min"
    if in_minutes >= 180:
        return f"{round(in_minutes / 60)} h"
    whole, rest = divmod(5 * round(in_minutes / 5), 60)
    return f"{whole} h {rest} min" if rest else f"{whole} h"


def _measure(app: Sphinx, doctree: nodes.document) -> None:
    whole = next(doctree.findall(nodes.section), doctree)  # without the front matter, still there as a list of fields
    found: Lengths = {"": ("", seconds_to_read(whole))}
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        for name in section["ids"]:
            found[name] = (title.astext() if title else "", seconds_to_read(section))
    if not hasattr(app.env, "book_lengths"):
        app.env.book_lengths = {}
    app.env.book_lengths[app.env.docname] = found
    if next(doctree.findall(later), None):
        app.env.book_reckons = getattr(app.env, "book_reckons", set()) | {app.env.docname}


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, "book_lengths", {}).pop(docname, None)
    getattr(env, "book_reckons", set()).discard(docname)


def _outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """What is reckoned from other pages is reckoned again each time."""
    return sorted(getattr(env, "book_reckons", set()) & env.found_docs)


def _replace(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    made = [(node, REPLACE[node["what"]](app, docname, node)) for node in doctree.findall(later)]
    for node, new in made:  # one may look at the others, so none goes before all are made
        node.replace_self(new)


def setup(app: Sphinx) -> dict:
    app.add_node(later)
    app.connect("doctree-read", _measure, priority=400)  # before the card, whose words are not the chapter's
    app.connect("env-purge-doc", _forget)
    app.connect("env-get-outdated", _outdated)
    app.connect("doctree-resolved", _replace)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
