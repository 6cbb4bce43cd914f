"""`python -m book comments …`: what a moderator does, on the machine that keeps the comments; the server may run meanwhile."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def data_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("BOOK_DATA") or ROOT / "comments"),
        metavar="FOLDER",
        help="where the comments are kept; default: comments/ beside the book",
    )


def options(command: argparse.ArgumentParser) -> None:
    data_option(command)


def run(arguments: argparse.Namespace) -> int:
    return 0
