"""Where pages are published: `book/pages/glossary.md` at `/glossary.html`, all others where they lie."""

from __future__ import annotations

from io import StringIO

from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.search import IndexBuilder, js_index
from sphinx.util.osutil import os_path

PAGES = "book/pages/"


def published(docname: str) -> str:
    """The address, without suffix, at which `docname` is published."""
    return docname.removeprefix(PAGES)


class Builder(StandaloneHTMLBuilder):
    """Sphinx's HTML builder, with the book's own pages at the root of the site."""

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return super().get_target_uri(published(docname), typ)

    def get_outfilename(self, pagename: str) -> str:
        return str(self.outdir / (os_path(published(pagename)) + self.out_suffix))

    def prepare_writing(self, docnames: set[str]) -> None:
        super().prepare_writing(docnames)
        if self.indexer is not None:
            self.indexer.__class__ = Index  # made inside the method above, without a hook


class Index(IndexBuilder):
    """A search index that speaks of published addresses on disk, of docnames inside Sphinx."""

    def freeze(self) -> dict:
        frozen = super().freeze()
        return frozen | {"docnames": [published(name) for name in frozen["docnames"]]}

    def load(self, stream, format) -> None:
        frozen = js_index.load(stream)
        names = {published(name): name for name in self.env.all_docs}
        frozen["docnames"] = [names.get(name, name) for name in frozen["docnames"]]
        super().load(StringIO(js_index.dumps(frozen)), js_index)


def _page_url(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    base = app.config.html_baseurl
    context["pageurl"] = base.rstrip("/") + "/" + app.builder.get_target_uri(pagename) if base else None


def _sitemap(app: Sphinx, error: Exception | None) -> None:
    """`sitemap.xml`, when the site knows its own address (`html: baseurl` in `_config.yml`)."""
    base = app.config.html_baseurl
    if error or not base or app.builder.name != "html":
        return
    urls = "".join(
        f"<url><loc>{base.rstrip('/')}/{app.builder.get_target_uri(name)}</loc></url>\n"
        for name in sorted(app.env.found_docs)
    )
    (app.outdir / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n',
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict:
    app.add_builder(Builder, override=True)
    app.connect("html-page-context", _page_url, priority=800)
    app.connect("build-finished", _sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
