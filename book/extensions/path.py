"""The chapters and how they hang together: `{path}` lists them, `{map}` draws what needs what.

Both come from `_toc.yml` (which chapters, in which order) and from the cards (`book: prerequisites`).
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from book.extensions import graph
from book.extensions.card import link, separated
from book.notebooks import Notebook


def parts(app: Sphinx) -> list[tuple[str, list[str]]]:
    """`(caption, pages)` of every part of `_toc.yml`, in order."""
    return [
        (tree.caption or "", [str(item).removesuffix(".md") for item in tree.items])
        for tree in app.env.external_site_map.root.subtrees
    ]


def children(app: Sphinx, docname: str) -> list[str]:
    """The pages that `_toc.yml` puts below `docname`."""
    found = app.env.external_site_map.get(docname) or app.env.external_site_map.get(f"{docname}.md")
    return [str(name).removesuffix(".md") for name in found.child_files()] if found else []


def chapters(app: Sphinx) -> dict[str, Notebook]:
    """`part/slug`: chapter, in the order of `_toc.yml`, of those that this build holds."""
    return {
        page.removeprefix("chapters/"): Notebook(Path(app.srcdir), page)
        for _, pages in parts(app)
        for page in pages
        if page.startswith("chapters/") and page in app.env.found_docs
    }


def prerequisites(app: Sphinx) -> dict[str, list[str]]:
    """What each chapter's card says it needs."""
    return {name: list(chapter.card.get("prerequisites") or []) for name, chapter in chapters(app).items()}


def needs(app: Sphinx) -> dict[str, list[str]]:
    """The same without what follows from the rest, and without chapters that this build leaves out."""
    try:
        return graph.reduced(prerequisites(app))
    except ValueError as error:
        raise ExtensionError(f"`book: prerequisites`: {error}; take one of them out") from None


class Way(SphinxDirective):
    """The way through the book, one list for each part with chapters."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        app, boxes = self.env.app, []
        known, above = chapters(app), needs(app)
        for caption, pages in parts(app):
            names = [name for page in pages if (name := page.removeprefix("chapters/")) in known and name != page]
            if not names:
                continue
            items = nodes.enumerated_list("", classes=["chapters"])
            for name in names:
                item = nodes.list_item("", nodes.paragraph("", "", link(f"chapters/{name}")))
                description = known[name].card.get("description", "")
                item += nodes.paragraph("", description, classes=["description"])
                if above[name]:
                    needed = separated([link(f"chapters/{other}") for other in above[name]])
                    item += nodes.paragraph("", "", nodes.Text("Needs "), *needed, classes=["needs"])
                items += item
            head = nodes.rubric("", caption, classes=["part"])
            boxes.append(nodes.container("", head, items, classes=["part-card"]))
        return [nodes.container("", *boxes, classes=["book-path"])]


class Map(SphinxDirective):
    """A drawing of the chapters, each a link, with a line from what is needed down to what needs it."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        app = self.env.app
        known = chapters(app)
        if not known:
            return []
        titles = {name: chapter.title for name, chapter in known.items()}
        drawing = graph.draw(needs(app), titles)
        uris = {name: app.builder.get_relative_uri(self.env.docname, f"chapters/{name}") for name in known}
        says = {name: chapter.card.get("description", "") for name, chapter in known.items()}
        return [nodes.raw("", svg(drawing, titles, uris, says), format="html")]


def svg(drawing: graph.Drawing, titles: dict[str, str], uris: dict[str, str], says: dict[str, str]) -> str:
    """The drawing as HTML: lines first, then boxes in reading order, then the panel in a corner that is free."""
    lines = "".join(
        f'<path class="edge" data-from="{above}" data-to="{below}" d="{path}"/>'
        for (above, below), path in drawing.lines.items()
    )
    boxes = "".join(_box(box, drawing, titles, uris[name], says[name]) for name, box in drawing.boxes.items())
    side, free = _free_corner(drawing)
    style = f"width:{100 * free / drawing.width:.0f}%;{side}:0" if free > 200 else ""
    return (
        f'<nav class="map" aria-label="Map of the chapters" style="max-width:{drawing.width * 1.15:.0f}px">'
        f'<div class="map-says{"" if style else " above"}" style="{style}" aria-hidden="true"></div>'
        f'<svg viewBox="0 0 {drawing.width:g} {drawing.height:g}" style="font-size:{graph.SIZE}px">'
        f"<g>{lines}</g>{boxes}</svg></nav>"
    )


def _box(box: graph.Box, drawing: graph.Drawing, titles: dict[str, str], uri: str, says: str) -> str:
    above = [titles[one] for one, below in drawing.lines if below == box.name]
    label = titles[box.name] + (f", needs {', '.join(above)}" if above else ", needs nothing")
    x, y = box.x - box.width / 2, box.y - box.height / 2
    text = '<tspan font-size="0"> </tspan>'.join(  # a space for those who hear it, of no width
        f'<tspan x="{box.x:g}" y="{box.y + 5 + graph.LINE * (i - (len(box.lines) - 1) / 2):g}">{escape(line)}</tspan>'
        for i, line in enumerate(box.lines)
    )
    return (
        f'<a href="{escape(uri)}" data-chapter="{box.name}" data-says="{escape(says)}" aria-label="{escape(label)}">'
        f'<rect x="{x:g}" y="{y:g}" width="{box.width:g}" height="{box.height:g}" rx="7"/><text>{text}</text></a>'
    )


def _free_corner(drawing: graph.Drawing, height: float = 200) -> tuple[str, float]:
    """The upper corner with more room, and how wide it is; lines lie between the boxes they join or beside them."""
    near = [box for box in drawing.boxes.values() if box.y - box.height / 2 < height]
    left = min(box.x - box.width / 2 for box in near)
    right = drawing.width - max(box.x + box.width / 2 for box in near)
    return ("left", left - 24) if left > right else ("right", right - 24)


def _outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """The front page shows every chapter's title, description and needs: read it again each time."""
    return [app.config.root_doc]


def setup(app: Sphinx) -> dict:
    app.add_directive("path", Way)
    app.add_directive("map", Map)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
