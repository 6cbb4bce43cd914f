# Generated from chapters/learning/classification.md; edit the chapter.
"""Classification. You build the model that turns signals into a probability, and the rule that
turns the probability into a decision. The coefficients agree with scikit-learn's to nine
digits, the metrics to twelve, and at the end waking an engineer has a price.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = [
    "sigmoid",
    "LogisticRegression",
    "log_sum_exp",
    "softmax",
    "log_softmax",
    "one_hot",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "SoftmaxRegression",
    "accuracy",
    "confusion_matrix",
    "roc_curve",
    "precision_recall_curve",
    "area_under_curve",
    "roc_auc",
    "average_precision",
    "calibration_curve",
    "expected_calibration_error",
    "expected_cost",
    "best_threshold",
]


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) of every entry, without overflow; float in, same float type out.

    Raises ValueError for NaN.
    """
    z = _floats(z)
    e = np.exp(-np.abs(z))  # in (0, 1]
    return np.where(z >= 0, 1, e) / (1 + e)


def _floats(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z)
    z = z if np.issubdtype(z.dtype, np.floating) else z.astype(float)
    if np.isnan(z).any():
        raise ValueError("the scores hold NaN")
    return z


def _newton(loss: Callable, derivatives: Callable, theta: np.ndarray) -> np.ndarray:
    """Minimise a convex loss from `theta`; `derivatives(theta)` is (gradient, Hessian)."""
    for _ in range(100):
        gradient, hessian = derivatives(theta)
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        value, promise, size = loss(theta), gradient @ step, 1.0
        if not promise >= 0:  # also NaN
            break
        if promise > 1e-10 * (1 + value):  # below that, rounding decides: take the step
            while loss(theta - size * step) > value - 0.1 * size * promise and size > 1e-8:
                size /= 2
        theta = theta - size * step
        if np.abs(step).max() <= 1e-6 * (1 + np.abs(theta).max()):
            return theta
    raise ValueError(
        "the weights do not settle: set l2 above 0 if the classes are separable, "
        "and standardise columns of very different scale"
    )


def _design(X: np.ndarray, features: int | None = None) -> np.ndarray:
    """`X` with a column of ones, (n, d + 1), after checking it."""
    X = np.asarray(X, dtype=float)
    if X.ndim != 2 or X.shape[0] == 0 or not np.isfinite(X).all():
        raise ValueError(f"X must be a finite (n, d) array with n > 0, got shape {X.shape}")
    if features is not None and X.shape[1] != features:
        raise ValueError(f"X has {X.shape[1]} columns, the model was fitted on {features}")
    return np.column_stack([X, np.ones(len(X))])


def _training_set(X: np.ndarray, y: np.ndarray, l2: float) -> tuple[np.ndarray, ...]:
    """(design, classes, index of each label's class), after checking all three."""
    X1, y = _design(X), np.asarray(y)
    if y.shape != (len(X1),):
        raise ValueError(f"y must have shape ({len(X1)},), got {y.shape}")
    if np.issubdtype(y.dtype, np.floating) and np.isnan(y).any():
        raise ValueError("y holds NaN")
    classes, index = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y needs at least two classes, got {classes.tolist()}")
    if not 0 <= l2 < np.inf:
        raise ValueError(f"l2 must be finite and at least 0, got {l2}")
    if l2 == 0 and np.linalg.matrix_rank(X1) < X1.shape[1]:
        raise ValueError("columns of X are collinear, the weights not unique: set l2 above 0")
    return X1, classes, index


