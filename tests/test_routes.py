"""The path through the book: the map is the cards' prerequisites, the hours are sums, and stale names fail the build."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_extensions import FRONT, PAGES, ROOT, assert_fails_with, build, needs_katex

from book import exercises
from book.extensions import graph, lengths, path
from book.notebooks import Book


@st.composite
def orders(draw, most: int = 14) -> dict[str, list[str]]:
    """What each of some names needs, of those before it."""
    count = draw(st.integers(1, most))
    return {
        f"n{i}": draw(st.lists(st.sampled_from([f"n{j}" for j in range(i)]), max_size=4, unique=True)) if i else []
        for i in range(count)
    }


def reach(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Every pair that a chain of `edges` joins, by adding until nothing is new."""
    found = set(edges)
    while new := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= new
    return found


def pairs(needs: dict[str, list[str]]) -> set[tuple[str, str]]:
    return {(above, name) for name, found in needs.items() for above in found}


@given(orders())
def test_a_reduced_graph_says_the_same_with_the_fewest_lines(needs):
    less = pairs(graph.reduced(needs))
    assert reach(less) == reach(pairs(needs))
    assert all(reach(less - {edge}) != reach(less) for edge in less)


def test_what_a_smaller_build_leaves_out_still_joins_its_neighbours():
    every = {"a": [], "b": ["a"], "c": ["b"]}
    assert graph.closure(every, ["c"]) == ["a", "b", "c"] and graph.closure(every, []) == []
    assert graph.reduced({"a": [], "c": ["gone", "a"]}) == {"a": [], "c": ["a"]}


def test_a_circle_is_named():
    with pytest.raises(ValueError, match="a needs b needs a: a circle"):
        graph.reduced({"a": ["b"], "b": ["a"]})


def points(line: str) -> list[tuple[float, float]]:
    """Points on an SVG path of M, V and C, a fraction of a unit apart."""
    x = y = 0.0
    found = []
    for command, text in re.findall(r"([MVC])([^MVC]+)", line):
        numbers = [float(number) for number in text.split()]
        if command == "M":
            x, y = numbers
        elif command == "V":
            found += [(x, y + (numbers[0] - y) * i / 200) for i in range(201)]
            y = numbers[0]
        else:
            (x0, y0), (x1, y1, x2, y2, x3, y3) = (x, y), numbers
            for i in range(401):
                t = i / 400
                weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
                found.append(
                    tuple(
                        sum(w * v for w, v in zip(weights, values)) for values in ((x0, x1, x2, x3), (y0, y1, y2, y3))
                    )
                )
            x, y = x3, y3
    return found


def holds(box: graph.Box, point: tuple[float, float], margin: float) -> bool:
    return abs(point[0] - box.x) < box.width / 2 + margin and abs(point[1] - box.y) < box.height / 2 + margin


def looks_right(drawing: graph.Drawing) -> None:
    boxes = list(drawing.boxes.values())
    for i, one in enumerate(boxes):
        assert one.x - one.width / 2 >= 0 and one.x + one.width / 2 <= drawing.width + 0.1
        assert one.y - one.height / 2 >= 0 and one.y + one.height / 2 <= drawing.height + 0.1
        for other in boxes[i + 1 :]:
            apart = (
                abs(one.x - other.x) - (one.width + other.width) / 2,
                abs(one.y - other.y) - (one.height + other.height) / 2,
            )
            assert max(apart) > 8, f"{one.name} and {other.name} touch"
    for (above, below), line in drawing.lines.items():
        found = points(line)
        for end, point, side in ((above, found[0], 1), (below, found[-1], -1)):
            box = drawing.boxes[end]
            assert abs(point[1] - (box.y + side * box.height / 2)) < 0.2 and abs(point[0] - box.x) < box.width / 2, (
                "loose"
            )
        for box in boxes:
            inside = -0.2 if box.name in (above, below) else 3
            assert not any(holds(box, point, inside) for point in found), f"{above} to {below} runs through {box.name}"


