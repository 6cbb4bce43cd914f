"""Checks for exercises: they say what is probably wrong, and never stop the notebook.

A check is a function of the reader's answer, marked with :func:`check`::

    @check(first_step="subtract the largest entry of each row before exp")
    def check_softmax(softmax):
        x = np.array([[0.0, 1000.0]])
        p = call(softmax, x)
        ensure(np.isfinite(p).all(), "overflow: exp(1000) is infinite; shift the logits first")

Inside a check, hand inputs to the answer through :func:`call`, which copies them, and state
what must hold with :func:`ensure`. Calling ``check_softmax(softmax)`` in a notebook shows one
line. In a solution notebook, :func:`rejects` and :func:`accepts` prove the check itself.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import html
import json
import linecache
import os
import random
import re
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIME = "application/vnd.groundup.check+json"
CPU_SECONDS = 5  # processor time one check may take


class CheckFailed(AssertionError):
    """What a check raises when the answer is wrong; its text is shown to the reader."""


class _OutOfTime(BaseException):
    """Not an `Exception`, so an answer's own `except Exception` cannot swallow it."""


@dataclass(frozen=True)
class Outcome:
    """What a check found: `status` is "passed", "failed", "unsolved" or "error"."""

    name: str
    status: str
    message: str

    _MARKS = {
        "passed": ("✓", "passed"),
        "failed": ("✗", "not yet"),
        "error": ("✗", "stopped with an error"),
        "unsolved": ("○", "not solved yet"),
        "rejected": ("✗", "rejected, as it should be"),
        "accepted": ("✓", "accepted: another right answer"),
    }

    def __str__(self) -> str:
        mark, words = self._MARKS[self.status]
        return f"{mark} {self.name}: {words}" + (f". {self.message}" if self.message else "")

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        mark, words = self._MARKS[self.status]
        message = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message))
        tail = f" <span>{message}</span>" if message else ""
        return {
            "text/plain": str(self),
            "text/html": f'<p class="check check-{self.status}" role="status"><b>{mark} '
            f"{html.escape(self.name)}: {words}.</b>{tail}</p>",
            MIME: {"name": self.name, "status": self.status, "message": self.message},
        }


def ensure(condition: Any, message: str) -> None:
    """Raise :class:`CheckFailed` with `message` unless `condition` is true."""
    if not bool(condition):
        raise CheckFailed(message)


def call(answer: Callable, /, *args: Any, **kwargs: Any) -> Any:
    """Call the reader's `answer` on deep copies, so that it cannot change the check's inputs."""
    return answer(*copy.deepcopy(args), **copy.deepcopy(kwargs))


class Check:
    """A check with its first step; call it on an answer to see the outcome."""

    def __init__(self, body: Callable[..., None], first_step: str):
        functools.update_wrapper(self, body)
        self._body = body
        self.first_step = first_step
        self.name = body.__name__.removeprefix("check_").replace("_", " ")

    def __call__(self, *answers: Any) -> None:
        """Check `answers` and show one line; never raises for a wrong answer."""
        _show(self.outcome(*answers))

    def outcome(self, *answers: Any) -> Outcome:
        """Check `answers` and return the :class:`Outcome` without showing it."""
        unsolved = Outcome(self.name, "unsolved", f"First step: {self.first_step}")
        if any(a is ... or a is None for a in answers):
            return unsolved
        try:
            with _seeded(), _cpu_limit(CPU_SECONDS):
                self._body(*copy.deepcopy(answers))
        except CheckFailed as failed:
            return Outcome(self.name, "failed", str(failed))
        except NotImplementedError:
            return unsolved
        except _OutOfTime:
            return Outcome(
                self.name,
                "error",
                f"It used {CPU_SECONDS} s of processor time without finishing: "
                "does a loop never end, or do more work than the statement asks?",
            )
        except Exception as error:
            return Outcome(self.name, "error", self._explain(error))
        return Outcome(self.name, "passed", "")

    def _explain(self, error: Exception) -> str:
        what = f"{type(error).__name__}: {error}"
        frames = traceback.extract_tb(error.__traceback__)
        bodies = [i for i, f in enumerate(frames) if (f.filename, f.name) == self._place]
        below = frames[bodies[-1] + 1 :] if bodies else frames
        if not below or (below[0].filename != __file__ and "site-packages" in below[0].filename):
            return f"The check could not use what your answer returned ({what}). Look at its type and shape."
        theirs = [f for f in below if f.filename != __file__ and "site-packages" not in f.filename]
        line = linecache.getline(theirs[-1].filename, theirs[-1].lineno or 0).strip() if theirs else ""
        return f"Your code raised {what}" + (f", at “{line}”." if line else ".")

    @property
    def _place(self) -> tuple[str, str]:
        return self._body.__code__.co_filename, self._body.__name__


