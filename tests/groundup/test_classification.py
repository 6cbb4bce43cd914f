"""groundup.classification against SciPy, scikit-learn, torch and counting by hand."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, special
from sklearn import calibration, linear_model, metrics

from groundup.calculus import gradient_check
from groundup.classification import (
    LogisticRegression,
    SoftmaxRegression,
    accuracy,
    area_under_curve,
    average_precision,
    best_threshold,
    calibration_curve,
    confusion_matrix,
    expected_calibration_error,
    expected_cost,
    log_softmax,
    log_sum_exp,
    one_hot,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    sigmoid,
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
)

few = settings(deadline=None, max_examples=60)
fewer = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**32 - 1)
huge = st.floats(-1e300, 1e300)
moderate = st.floats(-50, 50)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- sigmoid ---------------------------------------------------------------------------------


@few
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=huge))
def test_sigmoid_is_scipys(z):
    before = z.copy()
    got = sigmoid(z)
    assert got.shape == z.shape and np.array_equal(z, before)
    assert np.allclose(got, special.expit(z), rtol=1e-14, atol=0)


@few
@given(hnp.arrays(np.float64, 8, elements=st.floats(-700, 700)))
def test_sigmoid_is_symmetric_and_rises(z):
    assert np.allclose(sigmoid(z) + sigmoid(-z), 1, rtol=1e-15)
    assert np.all(np.diff(sigmoid(np.sort(z))) >= 0)
    low = z[z < 30]  # above, 1 − p has lost its digits
    assert np.allclose(special.logit(sigmoid(low)), low, rtol=1e-9, atol=1e-9 + 1e-15 * np.exp(low.max(initial=0)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sigmoid_keeps_the_float_type_and_takes_the_ends(dtype):
    z = np.array([-np.inf, -1000, 0, 1000, np.inf], dtype=dtype)
    assert sigmoid(z).dtype == dtype and np.array_equal(sigmoid(z), np.array([0, 0, 0.5, 1, 1], dtype=dtype))
    assert sigmoid([0, 1]).dtype == np.float64 and sigmoid(0) == 0.5


def test_sigmoid_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        sigmoid([0.0, np.nan])


# --- log_sum_exp, softmax, log_softmax -------------------------------------------------------


@few
@given(hnp.arrays(np.float64, shapes, elements=huge), st.data())
def test_log_sum_exp_is_scipys_on_every_axis(z, data):
    axis = data.draw(st.integers(-z.ndim, z.ndim - 1))
    keep = data.draw(st.booleans())
    got = log_sum_exp(z, axis, keepdims=keep)
    expected = special.logsumexp(z, axis=axis, keepdims=keep)
    assert np.shape(got) == np.shape(expected)
    assert np.allclose(got, expected, rtol=1e-13, atol=1e-13)


@few
@given(hnp.arrays(np.float64, shapes, elements=moderate), st.floats(-1e6, 1e6))
def test_log_sum_exp_bounds_and_shift(z, shift):
    got, m, k = log_sum_exp(z), z.max(axis=-1), z.shape[-1]
    assert np.all(got >= m) and np.all(got <= m + np.log(k) + 1e-12)
    assert np.allclose(log_sum_exp(z + shift), got + shift, atol=1e-8)
    assert np.allclose(log_sum_exp(np.concatenate([z, z], axis=-1)), got + np.log(2))


def test_log_sum_exp_of_infinities():
    assert log_sum_exp([-np.inf, -np.inf]) == -np.inf and log_sum_exp([0, np.inf]) == np.inf
    assert log_sum_exp([-np.inf, 3.0]) == 3.0
    assert log_sum_exp([1e308, 1e308]) == 1e308 and log_sum_exp(np.array([-1e308, 1e308])) == 1e308
    assert log_sum_exp(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("function", [log_sum_exp, softmax, log_softmax])
@pytest.mark.parametrize("bad", [np.zeros((3, 0)), 1.0, []])
def test_nothing_along_the_axis(function, bad):
    with pytest.raises(ValueError, match="nothing to sum along axis"):
        function(bad)


@pytest.mark.parametrize("function", [log_sum_exp, softmax, log_softmax])
def test_logits_refuse_nan(function):
    with pytest.raises(ValueError, match="NaN"):
        function(np.array([[0.0, 1.0], [np.nan, 1.0]]))


@few
@given(hnp.arrays(np.float64, shapes, elements=huge), st.data())
def test_softmax_is_scipys_and_a_distribution(z, data):
    axis = data.draw(st.integers(-z.ndim, z.ndim - 1))
    p = softmax(z, axis)
    assert p.shape == z.shape and np.all((p >= 0) & (p <= 1))
    assert np.allclose(p.sum(axis=axis), 1, rtol=1e-12)
    assert np.allclose(p, special.softmax(z, axis=axis), rtol=1e-12, atol=1e-300)


@few
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=moderate), seeds)
def test_softmax_under_shifts_and_permutations(z, seed):
    rng = np.random.default_rng(seed)
    p = softmax(z)
    assert np.allclose(softmax(z + rng.normal(0, 1e4, (len(z), 1))), p, rtol=1e-9)
    order = rng.permutation(z.shape[1])
    assert np.allclose(softmax(z[:, order]), p[:, order], rtol=1e-12)
    assert np.allclose(softmax(np.stack([0 * z, z])[:, :, 0], axis=0)[1], sigmoid(z[:, 0]), rtol=1e-12)


@few
@given(hnp.arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6)))
def test_log_softmax_is_scipys_and_the_logarithm(z):
    got = log_softmax(z)
    assert got.shape == z.shape and np.all(got <= 0)
    assert np.allclose(got, special.log_softmax(z, axis=-1), rtol=1e-13, atol=1e-10)
    assert np.allclose(np.exp(got), softmax(z), rtol=1e-12)
    assert np.allclose(np.diff(got, axis=-1), np.diff(z, axis=-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_keep_their_float_type(dtype):
    z = np.array([[0, 60], [-60, 60]], dtype=dtype)
    for function in (softmax, log_softmax, log_sum_exp):
        got = function(z)
        assert got.dtype == dtype and np.isfinite(got).all()
    assert softmax([1, 2]).dtype == np.float64
    assert np.allclose(log_softmax(z)[0], [-60, 0], atol=1e-3)


def test_masked_logits():
    z = np.array([[0.0, -np.inf, 0.0], [-np.inf, 5.0, -np.inf]])
    assert np.array_equal(softmax(z), [[0.5, 0, 0.5], [0, 1, 0]])
    assert np.array_equal(log_softmax(z)[1], [-np.inf, 0, -np.inf])
    assert np.allclose(softmax(z), torch.softmax(torch.tensor(z), dim=-1))


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("bad", [[-np.inf, -np.inf], [0.0, np.inf]])
def test_softmax_refuses_what_has_no_largest_logit(function, bad):
    with pytest.raises(ValueError, match="finite largest logit"):
        function(np.array(bad))


# --- one_hot and the cross-entropy -----------------------------------------------------------

batches = st.tuples(st.integers(1, 6), st.integers(1, 5), seeds)


def batch(n, k, seed, scale=5.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (n, k)), rng.integers(0, k, n)


@few
@given(
    st.integers(1, 6).flatmap(
        lambda k: st.tuples(
            hnp.arrays(
                st.sampled_from([np.int64, np.uint8, np.int32]),
                hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
                elements=st.integers(0, k - 1),
            ),
            st.just(k),
        )
    )
)
def test_one_hot(case):
    labels, k = case
    got = one_hot(labels, k)
    assert got.shape == (*labels.shape, k) and got.dtype == np.float64
    assert np.all(got.sum(axis=-1) == 1) and set(np.unique(got)) <= {0.0, 1.0}
    assert np.array_equal(got.argmax(axis=-1), labels)


def test_one_hot_of_nothing_and_rows_of_its_own():
    assert one_hot([], 3).shape == (0, 3)
    rows = one_hot([0, 0], 2)
    rows[0] = 7
    assert np.array_equal(rows[1], [1, 0]) and np.array_equal(one_hot([0], 2), [[1, 0]])


@pytest.mark.parametrize(
    "labels, k, match", [([0.0, 1.0], 2, "integers"), ([2], 2, "0 … 1"), ([-1], 2, "0 … 1"), ([0], 0, "0 … -1")]
)
def test_one_hot_refuses(labels, k, match):
    with pytest.raises(ValueError, match=match):
        one_hot(labels, k)


@few
@given(batches)
def test_cross_entropy_is_torchs_with_its_gradient(case):
    logits, labels = batch(*case)
    tensor = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels))
    loss.backward()
    got = softmax_cross_entropy(logits, labels)
    assert isinstance(got, float) and np.isclose(got, loss.item(), rtol=1e-12, atol=1e-14)
    assert np.allclose(softmax_cross_entropy_gradient(logits, labels), tensor.grad.numpy(), atol=1e-14)


@few
@given(batches)
def test_cross_entropy_gradient_by_differences(case):
    logits, labels = batch(*case)
    gradient = softmax_cross_entropy_gradient(logits, labels)
    assume(np.abs(gradient).max() > 1e-3)
    assert gradient_check(lambda z: softmax_cross_entropy(z, labels), gradient, logits) < 1e-6
    assert np.allclose(gradient.sum(axis=1), 0, atol=1e-15)


@few
@given(batches, st.floats(-1e5, 1e5))
def test_cross_entropy_bounds_and_shift(case, shift):
    logits, labels = batch(*case)
    loss = softmax_cross_entropy(logits, labels)
    assert loss >= 0
    assert np.isclose(softmax_cross_entropy(logits + shift, labels), loss, atol=1e-9)
    assert np.isclose(softmax_cross_entropy(np.zeros_like(logits), labels), np.log(logits.shape[1]))
    twice = softmax_cross_entropy(np.tile(logits, (2, 1)), np.tile(labels, 2))
    assert np.isclose(twice, loss)  # a mean, not a sum


def test_cross_entropy_of_extremes():
    logits = np.array([[0, 1e5], [-3e4, 3e4]], dtype=np.float32)
    assert np.isclose(softmax_cross_entropy(logits, [0, 0]), 8e4)
    gradient = softmax_cross_entropy_gradient(logits, [0, 0])
    assert gradient.dtype == np.float32 and np.array_equal(gradient, [[-0.5, 0.5], [-0.5, 0.5]])
    assert softmax_cross_entropy([[0.0, -np.inf]], [1]) == np.inf


@pytest.mark.parametrize("function", [softmax_cross_entropy, softmax_cross_entropy_gradient])
@pytest.mark.parametrize(
    "logits, labels, match",
    [
        (np.zeros((2, 3)), [0], "need logits"),
        (np.zeros(3), [0, 1, 2], "need logits"),
        (np.zeros((0, 3)), [], "need logits"),
        (np.zeros((1, 3)), [3], "must lie in 0 … 2"),
        (np.zeros((1, 3)), [-1], "must lie in 0 … 2"),
        (np.zeros((1, 3)), [1.0], "integers"),
        (np.full((1, 3), np.nan), [1], "NaN"),
    ],
)
def test_cross_entropy_refuses(function, logits, labels, match):
    with pytest.raises(ValueError, match=match):
        function(logits, labels)


# --- the two regressions ---------------------------------------------------------------------


def problem(seed, n=60, d=3, k=2, noise=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, (n, d)) * rng.uniform(0.3, 3, d) + rng.normal(0, 1, d)
    logits = X @ rng.normal(0, 1, (d, k)) + rng.gumbel(0, 1 + noise, (n, k))
    y = logits.argmax(axis=1)
    y[:k] = np.arange(k)  # every class occurs
    return X, y


@fewer
@given(seeds, st.integers(1, 5), st.sampled_from([1e-3, 0.3, 1.0, 50.0]))
def test_logistic_is_scikit_learns(seed, d, l2):
    X, y = problem(seed, d=d)
    ours = LogisticRegression(l2).fit(X, y)
    theirs = linear_model.LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert ours.coef_.shape == (1, d) and ours.intercept_.shape == (1,)
    assert np.allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-8)
    assert np.allclose(ours.intercept_, theirs.intercept_, rtol=1e-6, atol=1e-8)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-6)
    assert np.array_equal(ours.predict(X), theirs.predict(X))


@fewer
@given(seeds, st.integers(1, 4), st.integers(2, 5), st.sampled_from([1e-2, 1.0, 20.0]))
def test_softmax_regression_is_scikit_learns(seed, d, k, l2):
    X, y = problem(seed, d=d, k=k)
    ours = SoftmaxRegression(l2).fit(X, y)
    assert ours.coef_.shape == (k, d) and ours.intercept_.shape == (k,)
    if k > 2:  # with two classes scikit-learn switches to the logistic form
        theirs = linear_model.LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10).fit(X, y)
        assert np.allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-7)
        assert np.allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-7)
        assert np.array_equal(ours.predict(X), theirs.predict(X))
    else:
        logistic = LogisticRegression(l2 / 2).fit(X, y)
        assert np.allclose(ours.predict_proba(X), logistic.predict_proba(X), atol=1e-8)


@fewer
@given(seeds, st.sampled_from([0.0, 0.5]))
def test_fits_are_at_the_maximum(seed, l2):
    X, y = problem(seed, n=120, k=3, noise=3.0)
    two = (y > 0).astype(int)
    model = LogisticRegression(l2).fit(X, two)
    p = model.predict_proba(X)[:, 1]
    assert np.allclose(X.T @ (p - two) + l2 * model.coef_[0], 0, atol=1e-6) and np.isclose(p.sum(), two.sum())
    model = SoftmaxRegression(l2).fit(X, y)
    gap = model.predict_proba(X) - one_hot(y, 3)
    assert np.allclose(gap.T @ X + l2 * model.coef_, 0, atol=1e-6) and np.allclose(gap.sum(axis=0), 0, atol=1e-6)
    assert np.allclose(model.coef_.sum(axis=0), 0, atol=1e-9) and abs(model.intercept_.sum()) < 1e-9


@fewer
@given(seeds)
def test_unpenalised_fits_do_not_depend_on_the_unit(seed):
    X, y = problem(seed, n=150, k=3, noise=3.0)
    A, shift = np.diag([10.0, 0.1, 3.0]), np.array([5.0, -1.0, 0.0])
    for model, labels in ((LogisticRegression(0.0), (y > 0).astype(int)), (SoftmaxRegression(0.0), y)):
        p = model.fit(X, labels).predict_proba(X)
        moved = X @ A + shift
        assert np.allclose(model.fit(moved, labels).predict_proba(moved), p, atol=1e-6)
        repeated = model.fit(np.tile(X, (2, 1)), np.tile(labels, 2)).predict_proba(X)
        assert np.allclose(repeated, p, atol=1e-6)


def test_logistic_against_a_general_minimiser():
    X, y = problem(5)

    def loss(w):
        z = X @ w[:-1] + w[-1]
        return np.sum(np.logaddexp(0, z) - y * z) + 0.35 * w[:-1] @ w[:-1]

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    model = LogisticRegression(0.7).fit(X, y)
    assert np.allclose(np.append(model.coef_, model.intercept_), best, atol=1e-4)


@pytest.mark.parametrize("model", [LogisticRegression(1.0), SoftmaxRegression(1.0)])
def test_probabilities_predictions_and_labels(model):
    X, y = problem(7)
    names = np.array(["quiet", "incident"])[y]
    model.fit(X, names)
    P = model.predict_proba(X)
    assert model.classes_.tolist() == ["incident", "quiet"] and P.shape == (60, 2)
    assert np.allclose(P.sum(axis=1), 1) and np.array_equal(model.predict(X), model.classes_[P.argmax(axis=1)])
    numbers = type(model)(1.0).fit(X, 1 - y)
    assert np.allclose(numbers.predict_proba(X), P)
    assert model.predict(X[:1]).shape == (1,) and model.predict_proba(X.tolist()).shape == (60, 2)
    assert model.fit(X, names) is model


@pytest.mark.parametrize("estimator", [LogisticRegression, SoftmaxRegression])
def test_more_penalty_shrinks_the_weights(estimator):
    X, y = problem(8)
    norms = [np.linalg.norm(estimator(l2).fit(X, y).coef_) for l2 in (1e-3, 0.1, 1, 10, 1e3, 1e6)]
    assert np.all(np.diff(norms) < 0) and norms[-1] < 1e-3
    share = estimator(1e9).fit(X, y).predict_proba(X)[:, 1]
    assert np.allclose(share, y.mean(), atol=1e-4)  # the intercept is free


@pytest.mark.parametrize("estimator", [LogisticRegression, SoftmaxRegression])
def test_separable_classes(estimator):
    X, y = np.array([[-2.0], [-1.0], [1.0], [3.0]]), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="separable"):
        estimator(0.0).fit(X, y)
    touching = np.array([[-2.0], [0.0], [0.0], [3.0]])  # overlap in one point only
    with pytest.raises(ValueError, match="separable|do not settle"):
        estimator(0.0).fit(touching, y)
    for l2 in (1e-6, 1e-3, 1.0):
        model = estimator(l2).fit(X, y)
        assert np.isfinite(model.coef_).all() and np.array_equal(model.predict(X), y)


@pytest.mark.parametrize("estimator", [LogisticRegression, SoftmaxRegression])
@pytest.mark.parametrize(
    "X, y, l2, match",
    [
        (np.zeros((0, 2)), [], 1.0, "X must be a finite"),
        (np.zeros(3), [0, 1, 0], 1.0, "X must be a finite"),
        ([[0.0], [np.nan]], [0, 1], 1.0, "X must be a finite"),
        ([[0.0], [np.inf]], [0, 1], 1.0, "X must be a finite"),
        ([[0.0], [1.0]], [0], 1.0, r"y must have shape \(2,\)"),
        ([[0.0], [1.0]], [[0], [1]], 1.0, r"y must have shape \(2,\)"),
        ([[0.0], [1.0]], [0.0, np.nan], 1.0, "y holds NaN"),
        ([[0.0], [1.0]], [1, 1], 1.0, "at least two classes"),
        ([[0.0], [1.0]], [0, 1], -1.0, "l2 must be"),
        ([[0.0], [1.0]], [0, 1], np.inf, "l2 must be"),
        ([[0.0], [1.0]], [0, 1], np.nan, "l2 must be"),
        (np.outer([1.0, 2, 0, 5, 3], [1, 2]), [0, 1, 0, 1, 0], 0.0, "collinear"),
        (np.ones((4, 1)), [0, 1, 0, 1], 0.0, "collinear"),
    ],
)
def test_fits_refuse(estimator, X, y, l2, match):
    with pytest.raises(ValueError, match=match):
        estimator(l2).fit(X, y)


def test_collinear_columns_are_fine_with_a_penalty():
    X, y = problem(9)
    doubled = np.column_stack([X, X[:, 0]])
    for estimator in (LogisticRegression, SoftmaxRegression):
        coef = estimator(1.0).fit(doubled, y).coef_
        assert np.allclose(coef[:, 0], coef[:, -1], atol=1e-8)


def test_predictions_refuse_other_columns_and_three_classes():
    X, y = problem(10, k=3)
    with pytest.raises(ValueError, match="3 classes: use SoftmaxRegression"):
        LogisticRegression().fit(X, y)
    for model in (LogisticRegression().fit(X, y > 0), SoftmaxRegression().fit(X, y)):
        with pytest.raises(ValueError, match="2 columns, the model was fitted on 3"):
            model.predict(X[:, :2])
        with pytest.raises(ValueError, match="X must be a finite"):
            model.predict_proba(np.full((1, 3), np.nan))


# --- accuracy and the confusion matrix -------------------------------------------------------

label_pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.int64, n, elements=st.integers(0, 4)) for _ in range(2)])
)


@few
@given(label_pairs)
def test_accuracy_and_confusion_are_scikit_learns(pair):
    y, guess = pair
    got = confusion_matrix(y, guess, k=6)
    assert np.array_equal(got, metrics.confusion_matrix(y, guess, labels=range(6)))
    assert accuracy(y, guess) == metrics.accuracy_score(y, guess)
    assert np.isclose(np.trace(got) / got.sum(), accuracy(y, guess))


@few
@given(label_pairs, seeds)
def test_confusion_counts_and_turns(pair, seed):
    y, guess = pair
    got = confusion_matrix(y, guess)
    k = max(y.max(), guess.max()) + 1
    assert got.shape == (k, k) and np.issubdtype(got.dtype, np.integer)
    assert np.array_equal(got.sum(axis=1), np.bincount(y, minlength=k))
    assert np.array_equal(got.sum(axis=0), np.bincount(guess, minlength=k))
    assert np.array_equal(confusion_matrix(guess, y), got.T)
    order = np.random.default_rng(seed).permutation(len(y))
    assert np.array_equal(confusion_matrix(y[order], guess[order]), got)


@few
@given(label_pairs)
def test_accuracy_is_a_share(pair):
    y, guess = pair
    assert 0 <= accuracy(y, guess) <= 1 and accuracy(y, y) == 1 and accuracy(y, y + 1) == 0
    assert accuracy(y, guess) == accuracy(guess, y)
    assert accuracy(y.astype(str), guess.astype(str)) == accuracy(y, guess)


@pytest.mark.parametrize("y, guess", [([], []), ([1], [1, 2]), ([[1]], [[1]]), (1, 1)])
def test_accuracy_and_confusion_refuse_shapes(y, guess):
    for function in (accuracy, confusion_matrix):
        with pytest.raises(ValueError, match="two vectors of one length"):
            function(y, guess)


@pytest.mark.parametrize("y, k, match", [([0, 3], 3, "0 … 2"), ([0, -1], None, "0 … "), ([0.0, 1.0], None, "integers")])
def test_confusion_refuses_labels(y, k, match):
    with pytest.raises(ValueError, match=match):
        confusion_matrix(y, [0, 0], k)


# --- curves ----------------------------------------------------------------------------------


tied = st.sampled_from([-2.5, 0.0, 0.1, 0.25, 1.0, 7.0])


@st.composite
def scored(draw, both=True, elements=tied):
    n = draw(st.integers(2, 40))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    if both:
        y[:2] = [0, 1]
    score = draw(hnp.arrays(np.float64, n, elements=elements))
    return y, score


@few
@given(scored())
def test_roc_is_scikit_learns(case):
    for mine, theirs in zip(roc_curve(*case), metrics.roc_curve(*case, drop_intermediate=False)):
        assert np.allclose(mine, theirs, rtol=1e-14)
    assert np.isclose(roc_auc(*case), metrics.roc_auc_score(*case), rtol=1e-12)


@few
@given(scored())
def test_roc_rates_are_counts(case):
    y, score = case
    fpr, tpr, thresholds = roc_curve(y, score)
    for f, t, cut in zip(fpr, tpr, thresholds):
        assert np.isclose(f, np.mean(score[y == 0] >= cut)) and np.isclose(t, np.mean(score[y == 1] >= cut))
    assert (fpr[0], tpr[0], thresholds[0]) == (0, 0, np.inf) and (fpr[-1], tpr[-1]) == (1, 1)
    assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(tpr) >= 0) and np.all(np.diff(thresholds) < 0)


@few
@given(scored(elements=st.floats(-1e3, 1e3)))
def test_auc_is_a_share_of_pairs(case):
    y, score = case
    gap = score[y == 1][:, None] - score[y == 0]
    assert np.isclose(roc_auc(y, score), np.mean(gap > 0) + np.mean(gap == 0) / 2)
    assert np.isclose(roc_auc(y, -score), 1 - roc_auc(y, score))
    assert np.isclose(roc_auc(1 - y, score), 1 - roc_auc(y, score))


@few
@given(scored(), st.integers(2, 5))
def test_what_depends_on_the_base_rate(case, times):
    y, score = case
    copies = np.where(y == 0, times, 1)
    more = np.repeat(y, copies), np.repeat(score, copies)
    assert np.isclose(roc_auc(*more), roc_auc(y, score))
    assert average_precision(*more) <= average_precision(y, score) + 1e-12
    ranks = np.unique(score, return_inverse=True)[1].astype(float)  # any rising map
    assert np.isclose(roc_auc(y, ranks), roc_auc(y, score))
    assert np.isclose(average_precision(y, ranks), average_precision(y, score))


@few
@given(scored())
def test_precision_recall_is_scikit_learns(case):
    for mine, theirs in zip(precision_recall_curve(*case), metrics.precision_recall_curve(*case)):
        assert np.allclose(mine, theirs, rtol=1e-14)
    assert np.isclose(average_precision(*case), metrics.average_precision_score(*case), rtol=1e-12)


@few
@given(scored())
def test_precision_and_recall_are_counts(case):
    y, score = case
    precision, recall, thresholds = precision_recall_curve(y, score)
    assert len(precision) == len(recall) == len(thresholds) + 1 and (precision[-1], recall[-1]) == (1, 0)
    assert recall[0] == 1 and np.isclose(precision[0], y.mean()) and np.all(np.diff(recall) <= 0)
    for p, r, cut in zip(precision, recall, thresholds):
        assert np.isclose(p, y[score >= cut].mean()) and np.isclose(r, np.mean(score[y == 1] >= cut))


@few
@given(scored(elements=st.floats(-1e3, 1e3)))
def test_average_precision_is_a_mean_over_positives(case):
    y, score = case
    at = [y[score >= s].mean() for s in score[y == 1]]
    assert np.isclose(average_precision(y, score), np.mean(at))
    assert 0 < average_precision(y, score) <= 1 + 1e-12
    assert np.isclose(average_precision(y, np.zeros(len(y))), y.mean())  # knows nothing: the base rate
    assert np.isclose(average_precision(y, y), 1)


@pytest.mark.parametrize("function", [roc_curve, precision_recall_curve, roc_auc, average_precision])
@pytest.mark.parametrize(
    "y, score, match",
    [
        ([], [], "n > 0"),
        ([0, 1], [0.5], "n > 0"),
        ([[0, 1]], [[0.5, 0.1]], "n > 0"),
        ([0, 2], [0.5, 0.1], "must be 0 or 1"),
        ([0, np.nan], [0.5, 0.1], "must be 0 or 1"),
        ([0, 1], [0.5, np.nan], "NaN or infinity"),
        ([0, 1], [0.5, np.inf], "NaN or infinity"),
        ([1, 1], [0.5, 0.1], "all labels are 1"),
        ([0, 0], [0.5, 0.1], "all labels are 0"),
    ],
)
def test_curves_refuse(function, y, score, match):
    with pytest.raises(ValueError, match=match):
        function(y, score)


def test_curves_take_truth_values_and_lists():
    assert roc_auc([True, False], [1, 0]) == 1.0 and average_precision([False, True], [1, 0]) == 0.5


@few
@given(hnp.arrays(np.float64, st.integers(2, 30), elements=moderate), seeds)
def test_area_is_scikit_learns_and_numpys(x, seed):
    x = np.sort(x)
    y = np.random.default_rng(seed).random(len(x))
    got = area_under_curve(x, y)
    assert np.isclose(got, metrics.auc(x, y), atol=1e-12) and np.isclose(got, np.trapezoid(y, x), atol=1e-12)
    assert np.isclose(area_under_curve(x[::-1], y[::-1]), got, atol=1e-12)  # either direction
    assert np.isclose(area_under_curve(2 * x - 5, 3 * y), 6 * got, atol=1e-9)
    assert np.isclose(area_under_curve(x, np.ones(len(x))), np.ptp(x), atol=1e-9)


@pytest.mark.parametrize(
    "x, y, match",
    [
        ([0.0], [1.0], "one length > 1"),
        ([0, 1], [1], "one length > 1"),
        ([[0, 1]], [[1, 1]], "one length > 1"),
        ([0, 2, 1], [1, 1, 1], "sorted"),
        ([0, np.nan, 1], [1, 1, 1], "sorted"),
        ([0, 1, 2], [1, np.nan, 1], "finite"),
    ],
)
def test_area_refuses(x, y, match):
    with pytest.raises(ValueError, match=match):
        area_under_curve(x, y)


# --- calibration -----------------------------------------------------------------------------

probabilities = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0])


@few
@given(scored(both=True, elements=probabilities), st.integers(1, 12))
def test_calibration_curve_is_scikit_learns(case, bins):
    observed, predicted, count = calibration_curve(*case, bins)
    theirs = calibration.calibration_curve(*case, n_bins=bins)
    assert np.allclose(observed, theirs[0]) and np.allclose(predicted, theirs[1])
    assert count.sum() == len(case[0]) and (count > 0).all()


@few
@given(scored(both=True, elements=probabilities), st.integers(1, 6))
def test_calibration_with_edges_is_scikit_learns_quantile_strategy(case, bins):
    y, p = case
    edges = np.percentile(p, np.linspace(0, 1, bins + 1) * 100)
    assume(edges[0] <= p.min() and edges[-1] >= p.max())
    observed, predicted, _ = calibration_curve(y, p, edges)
    theirs = calibration.calibration_curve(y, p, n_bins=bins, strategy="quantile")
    assert np.allclose(observed, theirs[0]) and np.allclose(predicted, theirs[1])


@few
@given(scored(both=False, elements=probabilities), st.integers(1, 12))
def test_calibration_keeps_totals(case, bins):
    y, p = case
    observed, predicted, count = calibration_curve(y, p, bins)
    assert np.isclose(observed @ count, y.sum()) and np.isclose(predicted @ count, p.sum())
    assert np.all(np.diff(predicted) > 0) and np.all((observed >= 0) & (observed <= 1))


@few
@given(scored(both=False, elements=probabilities), st.integers(1, 12))
def test_calibration_error_by_definition(case, bins):
    y, p = case
    edges = np.linspace(0, 1, bins + 1)
    inside = [(p > low) & (p <= high) for low, high in zip(edges[:-1], edges[1:])]
    inside[0] |= p == 0
    expected = sum(abs(np.sum(y[i]) - np.sum(p[i])) for i in inside) / len(y)
    got = expected_calibration_error(y, p, bins)
    assert np.isclose(got, expected, atol=1e-12) and 0 <= got <= 1
    assert got >= abs(y.mean() - p.mean()) - 1e-12  # one bin sees least
    assert np.isclose(expected_calibration_error(y, p, 1), abs(y.mean() - p.mean()))


@few
@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 1)))
def test_calibration_error_of_the_extremes(y):
    assert expected_calibration_error(y, y) == 0 and expected_calibration_error(y, 1 - y) == 1
    assert expected_calibration_error(y, np.full(len(y), y.mean())) < 1e-12  # calibrated and useless


def test_calibrated_probabilities_have_a_small_error():
    rng = np.random.default_rng(11)
    p = rng.beta(0.5, 3, 200_000)
    y = rng.random(p.size) < p
    assert expected_calibration_error(y, p) < 0.005 < 0.05 < expected_calibration_error(y, np.sqrt(p))


@pytest.mark.parametrize("function", [calibration_curve, expected_calibration_error])
@pytest.mark.parametrize(
    "y, p, bins, match",
    [
        ([], [], 10, "n > 0"),
        ([0, 1], [0.2], 10, "n > 0"),
        ([0, 5], [0.2, 0.3], 10, "must be 0 or 1"),
        ([0, 1], [0.2, 1.2], 10, r"\[0, 1\]"),
        ([0, 1], [-0.1, 0.2], 10, r"\[0, 1\]"),
        ([0, 1], [np.nan, 0.2], 10, "NaN"),
        ([0, 1], [0.1, 0.2], 0, "bins"),
        ([0, 1], [0.1, 0.2], [0.0, 0.9, 0.5, 1.0], "bins"),
        ([0, 1], [0.1, 0.2], [0.5], "bins"),
        ([0, 1], [0.1, 0.2], [0.15, 1.0], "between the first and the last edge"),
    ],
)
def test_calibration_refuses(function, y, p, bins, match):
    with pytest.raises(ValueError, match=match):
        function(y, p, bins)


# --- cost ------------------------------------------------------------------------------------

cost = st.floats(0.01, 100)


@few
@given(
    scored(both=False),
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=4), elements=st.floats(-3, 8)),
    cost,
    cost,
)
def test_expected_cost_is_the_sum_over_examples(case, threshold, c_fp, c_fn):
    y, p = case
    got = expected_cost(y, p, threshold, c_fp, c_fn)
    acts = p >= threshold[..., None]
    paid = np.where(acts, c_fp * (y == 0), c_fn * (y == 1)).mean(axis=-1)
    assert got.shape == threshold.shape and np.allclose(got, paid)


@few
@given(scored(both=False), st.floats(-3, 8), cost, cost)
def test_expected_cost_units_and_ends(case, t, c_fp, c_fn):
    y, p = case
    one = expected_cost(y, p, t, c_fp, c_fn)
    assert np.shape(one) == () and np.isclose(expected_cost(y, p, t, 7 * c_fp, 7 * c_fn), 7 * one)
    assert np.isclose(expected_cost(y, p, np.inf, c_fp, c_fn), c_fn * y.mean())
    assert np.isclose(expected_cost(y, p, -np.inf, c_fp, c_fn), c_fp * (1 - y.mean()))
    guess = (p >= t).astype(int)
    assert np.isclose(expected_cost(y, p, t, 1, 1), 1 - accuracy(y, guess))


@few
@given(scored(both=False), cost, cost)
def test_best_threshold_is_the_best(case, c_fp, c_fn):
    y, p = case
    best = best_threshold(y, p, c_fp, c_fn)
    assert isinstance(best, float) and (best in p or best == np.inf)
    all_cuts = np.concatenate([p, p + 1e-6, [-np.inf, np.inf]])
    costs = expected_cost(y, p, all_cuts, c_fp, c_fn)
    least = expected_cost(y, p, best, c_fp, c_fn)
    assert np.isclose(least, costs.min())
    higher = np.append(p[p > best], [np.inf] if best < np.inf else [])
    assert np.all(expected_cost(y, p, higher, c_fp, c_fn) > least - 1e-12)


def test_best_threshold_at_the_ends():
    assert best_threshold([0, 0], [0.2, 0.9], 1, 1) == np.inf
    assert best_threshold([1, 1], [0.2, 0.9], 1, 1) == 0.2
    assert best_threshold([0, 1], [0.2, 0.9], 1, 1) == 0.9
    assert best_threshold([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], 1, 100) == 0.2
    assert best_threshold([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], 100, 1) == 0.4


@pytest.mark.parametrize("c_fp, c_fn", [(1, 1), (1, 9), (3, 1)])
def test_calibrated_probabilities_need_no_sweep(c_fp, c_fn):
    rng = np.random.default_rng(12)
    p = rng.random(100_000)
    y = (rng.random(p.size) < p).astype(int)
    bayes = c_fp / (c_fp + c_fn)
    least = expected_cost(y, p, best_threshold(y, p, c_fp, c_fn), c_fp, c_fn)
    assert expected_cost(y, p, bayes, c_fp, c_fn) < 1.01 * least
    assert abs(best_threshold(y, p, c_fp, c_fn) - bayes) < 0.05


@pytest.mark.parametrize(
    "y, p, costs, match",
    [
        ([], [], (1, 1), "n > 0"),
        ([0, 3], [0.1, 0.2], (1, 1), "must be 0 or 1"),
        ([0, 1], [0.1, np.nan], (1, 1), "NaN or infinity"),
        ([0, 1], [0.1, 0.2], (0, 1), "costs must be positive"),
        ([0, 1], [0.1, 0.2], (1, -2), "costs must be positive"),
        ([0, 1], [0.1, 0.2], (1, np.inf), "costs must be positive"),
        ([0, 1], [0.1, 0.2], (np.nan, 1), "costs must be positive"),
    ],
)
def test_costs_refuse(y, p, costs, match):
    with pytest.raises(ValueError, match=match):
        expected_cost(y, p, 0.5, *costs)
    with pytest.raises(ValueError, match=match):
        best_threshold(y, p, *costs)


def test_expected_cost_refuses_a_nan_threshold():
    with pytest.raises(ValueError, match="threshold holds NaN"):
        expected_cost([0, 1], [0.1, 0.2], [0.5, np.nan], 1, 1)
