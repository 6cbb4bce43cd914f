"""What the press measured: `_build/executed/records.json` and the executed notebooks beside it.

`{"chapters/foundations/calculus": {"seconds": 8.1, "memory": 210000000, "when": "2026-01-31T10:00:00+00:00",
"machine": "AMD EPYC 7B13", "checks": {"passed": 4}, "cells": 31}}`
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError

EXECUTED = Path("_build/executed")


def read(root: Path | str) -> dict[str, dict[str, Any]]:
    """Every notebook's record by address; empty before the first execution."""
    file = Path(root) / EXECUTED / "records.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ExtensionError(f"{file}: {error}; delete the file and run `make serve` again") from None


def notebook(root: Path | str, address: str) -> Path | None:
    """The executed notebook of `address`, if it has been executed."""
    file = Path(root) / EXECUTED / f"{address}.ipynb"
    return file if file.is_file() else None


def duration(seconds: float) -> str:
    """`8.4 s`, `0.3 s`, `74 s`."""
    return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"


def size(octets: float) -> str:
    """`210 MB`, `1.4 GB`."""
    return f"{octets / 1e6:.0f} MB" if octets < 1e9 else f"{octets / 1e9:.1f} GB"


def day(when: str) -> str:
    """`31 Jan 2026`."""
    moment = datetime.fromisoformat(when)
    return f"{moment.day} {moment:%b %Y}"
