"""The site that the browser tests look at."""

from __future__ import annotations

from pathlib import Path

from book.notebooks import Book
from book.site import published

ROOT = Path(__file__).resolve().parents[2]
SITE = published(Book(ROOT))


def page_names() -> list[str]:
    """Every page of the site, as its address below the root."""
    names = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts)
    return names or ["index.html"]
