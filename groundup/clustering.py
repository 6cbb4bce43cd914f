# Generated from chapters/learning/clustering.md; edit the chapter.
"""Clustering. You will build k-means and Gaussian mixtures, prove that neither can get worse from
one step to the next, and hold both to scikit-learn's results from the same start to nine
digits. The mixture then finds planted faults in service metrics that thresholds on single
metrics cannot see.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.signal import lfilter
from scipy.sparse import csr_array

from groundup.classification import log_sum_exp

__all__ = [
    "assign",
    "kmeans_plus_plus",
    "KMeansResult",
    "kmeans",
    "log_gaussian",
    "GaussianMixture",
    "METRICS",
    "FAULTS",
    "service_metrics",
]


def _rows(X: np.ndarray, name: str = "X", columns: int | None = None) -> np.ndarray:
    X = np.asarray(X, dtype=float)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name} must be a table of rows and features, got shape {X.shape}")
    if not (np.abs(X) < 1e150).all():
        raise ValueError(f"{name} holds NaN, infinity or values whose squares overflow")
    if columns is not None and X.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got shape {X.shape}")
    return X


def assign(
    X: np.ndarray, centers: np.ndarray, *, block_bytes: int = 2**23
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centre of each row and the squared distance to it; the lower index wins a tie.

    Parameters
    ----------
    X : (n, d)
    centers : (k, d)
    block_bytes : bound on the table of distances held at once (one row at least)

    Returns
    -------
    labels : (n,) int, from 0 to k - 1
    distance : (n,) float64, squared

    Raises
    ------
    ValueError : a table is empty, not finite, or the numbers of columns differ
    """
    centers = _rows(centers, "centers")
    return _assign(_rows(X, columns=centers.shape[1]), centers, block_bytes)


