"""Formulas become HTML and MathML when the site is built; a macro KaTeX does not know fails the build.

KaTeX's style sheet and fonts come from `node_modules/katex` (`npm ci`), the renderer from
sphinxcontrib-katex; both are the version in `package-lock.json`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import Popen

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinxcontrib import katex

from book.node import node

logger = logging.getLogger(__name__)

PATIENCE = 120.0  # seconds for the renderer: on a busy machine the 5 it comes with are too few
SHORT = 24  # characters of LaTeX that fit a line of a phone


def assets(root: Path | str) -> Path:
    """KaTeX's `dist` folder, of the version that the renderer speaks."""
    package = Path(root) / "node_modules/katex"
    if not package.is_dir():
        raise ExtensionError(f"{package} is missing (KaTeX's style sheet and fonts); run `npm ci`")
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    if version != katex.katex_version:
        raise ExtensionError(
            f"node_modules/katex is {version}, sphinxcontrib-katex renders for {katex.katex_version}; "
            "pin the same version in package.json and run `npm install`"
        )
    return package / "dist"


def html(latex: str, display: bool, where: nodes.Node | None = None) -> str:
    """`latex` as HTML and MathML; a formula KaTeX refuses is a warning at `where`, so an error in a strict build."""
    try:
        return katex.render_latex(latex, {"displayMode": display, "throwOnError": True, "strict": False})
    except katex.KaTeXError as error:
        logger.warning("KaTeX cannot set “%s”: %s", latex.strip(), error, location=where)
        return f"<code>{nodes.Text(latex)}</code>"


def _take_stops(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """A short formula takes the punctuation after it along: a line must not begin with a comma."""
    for formula in list(doctree.findall(nodes.math)):
        place = formula.parent.index(formula) + 1
        rest = formula.parent[place] if place < len(formula.parent) else None
        stop = re.match(r"(?:['’]s|-th|[.,;:!?)])+", rest) if isinstance(rest, nodes.Text) else None
        if stop and len(formula.astext()) <= SHORT:  # a long formula may break itself
            formula["stop"] = stop[0]
            formula.parent.replace(rest, nodes.Text(rest[stop.end() :]))


def visit_inline(self, node: nodes.math) -> None:
    shown = f'<span class="math">{html(node.astext(), False, node)}</span>'
    self.body.append(f'<span class="unbroken">{shown}{node["stop"]}</span>' if "stop" in node else shown)
    raise nodes.SkipNode


def visit_display(self, node: nodes.math_block) -> None:
    """A box that scrolls by itself, with its number outside of what scrolls."""
    number = node.get("number")
    latex = node.astext().strip()
    if "\\\\" in latex and "\\begin{" not in latex:  # what Sphinx itself does with several lines
        latex = f"\\begin{{aligned}}{latex}\\end{{aligned}}"
    self.body.append(self.starttag(node, "div", CLASS="math numbered" if number else "math"))
    self.body.append(f'<div class="formula">{html(latex, True, node)}</div>')
    if number:
        self.body.append(f'<span class="eqno">({katex.get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _start(app: Sphinx) -> None:
    if app.builder.format == "html":
        katex.NODEJS_BINARY = node()
        katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = PATIENCE
        assets(app.srcdir)
        _renderer()


def _renderer(tries: int = 10) -> katex.KaTeXServer:
    """The renderer, started. On a busy machine its socket may be there before it listens: then start another."""
    started: list[Popen] = []
    katex.Popen = lambda *command, **options: started.append(Popen(*command, **options)) or started[-1]
    while True:
        try:
            return katex.KaTeXServer.get()
        except ConnectionRefusedError:
            while started:
                started[-1].kill()
                started.pop().wait()
            tries -= 1
            if not tries:
                raise


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("book", inline_renderers=(visit_inline, None), block_renderers=(visit_display, None))
    app.connect("builder-inited", _start)
    app.connect("doctree-resolved", _take_stops)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
