"""How cells and their outputs are written: what a check found, and folded code as plain `<details>`."""

from __future__ import annotations

from html import escape

from docutils import nodes
from myst_nb.core import render
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx

from groundup.checks import MIME


class ForTests:
    """What a check shows to programs is no output for readers: they see its text/html."""

    @staticmethod
    def handle_mime(renderer, data: render.MimeData, inline: bool) -> list[nodes.Node] | None:
        return [] if data.mime_type == MIME else None


def visit_fold(self, node: HideCodeCellNode) -> None:
    """One summary with one name, instead of two paragraphs and a label that says something else."""
    classes = " ".join(["fold", *node["classes"]])
    self.body.append(f'<details class="{classes}"><summary>{escape(node["prompt_show"])}</summary>\n')


def depart_fold(self, node: HideCodeCellNode) -> None:
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict:
    # myst-nb finds renderers by the entry points of installed packages; this one is not installed
    render.load_mime_renders = lambda: [ForTests]
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
