"""Figures, tables and equations count from one on each page, so a new figure renumbers nothing elsewhere.

A solution page repeats what its exercise page labels; there the labels get the suffix `-solution`.
"""

from __future__ import annotations

import copy

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform


def _restart(app: Sphinx, env: BuildEnvironment) -> list[str]:
    env.book_counted = copy.deepcopy(env.toc_fignumbers)
    for kinds in env.toc_fignumbers.values():
        for numbers in kinds.values():
            for position, name in enumerate(numbers, 1):
                numbers[name] = (position,)
    return []


def _recall(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Give Sphinx its own numbers back to compare with, or it writes every page again."""
    env.toc_fignumbers = getattr(env, "book_counted", env.toc_fignumbers)


class SolutionLabels(SphinxTransform):
    """Rename the labels of a solution page, and what refers to them on it."""

    default_priority = 849  # before the domains collect labels

    def apply(self) -> None:
        if not self.env.docname.startswith("solutions/"):
            return
        document = self.document
        renamed = {}
        for name in [name for name, explicit in document.nametypes.items() if explicit]:
            new = f"{name}-solution"
            renamed[name] = new
            document.nametypes[new] = document.nametypes.pop(name)
            document.nameids[new] = document.nameids.pop(name)
        for node in document.findall(nodes.Element):
            if node.get("names"):
                node["names"] = [renamed.get(name, name) for name in node["names"]]
            if isinstance(node, pending_xref) and node.get("reftarget") in renamed:
                node["reftarget"] = renamed[node["reftarget"]]


def setup(app: Sphinx) -> dict:
    app.connect("env-before-read-docs", _recall)
    app.connect("env-get-updated", _restart, priority=900)  # after Sphinx has numbered them
    app.add_transform(SolutionLabels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
