"""The `{exercise}` directive: difficulty, minutes, kind and what it teaches, at the head of an exercise.

```{exercise}
:difficulty: 2
:minutes: 20
:kind: build
:teaches: what moves over the network when a matrix product is sharded
```
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

KINDS = ("build", "predict", "estimate", "debug", "design")


class head(nodes.container):
    """The strip at the head of an exercise."""


def _difficulty(argument: str) -> int:
    if argument.strip() not in ("1", "2", "3"):
        raise ValueError("write 1, 2 or 3 stars")
    return int(argument)


def _minutes(argument: str) -> int:
    if not argument.strip().isdigit() or not 1 <= int(argument) <= 600:
        raise ValueError("write whole minutes, 1 to 600")
    return int(argument)


def _kind(argument: str) -> str:
    return directives.choice(argument, KINDS)


class Exercise(SphinxDirective):
    """Says what kind of work the section it stands in asks for."""

    option_spec = {
        "difficulty": _difficulty,
        "minutes": _minutes,
        "kind": _kind,
        "teaches": directives.unchanged_required,
    }
    has_content = False

    def run(self) -> list[nodes.Node]:
        missing = [name for name in self.option_spec if name not in self.options]
        if missing:
            lines = ", ".join(f":{name}:" for name in missing)
            logger.warning("this exercise has no %s; add it below ```{exercise}", lines, location=self.get_location())
            return []
        stars, minutes = self.options["difficulty"], self.options["minutes"]
        facts = nodes.paragraph("", "", classes=["facts"])
        facts += nodes.raw(
            "",
            f'<span class="stars" role="img" aria-label="difficulty {stars} of 3">{"★" * stars}'
            f'<span class="unlit">{"☆" * (3 - stars)}</span></span>',
            format="html",
        )
        facts += nodes.inline("", f"{minutes} min", classes=["minutes"])
        facts += nodes.inline("", self.options["kind"], classes=["kind"])
        teaches = nodes.paragraph("", "", nodes.inline("", "You practise "), classes=["teaches"])
        parsed, messages = self.parse_inline(self.options["teaches"], lineno=self.lineno)
        teaches += parsed
        strip = head("", facts, teaches, classes=["exercise-head"])
        self.set_source_info(strip)
        return [strip, *messages]


def _mark_sections(app: Sphinx, doctree: nodes.document) -> None:
    """Give the section around each strip the class `exercise`."""
    for strip in doctree.findall(head):
        section = strip.parent
        if not isinstance(section, nodes.section) or isinstance(section.parent, nodes.document):
            logger.warning(
                "{exercise} stands outside a `##` section; give the exercise a title above it", location=strip
            )
        else:
            section["classes"].append("exercise")


def listed(text: str) -> list[int]:
    """The minutes of each exercise in the Markdown `text`."""
    blocks = re.findall(r"^```\{exercise\}\n((?::.*\n)*)", text, re.M)
    return [int(found[1]) for block in blocks if (found := re.search(r"^:minutes: *(\d+)", block, re.M))]


def summary(file: Path) -> str | None:
    """`4 exercises, 85 min` for the notebook `file`; None when it has none."""
    minutes = listed(file.read_text(encoding="utf-8")) if file.is_file() else []
    if not minutes:
        return None
    return f"{len(minutes)} exercise{'s' * (len(minutes) > 1)}, {sum(minutes)} min"


def setup(app: Sphinx) -> dict:
    app.add_node(
        head,
        html=(lambda self, node: self.visit_container(node), lambda self, node: self.depart_container(node)),
    )
    app.add_directive("exercise", Exercise)
    app.connect("doctree-read", _mark_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
