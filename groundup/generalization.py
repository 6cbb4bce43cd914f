# Generated from chapters/learning/generalization.md; edit the chapter.
"""Generalization. You build the tools that estimate how a model will do on data it has not seen,
and you measure how far each common mistake makes that estimate lie. The splits and scores equal
scikit-learn's; the size of a test set comes from a formula that a simulation confirms.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from groundup.probability import bootstrap_interval

__all__ = [
    "BiasVariance",
    "bias_variance",
    "Fold",
    "split",
    "k_fold",
    "group_k_fold",
    "time_series_folds",
    "cross_validate",
    "LearningCurve",
    "learning_curve",
    "EarlyStopping",
    "wilson_interval",
    "Difference",
    "paired_difference",
    "sample_size_for_difference",
]


class BiasVariance(NamedTuple):
    """Squared bias and variance of predictions, each (points,)."""

    bias_squared: np.ndarray
    variance: np.ndarray


def bias_variance(predictions: np.ndarray, truth: np.ndarray) -> BiasVariance:
    """Split the squared error against a known truth into bias² + variance, exactly.

    With D training sets, bias² comes out too large by about variance / D.

    Parameters
    ----------
    predictions : (D, points), a row for the model from each of D training sets
    truth : (points,), the noiseless f(x)

    Raises
    ------
    ValueError : shapes that do not fit, no training set, or values that are not finite
    """
    predictions, truth = np.asarray(predictions, dtype=float), np.asarray(truth, dtype=float)
    if predictions.ndim != 2 or truth.shape != predictions.shape[1:] or len(predictions) == 0:
        shapes = f"{predictions.shape} and {truth.shape}"
        raise ValueError(f"predictions must be (D, points), truth (points,); got {shapes}")
    if not (np.isfinite(predictions).all() and np.isfinite(truth).all()):
        raise ValueError("predictions and truth must be finite")
    average = predictions.mean(axis=0)  # the average model, (points,)
    return BiasVariance((average - truth) ** 2, ((predictions - average) ** 2).mean(axis=0))


class Fold(NamedTuple):
    """Row numbers to fit on and row numbers to score on, both sorted."""

    train: np.ndarray
    test: np.ndarray


def _codes(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"need one label per row, shape ({n},), got {labels.shape}")
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return codes, counts


def _fold(is_test: np.ndarray) -> Fold:
    return Fold(np.flatnonzero(~is_test), np.flatnonzero(is_test))


def split(
    n: int,
    test_share: float = 0.25,
    *,
    groups: np.ndarray | None = None,
    stratify: np.ndarray | None = None,
    rng: np.random.Generator | int,
) -> Fold:
    """Divide rows 0 … n − 1 at random into training and test rows.

    Parameters
    ----------
    n : number of rows, at least 2
    test_share : share of rows to test on, between 0 and 1; each side gets at least one row
    groups : (n,) labels; all rows of a group go to one side, and the test side is as close to
        `test_share` as whole groups in random order allow
    stratify : (n,) labels; each is represented in the test rows as in all, to within one row
    rng : generator or seed

    Raises
    ------
    ValueError : fewer than 2 rows or groups, a share outside (0, 1), labels of another length, or
        `groups` and `stratify` together
    """
    if n < 2 or not 0 < test_share < 1:
        raise ValueError(f"need n ≥ 2 and 0 < test_share < 1, got {n} and {test_share}")
    if groups is not None and stratify is not None:
        raise ValueError("give groups or stratify, not both")
    rng, size = np.random.default_rng(rng), min(max(round(test_share * n), 1), n - 1)
    if groups is not None:
        codes, counts = _codes(groups, n)
        if len(counts) < 2:
            raise ValueError("need at least 2 groups to hold one out")
        order = rng.permutation(len(counts))
        filled = np.cumsum(counts[order])[:-1]  # rows in the first 1, 2, … groups
        return _fold(np.isin(codes, order[: np.argmin(np.abs(filled - size)) + 1]))
    order = rng.permutation(n)
    if stratify is not None:  # equal steps through the rows, sorted by label
        order = order[np.argsort(_codes(stratify, n)[0][order], kind="stable")]
        order = order[((np.arange(size) + 0.5) * n / size).astype(int)]
    return _fold(np.isin(np.arange(n), order[:size]))


def k_fold(
    n: int,
    k: int = 5,
    *,
    stratify: np.ndarray | None = None,
    rng: np.random.Generator | int | None = None,
) -> list[Fold]:
    """k folds whose test rows partition 0 … n − 1; sizes differ by at most one.

    Parameters
    ----------
    n, k : number of rows and folds, 2 ≤ k ≤ n
    stratify : (n,) labels; the counts of each label also differ by at most one between folds
    rng : generator or seed to shuffle with; None takes the rows in order

    Raises
    ------
    ValueError : k outside 2 … n, or labels of another length
    """
    _check_folds(k, n, "rows")
    order = np.arange(n) if rng is None else np.random.default_rng(rng).permutation(n)
    if stratify is None:
        tests = np.array_split(order, k)
    else:
        order = order[np.argsort(_codes(stratify, n)[0][order], kind="stable")]
        tests = [order[i::k] for i in range(k)]
    return [_fold(np.isin(np.arange(n), test)) for test in tests]


def _check_folds(k: int, most: int, what: str) -> None:
    if not 2 <= k <= most:
        raise ValueError(f"k must be at least 2 and at most {most}, the number of {what}; got {k}")


def group_k_fold(groups: np.ndarray, k: int = 5) -> list[Fold]:
    """k folds that never divide a group: the largest group first, each to the emptiest fold.

    Parameters
    ----------
    groups : (n,) label of each row's group
    k : number of folds, 2 ≤ k ≤ number of groups

    Raises
    ------
    ValueError : k outside its range, or `groups` not one-dimensional
    """
    codes, counts = _codes(groups, np.size(groups))
    _check_folds(k, len(counts), "groups")
    load, fold_of = np.zeros(k, dtype=int), np.empty(len(counts), dtype=int)
    for group in np.argsort(-counts, kind="stable"):
        fold_of[group] = load.argmin()
        load[fold_of[group]] += counts[group]
    return [_fold(fold_of[codes] == i) for i in range(k)]


def time_series_folds(n: int, k: int = 5, *, gap: int = 0) -> list[Fold]:
    """k folds for rows in order of time: train on the past, skip `gap` rows, test the next block.

    Of k + 1 blocks of n // (k + 1) rows the last k are tested; the first block takes the rest.

    Raises
    ------
    ValueError : k below 2, a negative gap, or nothing left to train the first fold on
    """
    _check_folds(k, n - 1, "blocks after the first")
    size = n // (k + 1)
    starts = range(n - k * size, n, size)
    if not 0 <= gap < starts[0]:
        raise ValueError(
            f"gap must lie in 0 … {starts[0] - 1} for {n} rows in {k} folds, got {gap}"
        )
    return [Fold(np.arange(start - gap), np.arange(start, start + size)) for start in starts]


def cross_validate(
    fit: Callable[[np.ndarray, np.ndarray], Any],
    score: Callable[[Any, np.ndarray, np.ndarray], float],
    X: np.ndarray,
    y: np.ndarray,
    folds: list[Fold],
) -> np.ndarray:
    """Score of each fold: ``score(fit(X_train, y_train), X_test, y_test)``.

    Whatever learns from data (scaling, selection, imputation) belongs inside `fit`.

    Parameters
    ----------
    X, y : (n, ...) and (n, ...), rows along axis 0
    folds : pairs (train, test) of row numbers

    Returns
    -------
    (len(folds),) float64. Training sets overlap, so their spread is no standard error of the mean

    Raises
    ------
    ValueError : no folds, different numbers of rows, or a fold that is empty, out of range or
        tests a row it trains on
    """
    X, y = _check_data(X, y, folds)
    return np.array([score(fit(X[a], y[a]), X[b], y[b]) for a, b in folds], dtype=float)


def _check_data(X: np.ndarray, y: np.ndarray, folds: list[Fold]) -> tuple[np.ndarray, np.ndarray]:
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ValueError(f"X and y need the same number of rows, got {X.shape} and {y.shape}")
    if len(folds) == 0:
        raise ValueError("no folds to score")
    for i, (train, test) in enumerate(folds):
        rows = np.concatenate([train, test])
        if len(train) == 0 or len(test) == 0 or rows.min() < 0 or rows.max() >= len(X):
            raise ValueError(f"fold {i} is empty or has rows outside 0 … {len(X) - 1}")
        if np.intersect1d(train, test).size:
            raise ValueError(f"fold {i} tests rows that it trains on")
    return X, y


class LearningCurve(NamedTuple):
    """Scores on training and on test rows, both (sizes, folds)."""

    train: np.ndarray
    test: np.ndarray


def learning_curve(
    fit: Callable[[np.ndarray, np.ndarray], Any],
    score: Callable[[Any, np.ndarray, np.ndarray], float],
    X: np.ndarray,
    y: np.ndarray,
    sizes: list[int],
    folds: list[Fold],
    *,
    rng: np.random.Generator | int | None = None,
) -> LearningCurve:
    """Score models trained on the first 1, 2, … `sizes` training rows of each fold.

    Parameters
    ----------
    fit, score, X, y, folds : as for :func:`cross_validate`
    sizes : numbers of training rows, each between 1 and the smallest fold's; small sets are
        contained in large ones
    rng : generator or seed to shuffle each fold's training rows; None keeps the fold's order

    Raises
    ------
    ValueError : as :func:`cross_validate`, or a size out of range
    """
    X, y = _check_data(X, y, folds)
    most = min(len(train) for train, _ in folds)
    if len(sizes) == 0 or min(sizes) < 1 or max(sizes) > most:
        raise ValueError(f"sizes must lie between 1 and {most}, got {list(sizes)}")
    rng = None if rng is None else np.random.default_rng(rng)
    curve = np.empty((2, len(sizes), len(folds)))
    for j, (train, test) in enumerate(folds):
        train = np.asarray(train) if rng is None else rng.permutation(train)
        for i, size in enumerate(sizes):
            rows = train[:size]
            model = fit(X[rows], y[rows])
            curve[:, i, j] = score(model, X[rows], y[rows]), score(model, X[test], y[test])
    return LearningCurve(*curve)


class EarlyStopping:
    """Remember the step with the lowest validation loss, and say when to stop.

    Keep the weights of `best_step` (counted from 0, None before the first): later ones are worse.
    """

    def __init__(self, patience: int):
        """Stop after `patience` steps in a row without a new minimum; ValueError below 1."""
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.patience, self.steps = patience, 0
        self.best_step: int | None = None
        self.best_loss = float("inf")

    def update(self, loss: float) -> bool:
        """Record the next step's loss; True when it is time to stop. NaN is never a minimum."""
        if loss < self.best_loss:
            self.best_step, self.best_loss = self.steps, float(loss)
        self.steps += 1
        since = self.steps - (0 if self.best_step is None else self.best_step + 1)
        return since >= self.patience


