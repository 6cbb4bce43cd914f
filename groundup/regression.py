# Generated from chapters/learning/regression.md; edit the chapter.
"""Linear regression. You will fit linear models in four ways, restrain them with a prior, and put
an interval around what they predict. The coefficients agree with scikit-learn to eight digits,
a simulation measures how often the intervals hold, and you will see which of their promises a
planner can rely on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from groundup.linear_algebra import least_squares, norm, qr

__all__ = [
    "LinearModel",
    "mean_squared_error",
    "r2_score",
    "Standardizer",
    "ridge",
    "soft_threshold",
    "lasso",
    "Prediction",
    "leverage",
    "prediction_interval",
]


def _finite(values: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """`values` as float64; ValueError unless finite, not empty and of `ndim` dimensions."""
    values = np.asarray(values, dtype=float)
    if values.ndim != ndim or values.size == 0:
        kind = "a vector" if ndim == 1 else "a matrix"
        raise ValueError(f"{name} must be {kind} and not empty, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return values


def _examples(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    X, y = _finite(X, "X", 2), _finite(y, "y", 1)
    if len(X) != len(y):
        raise ValueError(f"X has {len(X)} rows, but y has {len(y)} entries")
    return X, y


def _matching(X: np.ndarray, d: int, name: str = "X") -> np.ndarray:
    X = _finite(X, name, 2)
    if X.shape[1] != d:
        raise ValueError(f"{name} must have {d} columns as in fit, got shape {X.shape}")
    return X


def _centred(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns minus their means, and the means; a constant column becomes exactly 0."""
    mean = np.where(np.ptp(X, axis=0) == 0, X[0], X.mean(axis=0))
    return X - mean, mean


