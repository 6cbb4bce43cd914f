"""A new chapter from the template passes everything that a finished one must."""

from __future__ import annotations

import pytest

from book import execution, new, press
from book.errors import BookError
from book.notebooks import Book


@pytest.mark.parametrize("name", ["one/taking-away", "two/first-steps"])
def test_a_new_chapter_passes(small, name):
    press.prepare(small)
    new.new(Book(small.root), name)
    book = Book(small.root)
    press.prepare(book, check=True)
    part, slug = name.split("/")
    assert [nb.address for nb in execution.execute(book, book.select(name), quiet=True)]
    assert execution.records(book)[f"solutions/{name}"]["checks"] == {"passed": 1, "rejected": 2, "accepted": 1}
    assert book.order[-3:] == [f"{kind}/{name}" for kind in ("chapters", "exercises", "solutions")]
    if part == "one":
        assert book.notebook(f"chapters/{name}").card["prerequisites"] == ["one/adding"]


@pytest.mark.parametrize(
    ("name", "words"), [("attention", "is not part/slug"), ("One/x", "is not part/slug"), ("two/adding", "already")]
)
def test_a_bad_name_is_refused(small, name, words):
    with pytest.raises(BookError, match=words):
        new.new(small, name)
    assert not (small.root / "chapters/two").exists()


@pytest.mark.parametrize("kind", ["chapters", "solutions", "exercises"])
def test_a_file_that_is_there_is_not_overwritten(small, write, kind):
    mine = write(small.root / kind / "one/hard-work.md", "hours of work\n")
    with pytest.raises(BookError, match=f"{kind}/one/hard-work.md exists already"):
        new.new(Book(small.root), "one/hard-work")
    assert mine.read_text() == "hours of work\n"
    assert "hard-work" not in (small.root / "_toc.yml").read_text()