class LogisticRegression:
    """Two classes, log-odds linear in X, fitted by penalised maximum likelihood.

    Minimises sum(log loss) + l2/2 · |coef|²; the intercept is free. scikit-learn's C is 1/l2.
    Fitted: classes_ (2,), the second is "positive"; coef_ (1, d); intercept_ (1,).
    """

    def __init__(self, l2: float = 1.0):
        self.l2 = l2

    def fit(self, X: np.ndarray, y: np.ndarray) -> LogisticRegression:
        """Fit to X (n, d), y (n,). ValueError for bad shapes, NaN, not two classes, or
        if l2 is 0 and the maximum is at infinity (separable) or not unique (collinear)."""
        X1, self.classes_, index = _training_set(X, y, self.l2)
        if len(self.classes_) > 2:
            raise ValueError(f"{len(self.classes_)} classes: use SoftmaxRegression")
        penalty = np.append(np.full(X1.shape[1] - 1, float(self.l2)), 0.0)  # not b

        def loss(w):
            z = X1 @ w
            return np.sum(np.logaddexp(0, z) - index * z) + penalty @ w**2 / 2

        def derivatives(w):
            z = X1 @ w
            if self.l2 == 0 and np.all((2 * index - 1) * z > 0):
                raise ValueError("the classes are separable: set l2 above 0")
            p = sigmoid(z)
            hessian = (X1.T * (p * sigmoid(-z))) @ X1 + np.diag(penalty)
            return X1.T @ (p - index) + penalty * w, hessian

        w = _newton(loss, derivatives, np.zeros(X1.shape[1]))
        self.coef_, self.intercept_ = w[None, :-1], w[-1:]
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Log-odds (n,) of the second class."""
        return _design(X, self.coef_.shape[1]) @ np.append(self.coef_, self.intercept_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities (n, 2), columns as in classes_."""
        z = self.decision_function(X)
        return np.stack([sigmoid(-z), sigmoid(z)], axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The more probable class of each row, (n,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(int)]


def _with_maximum(z: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    z = _floats(z)
    if z.ndim == 0 or z.shape[axis] == 0:
        raise ValueError(f"nothing to sum along axis {axis} of shape {z.shape}")
    return z, z.max(axis=axis, keepdims=True)


def _shifted(z: np.ndarray, axis: int) -> np.ndarray:
    """`z` minus its maximum along `axis`: at most 0."""
    z, m = _with_maximum(z, axis)
    if not np.isfinite(m).all():
        raise ValueError("softmax needs a finite largest logit: found +inf, or only −inf")
    with np.errstate(over="ignore"):  # a gap beyond the largest float is −inf
        return z - m


def log_sum_exp(z: np.ndarray, axis: int = -1, keepdims: bool = False) -> np.ndarray:
    """log(sum(exp(z))) along `axis`, without overflow (Blanchard, Higham & Higham 2021).

    Entries may be infinite; all −inf gives −inf. ValueError for NaN or an empty axis.
    """
    z, m = _with_maximum(z, axis)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(divide="ignore", over="ignore"):  # exact: log 0 = −inf, e^inf = inf
        out = m + np.log(np.exp(z - m).sum(axis=axis, keepdims=True))
    return out if keepdims else np.squeeze(out, axis=axis)[()]


def softmax(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """exp(z) / sum(exp(z)) along `axis`: positive, sums to 1, same shape and float type.

    A logit of −inf gives probability 0 (a mask). ValueError for NaN, +inf, an empty axis, or
    if all logits along it are −inf.
    """
    e = np.exp(_shifted(z, axis))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """Logarithm of :func:`softmax`, also where the probability itself would underflow."""
    z = _shifted(z, axis)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels 0 … k − 1 of any shape as rows with a single 1: shape (..., k), float64.

    Raises ValueError for labels that are not integers or lie outside 0 … k − 1.
    """
    return np.eye(k)[_labels(labels, k)]


def _labels(labels: np.ndarray, k: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if k < 1 or (labels.size and not 0 <= labels.min() <= labels.max() < k):
        raise ValueError(f"labels must lie in 0 … {k - 1}")
    return labels.astype(int)


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of −log softmax(logits)[label], in nats; logits (n, k), integer labels (n,)."""
    rows, labels = _rows(logits, labels)
    return float(np.mean(-rows[np.arange(len(labels)), labels]))


def softmax_cross_entropy_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gradient of :func:`softmax_cross_entropy` in the logits: (softmax − one-hot) / n."""
    rows, labels = _rows(logits, labels)
    gradient = np.exp(rows)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(rows)


def _rows(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, shape = np.asarray(logits), np.shape(labels)
    if logits.ndim != 2 or shape != logits.shape[:1] or logits.size == 0:
        raise ValueError(f"need logits (n, k) and labels (n,), n > 0; got {logits.shape}, {shape}")
    return log_softmax(logits), _labels(labels, logits.shape[1])


class SoftmaxRegression:
    """k ≥ 2 classes, logits linear in X, fitted by penalised maximum likelihood.

    Minimises sum(cross-entropy) + l2/2 · |coef|²; intercepts are free. scikit-learn's C is 1/l2.
    Newton's method, O(n k² d² + k³ d³) a step. Fitted: classes_ (k,), coef_ (k, d),
    intercept_ (k,); coefficients sum to 0 over the classes.
    """

    def __init__(self, l2: float = 1.0):
        self.l2 = l2

    def fit(self, X: np.ndarray, y: np.ndarray) -> SoftmaxRegression:
        """Fit to X (n, d), y (n,). Raises as :meth:`LogisticRegression.fit`."""
        X1, self.classes_, index = _training_set(X, y, self.l2)
        k, columns = len(self.classes_), X1.shape[1]
        Y = one_hot(index, k)
        penalty = np.append(np.full(columns - 1, float(self.l2)), 0.0)  # not b

        def loss(theta):
            W = theta.reshape(k, columns)
            return len(X1) * softmax_cross_entropy(X1 @ W.T, index) + np.sum(penalty * W**2) / 2

        def derivatives(theta):
            W = theta.reshape(k, columns)
            Z = X1 @ W.T  # (n, k)
            others = np.where(Y == 1, -np.inf, Z).max(axis=1)
            if self.l2 == 0 and np.all(Z[Y == 1] > others):
                raise ValueError("the classes are separable: set l2 above 0")
            P = softmax(Z)
            hessian = np.empty((k, columns, k, columns))
            for a in range(k):
                for c in range(a + 1):
                    s = P[:, a] * ((a == c) - P[:, c])  # (n,)
                    hessian[a, :, c] = hessian[c, :, a] = (X1.T * s) @ X1 + np.eye(columns)
                hessian[a, :, a] += np.diag(penalty)
            gradient = (P - Y).T @ X1 + penalty * W
            return gradient.ravel(), hessian.reshape(k * columns, k * columns)

        W = _newton(loss, derivatives, np.zeros(k * columns)).reshape(k, columns)
        self.coef_, self.intercept_ = W[:, :-1], W[:, -1]
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Logits (n, k), columns as in classes_."""
        return _design(X, self.coef_.shape[1]) @ np.column_stack([self.coef_, self.intercept_]).T

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities (n, k), columns as in classes_."""
        return softmax(self.decision_function(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        return self.classes_[self.decision_function(X).argmax(axis=1)]


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries of two vectors (n,). ValueError for other shapes or n = 0."""
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.ndim != 1 or y.shape != predicted.shape or y.size == 0:
        raise ValueError(f"need two vectors of one length > 0, got {y.shape} and {predicted.shape}")
    return float(np.mean(y == predicted))


def confusion_matrix(y: np.ndarray, predicted: np.ndarray, k: int | None = None) -> np.ndarray:
    """Counts (k, k): entry (a, b) is how often class a was predicted as class b.

    Labels are integers 0 … k − 1; by default k is the largest one plus 1.
    Raises ValueError for other labels or shapes.
    """
    accuracy(y, predicted)  # checks the shapes
    k = int(max(np.max(y), np.max(predicted))) + 1 if k is None else k
    return (one_hot(y, k).T @ one_hot(predicted, k)).astype(int)


def _binary(y: np.ndarray, score: np.ndarray, both: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels as 0/1 integers and scores as floats, both (n,), after checking them."""
    y, score = np.asarray(y), np.asarray(score, dtype=float)
    if y.ndim != 1 or y.shape != score.shape or y.size == 0:
        raise ValueError(f"need labels and scores (n,) with n > 0, got {y.shape} and {score.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(score).all():
        raise ValueError("scores hold NaN or infinity")
    if both and y.min() == y.max():
        raise ValueError(f"all labels are {int(y[0])}: the curve needs both classes")
    return y.astype(int), score


def _counts(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(FP, TP, threshold) for "score ≥ threshold", one per distinct score, falling."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of ties
    tp = np.cumsum(y[order])[last]
    return last + 1 - tp, tp, ranked[last]


def roc_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(FPR, TPR, thresholds), from (0, 0) at threshold ∞ to (1, 1).

    Arrays as scikit-learn's with drop_intermediate=False. y (n,) holds 0 and 1, score (n,) is
    higher for more suspicious examples. ValueError unless both classes occur and all is finite.
    """
    y, score = _binary(y, score)
    fp, tp, thresholds = _counts(y, score)
    fpr, tpr = np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1]
    return fpr, tpr, np.append(np.inf, thresholds)


def precision_recall_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, ...]:
    """(precision, recall, thresholds), thresholds rising, then the point (1, 0) without one.

    Arrays as scikit-learn's. Arguments and errors as in :func:`roc_curve`.
    """
    y, score = _binary(y, score)
    fp, tp, thresholds = _counts(y, score)
    precision, recall = tp / (tp + fp), tp / tp[-1]
    return np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), thresholds[::-1]


def area_under_curve(x: np.ndarray, y: np.ndarray) -> float:
    """Area under straight lines through (x, y), two (n,) arrays; x must not change direction."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"need two vectors of one length > 1, got {x.shape} and {y.shape}")
    steps = np.diff(x)
    if not ((steps >= 0).all() or (steps <= 0).all()) or not np.isfinite(y).all():
        raise ValueError("x must be sorted, and all values finite")
    return float(abs(np.sum(steps * (y[1:] + y[:-1]) / 2)))


def roc_auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: P(positive scores higher than negative) + ½ P(tie)."""
    return area_under_curve(*roc_curve(y, score)[:2])


def average_precision(y: np.ndarray, score: np.ndarray) -> float:
    """Σ (recall step) · precision: the mean precision at which each positive is reached."""
    precision, recall, _ = precision_recall_curve(y, score)
    return float(np.sum((recall[:-1] - recall[1:]) * precision[:-1]))


def calibration_curve(
    y: np.ndarray, p: np.ndarray, bins: int | np.ndarray = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(observed share, mean prediction, count) of each bin that is not empty.

    y (n,) holds 0 and 1, p (n,) probabilities; `bins` is a number of equal bins or their edges,
    each bin closed on the right. ValueError for p outside [0, 1], or edges that fall or miss a p.
    """
    y, p = _binary(y, p, both=False)
    edges = np.linspace(0, 1, bins + 1) if np.ndim(bins) == 0 else np.asarray(bins, dtype=float)
    if len(edges) < 2 or not (np.diff(edges) >= 0).all():
        raise ValueError("bins must be a number ≥ 1, or at least two edges that do not fall")
    if p.min() < max(0, edges[0]) or p.max() > min(1, edges[-1]):
        raise ValueError("p must lie in [0, 1] and between the first and the last edge")
    which = np.searchsorted(edges[1:-1], p)
    count = np.bincount(which, minlength=len(edges) - 1)
    used = count > 0
    positives = np.bincount(which, weights=y, minlength=len(count))
    total = np.bincount(which, weights=p, minlength=len(count))
    return positives[used] / count[used], total[used] / count[used], count[used]


def expected_calibration_error(y: np.ndarray, p: np.ndarray, bins: int | np.ndarray = 10) -> float:
    """Mean |observed share − mean prediction|, weighted by count; as :func:`calibration_curve`."""
    observed, predicted, count = calibration_curve(y, p, bins)
    return float(np.sum(count * np.abs(observed - predicted)) / count.sum())


def expected_cost(
    y: np.ndarray, p: np.ndarray, threshold: float | np.ndarray, c_fp: float, c_fn: float
) -> np.ndarray:
    """Mean cost per example of acting where p ≥ threshold; shape of `threshold`.

    y (n,) holds 0 and 1, p (n,) scores; acting on a 0 costs c_fp, not acting on a 1 costs c_fn.
    A threshold of ∞ never acts. ValueError unless both costs are positive and finite.
    """
    y, p = _binary(y, p, both=False)
    if not (0 < c_fp < np.inf and 0 < c_fn < np.inf):
        raise ValueError(f"costs must be positive and finite, got {c_fp} and {c_fn}")
    if np.isnan(threshold).any():
        raise ValueError("threshold holds NaN")
    negative, positive = np.sort(p[y == 0]), np.sort(p[y == 1])
    false_positives = len(negative) - np.searchsorted(negative, threshold)
    false_negatives = np.searchsorted(positive, threshold)
    return (c_fp * false_positives + c_fn * false_negatives) / len(y)


def best_threshold(y: np.ndarray, p: np.ndarray, c_fp: float, c_fn: float) -> float:
    """The threshold of least :func:`expected_cost` on this sample: a score in it, or ∞ (never).

    Of several, the highest. For calibrated p, c_fp / (c_fp + c_fn) needs no data.
    """
    candidates = np.append(np.inf, np.unique(np.asarray(p, dtype=float))[::-1])
    return float(candidates[np.argmin(expected_cost(y, p, candidates, c_fp, c_fn))])
