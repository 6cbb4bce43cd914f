"""`{path}` on the front page: the parts and chapters of `_toc.yml`, each with its one-line description."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from book.extensions.card import link
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


class Way(SphinxDirective):
    """The way through the book, one list for each part with chapters."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        boxes = []
        for caption, pages in parts(self.env.app):
            chapters = [page for page in pages if page.startswith("chapters/") and page in self.env.found_docs]
            if not chapters:
                continue
            items = nodes.enumerated_list("", classes=["chapters"])
            for page in chapters:
                description = Notebook(Path(self.env.srcdir), page).card.get("description", "")
                items += nodes.list_item(
                    "",
                    nodes.paragraph("", "", link(page)),
                    nodes.paragraph("", description, classes=["description"]),
                )
            head = nodes.rubric("", caption, classes=["part"])
            boxes.append(nodes.container("", head, items, classes=["part-card"]))
        return [nodes.container("", *boxes, classes=["book-path"])]


def _outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """The front page shows every chapter's title and description: read it again each time."""
    return [app.config.root_doc]


def setup(app: Sphinx) -> dict:
    app.add_directive("path", Way)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