def check(*, first_step: str) -> Callable[[Callable[..., None]], Check]:
    """Mark a function of the reader's answer as a check.

    `first_step` is what a reader who has not started should do first; it is shown while the
    answer is still `...`, None, or raises NotImplementedError.
    """
    return lambda body: Check(body, first_step)


def rejects(check: Check, *wrong: Any, match: str) -> None:
    """Prove that `check` refuses `wrong` with a message that contains `match`; show that message.

    Raises AssertionError when the wrong answer passes, when it merely crashes (a NameError is
    not a rejection), or when the message is about something else.
    """
    outcome = check.outcome(*wrong)
    if outcome.status == "passed":
        raise AssertionError(f"{check.__name__} accepts a wrong answer that should fail with “{match}”")
    if outcome.status != "failed":
        raise AssertionError(
            f"{check.__name__} should refuse this answer with “{match}”, but it is not a refusal: {outcome}"
        )
    if match not in outcome.message:
        raise AssertionError(f"{check.__name__} refuses for another reason: “{outcome.message}”, not “{match}”")
    _show(Outcome(check.name, "rejected", outcome.message))


def accepts(check: Check, *right: Any) -> None:
    """Prove that `check` takes `right`, a right answer of another structure.

    Raises AssertionError with the check's message when it does not.
    """
    outcome = check.outcome(*right)
    if outcome.status != "passed":
        raise AssertionError(f"{check.__name__} refuses a right answer: {outcome}")
    _show(Outcome(check.name, "accepted", ""))


def _show(outcome: Outcome) -> None:
    try:
        from IPython.display import display
    except ImportError:
        print(outcome)
    else:
        display(outcome)


@contextmanager
def _seeded() -> Iterator[None]:
    """Run with Python's and NumPy's global generators seeded, and put their states back after."""
    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    """Interrupt after `seconds` of processor time: a busy machine does not make a check fail."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum, frame):
        raise _OutOfTime

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def record(file: Path | str, chapter: str, name: str) -> None:
    """Add to the progress `file` that the check `name` of `chapter` (part/slug) has passed.

    The file is what the book's front page reads. One that cannot be understood is kept beside it as `….broken`.
    """
    file = Path(file)
    with _locked(file.with_name(f".{file.name}.lock")):
        try:
            progress = json.loads(file.read_text(encoding="utf-8"))
            passed = {key: set(names) for key, names in progress["passed"].items()}
        except FileNotFoundError:
            progress, passed = {}, {}
        except (ValueError, KeyError, TypeError, AttributeError):
            os.replace(file, file.with_name(f"{file.name}.broken"))
            progress, passed = {}, {}
        if name in passed.setdefault(chapter, set()):
            return
        passed[chapter].add(name)
        progress |= {"format": "ai-from-the-ground-up/progress", "version": 1}
        progress["passed"] = {key: sorted(names) for key, names in sorted(passed.items())}
        new = file.with_name(f".{file.name}.new")
        new.write_text(json.dumps(progress, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(new, file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other notebook writes; where files cannot be locked, do not wait."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def _keep_progress() -> None:
    """In an exercise notebook that `make lab` opened, record each check that passes.

    `make lab` sets GROUNDUP_PROGRESS, the press takes it away; Jupyter names the notebook in JPY_SESSION_NAME.
    Outcomes are read from what the notebook displays, so no check knows of this.
    """
    file, session = os.environ.get("GROUNDUP_PROGRESS"), os.environ.get("JPY_SESSION_NAME", "")
    found = re.search(r"(?:^|/)exercises/([a-z0-9-]+/[a-z0-9-]+)\.(?:md|ipynb)$", session.replace("\\", "/"))
    if not file or not found:
        return
    from IPython import get_ipython

    def see(message: dict) -> dict:
        outcome = (message.get("content") or {}).get("data", {}).get(MIME)
        if outcome and outcome["status"] == "passed":
            try:
                record(file, found[1], outcome["name"])
            except OSError as error:
                warnings.warn(f"{file} was not written: {error}", stacklevel=2)
        return message

    publisher = getattr(get_ipython(), "display_pub", None)
    if hasattr(publisher, "register_hook"):  # a kernel's
        publisher.register_hook(see)


_keep_progress()
