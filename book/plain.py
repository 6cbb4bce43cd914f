"""Markup that the site and its readers' comments share."""

from __future__ import annotations

import re


def plain_code(page: str) -> str:
    """`page` without the marks that Pygments puts on names, operators and spaces: the book gives them no colour."""
    return re.sub(r'<span class="(?:n|nn|o|p|si|w)">([^<]*)</span>', r"\1", page)
