"""`{routes}`: ways through the book for different readers; `{stops}` and `{stop}`: the fast path.

Which chapters a route takes is computed from the cards, and every time from what was measured.

```{routes}
- name: I use RAG at work
  to: [retrieval/rag]
  about: For whom this is.
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book.extensions import exercise, graph, lengths, path, records
from book.notebooks import KINDS

logger = logging.getLogger(__name__)
KEYS = {"name", "to", "about"}


def chapters_of(app: Sphinx, route: dict[str, Any]) -> list[str]:
    """The chapters on `route`, in the order of `_toc.yml`: its targets and all they need. No targets: all."""
    wanted, known = path.prerequisites(app), path.chapters(app)
    return [name for name in graph.closure(wanted, route.get("to") or wanted) if name in known]


def cost(app: Sphinx, names: list[str]) -> tuple[float, int, float | None]:
    """Minutes to read the chapters and to work their exercises, seconds to run all their notebooks (None: not known)."""
    measured, root = records.read(app.srcdir), Path(app.srcdir)
    reading = sum(lengths.minutes(lengths.of(app, f"chapters/{name}")[""][1]) for name in names)
    work, running = 0, 0.0
    for name in names:
        file = root / f"exercises/{name}.md"
        work += sum(exercise.listed(file.read_text(encoding="utf-8"))) if file.is_file() else 0
        for kind in KINDS:
            if (root / f"{kind}/{name}.md").is_file():
                running += measured.get(f"{kind}/{name}", {}).get("seconds", float("nan"))
    return reading, work, None if running != running else running


class Routes(SphinxDirective):
    """One card a route: for whom, how long, and the chapters on it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            routes = self._read()
        except (ValueError, yaml.YAMLError) as error:
            logger.warning("{routes}: %s", " ".join(str(error).split()), location=self.get_location())
            return []
        return [lengths.later("", what="routes", routes=routes)]

    def _read(self) -> list[dict[str, Any]]:
        routes = yaml.safe_load("\n".join(self.content)) or []
        if not isinstance(routes, list) or not all(isinstance(route, dict) for route in routes):
            raise ValueError("write a list of routes, each with name, to and about")
        for route in routes:
            if odd := sorted(route.keys() ^ KEYS - ({"to"} - route.keys())):
                raise ValueError(
                    f"{route.get('name', 'a route')}: {', '.join(odd)} missing or unknown; the keys are name, to, about"
                )
            for target in route.get("to", ()):
                if not Path(self.env.srcdir, f"chapters/{target}.md").is_file():
                    raise ValueError(
                        f"“{route['name']}” leads to {target}, but there is no chapters/{target}.md; write part/slug"
                    )
        return routes


def _routes(app: Sphinx, docname: str, node: Any) -> list[nodes.Node]:
    box = nodes.container("", classes=["routes"])
    for route in node["routes"]:
        names = chapters_of(app, route)
        if not names:
            continue
        reading, work, running = cost(app, names)
        computer = "not measured yet" if running is None else f"{lengths.hours(running / 60)}"
        facts = (("Reading", lengths.hours(reading)), ("Exercises", lengths.hours(work)), ("Computer", computer))
        times = nodes.definition_list("", classes=["times"])
        for what, how_long in facts:
            times += nodes.definition_list_item(
                "", nodes.term("", what), nodes.definition("", nodes.paragraph("", how_long))
            )
        items = nodes.enumerated_list("")
        for name in names:
            items += nodes.list_item("", nodes.paragraph("", "", reference(app, docname, f"chapters/{name}")))
        chapters = f"{len(names)} chapter{'s' * (len(names) > 1)}"
        slug = nodes.make_id(route["name"])
        box += nodes.container(
            "",
            nodes.rubric("", route["name"], classes=["route-name"]),
            nodes.paragraph("", route["about"]),
            times,
            nodes.raw("", f"<details><summary>{chapters}</summary>", format="html"),
            items,
            nodes.raw(
                "",
                f'</details><div class="choose" data-route="{slug}" data-chapters="{" ".join(names)}"></div>',
                format="html",
            ),
            classes=["route"],
        )
    return [box]