def wilson_interval(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) for the probability behind `right` successes in `n` independent trials.

    Raises ValueError unless 0 ≤ right ≤ n, n ≥ 1 and 0 < confidence < 1. Source: Wilson (1927).
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"need n ≥ 1 and 0 ≤ right ≤ n, got right = {right}, n = {n}")
    z, p = _two_sided_z(confidence), right / n
    centre, reach = p + z**2 / (2 * n), z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)
    return 0.0 if right == 0 else low, 1.0 if right == n else high


def _two_sided_z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


class Difference(NamedTuple):
    """A mean difference with the ends of its interval."""

    value: float
    low: float
    high: float


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | int,
) -> Difference:
    """Mean of a − b over the same test rows, with a percentile bootstrap interval.

    It says how the two given models differ; the luck of their training sets is not in it.

    Parameters
    ----------
    a, b : (n,) scores of two models on n rows: right or wrong, a loss, a reciprocal rank
    groups : (n,) labels if rows depend on each other (of one document, say); whole groups are
        drawn
    confidence, resamples, rng : as for :func:`groundup.probability.bootstrap_interval`

    Raises
    ------
    ValueError : shapes that differ, no rows, values that are not finite, or a bad `confidence`
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"a and b must be (n,) with n ≥ 1, got {a.shape} and {b.shape}")
    if not np.isfinite(a - b).all():
        raise ValueError("scores must be finite: count a missing answer as wrong, or drop the row")
    codes, count = _codes(np.arange(a.size) if groups is None else groups, a.size)
    total = np.bincount(codes, weights=a - b)  # (groups,) sums of differences

    def mean(total: np.ndarray, count: np.ndarray, axis: int) -> np.ndarray:
        return total.sum(axis=axis) / count.sum(axis=axis)

    settings = dict(confidence=confidence, resamples=resamples, paired=True, rng=rng)
    return Difference(float((a - b).mean()), *bootstrap_interval((total, count), mean, **settings))


def sample_size_for_difference(
    difference: float, disagreement: float, *, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Test rows that McNemar's test needs to tell two models apart (Connor, 1987).

    For two separate test sets of n rows each, pass p(1 − q) + q(1 − p) as the disagreement.

    Parameters
    ----------
    difference : of the accuracies, as a share (0.02 for two points); its sign does not matter
    disagreement : share of rows where exactly one is right, |difference| ≤ disagreement ≤ 1
    confidence : 1 − α, two-sided
    power : probability to find a difference of this size, at least 0.5

    Raises
    ------
    ValueError : difference 0, an impossible disagreement, or levels outside their range
    """
    delta = abs(difference)
    if not 0 < delta <= disagreement <= 1:
        raise ValueError(
            f"need 0 < |difference| ≤ disagreement ≤ 1, got {difference}, {disagreement}"
        )
    if not 0.5 <= power < 1:
        raise ValueError(f"power must lie in [0.5, 1), got {power}")
    z_alpha, z_beta = _two_sided_z(confidence), NormalDist().inv_cdf(power)
    root = z_alpha * sqrt(disagreement) + z_beta * sqrt(disagreement - delta**2)
    return ceil((root / delta) ** 2)
