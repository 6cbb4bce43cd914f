"""One look for every figure of the book.

Call :func:`setup` once at the top of a notebook. Figures are SVG with a transparent ground;
the site swaps the colours named here for their dark counterparts (`DARK`), so use these names
or matplotlib's colour cycle, never other colours for text and lines.
"""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2563a8", "#c2540a", "#2e7d4f", "#7a4fa3", "#b3263a", "#6b7280"
INK, MUTED, GRID, PAPER = "#1f2328", "#57606a", "#d9dde2", "#ffffff"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)

#: light colour -> the colour the site shows in its dark theme
DARK = {
    BLUE: "#6cb0f5",
    ORANGE: "#f5a05a",
    GREEN: "#6fcf97",
    PURPLE: "#c09be8",
    RED: "#f08090",
    GREY: "#9aa3af",
    INK: "#e6e3dd",
    MUTED: "#a9b1ba",
    GRID: "#3a4048",
    PAPER: "#16181c",
}

#: for values from low to high, and for values around zero
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 96,
    "figure.facecolor": "none",
    "figure.figsize": (6.4, 3.6),
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
    "legend.edgecolor": GRID,
    "legend.facecolor": PAPER,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.edgecolor": PAPER,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "groundup",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": MUTED,
}


def setup() -> None:
    """Use the book's style, and show figures as SVG when running in Jupyter."""
    mpl.rcParams.update(STYLE)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        # metadata: no date, so that the same code gives the same bytes
        set_matplotlib_formats("svg", metadata={"Date": None}, bbox_inches="tight")


def digits(axes, images, titles=None) -> None:
    """Draw grey-scale `images` (count, height, width), one on each of `axes`, without ticks."""
    for i, (axis, image) in enumerate(zip(axes, images)):
        axis.imshow(image, cmap="gray_r")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set(visible=True, color=GRID)
        if titles is not None:
            axis.set_title(titles[i], fontweight="normal", fontsize=9)


def despine(axis: plt.Axes) -> None:
    """Remove every spine, tick and grid line of `axis`: for diagrams drawn in it."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