class LinearModel:
    """Linear prediction b + X w, fitted with any solver; the intercept is never penalised.

    Parameters
    ----------
    solve : called as ``solve(X, y, **options)`` on centred data, returns w (d,): `least_squares`,
        :func:`ridge`, :func:`lasso`
    options : passed to `solve`, for example ``alpha``

    Attributes (after `fit`)
    ------------------------
    coef_ : (d,), w
    intercept_ : float, b
    """

    def __init__(self, solve: Callable[..., np.ndarray] = least_squares, **options: float):
        self.solve, self.options = solve, options

    def fit(self, X: np.ndarray, y: np.ndarray) -> LinearModel:
        """Fit to X (n, d) and y (n,); ValueError for unusable data, or what `solve` raises."""
        X, y = _examples(X, y)
        centred, mean = _centred(X)
        self.coef_ = self.solve(centred, y - y.mean(), **self.options)
        self.intercept_ = float(y.mean() - mean @ self.coef_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predictions (m,) for X (m, d); ValueError before `fit` or for another d."""
        if not hasattr(self, "coef_"):
            raise ValueError("call fit before predict")
        return _matching(X, len(self.coef_)) @ self.coef_ + self.intercept_


def mean_squared_error(y: np.ndarray, y_hat: np.ndarray) -> float:
    """Mean of (y - y_hat)² over two vectors (n,), in the squared unit of y.

    Raises
    ------
    ValueError : lengths differ, or a vector is empty or not finite
    """
    y, y_hat = _finite(y, "y", 1), _finite(y_hat, "y_hat", 1)
    if len(y) != len(y_hat):
        raise ValueError(f"y has {len(y)} entries, but y_hat has {len(y_hat)}")
    return float(((y - y_hat) ** 2).mean())


def r2_score(y: np.ndarray, y_hat: np.ndarray) -> float:
    """Coefficient of determination: 1 is perfect, 0 as good as predicting the mean of y.

    Negative where the prediction is worse than that mean.

    Raises
    ------
    ValueError : as :func:`mean_squared_error`, or y is constant and has nothing to explain
    """
    error = mean_squared_error(y, y_hat)
    if np.ptp(y) == 0:
        raise ValueError("R² is not defined for a constant y")
    return 1 - error / float(np.var(y))


class Standardizer:
    """Shift each column to mean 0 and scale it to standard deviation 1, as seen in `fit`.

    Attributes (after `fit`): mean_ (d,) and scale_ (d,). A constant column gets scale 1.
    """

    def fit(self, X: np.ndarray) -> Standardizer:
        """Remember the means and (population) standard deviations of X (n, d)."""
        centred, self.mean_ = _centred(_finite(X, "X", 2))
        largest = np.abs(centred).max(axis=0)  # divided out first: squares must not overflow
        largest[largest == 0] = 1
        scale = largest * np.sqrt(((centred / largest) ** 2).mean(axis=0))
        self.scale_ = np.where(scale == 0, 1.0, scale)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Standardised X (m, d), with the means and scales of `fit`, not of X."""
        if not hasattr(self, "mean_"):
            raise ValueError("call fit before transform")
        return (_matching(X, len(self.mean_)) - self.mean_) / self.scale_

    def fit_transform(self, X: np.ndarray) -> np.ndarray:
        """`fit`, then `transform` of the same X."""
        return self.fit(X).transform(X)


def _check_alpha(alpha: float) -> None:
    if not (np.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be finite and at least 0, got {alpha}")


def ridge(X: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """The w that minimises ‖y - X w‖² + alpha ‖w‖²: Hoerl & Kennard (1970), through QR.

    There is no intercept, and the penalty depends on units: standardise X, centre y.

    Parameters
    ----------
    X : (n, d); columns may depend on each other if alpha > 0
    y : (n,)
    alpha : ≥ 0; noise variance over prior variance of the weights

    Returns
    -------
    w : (d,)

    Raises
    ------
    ValueError : unusable data, negative alpha, or dependent columns and alpha too small
    """
    X, y = _examples(X, y)
    _check_alpha(alpha)
    d = X.shape[1]
    return least_squares(
        np.vstack([X, np.sqrt(alpha) * np.eye(d)]), np.concatenate([y, np.zeros(d)])
    )


def soft_threshold(z: float | np.ndarray, t: float) -> np.ndarray:
    """`z` moved towards 0 by `t`, and 0 where |z| ≤ t; float64 of the shape of z.

    Raises
    ------
    ValueError : t is negative or NaN
    """
    if not t >= 0:
        raise ValueError(f"the threshold must be at least 0, got {t}")
    return np.sign(z) * np.maximum(np.abs(z) - t, 0.0)


def lasso(
    X: np.ndarray,
    y: np.ndarray,
    alpha: float,
    *,
    tol: float = 1e-10,
    max_sweeps: int = 10_000,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """The w that minimises ‖y - X w‖²/2n + alpha ‖w‖₁, by cyclic coordinate descent.

    There is no intercept, and the penalty depends on units: standardise X, centre y.

    Parameters
    ----------
    X, y : (n, d) and (n,)
    alpha : ≥ 0, in units of x·y/n; w = 0 from max|X.T y|/n on
    tol : largest violation of the optimality conditions, as a share of ‖x_j‖‖y‖/n
    start : (d,) weights to start from, for example those of a nearby alpha

    Returns
    -------
    w : (d,); not unique where columns depend on each other

    Raises
    ------
    ValueError : unusable data, or negative alpha
    RuntimeError : not converged after `max_sweeps`

    Source: Friedman, Hastie & Tibshirani (2010), section 2.
    """
    X, y = _examples(X, y)
    _check_alpha(alpha)
    n, d = X.shape
    w = np.zeros(d) if start is None else _finite(start, "start", 1).copy()
    if len(w) != d:
        raise ValueError(f"start must have {d} entries, got {len(w)}")
    X = np.asfortranarray(X)
    a = (X**2).sum(axis=0) / n
    slack = tol * np.sqrt(a) * norm(y) / np.sqrt(n)
    for _ in range(max_sweeps + 1):
        r = y - X @ w
        slope = X.T @ r / n
        wrong = np.where(w == 0, np.abs(slope) - alpha, np.abs(slope - alpha * np.sign(w)))
        if (wrong <= slack).all():
            return w
        for j in np.flatnonzero(a):
            new = soft_threshold(X[:, j] @ r / n + a[j] * w[j], alpha) / a[j]
            r += X[:, j] * (w[j] - new)
            w[j] = new
    raise RuntimeError(f"no convergence after {max_sweeps} sweeps: raise alpha, tol or max_sweeps")


class Prediction(NamedTuple):
    """Predicted values and the ends of their intervals, each (m,)."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def leverage(X: np.ndarray, X_new: np.ndarray | None = None) -> np.ndarray:
    """Variance that a fit with intercept to X adds at X_new, in units of the noise variance.

    Parameters
    ----------
    X : (n, d) with independent columns, none of them constant
    X_new : (m, d), by default X itself; then each value is at most 1 and the sum is d + 1

    Returns
    -------
    h : (m,), at least 1/n

    Raises
    ------
    ValueError : unusable data, or dependent columns
    """
    X = _finite(X, "X", 2)
    X_new = X if X_new is None else _matching(X_new, X.shape[1], "X_new")
    centred, mean = _centred(X)
    _, R = qr(centred)
    if len(R) < X.shape[1]:
        raise ValueError(f"only {len(R)} of {X.shape[1]} centred columns are independent")
    return 1 / len(X) + (np.linalg.solve(R.T, (X_new - mean).T) ** 2).sum(axis=0)


def prediction_interval(
    X: np.ndarray, y: np.ndarray, X_new: np.ndarray, confidence: float = 0.95
) -> Prediction:
    """Least-squares predictions at X_new, each with an interval for one new observation.

    Exact for independent normal noise of one variance around a linear mean.

    Parameters
    ----------
    X, y : (n, d) and (n,), n ≥ d + 2
    X_new : (m, d)
    confidence : 0 < confidence < 1, of each interval by itself

    Raises
    ------
    ValueError : unusable data, dependent columns, too few rows, or confidence out of range
    """
    X, y = _examples(X, y)
    n, d = X.shape
    if n < d + 2:
        raise ValueError(f"{n} rows leave nothing to estimate the noise after {d + 1} coefficients")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    h = leverage(X, X_new)
    model = LinearModel().fit(X, y)
    s = norm(y - model.predict(X)) / np.sqrt(n - d - 1)
    half = stats.t.ppf((1 + confidence) / 2, n - d - 1) * s * np.sqrt(1 + h)
    value = model.predict(X_new)
    return Prediction(value, value - half, value + half)
