# Generated from chapters/language/transformer.md; edit the chapter.
"""Transformer. You build the mean of a list of numbers, and it agrees with `numpy.mean` to
rounding.
"""

from __future__ import annotations

import numpy as np

__all__ = ["transformer_mean"]


def transformer_mean(x: np.ndarray) -> float:
    """Mean of the entries of `x` (n,).

    Raises ValueError when `x` is empty.
    """
    if len(x) == 0:
        raise ValueError("the mean of no numbers is undefined")
    return float(sum(x) / len(x))
