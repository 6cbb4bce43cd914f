"""The figures' JavaScript in node, and the data that the notebooks wrote for them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from book.extensions.diet import STATIC
from book.extensions.maths import node
from groundup.explore import MIME

ROOT = Path(__file__).resolve().parents[2]
RUNNER = """
import { readFileSync } from "node:fs";
const { source, calls } = JSON.parse(readFileSync(0, "utf8"));
const module = await import("data:text/javascript," + encodeURIComponent(source));
console.log(JSON.stringify(calls.map(([name, ...given]) => module[name](...given))));
"""


def run(kind: str, calls: list[list], more: str = "") -> list:
    """What the functions of `book/static/explore/<kind>.js` return: `calls` are [name, argument, …].

    `more` is JavaScript put behind the module, for a loop that a test needs.
    """
    source = (STATIC / "explore" / f"{kind}.js").read_text(encoding="utf-8") + more
    done = subprocess.run(
        [node(), "--input-type=module", "-e", RUNNER],
        input=json.dumps({"source": source, "calls": calls}, allow_nan=False),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(address: str, kind: str) -> dict:
    """The data that the executed chapter `address` wrote for its figure of this kind."""
    path = ROOT / "_build/executed/chapters" / f"{address}.ipynb"
    if not path.is_file():
        pytest.fail(f"{address} is not executed; run `python -m book run {address}` first")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [output["data"][MIME] for cell in cells for output in cell.get("outputs", ()) if MIME in output.get("data", {})]
    return next(each["data"] for each in found if each["kind"] == kind)
