"""`{progress}`: the reader's own progress, which the browser keeps; without JavaScript there is none and nothing shows.

Its text and controls are here; what they do is in book/static/progress.js and path.js.
"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book import exercises
from book.extensions import path
from book.notebooks import Notebook

PANEL = """\
<section class="progress" aria-labelledby="progress-title" hidden>
<h3 id="progress-title">Where you are</h3>
<p class="tally"></p>
<p class="go-on"></p>
<details class="kept"><summary>Keep, move or erase your progress</summary>
<p>It is kept in this browser and sent to nobody: the chapters you mark as read at their end, the exercises whose
checks passed, and where you stopped. <code>make lab</code> writes the checks that pass to <code>progress.json</code>
in the book’s folder. Read that file here, or one that you downloaded; drop it on this box or choose it. It adds
to what is here.</p>
<p class="actions"><button type="button" class="export">Download progress.json</button>
<label class="import">Read a file <input type="file" accept=".json,application/json"></label>
<button type="button" class="erase">Erase</button></p>
</details>
<p class="said" role="status"></p>
<script type="application/json" id="book-checks">%s</script>
</section>"""


def checks(app: Sphinx, name: str) -> list[list[str]]:
    """For each exercise of the chapter `name` the names of its checks."""
    known = app.__dict__.setdefault("book_checks", {})
    if name not in known:
        notebook = Notebook(Path(app.srcdir), f"exercises/{name}")
        there = (notebook.root / notebook.file).is_file()
        known[name] = exercises.checks(notebook) if there else []
    return known[name]


class Progress(SphinxDirective):
    """The panel on the front page."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        app = self.env.app
        app.__dict__.pop("book_checks", None)  # a second build in one process reads the exercises again
        every = {name: checks(app, name) for name in path.chapters(app)}
        return [nodes.raw("", PANEL % json.dumps(every).replace("<", "\\u003c"), format="html")]


def setup(app: Sphinx) -> dict:
    app.add_directive("progress", Progress)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
