"""A small book in a temporary folder, for tests that break things."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

import hypothesis
import pytest

from book.notebooks import HAND_WRITTEN, Book

ROOT = Path(__file__).resolve().parent.parent

# derandomize: a red run is red again; deadline off: CI machines stall
hypothesis.settings.register_profile("book", derandomize=True, deadline=None)
hypothesis.settings.load_profile("book")

FRONT = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
"""

CARD = """\
book:
  description: "A small chapter."
  prerequisites: []
  builds: "a thing"
  checked: "another thing"
"""

CHAPTER = f"""\
{FRONT}{CARD}---

# Adding

You build addition.

```{{code-cell}} python
import numpy as np
```

```{{code-cell}} python
:tags: [export]

def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    \"\"\"Add two arrays of the same shape.\"\"\"
    return a + b
```

Some prose.

```{{code-cell}} python
print(add(np.ones(2), np.ones(2)))
```
"""

SOLUTIONS = f"""\
{FRONT}---

# Solutions: Adding

What they ask.

```{{code-cell}} python
from groundup.checks import accepts, call, check, ensure, rejects
```

## Add three

```{{exercise}}
:difficulty: 1
:minutes: 5
:kind: build
:teaches: to add
```

Add three numbers.

```{{code-cell}} python
def add_three(a, b, c):
    \"\"\"The sum of three numbers.\"\"\"
    ### BEGIN SOLUTION
    return a + b + c
    ### END SOLUTION
```

```{{code-cell}} python
:tags: [hide-input]
@check(first_step="add two of them")
def check_add_three(add_three):
    ensure(call(add_three, 1, 2, 4) != 3, "the third number is missing")
    ensure(call(add_three, 1, 2, 4) == 7, "not the sum")
```

```{{code-cell}} python
check_add_three(add_three)
```

+++ {{"tags": ["solution-only"]}}

### Wrong turns

```{{code-cell}} python
:tags: [solution-only]
rejects(check_add_three, lambda a, b, c: a + b, match="third number")
rejects(check_add_three, lambda a, b, c: a * b * c, match="not the sum")
accepts(check_add_three, lambda *numbers: sum(numbers))
```
"""


@pytest.fixture
def write():
    """Write a file, its folders with it."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def small(tmp_path, write) -> Book:
    """A book of one chapter, `one/adding`, with its generated files not yet written."""
    root = tmp_path / "book"
    shutil.copytree(
        ROOT / "groundup",
        root / "groundup",
        ignore=lambda _, names: [
            n for n in names if n.removesuffix(".py") not in ("__init__", *HAND_WRITTEN)
        ],
    )
    write(root / "chapters/one/adding.md", CHAPTER)
    write(root / "solutions/one/adding.md", SOLUTIONS)
    write(
        root / "_toc.yml",
        """\
        format: jb-book
        root: index
        parts:
          - caption: One
            chapters:
              - file: chapters/one/adding
                sections:
                  - file: exercises/one/adding
                  - file: solutions/one/adding
        """,
    )
    write(root / "index.md", "# Small\n")
    return Book(root)


@pytest.fixture
def edit(small):
    """Replace text in a file of the small book, and return the book read anew."""

    def edit(name: str, old: str, new: str) -> Book:
        path = small.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} does not contain {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return Book(small.root)

    return edit


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """What a press that runs around the tests has set must not reach the books they make."""
    for name in [n for n in os.environ if n.startswith("GROUNDUP_")]:
        monkeypatch.delenv(name)
