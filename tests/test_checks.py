"""Checks say what is wrong, never stop a notebook, and cannot be fooled."""

from __future__ import annotations

import json
import threading

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from book import execution, lab, press
from groundup.checks import MIME, CheckFailed, accepts, call, check, ensure, record, rejects


@check(first_step="multiply by two")
def check_double(double):
    x = np.arange(3.0)
    y = call(double, x)
    ensure(x.tolist() == [0, 1, 2], "inputs are copies, so this cannot happen")
    ensure(y.shape == (3,), "the result has another shape")
    ensure(np.allclose(y, [0, 2, 4]), "not twice the input")


def stub(x):
    raise NotImplementedError


def endless(x):
    while True:
        pass


def swallow(x):
    while True:
        try:
            sum(range(1000))
        except Exception:
            pass


def in_place(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (lambda x: 2 * x, "passed", ""),
        (in_place, "passed", ""),
        (lambda x: x, "failed", "not twice the input"),
        (stub, "unsolved", "First step: multiply by two"),
        (..., "unsolved", "First step"),
        (None, "unsolved", "First step"),
        (lambda x: None, "error", "could not use what your answer returned (AttributeError"),
        (lambda x: x + missing, "error", "Your code raised NameError: name 'missing' is not defined"),  # noqa: F821
        (endless, "error", "5 s of processor time"),
        (swallow, "error", "5 s of processor time"),
    ],
)
def test_outcomes(answer, status, words):
    outcome = check_double.outcome(answer)
    assert (outcome.status, words in outcome.message) == (status, True), outcome


def test_calling_a_check_shows_one_line_and_never_raises(capsys):
    for answer in (stub, lambda x: x, lambda x: 1 / 0, lambda x: 2 * x):
        assert check_double(answer) is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1] == "✓ double: passed"
    assert lines[1] == "✗ double: not yet. not twice the input"


def test_what_is_shown_is_escaped_and_readable_by_the_press():
    bundle = check_double.outcome(lambda x: x / "<b>")._repr_mimebundle_()
    assert "<b>'" not in bundle["text/html"].replace("<b>✗", "")
    assert bundle[MIME]["status"] == "error"


def test_a_rejection_must_be_for_its_own_reason():
    rejects(check_double, lambda x: x, match="not twice")
    with pytest.raises(AssertionError, match="accepts a wrong answer"):
        rejects(check_double, lambda x: x + x, match="not twice")
    with pytest.raises(AssertionError, match="refuses for another reason"):
        rejects(check_double, lambda x: x, match="another shape")
    with pytest.raises(AssertionError, match="not a refusal.*TypeError"):
        rejects(check_double, lambda: 0, match="not twice")
    with pytest.raises(AssertionError, match="not a refusal"):
        rejects(check_double, stub, match="not twice")


def test_a_right_answer_must_pass():
    accepts(check_double, lambda x: x + x)
    with pytest.raises(AssertionError, match="refuses a right answer.*not twice"):
        accepts(check_double, lambda x: x)


def test_checks_are_seeded_and_leave_the_generators_alone():
    seen = []

    @check(first_step="none")
    def check_random(answer):
        seen.append(np.random.rand())

    np.random.seed(7)
    expected = np.random.rand(2)
    np.random.seed(7)
    assert np.random.rand() == expected[0]
    check_random.outcome(1)
    check_random.outcome(1)
    assert seen[0] == seen[1] and np.random.rand() == expected[1]


def test_answers_are_copied():
    answer = [1, 2]

    @check(first_step="none")
    def check_list(answer):
        answer.clear()

    check_list.outcome(answer)
    assert answer == [1, 2]


def test_ensure_takes_numpy_truth():
    ensure(np.bool_(True), "no")
    with pytest.raises(CheckFailed, match="no"):
        ensure(np.bool_(False), "no")


# What passed, for the front page of the book


def test_progress_gathers_what_passed(tmp_path):
    file = tmp_path / "progress.json"
    for chapter, name in (("b/two", "z"), ("a/one", "é"), ("b/two", "a"), ("b/two", "z")):
        record(file, chapter, name)
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "passed": {"a/one": ["é"], "b/two": ["a", "z"]}, "format": "ai-from-the-ground-up/progress", "version": 1,
    }  # fmt: skip


@pytest.mark.parametrize("broken", ["{", "[]", '{"passed": 3}', '{"passed": {"a/one": null}}'])
def test_progress_that_cannot_be_understood_is_kept_aside(tmp_path, broken):
    file = tmp_path / "progress.json"
    file.write_text(broken)
    record(file, "a/one", "x")
    assert json.loads(file.read_text())["passed"] == {"a/one": ["x"]}
    assert (tmp_path / "progress.json.broken").read_text() == broken


def test_notebooks_that_run_at_once_lose_nothing(tmp_path):
    file = tmp_path / "progress.json"
    names = [str(i) for i in range(40)]
    threads = [threading.Thread(target=record, args=(file, "a/one", name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(file.read_text())["passed"]["a/one"] == sorted(names)


CELLS = """\
from groundup.checks import check, ensure
@check(first_step="begin")
def check_is_one(x):
    ensure(x == 1, "no")
for answer in (..., 2, 1):
    check_is_one(answer)
@check(first_step="begin")
def check_never(x):
    ensure(False, "no")
check_never(1)
"""


@pytest.mark.parametrize(
    ("session", "found"),
    [
        ("/somewhere/exercises/part/slug.md", {"part/slug": ["is one"]}),
        ("exercises/part/slug.ipynb", {"part/slug": ["is one"]}),
        ("/somewhere/solutions/part/slug.md", None),
        ("/somewhere/scratch.ipynb", None),
        ("", None),
    ],
)
def test_a_kernel_of_the_lab_records_what_passes_in_exercises(small, monkeypatch, session, found):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)])
    file = small.root / "progress.json"
    environment = {**execution.environment(small), "JPY_SESSION_NAME": session, "GROUNDUP_PROGRESS": str(file)}
    NotebookClient(notebook, kernel_name="python3").execute(env=environment)
    outcomes = [output.data[MIME]["status"] for output in notebook.cells[0].outputs]
    assert outcomes == ["unsolved", "failed", "passed", "failed"], "what is shown is as it was"
    assert (json.loads(file.read_text())["passed"] if file.exists() else None) == found


def test_the_press_records_nothing(small, monkeypatch):
    file = small.root / "progress.json"
    monkeypatch.setenv("GROUNDUP_PROGRESS", str(file))  # as in a terminal of JupyterLab
    monkeypatch.setenv("JPY_SESSION_NAME", "exercises/one/adding.md")
    press.prepare(small)
    execution.execute(small, small.of("solutions"), quiet=True)
    assert execution.records(small)["solutions/one/adding"]["checks"]["passed"] and not file.exists()


def test_the_lab_names_the_file(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(lab.os, "execve", lambda program, arguments, environment: said.append(environment))
    lab.lab(tmp_path, lab.free_port(), browser=False)
    assert said[0]["GROUNDUP_PROGRESS"] == str(tmp_path / "progress.json")
