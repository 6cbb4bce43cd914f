"""Figures that a reader can move: :func:`explore` shows a figure together with the data behind it.

The fifth hand-written module, beside datasets, plotting, checks and artifacts. JupyterLab, and the site without
JavaScript, show the matplotlib figure; the site puts in its place the module `book/static/explore/<kind>.js`,
which draws the same data and lets the reader change them. What it shows a notebook has computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

MIME = "application/vnd.groundup.explore+json"


def explore(kind: str, data: Mapping[str, Any], figure: plt.Figure | None = None, digits: int = 6) -> None:
    """Show `figure` (the current one if None) as one output that also carries `data` for the site.

    `data` hold numbers, strings, booleans, None, arrays, and lists, tuples and mappings of these; numbers
    are rounded to `digits` significant digits, so that the same run writes the same text.
    Raises ValueError where something else is in `data`, NaN and infinity included.
    """
    from IPython import get_ipython
    from IPython.display import display

    bundle = {MIME: {"kind": kind, "data": plain(data, digits)}}
    figure = figure or plt.gcf()
    if (shell := get_ipython()) is not None:
        formats, metadata = shell.display_formatter.format(figure)
        display(formats | bundle, metadata=metadata, raw=True)
    plt.close(figure)  # or the notebook would show it again


def plain(value: Any, digits: int = 6, where: str = "data") -> Any:
    """`value` as JSON can hold it, numbers rounded; ValueError names the place of what it cannot."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; JSON has no such number: clip it, or leave it out")
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{where} has the key {odd[0]!r}; keys must be strings")
        return {key: plain(item, digits, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ValueError(f"{where} is of type {type(value).__name__}; make it a number, a string, a list or a dict")
