"""The data the chapters use. Nothing here is downloaded: it is installed, or simulated from a seed."""

from __future__ import annotations

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits from scikit-learn (Alpaydin & Kaynak, 1998).

    Returns
    -------
    X : (1797, 64) float64, 8×8 images row by row, values 0 (paper) to 16 (ink)
    y : (1797,) int64, the digit drawn
    """
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X, y


#: what :func:`latencies` mixes: cause -> (share of requests, median in ms, spread σ of the logarithm)
LATENCY_CAUSES = {
    "cache hit": (0.90, 8.0, 0.35),
    "cache miss": (0.08, 45.0, 0.50),
    "stall": (0.02, 250.0, 0.60),
}


def latencies(n: int | tuple[int, ...], seed: int | np.random.Generator = 0) -> np.ndarray:
    """Simulated request latencies in milliseconds, independent of each other.

    Each request has one cause of :data:`LATENCY_CAUSES`, drawn by its share; given the cause,
    the logarithm of the latency is normal. So the truth is known: :func:`latency_cdf`.

    Parameters
    ----------
    n : how many, or the shape of the result
    seed : a seed, or a generator to draw from

    Returns
    -------
    (n,) float64, or of the shape asked for
    """
    rng = np.random.default_rng(seed)
    share, median, sigma = np.array(list(LATENCY_CAUSES.values())).T
    cause = np.searchsorted(np.cumsum(share)[:-1], rng.random(n), side="right")
    return median[cause] * np.exp(sigma[cause] * rng.standard_normal(n))


def latency_cdf(t: float | np.ndarray) -> np.ndarray:
    """The share of all requests of :func:`latencies` that take at most `t` ms: exact, not sampled.

    Parameters
    ----------
    t : milliseconds, any shape; the result is 0 where `t` is 0 or less

    Returns
    -------
    float64 of the shape of `t`
    """
    from scipy.special import ndtr

    t = np.asarray(t, dtype=float)
    with np.errstate(divide="ignore"):
        log_t = np.log(np.maximum(t, 0.0))
    return sum(w * ndtr((log_t - np.log(m)) / s) for w, m, s in LATENCY_CAUSES.values())