@given(orders())
def test_no_line_runs_through_a_box(needs):
    looks_right(graph.draw(graph.reduced(needs), {name: f"Chapter {name}" for name in needs}))


def test_the_map_of_this_book():
    cards = {chapter.name: list(chapter.card["prerequisites"]) for chapter in Book(ROOT).chapters}
    titles = {chapter.name: chapter.title for chapter in Book(ROOT).chapters}
    drawing = graph.draw(graph.reduced(cards), titles)
    looks_right(drawing)
    assert drawing.width <= 880, "wider than the front page: it would be scaled below its type size"
    drawn = path.svg(drawing, titles, {name: f"{name}.html" for name in titles}, titles)
    edges = set(re.findall(r'data-from="([^"]+)" data-to="([^"]+)"', drawn))
    assert reach(edges) == reach(pairs(cards)) and len(edges) < len(pairs(cards))
    assert re.findall(r'<a href="[^"]+" data-chapter="([^"]+)"', drawn) == list(titles), "in reading order"
    for name, above in graph.reduced(cards).items():
        label = html.unescape(re.search(rf'data-chapter="{name}".*?aria-label="([^"]+)"', drawn)[1])
        assert label.startswith(titles[name]) and all(titles[one] in label for one in above)


def test_hours_are_exact_when_short():
    shown = {0.2: "1 min", 59: "59 min", 60: "1 h", 82: "1 h 20 min", 178: "3 h", 179.9: "3 h", 200: "3 h", 999: "17 h"}
    assert {minutes: lengths.hours(minutes) for minutes in shown} == shown


def test_checks_are_named_as_they_are_shown():
    notebook = Book(ROOT).notebook("exercises/foundations/linear-algebra")
    assert exercises.checks(notebook)[3] == ["two layers"]
    assert all(exercises.checks(each) and all(exercises.checks(each)) for each in Book(ROOT).of("exercises"))


# A strict build of three chapters

SECTION = "\n\n".join(["word " * 100] * 5)


def chapter(title: str, prerequisites: str, sections: int) -> str:
    card = f'book:\n  description: "d"\n  prerequisites: [{prerequisites}]\n  builds: "b"\n  checked: "c"\n---\n'
    return f"{FRONT}{card}\n# {title}\n\nThe promise.\n" + "".join(
        f"\n## Part {i}\n\n{SECTION}\n" for i in range(1, sections + 1)
    )


INDEX = """# The book

For whom.

```{progress}
```

```{routes}
- name: To the second
  to: [part/two]
  about: For some.
- name: All
  about: For others.
```

```{map}
```

```{path}
```
"""
FAST = """# Fast

```{stops}
:between: 4 20
```

```{stop} part/one
part-1
part-2
```
"""
WORK = "```{exercise}\n:difficulty: 1\n:minutes: 25\n:kind: build\n:teaches: x\n```\n\nDo."
BOOK = PAGES | {
    "_toc.yml": PAGES["_toc.yml"]
    .replace(
        "  - caption: Reference",
        "      - file: chapters/part/two\n      - file: chapters/part/three\n  - caption: Reference",
    )
    .replace("      - file: book/pages/status", "      - file: book/pages/fast\n      - file: book/pages/status"),
    "book/pages/index.md": INDEX,
    "book/pages/fast.md": FAST,
    "chapters/part/one.md": chapter("One", "", 3),
    "chapters/part/two.md": chapter("Two", "part/one", 2),
    "chapters/part/three.md": chapter("Three", "part/one, part/two", 1),
    "exercises/part/one.md": PAGES["exercises/part/one.md"].replace("EXERCISE", WORK),
    "solutions/part/one.md": PAGES["solutions/part/one.md"].replace("EXERCISE", WORK),
}


