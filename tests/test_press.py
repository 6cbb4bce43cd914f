"""The press on a small book: export, exercises, execution, keys, artifacts, and every refusal."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest

from book import execution, exercises, export, press
from book.errors import BookError
from book.keys import Keys
from book.notebooks import Book
from groundup import artifacts

ROOT = Path(__file__).resolve().parent.parent


def fails(action, *words):
    """`action()` raises a BookError whose text holds all `words`."""
    with pytest.raises(BookError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


def run(book, only=None, **options):
    press.prepare(book)
    return [nb.address for nb in execution.execute(book, book.select(only), quiet=True, **options)]


def at(book, name, text):
    """`name:line` of the first line that holds `text`."""
    lines = (book.root / name).read_text().splitlines()
    return f"{name}:{next(i for i, line in enumerate(lines, 1) if text in line)}"


# ---- export


def test_export_makes_a_module_that_says_where_it_comes_from(small):
    export.export(small)
    text = (small.root / "groundup/adding.py").read_text()
    assert text.startswith("# Generated from chapters/one/adding.md; edit the chapter.\n")
    assert '"""Adding. You build addition."""' in text
    assert '__all__ = ["add"]' in text
    code = "from groundup import adding; help(adding.add); print(adding.add(1, 2))"
    done = subprocess.run([sys.executable, "-c", code], cwd=small.root, capture_output=True, text=True)
    assert "Add two arrays" in done.stdout and done.stdout.endswith("3\n"), done.stderr


def test_export_check_shows_a_diff_and_writes_nothing(small, edit):
    export.export(small)
    export.export(small, check=True)
    book = edit("chapters/one/adding.md", "return a + b", "return b + a")
    fails(
        lambda: export.export(book, check=True),
        "groundup/adding.py is stale",
        "+    return b + a",
        "python -m book export",
    )
    assert "return a + b" in (small.root / "groundup/adding.py").read_text()
    (small.root / "groundup/gone.py").write_text("")
    fails(lambda: export.export(small, check=True), "groundup/gone.py has no source any more")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    return a + b", "    return helper(a, b)", ["helper", "groundup/adding.py line"]),
        ("def add(", "print('hello')\ndef add(", ["@print('hello')", ": cell 3", "move this statement out"]),
        ("def add(", "RNG = np.random.default_rng(0)\ndef add(", ["@RNG =", ": cell 3", "would run at import"]),
        ("b: np.ndarray)", "b=np.ones(3))", ["@b=np.ones(3)", "would run at import"]),
        ("print(add", "def add(a): ...\n\nprint(add", ["@def add(a): ...", ": cell 5", "defined on line", "_naive"]),
    ],
)
def test_export_rules(edit, old, new, words):
    book = edit("chapters/one/adding.md", old, new)
    places = [at(book, "chapters/one/adding.md", word[1:]) if word[0] == "@" else word for word in words]
    fails(lambda: export.export(book), *places)


def test_export_refuses_a_patched_class(edit):
    book = edit("chapters/one/adding.md", "def add(", "class Sum:\n    pass\n\n\ndef add(")
    (book.root / book.chapters[0].file).write_text(
        book.chapters[0].text + "\n```{code-cell} python\nSum.add = add\n```\n"
    )
    fails(lambda: export.export(Book(book.root)), "the class Sum is patched here")


# ---- exercises


def test_exercise_keeps_the_reader_text_and_drops_solutions(small):
    exercises.exercises(small)
    text = (small.root / "exercises/one/adding.md").read_text()
    assert text.splitlines()[1] == "# Generated from solutions/one/adding.md; edit that file."
    assert "# Exercises: Adding" in text
    assert "raise NotImplementedError" in text and "return a + b + c" not in text
    assert "Wrong turns" not in text and "rejects" not in text and "accepts" not in text
    assert "check_add_three(add_three)" in text
    exercises.exercises(small, check=True)


def test_top_level_answers_become_ellipses(edit):
    book = edit(
        "solutions/one/adding.md",
        "def add_three(a",
        "### BEGIN SOLUTION\nx, y = 1, 2\n### END SOLUTION\ndef add_three(a",
    )
    text = exercises.exercise_text(book.of("solutions")[0])
    assert "x = ...  # your answer here\ny = ...  # your answer here\n" in text


def test_labels_differ_from_those_of_the_solution_page(edit):
    book = edit(
        "solutions/one/adding.md",
        "Add three numbers.",
        "$$ a $$ (eq-a)\n\n$$\nb\n$$ (eq-b)\n\nSee {eq}`eq-a`, not eq-ab.",
    )
    text = exercises.exercise_text(book.of("solutions")[0])
    assert "$$ a $$ (eq-a-exercise)\n\n$$\nb\n$$ (eq-b-exercise)\n\nSee {eq}`eq-a-exercise`, not eq-ab." in text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("check_add_three(add_three)\n```\n\n+++", "pass\n```\n\n+++", ["never called"]),
        ('@check(first_step="add two of them")\ndef check_add_three', "def examine", ["“Add three”", "no check"]),
        ("accepts(check_add_three, lambda *numbers: sum(numbers))", "", ["no other right answer for check_add_three"]),
        ('match="not the sum"', 'match="third number"', ["is also used on line"]),
        ("def add_three", "def add", ["groundup.adding already exports"]),
        ("    ### END SOLUTION\n", "", ["BEGIN SOLUTION without ### END"]),
        ("# Solutions: Adding", "# Adding", ["must start with “Solutions: ”"]),
    ],
)
def test_exercise_rules(edit, old, new, words):
    book = edit("solutions/one/adding.md", old, new)
    fails(lambda: exercises.exercises(book), *words)


def test_exercises_check_shows_a_diff(small, edit):
    exercises.exercises(small)
    book = edit("solutions/one/adding.md", "Add three numbers.", "Add all three.")
    fails(lambda: exercises.exercises(book, check=True), "exercises/one/adding.md is stale", "+Add all three.")


# ---- what is refused before anything runs


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("chapters/one/adding.md", "prerequisites: []", "prerequisites: [", ["adding.md:", "broken front matter"]),
        ("chapters/one/adding.md", "prerequisites: []", "prerequisites: [two/none]", ["“two/none” is no chapter"]),
        ("chapters/one/adding.md", "prerequisites: []", "prerequisites: [one/adding]", ["comes later"]),
        (
            "chapters/one/adding.md",
            "  checked:",
            "  cheked:",
            ["`book: cheked` is unknown", "`book: checked` is missing"],
        ),
        ("chapters/one/adding.md", "  checked:", "  comments: never\n  checked:", ["comments` must be true or false"]),
        ("solutions/one/adding.md", "kernelspec:", "book: {comments: 0}\nkernelspec:", ["comments` must be true or false"]),
        ("chapters/one/adding.md", "[export]", "[exprot]", ["adding.md:", ": cell 3", "unknown tag “exprot”"]),
        (
            "chapters/one/adding.md",
            "  checked:",
            "  needs: [weights]\n  checked:",
            ["“weights”, which no earlier chapter"],
        ),
        ("chapters/one/adding.md", "name: python3}", "name: julia}", ["must name kernelspec python3"]),
        (
            "_toc.yml",
            "one/adding\n        sections",
            "one/other\n        sections",
            ["has no file chapters/one/other.md", "chapters/one/adding.md: not in _toc.yml"],
        ),
        (
            "_toc.yml",
            "              - file: solutions/one/adding\n".replace("              ", "          "),
            "",
            ["has no solutions/one/adding"],
        ),
    ],
)
def test_bad_input_is_named(edit, name, old, new, words):
    book = edit(name, old, new)
    fails(lambda: press.prepare(book), *words)


def test_a_notebook_outside_the_table_of_contents_is_named(small, write):
    write(small.root / "chapters/one/lost.md", "# Lost\n")
    fails(lambda: press.prepare(small), "chapters/one/lost.md: not in _toc.yml")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("from groundup.adding import add", ["does not import its own module"]),
        ("from groundup.nothing import x", ["there is no groundup.nothing"]),
        ("from groundup.plotting import add", ["groundup.plotting exports no “add”; it is in groundup.adding"]),
    ],
)
def test_imports_that_no_earlier_chapter_exports(edit, line, words):
    book = edit("chapters/one/adding.md", "import numpy as np", f"import numpy as np\n{line}")
    fails(lambda: press.prepare(book), "adding.md:", *words)


def test_magics_are_refused(edit):
    book = edit("chapters/one/adding.md", "import numpy as np", "%matplotlib inline")
    fails(lambda: press.prepare(book), at(book, "chapters/one/adding.md", "%matplotlib") + ": cell 2", "magics")


def test_an_unknown_selection_names_what_there_is(small):
    fails(lambda: small.select("two"), "neither a part nor a chapter", "one/adding")


# ---- execution


def test_everything_runs_once_then_nothing(small):
    assert sorted(run(small)) == ["chapters/one/adding", "exercises/one/adding", "solutions/one/adding"]
    record = execution.records(small)["solutions/one/adding"]
    assert record["checks"] == {"passed": 1, "rejected": 2, "accepted": 1}
    assert record["seconds"] > 0 and record["memory"] > 1e7
    assert execution.records(small)["exercises/one/adding"]["checks"] == {"unsolved": 1}
    assert run(Book(small.root)) == []


def test_prose_runs_nothing_and_is_in_the_result(small, edit):
    run(small)
    book = edit("chapters/one/adding.md", "Some prose.", "Better prose.")
    assert run(book) == []
    done = nbformat.read(execution.executed_path(book, "chapters/one/adding"), 4)
    assert "Better prose." in done.cells[3].source and done.cells[4].outputs[0].text == "[2. 2.]\n"


def test_an_edited_solution_runs_its_new_exercise(small, edit):
    run(small)
    book = edit("solutions/one/adding.md", "# Solutions: Adding", "# Solutions: Adding more")
    book = edit("solutions/one/adding.md", "check_add_three(add_three)\n```\n\n+++", "check_add_three(add_three)\nx = 1\n```\n\n+++")
    assert sorted(run(book)) == ["exercises/one/adding", "solutions/one/adding"]
    done = nbformat.read(execution.executed_path(book, "exercises/one/adding"), 4)
    assert any("x = 1" in cell.source for cell in done.cells)


def test_a_cell_that_raises_names_the_line_of_the_chapter(edit):
    book = edit("chapters/one/adding.md", "print(add(", "def f():\n    return 1 / 0\nx = f()\nprint(add(")
    name = "chapters/one/adding.md"
    fails(lambda: run(book), at(book, name, "1 / 0") + ": cell 5: ZeroDivisionError", at(book, name, "x = f()"))


def test_a_kernel_that_dies_is_named(edit):
    book = edit("chapters/one/adding.md", "print(add(", "import os; os.kill(os.getpid(), 9)\nprint(add(")
    fails(lambda: run(book), "chapters/one/adding.md:", "cell 5: the kernel died")


def test_warnings_are_refused(edit):
    book = edit("chapters/one/adding.md", "print(add(", "import warnings; warnings.warn('old name')\nprint(add(")
    fails(lambda: run(book), "printed to stderr", "old name")


def test_a_wrong_turn_that_passes_is_refused(edit):
    book = edit("solutions/one/adding.md", "lambda a, b, c: a * b * c", "lambda a, b, c: c + b + a")
    fails(lambda: run(book), "solutions/one/adding.md:", "accepts a wrong answer that should fail with “not the sum”")


def test_a_right_answer_that_is_refused_is_refused(edit):
    book = edit("solutions/one/adding.md", "lambda *numbers: sum(numbers)", "lambda *numbers: max(numbers)")
    fails(lambda: run(book), "check_add_three refuses a right answer", "not the sum")


def test_a_solution_that_fails_its_check_is_refused(edit):
    book = edit("solutions/one/adding.md", "return a + b + c", "return a + b")
    fails(lambda: run(book), "the third number is missing", "must pass its own check")


def test_a_check_that_passes_on_the_stub_is_refused(edit):
    book = edit(
        "solutions/one/adding.md",
        "    ensure(call(add_three, 1, 2, 4) != 3",
        "    return\n    ensure(call(add_three, 1, 2, 4) != 3",
    )
    book = edit("solutions/one/adding.md", "rejects(", "0 and rejects(")
    fails(lambda: run(book), "exercises/one/adding.md", "add three: passed", "on the stub")


# ---- keys


@pytest.fixture
def second(small, write, edit):
    """The small book with a second chapter that uses the first."""
    chapter = (small.root / "chapters/one/adding.md").read_text()
    two = chapter.replace("# Adding", "# Doubling").replace(
        "import numpy as np", "from groundup.adding import add\nimport numpy as np"
    )
    two = two.replace("def add(a: np.ndarray, b: np.ndarray)", "def double(a: np.ndarray)").replace(
        "return a + b", "return add(a, a)"
    )
    two = two.replace("print(add(np.ones(2), np.ones(2)))", "print(double(np.ones(2)))")
    write(small.root / "chapters/one/doubling.md", two)
    solutions = (small.root / "solutions/one/adding.md").read_text().replace("Solutions: Adding", "Solutions: Doubling")
    write(small.root / "solutions/one/doubling.md", solutions)
    entry = (small.root / "_toc.yml").read_text().split("    chapters:\n")[1]
    (small.root / "_toc.yml").write_text((small.root / "_toc.yml").read_text() + entry.replace("adding", "doubling"))
    return Book(small.root)


def test_the_key_follows_what_is_imported_and_nothing_else(second, edit):
    press.prepare(second)
    chapter = "chapters/one/doubling"
    key = Keys(second).of(second.notebook(chapter))

    def after(old, new):
        book = edit("chapters/one/adding.md", old, new)
        press.prepare(book)
        return Keys(book).of(book.notebook(chapter))

    assert after("Add two arrays of the same shape.", "Add arrays.") == key, "a docstring is prose"
    assert after("    return a + b", "    # by broadcasting\n    return a + b") == key, "a comment is prose"
    assert after("def add(", "def unrelated():\n    return 1\n\n\ndef add(") == key, (
        "another definition does not matter"
    )
    assert after("    return a + b", "    return b + a") != key


def test_the_key_follows_the_pins_of_data(small, edit, write):
    book = edit("chapters/one/adding.md", "print(add(", "name = 'some-data'\nprint(add(")
    notebook = book.notebook("chapters/one/adding")
    write(book.root / "requirements-data.txt", "some-data==1.0 --hash=sha256:00\n")
    key = Keys(book).of(notebook)
    write(book.root / "requirements-data.txt", "some-data==1.1 --hash=sha256:00\n")
    assert Keys(book).of(notebook) != key


# ---- artifacts


@pytest.fixture
def producing(second, edit):
    """`adding` produces an artifact that `doubling` needs."""
    edit("chapters/one/adding.md", "  checked:", "  produces: [sums]\n  checked:")
    edit(
        "chapters/one/adding.md",
        "print(add(",
        "from groundup import artifacts\nartifacts.save('sums', {'s': add(np.ones(2), np.ones(2))})\nprint(add(",
    )
    edit("chapters/one/doubling.md", "  checked:", "  needs: [sums]\n  checked:")
    return edit(
        "chapters/one/doubling.md",
        "print(double(",
        "from groundup import artifacts\nprint(artifacts.load('sums'))\nprint(double(",
    )


def test_producers_run_first_even_when_only_the_consumer_is_asked_for(producing):
    assert run(producing, "doubling")[0] == "chapters/one/adding"
    path = producing.build / "artifacts/sums.safetensors"
    path.unlink()
    assert run(Book(producing.root), "doubling") == ["chapters/one/adding"], "made again; its content is the same"


def test_a_changed_artifact_runs_its_consumers_again(producing, edit):
    run(producing)
    book = edit("chapters/one/adding.md", "np.ones(2))})", "np.zeros(2))})")
    assert "chapters/one/doubling" in run(book)


def test_an_artifact_that_is_not_made_is_named(producing, edit):
    book = edit("chapters/one/adding.md", "artifacts.save(", "print(")
    fails(lambda: run(book), "says it produces “sums” but did not save it", "a notebook it needs failed")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def test_artifacts_come_back_as_they_went_in(shelf):
    import torch

    artifacts.save("a", {"x": np.arange(3), "y": np.eye(2, dtype=np.float32)[:, ::-1]})
    artifacts.save("t", {"x": torch.arange(3, dtype=torch.bfloat16)})
    artifacts.save("j", [{"text": "é", "score": 0.5}])
    a, t = artifacts.load("a"), artifacts.load("t")
    assert a["x"].dtype == np.int64 and np.array_equal(a["y"], [[0, 1], [1, 0]])
    assert t["x"].dtype == torch.bfloat16 and t["x"].tolist() == [0, 1, 2]
    assert artifacts.load("j") == [{"text": "é", "score": 0.5}]
    assert not list(shelf.glob(".*")), "no temporary file is left"


def test_a_missing_or_damaged_artifact_names_the_remedy(shelf):
    with pytest.raises(artifacts.ArtifactError, match="“none” has not been made yet; run: python -m book run"):
        artifacts.load("none")
    artifacts.save("a", {"x": np.arange(3)})
    path = shelf / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(artifacts.ArtifactError, match="damaged"):
        artifacts.load("a")


def test_a_second_run_that_makes_something_else_is_caught(shelf, monkeypatch):
    artifacts.save("a", {"x": np.arange(3), "y": np.ones(2)})
    monkeypatch.setenv("GROUNDUP_VERIFY", "1")
    artifacts.save("a", {"x": np.arange(3), "y": np.ones(2)})
    with pytest.raises(artifacts.ArtifactError, match=r"different “a” \(y\)"):
        artifacts.save("a", {"x": np.arange(3), "y": np.zeros(2)})
    assert artifacts.load("a")["y"].sum() == 2, "verifying writes nothing"


def _square(x):
    return {"x": x**2}


Number = int | float


def _halve(x: Number) -> dict:
    return {"x": np.array(x) / 2}


def test_cached_work_may_name_a_union_of_types(shelf):
    assert artifacts.cached("half", _halve, 3)["x"] == 1.5


CELL = """
from dataclasses import dataclass
from functools import cache

