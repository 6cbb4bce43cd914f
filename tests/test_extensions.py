"""The Sphinx side of the site: each extension alone, and one small strict build of all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from book import node, server
from book.extensions import addresses, card, diet, exercise, figures, maths, records
from book.extensions import comments as extensions_comments
from book.site import problems_of
from groundup import plotting

ROOT = Path(__file__).parents[1]
FRONT = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
"""
SVG = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="460.8pt" height="259.2pt" viewBox="0 0 460.8 259.2">
 <metadata><rdf:RDF>made by matplotlib</rdf:RDF></metadata>
 <!-- a comment -->
 <path id="DejaVuSans-41" d="M 160 320 L 320 320 Q 480 640 160 640 z" transform="scale(0.015625)"/>
 <path d="M 10.123456 20.000001
L -0.5 3" style="fill: #2563a8; stroke: #D9DDE2"/>
 <g transform="translate(41.7984375 7.2) scale(0.1234567)"><text style="fill: #123456">text 1.23456</text></g>
</svg>
"""


def test_pages_of_the_book_are_published_at_the_root():
    assert addresses.published("book/pages/glossary") == "glossary"
    assert addresses.published("chapters/foundations/calculus") == "chapters/foundations/calculus"


def test_every_colour_of_the_plots_has_its_dark_counterpart():
    svg = "".join(f'<path style="fill: {light.upper()}"/>' for light in plotting.DARK)
    dark = figures.recolour(svg, plotting.DARK)
    assert re.findall(r"#\w+", dark) == list(plotting.DARK.values())
    assert figures.recolour("fill: #123456; url(#ffffff0)", plotting.DARK) == "fill: #123456; url(#ffffff0)"


def test_minified_svg_keeps_what_is_drawn():
    small = figures.minify(SVG)
    for gone in ("metadata", "DOCTYPE", "<?xml", "a comment", "> <"):
        assert gone not in small
    assert 'd="M 10.12 20 L -0.5 3"' in small
    assert "translate(41.8 7.2) scale(0.1234567)" in small
    assert ">text 1.23456<" in small
    assert 'd="m10 20l10 0q10 20-10 20z" transform="scale(.25)"' in small  # a letter: relative, in steps of 1/400 em


def test_sizes_of_images(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    assert figures.dimensions(tmp_path / "a.svg") == (614, 346)
    (tmp_path / "b.svg").write_text('<svg width="100%" viewBox="0 0 20.4 10"></svg>')
    assert figures.dimensions(tmp_path / "b.svg") == (20, 10)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x00\x00\x00\x01\x00")
    assert figures.dimensions(tmp_path / "c.png") == (512, 256)
    (tmp_path / "d.svg").write_text("<svg></svg>")
    assert figures.dimensions(tmp_path / "d.svg") is None


def test_exercises_are_counted(tmp_path):
    file = tmp_path / "calculus.md"
    assert exercise.summary(file) is None
    block = "```{{exercise}}\n:difficulty: 1\n:minutes: {}\n:kind: build\n:teaches: x\n```\n"
    file.write_text(block.format(20))
    assert exercise.summary(file) == "1 exercise, 20 min"
    file.write_text(block.format(20) + "\ntext\n\n" + block.format(5))
    assert exercise.summary(file) == "2 exercises, 25 min"


@pytest.mark.parametrize(
    ("option", "wrong", "message"),
    [("_difficulty", "4", "1, 2 or 3"), ("_minutes", "soon", "whole minutes"), ("_kind", "guess", "build")],
)
def test_exercise_options_say_what_is_allowed(option, wrong, message):
    with pytest.raises(ValueError, match=message):
        getattr(exercise, option)(wrong)


def test_measurements_are_shown_in_units():
    assert [records.duration(s) for s in (0.31, 8.13, 74.4)] == ["0.3 s", "8.1 s", "74 s"]
    assert [records.size(b) for b in (210e6, 1.44e9)] == ["210 MB", "1.4 GB"]
    assert records.day("2026-01-31T10:00:00+00:00") == "31 Jan 2026"
    assert card._measured(None) == "not measured yet"


def test_broken_records_name_the_file(tmp_path):
    assert records.read(tmp_path) == {}
    (tmp_path / "_build/executed").mkdir(parents=True)
    (tmp_path / "_build/executed/records.json").write_text("{")
    with pytest.raises(Exception, match="records.json.*delete the file"):
        records.read(tmp_path)


def test_unused_rules_go_and_used_ones_stay():
    css = ".sd-a,.sd-b{x:1}.sd-c .k{y:2}.own{z:3}@media print{.sd-b{w:4}}@media screen{.sd-a:not(.sd-z){v:5}}"
    assert diet.without_unused(css, {"sd-a"}, "sd-") == ".sd-a{x:1}.own{z:3}@media screen{.sd-a:not(.sd-z){v:5}}"


def test_minified_css_keeps_meaning():
    assert diet.minify("/* c */ a > b { margin : 0 1px ; }\n:root { --a: calc(1px + 2px); }") == (
        "a>b{margin : 0 1px}:root{--a: calc(1px + 2px)}"
    )


def test_stamps_are_replaced_not_added():
    page = '<link href="../_static/site.css?v=old"><script src="../_static/book.js"></script><a href="x.css">'
    stamped = diet._stamp(page, {"site.css": "aa", "book.js": "bb"})
    assert '_static/site.css?v=aa"' in stamped and '_static/book.js?v=bb"' in stamped and 'href="x.css"' in stamped
    assert diet._stamp(stamped, {"site.css": "aa", "book.js": "bb"}) == stamped


def test_names_lose_their_marks_and_keywords_keep_them():
    code = '<span class="k">def</span><span class="w"> </span><span class="n">f</span><span class="katex">x</span>'
    assert diet.plain_code(code) == '<span class="k">def</span> f<span class="katex">x</span>'


def test_characters_of_formulas_are_found():
    page = 'text <span class="katex-html" aria-hidden="true"><span>α<span>&lt;</span></span></span> ω'
    assert diet.formula_text(page) == "α<"


def test_a_missing_katex_names_the_remedy(tmp_path):
    with pytest.raises(Exception, match="npm ci"):
        maths.assets(tmp_path)
    (tmp_path / "node_modules/katex").mkdir(parents=True)
    (tmp_path / "node_modules/katex/package.json").write_text('{"version": "0.1.0"}')
    with pytest.raises(Exception, match="0.1.0.*same version"):
        maths.assets(tmp_path)


def test_node_is_found_without_one_on_the_path(monkeypatch):
    monkeypatch.setattr(node.shutil, "which", lambda name: None)
    assert Path(node.node()).is_file()


def test_fonts_named_by_the_style_sheets_exist():
    for sheet in diet.STYLES.glob("*.css"):
        for name in re.findall(r"url\(([^)]+)\)", sheet.read_text(encoding="utf-8")):
            assert (diet.STATIC / name).is_file(), f"{sheet.name} names {name}"


# One strict build of a small book, nothing executed: every directive, and what it refuses

PAGES = {
    "_toc.yml": """
