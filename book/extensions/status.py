"""`{status}`: a table of every notebook with its run time, memory, checks and last execution."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from book.extensions import records
from book.extensions.card import link
from book.extensions.path import children, parts
from book.notebooks import KINDS

HEADINGS = ("Notebook", "Run time", "Peak memory", "Cells", "Checks", "Last executed")
PENDING = "not measured yet"


class Status(SphinxDirective):
    """One row for each notebook of `_toc.yml`, in reading order, and what they take together."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        measured = records.read(self.env.srcdir)
        self.env.book_status = self.env.docname
        pages = [
            page
            for _, top in parts(self.env.app)
            for parent in top
            for page in (parent, *children(self.env.app, parent))
            if page.split("/")[0] in KINDS and page in self.env.found_docs
        ]
        rows = [self._row(page, measured.get(page)) for page in pages]
        known = [measured[page] for page in pages if page in measured]
        words = "No notebook has been executed yet."
        if known:
            machines = sorted({record["machine"] for record in known if record.get("machine")})
            words = (
                f"{len(known)} of {len(pages)} notebooks executed, "
                f"{records.duration(sum(record['seconds'] for record in known))} of run time altogether"
                f"{', on ' + ' and '.join(machines) if machines else ''}, one thread each."
            )
        return [nodes.paragraph("", words), self._table(rows)]

    def _row(self, page: str, record: dict | None) -> list[nodes.Node | str]:
        if record is None:
            return [link(page), PENDING, "", "", "", ""]
        checks = ", ".join(f"{count} {status}" for status, count in (record.get("checks") or {}).items() if count)
        return [
            link(page),
            records.duration(record["seconds"]),
            records.size(record["memory"]),
            str(record.get("cells", "")),
            checks,
            records.day(record["when"]) if record.get("when") else "",
        ]

    def _table(self, rows: list[list[nodes.Node | str]]) -> nodes.table:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in HEADINGS), cols=len(HEADINGS))
        group += nodes.thead("", _line(HEADINGS))
        group += nodes.tbody("", *(_line(row) for row in rows))
        return nodes.table("", group, classes=["status"])


def _line(cells) -> nodes.row:
    return nodes.row(
        "",
        *(
            nodes.entry("", nodes.paragraph("", "", nodes.Text(cell) if isinstance(cell, str) else cell))
            for cell in cells
        ),
    )


def _outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    page = getattr(env, "book_status", None)
    return [page] if page in env.found_docs else []


def setup(app: Sphinx) -> dict:
    app.add_directive("status", Status)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