def reference(app: Sphinx, here: str, docname: str, anchor: str = "", text: str = "") -> nodes.Node:
    """A link to a page that is known by now, or to a section of it; plain text when this build leaves it out."""
    if docname not in app.env.titles:
        return nodes.Text(text or docname)
    uri = app.builder.get_relative_uri(here, docname) + (f"#{anchor}" if anchor else "")
    shown = text or lengths.of(app, docname).get(anchor, ("",))[0] or app.env.titles[docname].astext()
    return nodes.reference("", "", nodes.inline("", shown), internal=True, refuri=uri)


class Stop(SphinxDirective):
    """The sections of a chapter to read, one anchor a line, with the minutes they take.

    ```{stop} retrieval/rag
    the-problem
    rag-chunking
    ```
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name, sections = self.arguments[0], [line.strip() for line in self.content if line.strip()]
        if not Path(self.env.srcdir, f"chapters/{name}.md").is_file():
            message = "{stop} names %s, but there is no chapters/%s.md; write part/slug"
            logger.warning(message, name, name, location=self.get_location())
            return []
        return [lengths.later("", what="stop", chapter=name, sections=sections, place=self.get_location())]


class Stops(SphinxDirective):
    """How long the page's stops take together; a sum outside `:between: 100 130` (minutes) fails the build."""

    option_spec = {"between": lambda text: tuple(map(int, text.split()))}

    def run(self) -> list[nodes.Node]:
        return [lengths.later("", what="stops", between=self.options.get("between"), place=self.get_location())]


def _seconds(app: Sphinx, stop: Any) -> dict[str, float]:
    """What each section of a stop takes, without those that are not there."""
    known = lengths.of(app, f"chapters/{stop['chapter']}")
    return {anchor: known[anchor][1] for anchor in stop["sections"] if anchor in known}


def _stop(app: Sphinx, docname: str, node: Any) -> list[nodes.Node]:
    chapter, read = f"chapters/{node['chapter']}", _seconds(app, node)
    if not (known := lengths.of(app, chapter)):
        return []
    for anchor in node["sections"]:
        if anchor not in read:
            message = "{stop}: %s has no section “%s”; it has %s"
            logger.warning(message, chapter, anchor, ", ".join(filter(None, known)), location=node["place"])
    head = nodes.paragraph(
        "", "", nodes.strong("", f"Read {lengths.minutes(sum(read.values()))} minutes of "),
        reference(app, docname, chapter), classes=["stop-head"],
    )  # fmt: skip
    items = nodes.bullet_list("")
    for anchor, seconds in read.items():
        minutes = nodes.inline("", f" {lengths.minutes(seconds)} min", classes=["minutes"])
        items += nodes.list_item("", nodes.paragraph("", "", reference(app, docname, chapter, anchor), minutes))
    whole = lengths.minutes(known[""][1])
    name, exercises = node["chapter"], f"exercises/{node['chapter']}"
    back = nodes.paragraph("", "", nodes.Text("Back into depth: "), classes=["depth"])
    back += reference(app, docname, chapter, text=f"the whole chapter, {whole} min")
    if exercises in app.env.titles and (work := exercise.summary(Path(app.srcdir, f"{exercises}.md"))):
        back += [nodes.Text("; "), reference(app, docname, exercises, text=work)]
    if before := path.needs(app).get(name):
        back += nodes.Text("; before it ")
        for i, other in enumerate(before):
            back += [nodes.Text(", " if i else ""), reference(app, docname, f"chapters/{other}")]
    back += nodes.Text(".")
    return [nodes.container("", head, items, back, classes=["stop"])]


def _stops(app: Sphinx, docname: str, node: Any) -> list[nodes.Node]:
    stops = [one for one in node.document.findall(lengths.later) if one["what"] == "stop"]
    total = sum(lengths.minutes(sum(_seconds(app, stop).values())) for stop in stops)
    here = lengths.minutes(lengths.of(app, docname)[""][1])
    low, high = node["between"] or (0, float("inf"))
    if all(lengths.of(app, f"chapters/{stop['chapter']}") for stop in stops) and not low <= total + here <= high:
        message = "the stops take %s minutes and this page %s, not %s to %s together; take sections out or in"
        logger.warning(message, total, here, low, high, location=node["place"])
    words = f"{len(stops)} stops, {total} minutes of reading, and {here} for this page: {total + here} minutes."
    return [nodes.paragraph("", words, classes=["stops"])]


lengths.REPLACE.update(routes=_routes, stop=_stop, stops=_stops)


def setup(app: Sphinx) -> dict:
    app.add_directive("routes", Routes)
    app.add_directive("stop", Stop)
    app.add_directive("stops", Stops)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