SECONDS = {f"{kind}/part/one": 100.0 for kind in ("chapters", "exercises", "solutions")} | {"chapters/part/two": 200.0}
MEASURED = {
    name: {"seconds": seconds, "memory": 1, "when": "2026-01-31T10:00:00+00:00", "cells": 1, "checks": {}}
    for name, seconds in SECONDS.items()
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("path")
    code, log = build(root, BOOK, MEASURED)
    assert code == 0, log
    return root / "_build/html"


def text(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def minutes(site: Path, name: str) -> int:
    """What a chapter's own card says."""
    page = (site / f"chapters/{name}.html").read_text(encoding="utf-8")
    return int(re.search(r"(\d+) min to read", page)[1])


@needs_katex
def test_routes_hold_what_their_targets_need_and_sum_what_was_measured(site):
    page = (site / "index.html").read_text(encoding="utf-8")
    short, every = re.findall(r'<div class="route docutils container">(.*?data-chapters="[^"]*")', page, re.S)
    assert re.search(r'data-route="([^"]+)" data-chapters="([^"]+)"', short).groups() == (
        "to-the-second",
        "part/one part/two",
    )
    assert re.search(r'data-chapters="([^"]+)"', every)[1] == "part/one part/two part/three"
    read = minutes(site, "part/one") + minutes(site, "part/two")
    assert read > 4
    assert f"Reading {read} min Exercises 25 min Computer {round(sum(SECONDS.values()) / 60)} min 2 chapters" in text(
        short
    )
    assert f"Reading {read + minutes(site, 'part/three')} min" in text(every)
    assert "Computer not measured yet" in text(every), "no sum of what is not known"
    assert 'href="chapters/part/two.html"' in short


@needs_katex
def test_the_front_page_draws_and_lists_what_needs_what(site):
    page = (site / "index.html").read_text(encoding="utf-8")
    edges = re.findall(r'data-from="([^"]+)" data-to="([^"]+)"', page)
    assert sorted(edges) == [("part/one", "part/two"), ("part/two", "part/three")]
    assert 'aria-label="Three, needs Two"' in page and 'aria-label="One, needs nothing"' in page
    assert "Needs Two" in text(page) and json.loads(re.search(r'id="book-checks">(.*?)</script>', page)[1]) == {
        "part/one": [[]], "part/two": [], "part/three": [],
    }  # fmt: skip


@needs_katex
def test_the_fast_path_sums_its_sections(site):
    page = text((site / "fast.html").read_text(encoding="utf-8"))
    read, here, whole = map(
        int, re.search(r"1 stops?, (\d+) minutes of reading, and (\d+) for this page: (\d+)", page).groups()
    )
    assert read == 5 and read + here == whole  # two sections of 500 words, at 200 a minute
    assert f"Read {read} minutes of One" in page and f"the whole chapter, {minutes(site, 'part/one')} min" in page
    markup = (site / "fast.html").read_text(encoding="utf-8")
    assert 'href="chapters/part/one.html#part-2"' in markup and "1 exercise, 25 min" in page


@needs_katex
def test_stale_names_fail_the_build_with_file_and_remedy(tmp_path):
    changes = {
        "to: [part/two]": "to: [part/gone]",
        "part-2\n": "part-gone\n",
        ":between: 4 20": ":between: 100 130",
        "```\n\n```{stop} part/one": "```\n\n```{stop} part/absent\npart-1\n```\n\n```{stop} part/one",
    }
    assert_fails_with(
        build(tmp_path, BOOK, MEASURED, **changes),
        r"index.md:\d+: WARNING: \{routes\}: “To the second” leads to part/gone, but there is no chapters/part/gone.md",
        r"fast.md:\d+: WARNING: \{stop\} names part/absent, but there is no chapters/part/absent.md; write part/slug",
        r"fast.md:\d+: WARNING: \{stop\}: chapters/part/one has no section “part-gone”; it has .*part-1",
        r"fast.md:\d+: WARNING: the stops take 2 minutes and this page 1, not 100 to 130 together; take sections out or in",
    )


@needs_katex
def test_needs_that_go_round_fail_the_build(tmp_path):
    code, log = build(tmp_path, BOOK, MEASURED, **{"prerequisites: []": "prerequisites: [part/three]"})
    assert code != 0 and re.search(r"`book: prerequisites`: part/\w+ needs .*: a circle; take one of them out", log), (
        log
    )
