"""Small sites on the disk, and how one is published in the place of another."""

from __future__ import annotations

import os
from pathlib import Path


def write_files(folder: Path, files: dict[str, str]) -> Path:
    """Write each name's text below `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def publish(link: Path, folder: Path) -> None:
    """Let `link` lead to `folder`, in one step."""
    new = link.with_name("new")
    new.symlink_to(folder)
    os.replace(new, link)
