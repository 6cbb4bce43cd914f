"""Open corrections as a Markdown list for an issue: quoted so that nothing in them is markup, a mention or a reference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from urllib.parse import quote

from book.comments.store import Comment
from book.comments.views import NOBODY, utc


def digest(comments: Iterable[Comment], base: str = "") -> str:
    """What is visible and not resolved, by page and section, oldest first; "" if there is nothing."""
    found = [comment for comment in comments if comment.state == "visible" and comment.resolved is None]
    found.sort(key=lambda comment: (comment.page, comment.section or "", comment.id))
    lines = []
    for page, of_page in groupby(found, key=lambda comment: comment.page):
        lines.append(f"- {code(page)}")
        for _, of_section in groupby(of_page, key=lambda comment: comment.section):
            group = list(of_section)
            section = group[0].section
            lines.append(f"  - {code(group[0].section_title or section) if section else 'The page'}")
            for comment in group:
                link = f"{base}/{quote(page)}.html#comment-{comment.id}"
                day = f"{utc(comment.created):%Y-%m-%d}"
                lines.append(f"    - {code(comment.author or NOBODY)}, {day}, [comment {comment.id}]({link})")
                lines += [f"      {line}".rstrip() for line in quoted(comment.text)]
    return "\n".join(lines) + "\n" if lines else ""


def code(text: str) -> str:
    """`text` as code in a line: shown as it is, with more backticks around it than in it."""
    line = " ".join(text.split())
    mark = "`" * (_longest("`", line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{mark}{pad}{line}{pad}{mark}"


def quoted(text: str) -> list[str]:
    """`text` as a block of code, whose fence is longer than any in it."""
    fence = "`" * max(3, _longest("`", text) + 1)
    return [f"{fence}text", *text.split("\n"), fence]


def _longest(mark: str, text: str) -> int:
    return max((len(run) for run in re.findall(f"{mark}+", text)), default=0)
