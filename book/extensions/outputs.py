"""How cells and their outputs are written: what a check found, and folded code as plain `<details>`."""

from __future__ import annotations

from html import escape

from docutils import nodes
from myst_nb.core import render
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx

from book.extensions import explore
from groundup.checks import MIME


class ForTests:
    """What a check shows to programs is no output for readers: they see its text/html."""

    @staticmethod
    def handle_mime(renderer, data: render.MimeData, inline: bool) -> list[nodes.Node] | None:
        return [] if data.mime_type == MIME else None


def _without_markers(app: Sphinx, doctree: nodes.document) -> None:
    """Solution pages show the solution, not the marks around it."""
    for node in doctree.findall(nodes.literal_block):
        lines = node.astext().splitlines()
        kept = [line for line in lines if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION")]
        if len(kept) < len(lines):
            node.rawsource = "\n".join(kept)  # both: the writer highlights only when they are the same
            node.children = [nodes.Text(node.rawsource)]


def visit_fold(self, node: HideCodeCellNode) -> None:
    """One summary with one name, instead of two paragraphs and a label that says something else."""
    classes = " ".join(["fold", *node["classes"]])
    prompt = node["prompt_show"].replace("source", "code").replace("outputs", "output")
    self.body.append(f'<details class="{classes}"><summary>{escape(prompt)}</summary>\n')


def depart_fold(self, node: HideCodeCellNode) -> None:
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict:
    # myst-nb finds renderers by the entry points of installed packages; these are not installed
    render.load_mime_renders = lambda: [ForTests, explore.Carried]
    app.connect("doctree-read", _without_markers)
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