@dataclass(frozen=True)
class Scale:
    factor: int = 2

class Doubler(Scale):
    def __call__(self, x):
        return x * self.factor + offset(1)

@cache
def offset(x: int) -> int:
    '''x and one'''
    return x + 1

def make(x: int) -> dict:
    model = Doubler()
    return {"x": model(x)}
"""
SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from groundup import artifacts
shell = InteractiveShell.instance()
for cell in (sys.argv[1], "model = object()  # a name that `make` has for itself"):
    shell.run_cell(cell).raise_error()
print(artifacts._call_key(shell.user_ns["make"], (3,)))
"""


def test_a_notebook_and_the_library_key_the_same_work_alike(tmp_path, monkeypatch):
    def in_a_notebook(cell):
        done = subprocess.run([sys.executable, "-c", SHELL, cell], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    file = tmp_path / "some_chapter.py"
    file.write_text(CELL.replace("x and one", "x, and one"))  # the formatter writes some docstrings anew
    spec = importlib.util.spec_from_file_location("groundup.some_chapter", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "groundup.some_chapter", module)
    spec.loader.exec_module(module)
    key = artifacts._call_key(module.make, (3,))
    assert key == in_a_notebook(CELL)
    for old, new in (("x * self", "x + self"), ("int = 2", "int = 3"), ("x + 1", "x + 2")):
        assert key != in_a_notebook(CELL.replace(old, new)), f"{new} is not followed"


def test_cached_work_is_done_once_per_argument(shelf, monkeypatch):
    artifacts.cached("squares", _square, np.arange(3))
    before = (shelf / "squares.safetensors").stat().st_mtime_ns
    assert artifacts.cached("squares", _square, np.arange(3))["x"].tolist() == [0, 1, 4]
    assert (shelf / "squares.safetensors").stat().st_mtime_ns == before, "not made again"
    assert artifacts.cached("squares", _square, np.arange(4))["x"].tolist() == [0, 1, 4, 9]
    monkeypatch.setattr(artifacts.importlib.metadata, "version", lambda name: "another")
    artifacts.cached("squares", _square, np.arange(4))
    assert (shelf / "squares.safetensors").stat().st_mtime_ns != before, "made again for other packages"


def _slowly(log: str) -> dict:
    with open(log, "a", encoding="utf-8") as file:
        file.write("made\n")
    time.sleep(0.5)
    return {"x": np.arange(3)}


def test_cached_work_is_done_once_by_all_who_need_it_at_the_same_time(shelf, tmp_path):
    log = tmp_path / "log"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: artifacts.cached("slow", _slowly, str(log)), range(4)))
    assert [f["x"].tolist() for f in found] == [[0, 1, 2]] * 4
    assert log.read_text() == "made\n"


def test_cached_work_that_is_damaged_is_done_again(shelf):
    artifacts.cached("squares", _square, np.arange(3))
    path = shelf / "squares.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert artifacts.cached("squares", _square, np.arange(3))["x"].tolist() == [0, 1, 4]


def test_records_are_json_with_what_the_card_shows(small):
    run(small)
    record = json.loads((small.build / "executed/records.json").read_text())["chapters/one/adding"]
    assert {"seconds", "memory", "when", "machine", "cells", "checks", "key"} == record.keys()


def test_a_kernel_that_does_not_come_up_is_started_again():
    said = iter([RuntimeError("Kernel died before replying to kernel_info")] * 2 + [None, RuntimeError("another")])

    def execute():
        error = next(said)
        if error:
            raise error
        return 7

    assert execution._with_a_kernel(execute) == 7
    with pytest.raises(RuntimeError, match="another"):
        execution._with_a_kernel(execute)
    with pytest.raises(RuntimeError, match="kernel_info"):
        execution._with_a_kernel(lambda: (_ for _ in ()).throw(RuntimeError("died before replying to kernel_info")))
