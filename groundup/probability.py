# Generated from chapters/foundations/probability.md; edit the chapter.
"""Probability. A latency dashboard shows a few samples of something you cannot see. Here you build
the functions that turn samples into an estimate with an error bar; they agree with
`scipy.stats` to twelve digits, and a simulation shows that the error bar keeps its promise:
intervals that claim 95 % contain the truth in about 95 of 100 cases.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np

__all__ = [
    "empirical_cdf",
    "quantile",
    "bayes_posterior",
    "Estimate",
    "monte_carlo",
    "exponential_mle",
    "lognormal_mle",
    "bootstrap_distribution",
    "bootstrap_interval",
    "coverage",
]


def empirical_cdf(sample: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    """Share of `sample` that is at most `t`: the distribution that puts mass 1/n on each value.

    Parameters
    ----------
    sample : (n,) finite values, n ≥ 1, any order
    t : where to evaluate, any shape, in the unit of `sample`

    Returns
    -------
    float64 of the shape of `t`, between 0 and 1

    Raises
    ------
    ValueError : `sample` is empty, not one-dimensional or not finite
    """
    sample = np.sort(_finite_sample(sample))
    return np.searchsorted(sample, t, side="right") / len(sample)


def quantile(sample: np.ndarray, q: float, axis: int = -1) -> np.ndarray:
    """Smallest value of `sample` that at least a share `q` of it does not exceed.

    The inverse of :func:`empirical_cdf`, and definition 1 of Hyndman & Fan (1996). It is always a
    value of the sample; NumPy's default interpolates between two.

    Parameters
    ----------
    sample : (..., n) numbers, reduced along `axis`
    q : level, 0 < q ≤ 1

    Returns
    -------
    (...): `sample`'s shape without `axis`

    Raises
    ------
    ValueError : `q` is outside (0, 1], or there is nothing to reduce
    """
    sample = np.asarray(sample)
    if not 0 < q <= 1:
        raise ValueError(f"q must lie in (0, 1], got {q}")
    if sample.ndim == 0 or sample.shape[axis] == 0:
        raise ValueError("the quantile of an empty sample is not defined")
    n = sample.shape[axis]
    # the 1e-9 keeps 0.07 * 100 = 7.000000000000001 at rank 7
    rank = max(ceil(n * q * (1 - 1e-9)), 1)
    return np.partition(sample, rank - 1, axis=axis).take(rank - 1, axis=axis)


def _finite_sample(sample: np.ndarray, name: str = "sample") -> np.ndarray:
    sample = np.asarray(sample, dtype=float)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name} holds NaN or infinity: drop or impute those values first")
    return sample


def bayes_posterior(prior: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Probability of each of k hypotheses after seeing data: prior × likelihood, normalised.

    Parameters
    ----------
    prior : (..., k) probabilities of k hypotheses of which exactly one is true
    likelihood : (..., k) probability (or density) of the data under each; broadcast with `prior`

    Returns
    -------
    (..., k) float64, summing to 1 along the last axis

    Raises
    ------
    ValueError : `prior` is not a distribution, `likelihood` is negative or not finite, or the data
        is impossible under every hypothesis that the prior allows
    """
    prior, likelihood = np.asarray(prior, dtype=float), np.asarray(likelihood, dtype=float)
    if prior.ndim == 0 or (prior < 0).any() or not np.allclose(prior.sum(axis=-1), 1):
        raise ValueError("prior must be non-negative and sum to 1 along its last axis")
    if not np.isfinite(likelihood).all() or (likelihood < 0).any():
        raise ValueError("likelihood must be finite and non-negative")
    scale = np.max(likelihood, axis=-1, keepdims=True, initial=0.0)  # tiny densities stay above 0
    joint = prior * (likelihood / np.where(scale > 0, scale, 1.0))
    evidence = joint.sum(axis=-1, keepdims=True)
    if not (evidence > 0).all():
        raise ValueError("the data has probability 0 under every hypothesis the prior allows")
    return joint / evidence


class Estimate(NamedTuple):
    """A simulated value and its standard error; about 95 % lie within 1.96 errors of the truth."""

    value: float
    standard_error: float


def monte_carlo(
    draw: Callable[[int, np.random.Generator], np.ndarray], n: int, rng: np.random.Generator | int
) -> Estimate:
    """Estimate E[X] by the mean of `n` independent draws of X, with the standard error s/√n.

    Parameters
    ----------
    draw : called as ``draw(n, rng)``, returns (n,) numbers or truth values; for a probability,
        let X be the indicator of the event
    n : number of draws, at least 2
    rng : generator or seed

    Returns
    -------
    Estimate; its error is meaningless when X has infinite variance, and 0 when all draws agree

    Raises
    ------
    ValueError : `n` is below 2, or `draw` returns another shape or values that are not finite
    """
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 draws, got n = {n}")
    values = _finite_sample(draw(n, np.random.default_rng(rng)), "what draw returned")
    if values.shape != (n,):
        raise ValueError(f"draw must return shape ({n},), got {values.shape}")
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)))


def exponential_mle(sample: np.ndarray) -> float:
    """Rate λ of the exponential density λ·exp(−λx) that makes `sample` most likely: 1 / mean.

    Its standard error is about λ/√n.

    Parameters
    ----------
    sample : (n,) values ≥ 0, not all 0, for example gaps in seconds

    Returns
    -------
    the rate, in one over the unit of `sample`

    Raises
    ------
    ValueError : `sample` is empty, not finite, negative somewhere or 0 everywhere
    """
    sample = _finite_sample(sample)
    if (sample < 0).any() or not sample.any():
        raise ValueError("exponential values are at least 0, and not all of them are 0")
    return float(1 / sample.mean())


