"""Checks say what is wrong, never stop a notebook, and cannot be fooled."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.checks import MIME, CheckFailed, accepts, call, check, ensure, rejects


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
