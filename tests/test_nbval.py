"""nbval catches an output that was tampered with, and an artifact that is different when made again."""

from __future__ import annotations

import nbformat
import pytest

from book import execution, press, testing
from book.errors import BookError
from book.notebooks import Book


@pytest.fixture
def ran(small, edit):
    book = edit("chapters/one/adding.md", "  checked:", "  produces: [sums]\n  checked:")
    book = edit(
        "chapters/one/adding.md",
        "print(add(",
        "from groundup import artifacts\nartifacts.save('sums', {'s': add(np.ones(2), np.ones(2))})\nprint(add(",
    )
    press.prepare(book)
    execution.execute(book, book.notebooks, quiet=True)
    return Book(book.root)


def test_an_honest_book_passes(ran):
    testing.nbval(ran)


def test_a_tampered_output_is_caught(ran, capfd):
    path = execution.executed_path(ran, "chapters/one/adding")
    notebook = nbformat.read(path, 4)
    cell = next(c for c in notebook.cells if c.get("outputs"))
    cell.outputs[0].text = cell.outputs[0].text.replace("2.", "3.")
    nbformat.write(notebook, path)
    with pytest.raises(BookError, match="pytest failed"):
        testing.nbval(ran, path)
    assert "[3. 3.]" in capfd.readouterr().out


def test_an_artifact_that_differs_is_caught(ran, capfd):
    from groundup import artifacts

    path = ran.build / "artifacts"
    key = artifacts.describe("sums", path)["key"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_ARTIFACTS", str(path))
        patch.setenv("GROUNDUP_KEY", key)
        artifacts.save("sums", {"s": artifacts.load("sums")["s"] + 1})
    with pytest.raises(BookError, match="pytest failed"):
        testing.nbval(ran, execution.executed_path(ran, "chapters/one/adding"))
    assert "a second run made a different" in capfd.readouterr().out