def lognormal_mle(sample: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of log(`sample`) that make it most likely as a log-normal.

    The deviation is divided by n, not n − 1: that is the maximum, slightly too small on average.

    Parameters
    ----------
    sample : (n,) values > 0

    Returns
    -------
    (μ, σ), in natural-log units; exp(μ) is the median, in the unit of `sample`

    Raises
    ------
    ValueError : `sample` is empty, not finite or not positive
    """
    sample = _finite_sample(sample)
    if (sample <= 0).any():
        raise ValueError("a log-normal value is above 0: remove zeros and negative values first")
    log_sample = np.log(sample)
    return float(log_sample.mean()), float(log_sample.std())


# values drawn at a time: bounds the memory, does not change the result of one sample
_BATCH = 2**21


def bootstrap_distribution(
    samples: np.ndarray | tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    *,
    resamples: int = 2000,
    paired: bool = False,
    vectorized: bool = True,
    rng: np.random.Generator | int,
) -> np.ndarray:
    """`statistic` of `resamples` data sets drawn with replacement (Efron, 1979).

    Parameters
    ----------
    samples : one sample (n, ...), or a tuple of them; rows (axis 0) are what is drawn
    statistic : with `vectorized`, called as ``statistic(*drawn, axis=1)`` on arrays (batch, n, ...)
        and returns (batch,), like ``np.mean`` for one-dimensional samples; otherwise called
        as ``statistic(*drawn)`` on arrays (n, ...) and returns a number
    resamples : number of data sets drawn
    paired : draw the same rows from every sample, which must then have equal lengths
    rng : generator or seed

    Returns
    -------
    (resamples,) float64

    Raises
    ------
    ValueError : an empty sample, unequal lengths with `paired`, `resamples` < 1, or a statistic
        that returns another shape
    """
    samples = tuple(map(np.asarray, samples if isinstance(samples, tuple) else (samples,)))
    if not samples or any(s.ndim == 0 or len(s) == 0 for s in samples):
        raise ValueError("every sample needs at least one value along axis 0")
    lengths = [len(s) for s in samples]
    if paired and len(set(lengths)) > 1:
        raise ValueError(f"paired samples need equal lengths, got {lengths}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(rng)
    out = np.empty(resamples)
    step = max(1, _BATCH // max(s.size for s in samples))
    for start in range(0, resamples, step):
        batch = min(step, resamples - start)
        rows = [rng.integers(0, n, (batch, n)) for n in (lengths[:1] if paired else lengths)]
        drawn = [s[i] for s, i in zip(samples, rows * len(samples) if paired else rows)]
        if vectorized:
            values = statistic(*drawn, axis=1)
        else:
            values = [statistic(*one) for one in zip(*drawn)]
        if np.shape(values) != (batch,):
            raise ValueError(
                f"statistic must return shape ({batch},) for this batch, got {np.shape(values)}: "
                "does it reduce axis 1? Otherwise pass vectorized=False"
            )
        out[start : start + batch] = values
    return out


def bootstrap_interval(
    samples: np.ndarray | tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    paired: bool = False,
    vectorized: bool = True,
    rng: np.random.Generator | int,
) -> tuple[float, float]:
    """Percentile bootstrap interval: the middle share `confidence` of the replicates.

    Rows must be independent of each other (resample clusters if they are not). It covers too
    seldom when n is small, the data is very skewed, or the statistic hangs on a few extreme values.

    Parameters
    ----------
    samples, statistic, resamples, paired, vectorized, rng : see :func:`bootstrap_distribution`
    confidence : share of replicates inside, 0 < confidence < 1

    Returns
    -------
    (low, high), in the unit of the statistic

    Raises
    ------
    ValueError : as :func:`bootstrap_distribution`, or `confidence` outside (0, 1)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    replicates = bootstrap_distribution(
        samples, statistic, resamples=resamples, paired=paired, vectorized=vectorized, rng=rng
    )
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def coverage(
    draw: Callable[[np.random.Generator], np.ndarray],
    interval: Callable[[np.ndarray, np.random.Generator], tuple[float, float]],
    truth: float,
    *,
    repetitions: int,
    rng: np.random.Generator | int,
) -> Estimate:
    """How often ``interval(draw(rng), rng)`` contains `truth`, by simulation.

    Parameters
    ----------
    draw : draws one new data set
    interval : returns (low, high) for a data set; the ends count as inside
    truth : what the interval should contain, in the same unit
    repetitions : number of data sets, at least 2; 2,000 give a standard error of 0.5 % near 95 %
    rng : generator or seed

    Returns
    -------
    Estimate of the coverage, a share between 0 and 1

    Raises
    ------
    ValueError : `repetitions` is below 2, or an interval has low > high or NaN
    """

    def hits(count: int, rng: np.random.Generator) -> np.ndarray:
        inside = np.empty(count, dtype=bool)
        for i in range(count):
            low, high = interval(draw(rng), rng)
            if not low <= high:
                raise ValueError(f"interval returned ({low}, {high}): low must not exceed high")
            inside[i] = low <= truth <= high
        return inside

    return monte_carlo(hits, repetitions, rng)
