"""Figures, tables and equations count from one on each page, so a new figure renumbers nothing elsewhere."""

from __future__ import annotations

import copy

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


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


def setup(app: Sphinx) -> dict:
    app.connect("env-before-read-docs", _recall)
    app.connect("env-get-updated", _restart, priority=900)  # after Sphinx has numbered them
    return {"parallel_read_safe": True, "parallel_write_safe": True}