format: jb-book
root: book/pages/index
parts:
  - caption: Foundations
    chapters:
      - file: chapters/part/one
        sections:
          - file: exercises/part/one
          - file: solutions/part/one
  - caption: Reference
    chapters:
      - file: book/pages/glossary
      - file: book/pages/status
""",
    "book/pages/index.md": "# The book\n\nFor whom.\n\n```{path}\n```\n",
    "book/pages/glossary.md": "# Glossary\n\n```{glossary}\nvector\n: numbers in order, $v$\n\nnorm\n: a length\n```\n",
    "book/pages/status.md": "# Status\n\n```{status}\n```\n",
    "book/pages/references.bib": "",
    "chapters/part/one.md": FRONT
    + """book:
  description: "One thing & another."
  prerequisites: []
  assumes: "School algebra."
  builds: "a *norm* in `one` line"
  checked: "`numpy`'s own"
---

# Chapter one

The promise.

A {term}`vector`, $x^2$.

$$ a = b $$ (eq-one)
""",
    "exercises/part/one.md": FRONT + "book: {comments: false}\n---\n\n# Exercises: Chapter one\n\nWork.\n\n## First\n\nEXERCISE\n",
    "solutions/part/one.md": FRONT + "---\n\n# Solutions: Chapter one\n\nWork.\n\n## First\n\nEXERCISE\n",
}
EXERCISE = "```{exercise}\n:difficulty: 2\n:minutes: 20\n:kind: build\n:teaches: a *thing*\n```\n\nStatement."


MEASURED = {
    "chapters/part/one": {
        "seconds": 8.1, "memory": 2.1e8, "when": "2026-01-31T10:00:00+00:00", "machine": "A CPU", "cells": 3,
        "checks": {"passed": 2},
    }
}  # fmt: skip


def build(root: Path, pages: dict = PAGES, measured: dict = MEASURED, **changes: str) -> tuple[int, str]:
    """Write the small book under `root`, with `changes` to its text, and build it strictly."""
    for name, text in pages.items():
        for old, new in {"EXERCISE": EXERCISE, **changes}.items():
            text = text.replace(old, new)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    settings = (ROOT / "_config.yml").read_text(encoding="utf-8")
    for old, new in changes.items():
        settings = settings.replace(old, new)
    (root / "_config.yml").write_text(settings, encoding="utf-8")
    for name in ("extensions", "static"):
        (root / "book" / name).symlink_to(ROOT / "book" / name)
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    executed = root / "_build/executed/chapters/part/one.ipynb"
    executed.parent.mkdir(parents=True)
    executed.write_text("{}")
    (root / "_build/executed/records.json").write_text(json.dumps(measured))
    result = subprocess.run(
        [Path(sys.executable).parent / "jupyter-book", "build", root, "--all", "-W", "-n", "--keep-going"],
        capture_output=True, text=True, cwd=root, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(root)},
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


needs_katex = pytest.mark.skipif(
    not (ROOT / "node_modules/katex").is_dir(), reason="KaTeX is not installed: run `make test`, or `npm ci`"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("site")
    code, log = build(root)
    assert code == 0, log
    return root / "_build/html"


@needs_katex
def test_the_small_book(site):
    chapter = (site / "chapters/part/one.html").read_text(encoding="utf-8")
    assert '<dl class="simple chapter-card">' in chapter
    assert "1 min to read; 8.1 s to run, 210 MB peak, on A CPU, 1 thread" in chapter
    assert "1 exercise, 20 min" in chapter
    assert 'href="../../_downloads/chapters/part/one.ipynb" download' in chapter
    assert (site / "_downloads/chapters/part/one.ipynb").is_file()
    assert "<math" in chapter and 'class="eqno">(1)' in chapter
    assert 'name="description" content="One thing &amp; another."' in chapter
    assert 'href="../../glossary.html#term-vector"' in chapter

    home = (site / "index.html").read_text(encoding="utf-8")
    assert "One thing &amp; another." in home and 'href="chapters/part/one.html"' in home

    solutions = (site / "solutions/part/one.html").read_text(encoding="utf-8")
    assert "These are solutions" in solutions and 'aria-label="difficulty 2 of 3"' in solutions
    assert '<section class="exercise"' in solutions

    status = (site / "status.html").read_text(encoding="utf-8")
    assert "8.1 s" in status and "2 passed" in status and "not measured yet" in status


@needs_katex
def test_pages_load_only_what_they_need(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link rel="(?:stylesheet|preload)")[^>]*?(?:src|href)="([^"]+)"', text)
        assert not [url for url in loaded if "://" in url], page
        scripts = {re.search(r"([\w.-]+)\.js", url)[1] for url in loaded if ".js" in url}
        search = {Path(name).stem for name in diet.SEARCH} | {"searchindex"} if page.name == "search.html" else set()
        path = {"path"} if page.name == "index.html" else set()
        hover = {"hover"} if "std-term" in text or "bibliography.html#" in text else set()
        comments = {"comments"} if '<section class="comments"' in text else set()
        explore = {"explore"} if 'class="explore"' in text else set()
        assert scripts == {"book", "progress"} | search | path | hover | comments | explore, page
        for url in loaded:
            assert (page.parent / url.split("?")[0]).is_file(), (page, url)
    assert not list(site.rglob("*.map")) and not list(site.rglob("*fontawesome*"))
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert '"index"' in index and "book/pages" not in re.search(r'"docnames": \[[^\]]*\]', index)[0]


def assert_fails_with(built: tuple[int, str], *expected: str) -> None:
    """The build failed, and its log has a match for each of the patterns."""
    code, log = built
    assert code != 0
    log = re.sub(r"\x1b\[\d+m", "", log)
    for pattern in expected:
        assert re.search(pattern, log), f"{pattern}\n{log}"


@needs_katex
def test_what_is_wrong_fails_the_build_with_file_and_remedy(tmp_path):
    changes = {
        "$x^2$": "$\\nosuchmacro$",
        "prerequisites: []": "prerequisites: [part/nothing]",
        "EXERCISE": "```{exercise}\n:difficulty: 9\n```\n\n```{exercise}\n:kind: build\n```",
        "{term}`vector`": "{term}`absent`",
    }
    assert_fails_with(
        build(tmp_path, **changes),
        r"chapters/part/one.md:\d+: WARNING: KaTeX cannot set “\\nosuchmacro”",
        r"chapters/part/one.md:1: WARNING: `book: prerequisites` names part/nothing.*write part/slug",
        r"exercises/part/one.md:\d+.*write 1, 2 or 3 stars",
        r"exercises/part/one.md:\d+: WARNING: this exercise has no :difficulty:, :minutes:, :teaches:; add it",
        r"term not in glossary: 'absent'",
    )


def section_of(page: Path) -> str | None:
    """The comments' section of a page, with what is in it."""
    found = re.search(r'<section class="comments".*?</section>', page.read_text(encoding="utf-8"), re.S)
    return found and found[0]


