"""`{glossary}` as Markdown writes definition lists: a term on one line, `: its definition` on the next."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.domains.std import Glossary as SphinxGlossary


class Glossary(SphinxGlossary):
    """Sphinx's directive wants definitions indented; `: ` becomes that indentation."""

    def run(self):
        for number, line in enumerate(self.content.data):
            self.content.data[number] = re.sub(r"^:\s+", "  ", line)
        return super().run()


def setup(app: Sphinx) -> dict:
    app.add_directive_to_domain("std", "glossary", Glossary, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
