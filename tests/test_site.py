"""The checks on a built site catch what they are for, and a failed build leaves the last good site."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from book import site, testing
from book.errors import BookError


@pytest.fixture
def html(tmp_path, write) -> Path:
    write(tmp_path / "html/a.html", '<h1 id="top">A</h1><a href="b/c.html#here">c</a><img src="p.svg" alt="A picture">')
    write(tmp_path / "html/b/c.html", '<h2 id="here">C</h2><a href="../a.html">a</a><code>{ref}`x`</code><span class="pasted-text">3</span>')
    write(tmp_path / "html/p.svg", "<svg/>")
    return tmp_path / "html"


def test_a_good_site_has_no_problems(html):
    assert list(site.problems_of(html)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<a href="gone.html">', "links to gone.html, which does not exist"),
        ('<a href="b/c.html#gone">', "links to b/c.html#gone, but that page has no such anchor"),
        ('<img src="p.svg">', "has no alt text"),
        ('<img src="q.svg" alt="Q">', "loads q.svg, which does not exist"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js from elsewhere"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "from elsewhere"),
        ('<i id="top"></i>', "the id “top” occurs twice"),
        ('<span class="katex-error" title="no \\foo"></span>', "KaTeX cannot render: no \\foo"),
        ("<p>see {numref}`fig-x`</p>", "markup was left unrendered"),
        ("<p>$$ x $$</p>", "markup was left unrendered"),
        ('<span class="pasted-text"></span>', "a glued value shows nothing"),
    ],
)
def test_what_is_wrong_is_named(html, text, words):
    with (html / "a.html").open("a") as page:
        page.write(text)
    assert any(words in problem and problem.startswith("a.html") for problem in site.problems_of(html))


def test_what_the_server_answers_need_not_be_in_the_site(html):
    with (html / "a.html").open("a") as page:
        page.write('<a href="/-/comments/on/a">comments</a>')
    assert list(site.problems_of(html)) == []


def test_style_sheets_load_nothing_from_elsewhere(html, write):
    write(html / "s.css", "@font-face { src: url(https://fonts.example/f.woff2) }")
    assert any("s.css: loads https://fonts.example/f.woff2" in problem for problem in site.problems_of(html))


def test_publishing_swaps_a_link_and_keeps_the_one_before(small, write):
    for number in range(4):
        write(small.build / "new/index.html", f"{number}")
        site.publish(small, small.build / "new", f"key{number}")
        assert (site.published(small) / "index.html").read_text() == str(number)
    assert site.published(small).is_symlink()
    assert len(os.listdir(small.build / "sites")) == site.KEPT


def publish_good(small, write):
    write(small.build / "good/index.html", "good")
    site.publish(small, small.build / "good", "old")


@pytest.mark.parametrize(
    "log", ["echo 'chapters/x.md:3: WARNING: broken'; exit 1", "echo 'Executing notebook using local CWD'"]
)
def test_a_failed_build_leaves_the_last_good_site(small, write, monkeypatch, tmp_path, log):
    publish_good(small, write)
    fake = write(tmp_path / "bin/python", f"#!/bin/sh\n{log}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(site.sys, "executable", str(fake))
    monkeypatch.setattr(site.execution, "fill_cache", lambda *_: None)
    with pytest.raises(BookError, match="chapters/x.md:3: WARNING: broken|executed a notebook"):
        site.build(small)
    assert (site.published(small) / "index.html").read_text() == "good"


def test_what_a_build_leaves_behind_does_not_hold_it_up(small, write, monkeypatch, tmp_path):
    fake = write(tmp_path / "bin/python", "#!/bin/sh\nsleep 60 &\necho done\n")
    fake.chmod(0o755)
    monkeypatch.setattr(site.sys, "executable", str(fake))
    started = time.monotonic()
    assert site.jupyter_book(small, small.build / "out", [], quiet=True) == "done"
    assert time.monotonic() - started < 30


def test_a_selection_keeps_its_chapters_and_the_other_pages(small):
    text = site._toc_of(small, {"chapters/one/adding"}).read_text()
    assert "chapters/one/adding" in text and "exercises/one/adding" not in text and "root: index" in text


def test_without_a_browser_ci_fails_and_a_reader_is_told(small, monkeypatch, capsys):
    monkeypatch.setattr(testing, "chromium", lambda: None)
    for name in ("prepare",):
        monkeypatch.setattr(testing.press, name, lambda *a, **k: None)
    monkeypatch.setattr(testing.execution, "execute", lambda *a, **k: [])
    monkeypatch.setattr(testing.site, "build", lambda *a, **k: True)
    monkeypatch.setattr(testing, "nbval", lambda *a: None)
    monkeypatch.setattr(testing, "_run", lambda *a, **k: None)
    monkeypatch.delenv("CI", raising=False)
    assert testing.test(small) == 0
    assert "browser tests are skipped: no Chromium" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    with pytest.raises(BookError, match="no Chromium found"):
        testing.test(small)