GISCUS = "provider: giscus\n    giscus: {repo: owner/name, repo_id: R_1, category: Book & page, category_id: D_1}"


@needs_katex
def test_pages_of_notebooks_take_comments(site):
    with_comments = {page.relative_to(site).as_posix() for page in site.rglob("*.html") if section_of(page)}
    assert with_comments == {"chapters/part/one.html", "solutions/part/one.html"}, "the exercises opted out"
    section = section_of(site / "chapters/part/one.html")
    assert 'data-provider="embedded" data-page="chapters/part/one"' in section
    assert 'aria-labelledby="comments-title"' in section and '<h2 id="comments-title">' in section
    assert '<noscript><p><a href="/-/comments/on/chapters/part/one">' in section
    katex = re.search(r'data-katex-href="([^"?]+)\?v=\w{8}"', section)
    style = site / "chapters/part" / katex[1]
    fonts = re.findall(r"url\(([^)]+)\)", style.read_text(encoding="utf-8"))
    assert len(fonts) == 20
    for font in fonts:
        ours, theirs = style.parent / font, ROOT / "node_modules/katex/dist" / font
        assert ours.read_bytes() == theirs.read_bytes(), "whole: a reader may write any letter"
    assert not (site / "_static/giscus.js").exists()
    found = server.threads_of(site)
    assert sorted(f"{name}.html" for name in found) == sorted(with_comments)
    assert found["solutions/part/one"]["first"] == "First"


