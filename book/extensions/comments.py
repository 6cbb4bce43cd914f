"""The place for readers' comments below a chapter, its exercises and its solutions.

`html: comments:` in `_config.yml` chooses who keeps them: the book's own server (`embedded`), GitHub
(`giscus`) or nobody (`none`); `comments: false` under `book:` in its front matter leaves a page out.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from book.comments.settings import Settings
from book.errors import BookError
from book.extensions import maths
from book.notebooks import KINDS, Notebook

logger = logging.getLogger(__name__)

THEIRS = ("hypothesis", "utterances")  # what Jupyter Book itself knows of comments, and sets to false


def settings(app: Sphinx) -> Settings:
    config = app.config.comments_config
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if value or key not in THEIRS}
    return Settings.read(config)


def _check(app: Sphinx, config) -> None:
    try:
        chosen = settings(app)
    except BookError as error:
        raise ExtensionError(str(error)) from None
    if chosen.provider == "giscus" and not chosen.giscus:
        logger.info(
            "comments are left out: `html: comments: giscus:` in _config.yml lacks repo, repo_id, category or "
            "category_id; https://giscus.app tells them"
        )


def _context(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    chosen = settings(app)
    if chosen.provider == "none" or not _wanted(app, pagename):
        return
    context["book_comments"] = "none" if chosen.provider == "giscus" and not chosen.giscus else chosen.provider
    context["book_giscus"] = chosen.giscus


def _wanted(app: Sphinx, pagename: str) -> bool:
    if pagename.split("/")[0] not in KINDS or not Path(app.srcdir, f"{pagename}.md").is_file():
        return False
    return Notebook(Path(app.srcdir), pagename).card.get("comments") is not False


def katex_style(css: str) -> str:
    """KaTeX's style sheet for comments: its fonts whole, under names of their own, its rules in comments only.

    The book's pages load fonts with only the glyphs that the book shows; a reader may write any other.
    """
    css = re.sub(r",url\([^)]*\.(?:woff|ttf)\) format\(\"(?:woff|truetype)\"\)", "", css)
    css = re.sub(r"(?<![\w/])KaTeX_(\w+)", r"KaTeX_Whole_\1", css)
    faces = re.findall(r"@font-face\{[^}]*\}", css)
    rules = re.sub(r"@font-face\{[^}]*\}|(?<![\w.-])body\{[^}]*\}", "", css)
    return f"{''.join(faces)}:where(.thread,.preview){{{rules}}}"


def _copy_katex(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html" or settings(app).provider != "embedded":
        return
    dist, folder = maths.assets(app.srcdir), app.outdir / "_static/katex"
    (folder / "fonts").mkdir(parents=True, exist_ok=True)
    css = katex_style((dist / "katex.min.css").read_text(encoding="utf-8"))
    (folder / "katex.min.css").write_text(css, encoding="utf-8")
    for name in re.findall(r"url\(fonts/([\w-]+\.woff2)\)", css):
        (folder / "fonts" / name).write_bytes((dist / "fonts" / name).read_bytes())


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", _check)
    app.connect("html-page-context", _context)
    app.connect("build-finished", _copy_katex)  # before diet, which stamps and sweeps
    return {"parallel_read_safe": True, "parallel_write_safe": True}
