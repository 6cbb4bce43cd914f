"""Figures the reader can move: the data that a cell wrote go into a file of their own, beside the still figure.

`groundup.explore` puts data into a cell's output; the page names them, and the module that draws them, on a
`<div class="explore">` around the still figure. `book/static/explore.js` does the rest, on pages that have one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

from book.extensions import diet
from groundup.explore import MIME

logger = logging.getLogger(__name__)

FOLDER = "explore"
LARGEST = 120_000  # bytes of one figure's data, compressed: a page is to stay under 300 KB
#: rem on wide and on narrow screens: the room that is kept for a figure
SIZE = re.compile(r"^\s*size: \[(\d+), (\d+)\],", re.M)


class explorable(nodes.General, nodes.Element):  # noqa: N801 (docutils names its nodes so)
    """The still figure, with `kind`, `data` (JSON) and `place`, the number of the explorable on its page."""


class Carried:
    """What a cell's output carries for the site: kept until the page is put together."""

    @staticmethod
    def handle_mime(renderer, data, inline: bool) -> list[nodes.Node] | None:
        if data.mime_type != MIME:
            return None
        found = data.content
        return [explorable("", kind=found["kind"], data=json.dumps(found["data"], separators=(",", ":")))]


def _join(app: Sphinx, doctree: nodes.document) -> None:
    """Put each output's still figure into the node that carries its data."""
    for place, node in enumerate(list(doctree.findall(explorable)), 1):
        carried = node.parent
        bundle = carried.parent
        bundle.remove(carried)
        still = next(bundle.findall(nodes.image), None)
        if problem := _problem(node, still):
            logger.warning("the explorable figure “%s” %s", node["kind"], problem, location=bundle)
            continue
        node["place"] = place
        still.replace_self(node)
        node += still


def _problem(node: explorable, still: nodes.image | None) -> str | None:
    module = _module(node["kind"])
    if still is None:
        return "has no still figure; hand `explore` a matplotlib figure"
    if not module.is_file():
        known = ", ".join(sorted(file.stem for file in module.parent.glob("*.js")))
        return f"is drawn by no module; write book/static/explore/{module.name}, or use one of: {known}"
    if not SIZE.search(module.read_text(encoding="utf-8")):
        return f"does not say its room; give {module.name} a line `size: [wide, narrow],` in rem"
    if (size := len(gzip.compress(node["data"].encode(), mtime=0))) > LARGEST:
        return f"has {size:,} bytes of data, compressed; at most {LARGEST:,}: write fewer digits or fewer points"
    return None


def _module(kind: str) -> Path:
    return diet.STATIC / FOLDER / f"{kind}.js"


def visit(self, node: explorable) -> None:
    """Write the data's file, and the opening tag that names it."""
    app, here = self.builder.app, self.builder.current_docname
    data, module = node["data"].encode(), _module(node["kind"])
    name = f"{FOLDER}/{here.replace('/', '-')}-{node['place']}.json"
    file = Path(app.outdir, "_static", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)

    def uri(name: str, content: bytes) -> str:
        stamp = hashlib.sha256(content).hexdigest()[:8]
        return escape(f"{relative_uri(app.builder.get_target_uri(here), f'_static/{name}')}?v={stamp}")

    wide, narrow = SIZE.search(module.read_text(encoding="utf-8")).groups()
    figure = uri(f"{FOLDER}/{module.name}", module.read_bytes())
    self.body.append(
        f'<div class="explore" style="--wide:{wide}rem;--narrow:{narrow}rem" data-kind="{escape(node["kind"])}" '
        f'data-src="{uri(name, data)}" data-module="{figure}">'
    )


def depart(self, node: explorable) -> None:
    self.body.append("</div>\n")


def _script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    if 'class="explore"' in context.get("body", ""):
        app.add_js_file("explore.js", type="module")


def setup(app: Sphinx) -> dict:
    app.add_node(explorable, html=(visit, depart))
    app.connect("doctree-read", _join)
    app.connect("html-page-context", _script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