def test_katex_of_comments_leaves_the_page_alone():
    css = extensions_comments.katex_style(
        '@font-face{font-family:KaTeX_A;src:url(fonts/KaTeX_A.woff2) format("woff2"),url(fonts/KaTeX_A.ttf) format("truetype")}'
        ".katex{font:1em KaTeX_A,serif}.katex-body .x{y:z}body{counter-reset:a}"
    )
    assert css == (
        '@font-face{font-family:KaTeX_Whole_A;src:url(fonts/KaTeX_A.woff2) format("woff2")}'
        ":where(.thread,.preview){.katex{font:1em KaTeX_Whole_A,serif}.katex-body .x{y:z}}"
    )


@needs_katex
def test_giscus_with_its_ids(tmp_path):
    code, log = build(tmp_path, **{"provider: embedded": GISCUS, "comments: false": "comments: true"})
    assert code == 0, log
    site = tmp_path / "_build/html"
    for kind in ("chapters", "exercises", "solutions"):
        page = site / f"{kind}/part/one.html"
        section = section_of(page)
        for part in (
            'data-provider="giscus"', f'data-page="{kind}/part/one"', 'data-repo="owner/name"', 'data-repo-id="R_1"',
            'data-category="Book &amp; page"', 'data-category-id="D_1"', "https://github.com/owner/name/discussions",
        ):  # fmt: skip
            assert part in section
        scripts = re.findall(r'<script[^>]*src="[^"]*?([\w-]+\.js)', page.read_text(encoding="utf-8"))
        assert set(scripts) - {"progress.js", "hover.js"} == {"book.js", "giscus.js"}, "giscus's own script is not in the page: ours asks for it"
    assert not (site / "_static/katex").exists() and not (site / "_static/comments.js").exists()
    assert server.threads_of(site) == {}
    assert list(problems_of(site)) == []


