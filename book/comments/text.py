"""What a reader typed, made harmless before it is kept: no control characters, nothing invisible that misleads."""

from __future__ import annotations

import re

TEXT = 8000  # characters
AUTHOR = 80
KINDS = ("comment", "question", "correction", "idea")
STATES = ("visible", "pending", "hidden", "deleted")
PAGE = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*", re.ASCII)  # a page's address: no `..`, nothing hidden

# Controls, bidirectional overrides and marks, zero-width characters (not the joiners, which scripts and emoji need),
# invisible tags, interlinear marks, and what XML cannot hold.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufdd0-\ufdef\U000e0000-\U000e0fff]"
    + "|[" + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "]"
)  # fmt: skip
_STACKED = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


def clean(text: str) -> str:
    """`text` with plain line ends, without unwanted characters and without space around it."""
    text = re.sub("\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    text = _STACKED.sub(r"\1", _UNWANTED.sub("", text))
    return re.sub(r"\A(?:[^\S\n]*\n)+|\s+\Z", "", text)  # an indented first line is code


def clean_line(text: str) -> str:
    """The same for what stands in one line: a name, a title."""
    return " ".join(clean(text).split())


def is_blank(text: str) -> bool:
    """True if nothing of it can be seen."""
    return not re.sub("[\\s\u200c\u200d\u2800\u3164\u115f\u1160\uffa0\ufe00-\ufe0f\u034f]", "", text)