def _assign(X: np.ndarray, centers: np.ndarray, block_bytes: int = 2**23):
    shift = centers[0]
    C = centers - shift
    half = (C**2).sum(axis=1) / 2
    labels, distance = np.empty(len(X), dtype=np.intp), np.empty(len(X))
    step = max(1, block_bytes // (8 * max(C.shape)))
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        part = X[rows] - shift  # (step, d)
        labels[rows] = np.argmin(half - part @ C.T, axis=1)
        distance[rows] = _squared(X[rows], centers[labels[rows]])
    return labels, distance


def _squared(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Squared distance (n,) of each row of A (n, d) to the row of B, or to the one row B."""
    D = A - B
    return np.einsum("ij,ij->i", D, D)


def _update(
    X: np.ndarray, labels: np.ndarray, distance: np.ndarray, centers: np.ndarray
) -> np.ndarray:
    """Mean of each cluster (k, d); a cluster without rows moves to a row far from its centre."""
    n, k = len(X), len(centers)
    size = np.bincount(labels, minlength=k)
    member = csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))  # one 1 per row
    centers = (member.T @ X) / np.maximum(size, 1)[:, None]
    empty = np.flatnonzero(size == 0)
    centers[empty] = X[np.argsort(-distance, kind="stable")[: len(empty)]]
    return centers


def kmeans_plus_plus(X: np.ndarray, k: int, rng: np.random.Generator | int = 0) -> np.ndarray:
    """k rows of X (n, d) as starting centres (k, d), each drawn by its squared distance.

    Rows that coincide with a centre are drawn again only when no other row is left.
    Raises ValueError unless 1 ≤ k ≤ n. Source: Arthur & Vassilvitskii (2007), section 2.2.
    """
    X = _rows(X)
    if not 1 <= k <= len(X):
        raise ValueError(f"k must be between 1 and the number of rows, {len(X)}, got {k}")
    rng = np.random.default_rng(rng)
    chosen = [int(rng.integers(len(X)))]
    nearest = _squared(X, X[chosen[0]])  # D(x)²
    while len(chosen) < k:
        mass = np.cumsum(nearest if nearest.any() else np.ones(len(X)))
        pick = np.searchsorted(mass, rng.random() * mass[-1], side="right")
        chosen.append(min(int(pick), len(X) - 1))
        nearest = np.minimum(nearest, _squared(X, X[chosen[-1]]))
    return X[chosen]


@dataclass(frozen=True)
class KMeansResult:
    """What :func:`kmeans` found: centers (k, d), labels (n,), the inertia of the two, and history,
    the inertia after every half step, the last entry being `inertia`."""

    centers: np.ndarray
    labels: np.ndarray
    inertia: float
    history: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Nearest centre (m,) of the rows of X (m, d)."""
        return assign(X, self.centers)[0]


def kmeans(
    X: np.ndarray,
    k: int,
    *,
    rng: np.random.Generator | int = 0,
    init: np.ndarray | None = None,
    restarts: int = 1,
    iterations: int = 300,
) -> KMeansResult:
    """Lloyd's algorithm on the rows of X (n, d), until a pass no longer lowers the inertia.

    Starts from `init` (k, d), or `restarts` times from :func:`kmeans_plus_plus`, keeping the best.
    Raises ValueError for k outside 1..n, an `init` of another shape, or no restarts.
    Source: Lloyd (1982).
    """
    X, rng = _rows(X), np.random.default_rng(rng)
    if not 1 <= k <= len(X):
        raise ValueError(f"k must be between 1 and the number of rows, {len(X)}, got {k}")
    if init is not None and np.shape(init) != (k, X.shape[1]):
        raise ValueError(f"init must have shape {(k, X.shape[1])}, got {np.shape(init)}")
    if restarts < 1 or iterations < 0:
        raise ValueError("restarts must be at least 1 and iterations at least 0")
    best = None
    for _ in range(restarts if init is None else 1):
        centers = kmeans_plus_plus(X, k, rng) if init is None else _rows(init, "init").copy()
        labels, distance = _assign(X, centers)
        history = [distance.sum()]
        for _ in range(iterations):
            centers = _update(X, labels, distance, centers)
            stay = _squared(X, centers[labels])
            history.append(stay.sum())
            nearest, distance = _assign(X, centers)
            labels = np.where(distance <= stay, nearest, labels)  # rounding must not raise J
            distance = np.minimum(distance, stay)
            history.append(distance.sum())
            if history[-1] >= history[-3]:  # equal: a fixed point (or rounding)
                break
        if best is None or history[-1] < best.inertia:
            best = KMeansResult(centers, labels, float(history[-1]), np.array(history))
    return best


def log_gaussian(X: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Logarithm (n,) of the normal density at the rows of X (n, d).

    Raises ValueError when the shapes disagree or `covariance` (d, d) is not symmetric and
    positive definite: a cluster has collapsed onto a line or a point.
    """
    mean = _rows(np.atleast_2d(mean), "mean")[0]
    X, d = _rows(X, columns=len(mean)), len(mean)
    covariance = _rows(covariance, "covariance", d)
    if covariance.shape != (d, d) or not np.allclose(covariance, covariance.T, rtol=1e-8):
        raise ValueError(f"covariance must be a symmetric ({d}, {d}) matrix")
    try:
        L = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError("covariance is not positive definite: raise the floor") from None
    Z = solve_triangular(L, (X - mean).T, lower=True)  # (d, n)
    log_det = np.log(np.diag(L)).sum()
    return -0.5 * (Z**2).sum(axis=0) - log_det - d / 2 * np.log(2 * np.pi)


def _m_step(
    X: np.ndarray, R: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (k,), means (k, d), covariances (k, d, d) that maximise the bound for R (n, k)."""
    N = R.sum(axis=0)
    safe = np.maximum(N, 1e-300)  # a component without rows keeps weight 0
    means = (R.T @ X) / safe[:, None]
    covariances = np.empty((len(N), X.shape[1], X.shape[1]))
    for j, mean in enumerate(means):
        D = X - mean
        variance, axes = np.linalg.eigh((R[:, j, None] * D).T @ D / safe[j])
        covariances[j] = (axes * np.maximum(variance, floor)) @ axes.T
    return N / len(X), means, covariances


@dataclass(eq=False)
class GaussianMixture:
    """Mixture of k normal distributions with full covariances, fitted by EM from k-means.

    Parameters: k components; floor, the least variance along any axis (squared units of X);
    at most `iterations`, until a step gains less than `tol` per row; the best of `restarts`.
    After fit: weights_ (k,), means_ (k, d), covariances_ (k, d, d), and history_, the
    log-likelihood after each M step. Source: Dempster, Laird & Rubin (1977), section 4.3.
    """

    k: int
    _: KW_ONLY
    floor: float = 1e-6
    iterations: int = 200
    tol: float = 1e-6
    restarts: int = 1
    rng: np.random.Generator | int = 0

    def fit(self, X: np.ndarray, init: np.ndarray | None = None) -> GaussianMixture:
        """Fit to X (n, d), from centres `init` (k, d) or from k-means."""
        X, rng = _rows(X), np.random.default_rng(self.rng)
        if min(self.restarts, self.iterations) < 1 or not (self.floor >= 0 and self.tol >= 0):
            raise ValueError("restarts and iterations must be 1 or more, floor and tol 0 or more")
        best = [-np.inf]
        for _ in range(self.restarts if init is None else 1):
            start = kmeans(X, self.k, rng=rng, init=init, iterations=300 if init is None else 0)
            R, history = np.eye(self.k)[start.labels], []
            for _ in range(self.iterations):
                self.weights_, self.means_, self.covariances_ = _m_step(X, R, self.floor)
                A = self._log_joint(X)
                log_p = log_sum_exp(A)
                history.append(log_p.sum())
                if len(history) > 1 and history[-1] - history[-2] <= self.tol * len(X):
                    break
                R = np.exp(A - log_p[:, None])  # E step
            if history[-1] > best[0]:
                best = history[-1], history, self.weights_, self.means_, self.covariances_
        self.history_, self.weights_, self.means_, self.covariances_ = np.array(best[1]), *best[2:]
        return self

    def _log_joint(self, X: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):  # a weight of 0
            log_weights = np.log(self.weights_)
        parts = zip(log_weights, self.means_, self.covariances_)
        return np.stack([w + log_gaussian(X, m, S) for w, m, S in parts], axis=1)  # (n, k)

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Log density (m,) of the rows of X (m, d)."""
        return log_sum_exp(self._log_joint(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Responsibilities (m, k): the posterior of each component for each row."""
        A = self._log_joint(X)
        return np.exp(A - log_sum_exp(A)[:, None])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Most probable component (m,) of each row."""
        return self._log_joint(X).argmax(axis=1)

    def bic(self, X: np.ndarray) -> float:
        """Bayesian information criterion on X (m, d): lower is better."""
        d = self.means_.shape[1]
        free = self.k - 1 + self.k * d + self.k * d * (d + 1) // 2
        return float(-2 * self.score_samples(X).sum() + free * np.log(len(X)))


METRICS = ("CPU (%)", "latency (ms)", "errors (per 1,000)", "queue (requests)")
FAULTS = ("healthy", "stall", "spin", "fail fast", "slow")


def _observe(load: np.ndarray, backup: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((4, len(load)))
    cpu = 8 + 80 * load + 30 * backup + 2 * noise[0]
    queue = load / (1 - load) * np.exp(0.2 * noise[3])
    latency = 10 * (1 + queue) * np.exp(0.08 * noise[1])
    errors = np.exp(2.5 * load - 1 + 0.3 * noise[2])
    return np.stack([cpu, latency, errors, queue], axis=1)


def service_metrics(
    days: int, *, faults_per_day: int = 0, seed: np.random.Generator | int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulated metrics of one service every five minutes, with half-hour faults planted.

    Returns X (288 days, 4) in the order and units of `METRICS`, and fault (288 days,) int, an
    index into `FAULTS`, 0 where healthy. Faults take random half hours, their kinds in turn.
    Raises ValueError for less than one day, or faults outside 0..48 a day.
    """
    if days < 1 or not 0 <= faults_per_day <= 48:
        raise ValueError("needs at least one day, and 0 to 48 faults a day")
    rng, n = np.random.default_rng(seed), 288 * days
    hour = np.arange(n) / 12 % 24
    wander = lfilter([0.02], [1, -0.95], rng.standard_normal(n))
    load = np.clip(0.45 - 0.3 * np.cos(2 * np.pi * (hour - 4) / 24) + wander, 0.05, 0.9)
    X = _observe(load, (hour >= 1) & (hour < 2.5), rng)
    low, high = (_observe(np.full(n, level), np.zeros(n), rng) for level in (0.2, 0.75))
    fault = np.zeros(n, dtype=np.intp)
    for i, slot in enumerate(rng.choice(n // 6, faults_per_day * days, replace=False)):
        at, kind = slice(6 * slot, 6 * slot + 6), 1 + i % 4
        fault[at] = kind
        if kind == 4:
            X[at, 1] *= 4
        else:
            X[at] = high[at] if kind == 1 else low[at]
            column = 2 if kind == 3 else 0
            X[at, column] = (low if kind == 1 else high)[at, column]
    return X, fault