@needs_katex
def test_giscus_without_ids_publishes_without_comments_and_says_so(tmp_path):
    code, log = build(tmp_path, **{"provider: embedded": "provider: giscus\n    giscus: {repo: owner/name}"})
    assert code == 0, log
    told = [line for line in log.splitlines() if "comments are left out" in line]
    assert len(told) == 1 and "https://giscus.app" in told[0]
    page = tmp_path / "_build/html/chapters/part/one.html"
    assert "Comments are not set up yet" in section_of(page) and 'data-provider="none"' in section_of(page)
    assert "giscus.js" not in page.read_text(encoding="utf-8")


@needs_katex
def test_no_provider_leaves_no_trace(tmp_path):
    code, log = build(tmp_path, **{"provider: embedded": "provider: none"})
    assert code == 0, log
    site = tmp_path / "_build/html"
    assert not [page for page in site.rglob("*.html") if section_of(page)]
    assert not (site / "_static/comments.js").exists() and not (site / "_static/katex").exists()


def test_an_unknown_provider_fails_the_build_with_a_remedy(tmp_path):
    code, log = build(tmp_path, **{"provider: embedded": "provider: disqus"})
    assert code != 0
    assert re.search(r"comments: provider: 'disqus' is not one of embedded, giscus, none", log), log


def test_a_renderer_that_does_not_listen_yet_is_started_again(monkeypatch):
    processes = []

    def get():
        processes.append(maths.katex.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        if len(processes) < 3:
            raise ConnectionRefusedError
        return "renderer"

    monkeypatch.setattr(maths.katex, "Popen", None)
    monkeypatch.setattr(maths.katex.KaTeXServer, "get", get)
    assert maths._renderer(tries=3) == "renderer"
    assert [process.poll() is None for process in processes] == [False, False, True], "what failed is ended"
    processes.pop().kill()
    processes.clear()
    with pytest.raises(ConnectionRefusedError):
        maths._renderer(tries=2)
