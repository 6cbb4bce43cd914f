"""groundup.regression against scikit-learn, statistics in exact arithmetic, and simulation."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats
from sklearn import linear_model, metrics
from sklearn.preprocessing import StandardScaler

from groundup import regression
from groundup.linear_algebra import least_squares
from groundup.regression import (
    LinearModel,
    Prediction,
    Standardizer,
    lasso,
    leverage,
    mean_squared_error,
    prediction_interval,
    r2_score,
    ridge,
    soft_threshold,
)

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
moderate = st.floats(-1e6, 1e6)
alphas = st.floats(1e-3, 1e3)


def data(seed, n, d, noise=1.0, scale=1.0):
    """A well-posed problem: X (n, d), y (n,), with a mean far from zero."""
    rng = np.random.default_rng(seed)
    X = scale * (rng.normal(size=(n, d)) + rng.normal(0, 3, d))
    return X, X @ rng.normal(size=d) + rng.normal(0, 2) + noise * rng.normal(size=n)


def centred(seed, n, d):
    X, y = data(seed, n, d)
    return X - X.mean(axis=0), y - y.mean()


sizes = st.tuples(st.integers(8, 40), st.integers(1, 5))

# --- metrics ---------------------------------------------------------------------------------

pairs = st.integers(1, 30).flatmap(
    lambda n: st.tuples(hnp.arrays(float, n, elements=moderate), hnp.arrays(float, n, elements=moderate))
)


@few
@given(pairs)
def test_error_is_sklearns(pair):
    got = mean_squared_error(*pair)
    assert isinstance(got, float) and got >= 0
    assert np.isclose(got, metrics.mean_squared_error(*pair), rtol=1e-12)
    assert got == mean_squared_error(*pair[::-1])
    assert mean_squared_error(pair[0], pair[0]) == 0


@few
@given(pairs, st.floats(0.1, 100))
def test_error_is_quadratic_and_splits_into_variance_and_bias(pair, factor):
    y, y_hat = pair
    assert np.isclose(mean_squared_error(factor * y, factor * y_hat), factor**2 * mean_squared_error(y, y_hat))
    residual = y - y_hat
    assert np.isclose(mean_squared_error(y, y_hat), residual.var() + residual.mean() ** 2, rtol=1e-9, atol=1e-9)


@few
@given(pairs)
def test_r2_is_sklearns(pair):
    assume(np.ptp(pair[0]) > 1e-3)
    assert np.isclose(r2_score(*pair), metrics.r2_score(*pair), rtol=1e-9)
    assert r2_score(*pair) <= 1 and r2_score(pair[0], pair[0]) == 1
    assert np.isclose(r2_score(pair[0], np.full(len(pair[0]), pair[0].mean())), 0, atol=1e-9)


@few
@given(seeds, sizes, st.floats(0.1, 100), st.floats(-50, 50))
def test_r2_has_no_unit_and_is_the_squared_correlation_of_a_fit(seed, size, factor, shift):
    X, y = data(seed, *size)
    fitted = LinearModel().fit(X, y).predict(X)
    r2 = r2_score(y, fitted)
    assert np.isclose(r2_score(factor * y + shift, factor * fitted + shift), r2, rtol=1e-7, atol=1e-9)
    assert np.isclose(r2, np.corrcoef(y, fitted)[0, 1] ** 2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("metric", [mean_squared_error, r2_score])
@pytest.mark.parametrize(
    "y, y_hat, match",
    [
        ([], [], "not be empty|not empty"),
        ([1.0, 2.0], [1.0], "2 entries, but y_hat has 1"),
        ([1.0, np.nan], [1.0, 2.0], "y holds NaN"),
        ([1.0, 2.0], [1.0, np.inf], "y_hat holds NaN or infinity"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "a vector"),
        (3.0, 3.0, "a vector"),
    ],
)
def test_metrics_refuse(metric, y, y_hat, match):
    with pytest.raises(ValueError, match=match):
        metric(y, y_hat)


def test_r2_refuses_a_constant():
    with pytest.raises(ValueError, match="constant y"):
        r2_score([2.0, 2.0], [1.0, 3.0])


# --- Standardizer ----------------------------------------------------------------------------

tables = hnp.arrays(float, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=moderate)


@few
@given(tables)
def test_standardizer_is_sklearns(X):
    assume(all(s == 0 or s > 1e-6 for s in np.ptp(X, axis=0)))
    before, scaler = X.copy(), Standardizer()
    Z = scaler.fit_transform(X)
    varies = np.ptp(X, axis=0) > 0
    theirs = StandardScaler().fit(X)
    assert np.allclose(scaler.mean_, theirs.mean_, rtol=1e-9, atol=1e-9)
    assert np.allclose(scaler.scale_[varies], np.sqrt(theirs.var_[varies]), rtol=1e-6)
    assert (scaler.scale_[~varies] == 1).all() and (Z[:, ~varies] == 0).all()
    assert Z.shape == X.shape and np.array_equal(X, before)
    assert np.allclose(Z.mean(axis=0), 0, atol=1e-6) and np.allclose(Z[:, varies].std(axis=0), 1, rtol=1e-6)


@few
@given(seeds, sizes, st.floats(-100, 100), st.floats(0.01, 100))
def test_standardizer_undoes_shift_and_scale(seed, size, shift, factor):
    X, _ = data(seed, *size)
    Z = Standardizer().fit_transform(X)
    assert np.allclose(Standardizer().fit_transform(factor * X + shift), Z, atol=1e-7)
    assert np.allclose(Standardizer().fit_transform(Z), Z, atol=1e-9)


@few
@given(seeds, sizes)
def test_standardizer_remembers_the_fit(seed, size):
    X, _ = data(seed, *size)
    scaler = Standardizer().fit(X)
    other = np.random.default_rng(seed).normal(size=(3, X.shape[1]))
    assert np.allclose(scaler.transform(other), (other - X.mean(axis=0)) / X.std(axis=0))
    assert np.allclose(scaler.transform(other)[1:], scaler.transform(other[1:]))  # row by row


@pytest.mark.parametrize("factor", [1e-300, 1e-160, 1e160, 1e300])
def test_standardizer_of_extreme_values(factor):
    Z = Standardizer().fit_transform(np.array([[1.0], [2.0], [6.0]]) * factor)
    assert np.allclose(Z, Standardizer().fit_transform([[1.0], [2.0], [6.0]]))


def test_standardizer_of_constants():
    X = np.full((7, 2), 0.1)  # the mean of seven 0.1 is not 0.1
    assert (Standardizer().fit_transform(X) == 0).all()
    assert (Standardizer().fit_transform([[3, 4]]) == 0).all()  # one row, integers


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(3), [[np.nan]], [[np.inf, 1]]])
def test_standardizer_refuses(bad):
    with pytest.raises(ValueError, match="X must be a matrix and not empty|X holds NaN"):
        Standardizer().fit(bad)


def test_standardizer_refuses_the_order_and_the_width():
    with pytest.raises(ValueError, match="call fit before transform"):
        Standardizer().transform([[1.0]])
    with pytest.raises(ValueError, match="X must have 2 columns as in fit, got shape \\(1, 3\\)"):
        Standardizer().fit(np.eye(2)).transform([[1.0, 2.0, 3.0]])


# --- LinearModel -----------------------------------------------------------------------------


@few
@given(seeds, sizes, st.sampled_from([1e-6, 1.0, 1e6]))
def test_least_squares_is_sklearns(seed, size, scale):
    X, y = data(seed, *size, scale=scale)
    ours, theirs = LinearModel().fit(X, y), linear_model.LinearRegression().fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-9 / scale)
    assert np.isclose(ours.intercept_, theirs.intercept_, rtol=1e-6, atol=1e-7)
    assert np.allclose(ours.predict(X), theirs.predict(X), atol=1e-7)
    assert ours.coef_.shape == (X.shape[1],) and isinstance(ours.intercept_, float)


@few
@given(seeds, sizes)
def test_residuals_are_orthogonal_and_nothing_is_nearer(seed, size):
    X, y = data(seed, *size)
    before = X.copy(), y.copy()
    model = LinearModel().fit(X, y)
    residual = y - model.predict(X)
    assert abs(residual.sum()) < 1e-8 and np.allclose(X.T @ residual, 0, atol=1e-7)
    other = LinearModel().fit(X, y)
    other.coef_ = other.coef_ + np.random.default_rng(seed).normal(0, 0.01, len(other.coef_))
    assert mean_squared_error(y, other.predict(X)) >= mean_squared_error(y, model.predict(X))
    assert np.array_equal(X, before[0]) and np.array_equal(y, before[1])


@few
@given(seeds, sizes, alphas, st.sampled_from([ridge, lasso]))
def test_intercept_is_not_penalised(seed, size, alpha, solve):
    X, y = data(seed, *size)
    model = LinearModel(solve, alpha=alpha)
    assert model.fit(X, y) is model
    moved = LinearModel(solve, alpha=alpha).fit(X - 7, y + 1000)
    assert np.allclose(moved.coef_, model.coef_, atol=1e-6)
    assert np.isclose(moved.intercept_, model.intercept_ + 1000 + 7 * model.coef_.sum(), atol=1e-5)
    assert np.isclose(model.predict(X).mean(), y.mean())


@few
@given(seeds, sizes, st.floats(0.01, 100))
def test_predictions_do_not_depend_on_units(seed, size, factor):
    X, y = data(seed, *size)
    first = LinearModel().fit(X, y)
    second = LinearModel().fit(X * factor, y)
    assert np.allclose(second.coef_ * factor, first.coef_, rtol=1e-6, atol=1e-9)
    assert np.allclose(second.predict(X * factor), first.predict(X), atol=1e-7)


def test_model_takes_lists_one_column_and_a_solver():
    model = LinearModel().fit([[0], [1], [2]], [1, 3, 5])
    assert np.allclose(model.predict([[10]]), [21])
    model = LinearModel(lambda X, y: np.zeros(X.shape[1])).fit([[0], [4]], [1, 3])
    assert model.intercept_ == 2 and (model.predict([[99.0]]) == 2).all()
    again = LinearModel(partial(ridge, alpha=1.0)).fit([[0], [4]], [1, 3])
    assert np.allclose(again.coef_, LinearModel(ridge, alpha=1.0).fit([[0], [4]], [1, 3]).coef_)


@pytest.mark.parametrize(
    "X, y, match",
    [
        (np.zeros((0, 2)), [], "X must be a matrix and not empty"),
        (np.zeros(3), np.zeros(3), "X must be a matrix"),
        (np.eye(3), np.zeros((3, 1)), "y must be a vector"),
        (np.eye(3), np.zeros(2), "X has 3 rows, but y has 2 entries"),
        ([[1.0], [np.nan]], [1, 2], "X holds NaN"),
        ([[1.0], [2.0]], [1, np.inf], "y holds NaN or infinity"),
        ([[0.1], [0.1], [0.1]], [1, 2, 3], "only 0 of A's 1 columns are independent"),
        (np.outer(np.arange(5.0), [1, 2]), np.arange(5.0), "only 1 of A's 2 columns are independent"),
        (np.eye(2), [1, 2], "columns are independent"),
    ],
)
def test_model_refuses(X, y, match):
    with pytest.raises(ValueError, match=match):
        LinearModel().fit(X, y)


def test_model_refuses_the_order_and_the_width():
    with pytest.raises(ValueError, match="call fit before predict"):
        LinearModel().predict([[1.0]])
    with pytest.raises(ValueError, match="X must have 1 columns as in fit"):
        LinearModel().fit([[0], [1], [2]], [1, 3, 5]).predict([[1.0, 2.0]])


# --- ridge -----------------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 30), st.integers(1, 8), alphas)
def test_ridge_is_sklearns_and_solves_its_equations(seed, n, d, alpha):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)  # more columns than rows, too
    w = ridge(X, y, alpha)
    assert w.shape == (d,)
    assert np.allclose(w, linear_model.Ridge(alpha=alpha, fit_intercept=False).fit(X, y).coef_, rtol=1e-6, atol=1e-9)
    assert np.allclose(X.T @ (y - X @ w), alpha * w, atol=1e-8)


@few
@given(seeds, sizes, alphas)
def test_ridge_shrinks_each_singular_direction(seed, size, alpha):
    X, y = centred(seed, *size)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    plain = least_squares(X, y)
    assert np.allclose(Vt @ ridge(X, y, alpha), s**2 / (s**2 + alpha) * (Vt @ plain), atol=1e-9)
    assert np.allclose(ridge(X, y, 0), plain, atol=1e-10)
    assert np.linalg.norm(ridge(X, y, 2 * alpha)) <= np.linalg.norm(ridge(X, y, alpha)) + 1e-12


@few
@given(seeds, sizes, alphas, st.floats(0.1, 10))
def test_ridge_minimises_its_objective_and_is_linear_in_y(seed, size, alpha, factor):
    X, y = centred(seed, *size)
    w = ridge(X, y, alpha)

    def objective(w):
        return ((y - X @ w) ** 2).sum() + alpha * w @ w

    nudge = np.random.default_rng(seed).normal(0, 0.1, len(w))
    assert objective(w + nudge) > objective(w)
    assert np.allclose(ridge(X, factor * y, alpha), factor * w, atol=1e-8)
    assert np.allclose(ridge(factor * X, y, factor**2 * alpha), w / factor, atol=1e-8)


def test_ridge_shares_between_copies_and_takes_extremes():
    x, y = np.arange(6.0)[:, None] - 2.5, np.arange(6.0)
    both = ridge(np.hstack([x, x]), y, 1.0)
    assert np.isclose(both[0], both[1]) and np.isclose(both.sum(), ridge(x, y, 0.5)[0])
    assert np.allclose(ridge(x, y, 1e300), 0) and ridge(np.zeros((3, 1)), np.ones(3), 1.0) == 0
    assert np.allclose(ridge(1e150 * x, y, 0.0) * 1e150, ridge(x, y, 0.0))


@pytest.mark.parametrize("solve", [ridge, lasso])
@pytest.mark.parametrize("alpha", [-1e-9, np.nan, np.inf])
def test_penalties_refuse_alpha(solve, alpha):
    with pytest.raises(ValueError, match="alpha must be finite and at least 0"):
        solve(np.eye(3), np.ones(3), alpha)


@pytest.mark.parametrize("solve", [ridge, lasso])
@pytest.mark.parametrize(
    "X, y, match",
    [
        (np.eye(3), np.ones(4), "X has 3 rows, but y has 4 entries"),
        (np.zeros((0, 1)), np.ones(0), "not empty"),
        ([[np.nan]], [1.0], "X holds NaN"),
        ([[1.0]], [np.inf], "y holds NaN or infinity"),
        (np.ones(3), np.ones(3), "X must be a matrix"),
    ],
)
def test_penalties_refuse_data(solve, X, y, match):
    with pytest.raises(ValueError, match=match):
        solve(X, y, 1.0)


def test_ridge_without_penalty_refuses_dependent_columns():
    with pytest.raises(ValueError, match="columns are independent"):
        ridge(np.ones((4, 2)), np.ones(4), 0.0)


# --- soft_threshold --------------------------------------------------------------------------

thresholds = st.floats(0, 1e6)


@few
@given(hnp.arrays(float, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), elements=moderate), thresholds)
def test_threshold_moves_towards_zero_and_stops(z, t):
    got = soft_threshold(z, t)
    assert np.shape(got) == z.shape
    assert (np.abs(got) <= np.abs(z)).all() and (got * z >= 0).all()
    assert (np.asarray(got)[np.abs(z) <= t] == 0).all()
    outside = np.abs(z) > t
    assert np.allclose(np.abs(z - got)[outside], t, rtol=1e-9, atol=1e-9)
    assert np.array_equal(soft_threshold(-z, t), -got)


@few
@given(moderate, thresholds, thresholds)
def test_thresholds_add(z, s, t):
    assert np.isclose(soft_threshold(soft_threshold(z, s), t), soft_threshold(z, s + t), rtol=1e-9, atol=1e-6)
    assert soft_threshold(z, 0) == z


@few
@given(st.floats(-100, 100), st.floats(0, 100), st.floats(-100, 100))
def test_threshold_is_the_proximal_map_of_the_absolute_value(z, t, other):
    def objective(w):
        return (w - z) ** 2 / 2 + t * abs(w)

    assert objective(soft_threshold(z, t)) <= objective(other) + 1e-9


@few
@given(moderate, moderate, thresholds)
def test_threshold_does_not_expand(a, b, t):
    assert abs(soft_threshold(a, t) - soft_threshold(b, t)) <= abs(a - b) * (1 + 1e-12) + 1e-9


@pytest.mark.parametrize("t", [-1e-300, -1, np.nan])
def test_threshold_refuses(t):
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        soft_threshold(1.0, t)


def test_threshold_of_infinities():
    assert soft_threshold(np.inf, 1.0) == np.inf and soft_threshold(5.0, np.inf) == 0
    assert soft_threshold([], 1.0).shape == (0,)


# --- lasso -----------------------------------------------------------------------------------


@few
@given(seeds, st.integers(5, 40), st.integers(1, 6), st.floats(0.01, 2))
def test_lasso_is_sklearns(seed, n, d, alpha):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = X @ rng.normal(0, 2, d) + rng.normal(size=n)
    assume(n > d and np.linalg.cond(X) < 50)
    theirs = linear_model.Lasso(alpha=alpha, fit_intercept=False, tol=1e-13, max_iter=100_000).fit(X, y)
    assert np.allclose(lasso(X, y, alpha, max_sweeps=100_000), theirs.coef_, atol=1e-6)


@few
@given(seeds, st.integers(2, 12), st.integers(1, 12), st.floats(0.05, 2))
def test_lasso_satisfies_the_conditions_of_a_minimum(seed, n, d, alpha):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), 3 * rng.normal(size=n)  # more columns than rows, too
    before = X.copy(), y.copy()
    w = lasso(X, y, alpha, tol=1e-8, max_sweeps=100_000)
    slope = X.T @ (y - X @ w) / n
    assert w.shape == (d,) and (np.abs(slope) <= alpha + 1e-6).all()
    assert np.allclose(slope[w != 0], alpha * np.sign(w[w != 0]), atol=1e-6)
    assert np.array_equal(X, before[0]) and np.array_equal(y, before[1])


@few
@given(seeds, sizes, st.floats(0.01, 0.99))
def test_lasso_is_zero_from_alpha_max_on(seed, size, share):
    X, y = centred(seed, *size)
    alpha_max = np.abs(X.T @ y).max() / len(X)
    assert not lasso(X, y, alpha_max * (1 + 1e-9)).any()
    assert lasso(X, y, alpha_max * share, tol=1e-8).any()


@few
@given(seeds, st.integers(10, 40), alphas)
def test_lasso_of_one_column_is_a_threshold_and_of_orthogonal_ones_too(seed, n, alpha):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3)))[0] * np.sqrt(n)
    y = np.random.default_rng(seed + 1).normal(0, 5, n)
    assert np.allclose(lasso(Q, y, alpha), soft_threshold(Q.T @ y / n, alpha), atol=1e-8)


@few
@given(seeds, sizes)
def test_lasso_without_penalty_and_from_any_start(seed, size):
    X, y = centred(seed, *size)
    assume(np.linalg.cond(X) < 20)
    start = np.random.default_rng(seed).normal(0, 10, X.shape[1])
    before = start.copy()
    assert np.allclose(lasso(X, y, 0.0, max_sweeps=100_000), least_squares(X, y), atol=1e-6)
    warm = lasso(X, y, 0.1, start=start, max_sweeps=100_000)
    assert np.allclose(warm, lasso(X, y, 0.1, max_sweeps=100_000), atol=1e-6)
    assert np.array_equal(start, before)


def test_lasso_of_zero_columns_copies_and_extremes():
    x, y = np.arange(6.0)[:, None] - 2.5, np.arange(6.0) - 2.5
    assert np.allclose(lasso(np.hstack([x, 0 * x]), y, 0.1), [lasso(x, y, 0.1)[0], 0])
    assert np.isclose(lasso(np.hstack([x, x]), y, 0.1).sum(), lasso(x, y, 0.1)[0])
    assert not lasso(x, 0 * y, 0.0).any()
    assert np.allclose(lasso(1e100 * x, 1e100 * y, 1e199), lasso(x, y, 0.1))


def test_lasso_gives_up_aloud():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1))
    with pytest.raises(RuntimeError, match="no convergence after 3 sweeps"):
        lasso(np.hstack([x, x + 1e-3 * rng.normal(size=(50, 1))]), rng.normal(size=50), 0.0, max_sweeps=3)


@pytest.mark.parametrize("start, match", [([1.0], "start must have 3 entries, got 1"), ([np.nan] * 3, "start holds NaN")])
def test_lasso_refuses_a_start(start, match):
    with pytest.raises(ValueError, match=match):
        lasso(np.eye(3), np.ones(3), 0.1, start=start)


# --- leverage --------------------------------------------------------------------------------


@few
@given(seeds, sizes)
def test_leverage_is_the_diagonal_of_the_hat_matrix(seed, size):
    X, _ = data(seed, *size)
    A = np.column_stack([np.ones(len(X)), X])
    h = leverage(X)
    assert np.allclose(h, np.diag(A @ np.linalg.pinv(A)), atol=1e-8)
    assert np.isclose(h.sum(), X.shape[1] + 1) and (h <= 1 + 1e-9).all() and (h >= 1 / len(X) - 1e-12).all()


@few
@given(seeds, sizes, st.floats(0.01, 100))
def test_leverage_has_no_unit(seed, size, factor):
    X, _ = data(seed, *size)
    new = np.random.default_rng(seed).normal(0, 5, (4, X.shape[1]))
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(X.shape[1],) * 2))[0] * factor
    assert np.allclose(leverage(X @ turn + 3, new @ turn + 3), leverage(X, new), rtol=1e-5)
    assert np.isclose(leverage(X, X.mean(axis=0)[None])[0], 1 / len(X))


@few
@given(seeds, sizes)
def test_leverage_of_a_row_is_what_its_own_y_moves_its_fit(seed, size):
    X, y = data(seed, *size)
    nudged = y.copy()
    nudged[2] += 1
    moved = LinearModel().fit(X, nudged).predict(X)[2] - LinearModel().fit(X, y).predict(X)[2]
    assert np.isclose(moved, leverage(X)[2], atol=1e-8)


@pytest.mark.parametrize(
    "X, new, match",
    [
        (np.ones((5, 1)), None, "only 0 of 1 centred columns"),
        (np.outer(np.arange(5.0), [1, 2]), None, "only 1 of 2 centred columns"),
        (np.eye(2), None, "centred columns are independent"),
        (np.arange(5.0)[:, None], [[1.0, 2.0]], "X_new must have 1 columns"),
        (np.arange(5.0)[:, None], [[np.nan]], "X_new holds NaN"),
        (np.arange(5.0)[:, None], np.zeros((0, 1)), "X_new must be a matrix and not empty"),
        ([], None, "X must be a matrix"),
    ],
)
def test_leverage_refuses(X, new, match):
    with pytest.raises(ValueError, match=match):
        leverage(X, new)


# --- prediction_interval and Prediction ------------------------------------------------------


@few
@given(seeds, sizes, st.sampled_from([0.5, 0.9, 0.999]))
def test_interval_is_scipys(seed, size, confidence):
    X, y = data(seed, *size)
    n, d = X.shape
    new = np.random.default_rng(seed).normal(0, 5, (3, d))

    def slopes(rows, *w):
        return np.column_stack([np.ones(len(rows)), rows])

    found, covariance = optimize.curve_fit(
        lambda rows, *w: slopes(rows) @ np.array(w), X, y, p0=np.zeros(d + 1), jac=slopes
    )
    s2 = ((y - slopes(X) @ found) ** 2).sum() / (n - d - 1)
    half = stats.t.ppf((1 + confidence) / 2, n - d - 1) * np.sqrt(
        s2 + (slopes(new) @ covariance * slopes(new)).sum(axis=1)
    )
    got = prediction_interval(X, y, new, confidence)
    assert isinstance(got, Prediction) and all(part.shape == (3,) for part in got)
    assert np.allclose(got.value, LinearModel().fit(X, y).predict(new), atol=1e-9)
    assert np.allclose(got.high - got.value, half, rtol=1e-4) and np.allclose(got.value - got.low, half, rtol=1e-4)


@few
@given(seeds, sizes, st.floats(0.1, 100), st.floats(-100, 100))
def test_interval_follows_the_unit_of_y_and_not_of_X(seed, size, factor, shift):
    X, y = data(seed, *size)
    one = prediction_interval(X, y, X[:4])
    assert np.allclose(prediction_interval(X, factor * y + shift, X[:4]), factor * np.array(one) + shift, atol=1e-5)
    assert np.allclose(prediction_interval(X * factor, y, X[:4] * factor), one, atol=1e-6)


@few
@given(seeds, sizes, st.floats(0.05, 0.9))
def test_interval_grows_with_confidence_and_distance(seed, size, confidence):
    X, y = data(seed, *size)
    mean, direction = X.mean(axis=0), np.random.default_rng(seed).normal(size=X.shape[1])
    along = mean + np.array([[0.0], [1.0], [5.0], [50.0]]) * direction
    narrow, wide = prediction_interval(X, y, along, confidence), prediction_interval(X, y, along, 0.95)
    assert (wide.high - wide.low > narrow.high - narrow.low).all()
    assert (np.diff(wide.high - wide.low) > 0).all()
    assert (wide.low < wide.value).all() and (wide.value < wide.high).all()


@pytest.mark.parametrize("n, d, confidence", [(4, 1, 0.9), (7, 3, 0.5), (30, 2, 0.99)])
def test_interval_covers(n, d, confidence):
    rng, hits, repetitions = np.random.default_rng(n), 0, 1500
    for _ in range(repetitions):
        X = rng.normal(size=(n + 1, d))
        y = 2 + X.sum(axis=1) + rng.normal(0, 3, n + 1)
        _, low, high = prediction_interval(X[:n], y[:n], X[n:], confidence)
        hits += low[0] <= y[n] <= high[0]
    assert abs(hits / repetitions - confidence) < 4 * np.sqrt(confidence * (1 - confidence) / repetitions)


def test_interval_of_a_perfect_line_has_no_width():
    x = np.arange(5.0)[:, None]
    value, low, high = prediction_interval(x, 3 * x[:, 0] + 1, [[10.0]])
    assert np.allclose([value, low, high], 31)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, np.nan])
def test_interval_refuses_confidence(confidence):
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1"):
        prediction_interval(np.arange(5.0)[:, None], np.arange(5.0), [[1.0]], confidence)


@pytest.mark.parametrize(
    "X, y, new, match",
    [
        ([[0.0], [1.0]], [1, 2], [[1.0]], "2 rows leave nothing to estimate the noise"),
        (np.ones((5, 1)), np.arange(5.0), [[1.0]], "centred columns are independent"),
        (np.arange(5.0)[:, None], np.arange(4.0), [[1.0]], "X has 5 rows, but y has 4"),
        (np.arange(5.0)[:, None], np.arange(5.0), [1.0], "X_new must be a matrix"),
        (np.arange(5.0)[:, None], np.arange(5.0), [[1.0, 2.0]], "X_new must have 1 columns"),
    ],
)
def test_interval_refuses(X, y, new, match):
    with pytest.raises(ValueError, match=match):
        prediction_interval(X, y, new)


def test_every_export_is_documented():
    for name in regression.__all__:
        assert (getattr(regression, name).__doc__ or "").strip(), name
