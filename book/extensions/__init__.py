"""The Sphinx side of the book: one small extension per concern, all loaded by `book.extensions`."""

from __future__ import annotations

from sphinx.application import Sphinx

PARTS = (
    "addresses",
    "maths",
    "numbering",
    "glossary",
    "exercise",
    "card",
    "outputs",
    "figures",
    "explore",
    "lengths",
    "path",
    "routes",
    "progress",
    "status",
    "layout",
    "comments",
    "diet",
)


def setup(app: Sphinx) -> dict:
    app.add_config_value("comments_config", {}, "html")  # Jupyter Book always sets it
    for part in PARTS:
        app.setup_extension(f"book.extensions.{part}")
    return {"parallel_read_safe": False, "parallel_write_safe": False}
