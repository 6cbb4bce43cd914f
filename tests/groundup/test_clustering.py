"""groundup.clustering against brute force, scikit-learn and SciPy, on data that no chapter shows."""

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import cluster, mixture
from sklearn.exceptions import ConvergenceWarning

from groundup.clustering import (
    FAULTS,
    METRICS,
    GaussianMixture,
    KMeansResult,
    assign,
    kmeans,
    kmeans_plus_plus,
    log_gaussian,
    service_metrics,
)

few = settings(deadline=None, max_examples=50)
rarely = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
coarse = st.integers(-4, 4).map(float)  # many duplicates and ties
wide = st.floats(-1e6, 1e6)


def tables(elements=wide, rows=(1, 25), columns=(1, 4)):
    return st.tuples(st.integers(*rows), st.integers(*columns)).flatmap(
        lambda shape: hnp.arrays(np.float64, shape, elements=elements)
    )


either = st.one_of(tables(coarse), tables(wide))


def squared(X, centers):
    return ((X[:, None] - centers[None]) ** 2).sum(axis=2)


def cloud(seed, n=120, d=3, k=3, spread=4.0):
    """Rows around k random places, with correlated noise."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, spread, (k, d))[rng.integers(k, size=n)]
        + rng.standard_normal((n, d)) @ rng.normal(0, 1, (d, d))
        + 0.3 * rng.standard_normal((n, d))
    )


# --- assign ----------------------------------------------------------------------------------


@few
@given(either, st.integers(1, 6), seeds)
def test_assign_is_the_nearest(X, k, seed):
    centers = np.random.default_rng(seed).uniform(-5, 5, (k, X.shape[1])) * max(1, np.abs(X).max() / 4)
    labels, distance = assign(X, centers)
    table = squared(X, centers)
    assert labels.shape == distance.shape == (len(X),) and labels.dtype.kind == "i"
    scale = 1e-9 * (1 + table.max())
    assert np.allclose(distance, table[np.arange(len(X)), labels], rtol=1e-9, atol=scale)
    assert np.all(distance <= table.min(axis=1) + scale)


@few
@given(either, st.integers(1, 6), seeds, st.integers(1, 400))
def test_assign_does_not_depend_on_blocks(X, k, seed, block_bytes):
    centers = np.random.default_rng(seed).choice(X, k)
    before = X.copy()
    labels, distance = assign(X, centers, block_bytes=block_bytes)
    whole = assign(X, centers)
    table = squared(X, centers)
    assert np.allclose(distance, whole[1], rtol=1e-9, atol=1e-9 * (1 + table.max()))
    assert labels.min() >= 0 and labels.max() < k and np.array_equal(X, before)


@few
@given(tables(coarse), seeds, st.integers(-1000, 1000))
def test_assign_moves_with_the_data(X, seed, shift):
    centers = np.random.default_rng(seed).uniform(-4, 4, (4, X.shape[1]))
    assert np.allclose(assign(X + shift, centers + shift)[1], assign(X, centers)[1], atol=1e-8)
    assert np.allclose(assign(3 * X, 3 * centers)[1], 9 * assign(X, centers)[1], atol=1e-8)


def test_assign_breaks_ties_by_index_and_takes_lists():
    labels, distance = assign([[0.0], [1.0]], [[1.0], [-1.0], [1.0]])
    assert labels.tolist() == [0, 0] and distance.tolist() == [1.0, 0.0]


def test_assign_is_accurate_far_from_zero():
    X = 1e8 + np.array([[0.0], [0.25], [1.0]])
    labels, distance = assign(X, 1e8 + np.array([[0.0], [1.0]]))
    assert labels.tolist() == [0, 0, 1] and np.allclose(distance, [0, 0.0625, 0])


@pytest.mark.parametrize(
    "X, centers, match",
    [
        (np.zeros((0, 2)), np.zeros((1, 2)), "X must be a table of rows and features"),
        (np.zeros(3), np.zeros((1, 3)), "X must be a table"),
        (np.zeros((2, 2)), np.zeros((0, 2)), "centers must be a table"),
        (np.zeros((2, 2)), np.zeros((1, 3)), "X must have 3 columns"),
        ([[np.nan]], [[0.0]], "X holds NaN"),
        ([[0.0]], [[np.inf]], "centers holds NaN, infinity"),
        ([[1e200]], [[0.0]], "squares overflow"),
    ],
)
def test_assign_refuses(X, centers, match):
    with pytest.raises(ValueError, match=match):
        assign(X, centers)


# --- kmeans_plus_plus ------------------------------------------------------------------------


@few
@given(either, st.data(), seeds)
def test_seeds_are_rows(X, data, seed):
    k = data.draw(st.integers(1, len(X)))
    centers = kmeans_plus_plus(X, k, seed)
    assert centers.shape == (k, X.shape[1])
    assert all((X == c).all(axis=1).any() for c in centers)
    assert np.array_equal(centers, kmeans_plus_plus(X, k, np.random.default_rng(seed)))


@few
@given(tables(coarse), seeds)
def test_seeds_differ_while_rows_do(X, seed):
    distinct = len(np.unique(X, axis=0))
    centers = kmeans_plus_plus(X, distinct, seed)
    assert len(np.unique(centers, axis=0)) == distinct
    assert assign(X, centers)[1].sum() == 0


@few
@given(st.integers(1, 9), seeds)
def test_seeds_of_equal_rows(n, seed):
    assert np.array_equal(kmeans_plus_plus(np.full((n, 2), 3.5), n, seed), np.full((n, 2), 3.5))


def test_seeds_follow_squared_distance():
    X = np.array([[0.0], [1.0], [3.0]])
    second = [kmeans_plus_plus(X, 2, seed).ravel() for seed in range(6000)]
    from_zero = np.array([b for a, b in second if a == 0])
    assert abs(np.mean(from_zero == 3) - 0.9) < 0.03  # 9 / (1 + 9)
    assert abs(np.mean([a == 1 for a, _ in second]) - 1 / 3) < 0.03


@pytest.mark.parametrize("k", [0, -1, 4])
def test_seeds_refuse_k(k):
    with pytest.raises(ValueError, match="k must be between 1 and the number of rows, 3"):
        kmeans_plus_plus(np.arange(3.0)[:, None], k)


# --- kmeans ----------------------------------------------------------------------------------


@few
@given(either, st.data(), seeds)
def test_kmeans_descends_and_is_consistent(X, data, seed):
    k = data.draw(st.integers(1, len(X)))
    got = kmeans(X, k, rng=seed)
    assert isinstance(got, KMeansResult) and isinstance(got.inertia, float)
    assert got.centers.shape == (k, X.shape[1]) and got.labels.shape == (len(X),)
    slack = 1e-12 * got.history[0] + 1e-24 * np.abs(X).max() ** 2
    assert (np.diff(got.history) <= slack).all() and got.history[-1] == got.inertia
    assert np.isclose(got.inertia, squared(X, got.centers)[np.arange(len(X)), got.labels].sum(), rtol=1e-9)
    rounding = 1e-13 * (1 + np.abs(X).max()) ** 2
    assert np.all(squared(X, got.centers)[np.arange(len(X)), got.labels] <= assign(X, got.centers)[1] + rounding)


@few
@given(either, st.data(), seeds)
def test_kmeans_stops_at_means(X, data, seed):
    k = data.draw(st.integers(1, len(X)))
    got = kmeans(X, k, rng=seed)
    moved = [X[got.labels == j].mean(axis=0) for j in range(k) if (got.labels == j).any()]
    better = sum(((X[got.labels == j] - m) ** 2).sum() for j, m in zip(np.unique(got.labels), moved))
    assert got.inertia <= better + 1e-9 * (1 + got.history[0])


@rarely
@given(seeds, st.integers(1, 6))
def test_kmeans_is_scikit_learns(seed, k):
    X = cloud(seed, n=90)
    start = kmeans_plus_plus(X, k, seed)
    theirs = cluster.KMeans(k, init=start, n_init=1, tol=0, algorithm="lloyd").fit(X)
    ours = kmeans(X, k, init=start)
    assert np.isclose(ours.inertia, theirs.inertia_, rtol=1e-9)
    assert np.array_equal(ours.labels, theirs.labels_) and np.allclose(ours.centers, theirs.cluster_centers_)


@rarely
@given(tables(coarse, rows=(2, 7), columns=(1, 2)), seeds)
def test_kmeans_is_never_below_the_optimum(X, seed):
    best = np.inf
    for z in product((0, 1), repeat=len(X)):
        parts = [X[np.array(z) == j] for j in (0, 1)]
        best = min(best, sum(((p - p.mean(axis=0)) ** 2).sum() for p in parts if len(p)))
    got = kmeans(X, 2, rng=seed, restarts=20)
    assert got.inertia >= best - 1e-9
    assert np.isclose(got.inertia, best, atol=1e-9)  # twenty restarts find it for so few rows


@rarely
@given(seeds, st.floats(0.1, 10), st.integers(-50, 50))
def test_kmeans_moves_with_the_data(seed, scale, shift):
    X = cloud(seed, n=60, d=2)
    start = X[:3]
    one, two = kmeans(X, 3, init=start), kmeans(scale * X + shift, 3, init=scale * start + shift)
    assert np.isclose(two.inertia, scale**2 * one.inertia) and np.array_equal(one.labels, two.labels)


def test_empty_clusters_come_back():
    X = np.array([[0.0], [1.0], [10.0], [11.0]])
    got = kmeans(X, 3, init=[[0.5], [500.0], [900.0]])
    assert sorted(np.bincount(got.labels, minlength=3)) == [1, 1, 2] and got.inertia == 0.5
    assert (np.diff(got.history) <= 0).all()


def test_more_centers_than_distinct_rows():
    X = np.repeat([[0.0, 0.0], [2.0, 1.0]], 5, axis=0)
    got = kmeans(X, 7, rng=0)
    assert got.inertia == 0 and np.isfinite(got.centers).all()
    assert kmeans(X, 1).inertia == pytest.approx(10 * (1 + 0.25))


def test_restarts_and_iterations():
    X = cloud(5, n=300, d=2, k=9, spread=20)
    singles = [kmeans(X, 9, rng=seed).inertia for seed in range(5)]
    assert kmeans(X, 9, rng=0, restarts=30).inertia <= min(singles) + 1e-9
    none = kmeans(X, 9, rng=1, iterations=0)
    assert len(none.history) == 1 and none.inertia == assign(X, none.centers)[1].sum()
    assert len(kmeans(X, 9, rng=1, iterations=2).history) == 5
    start = X[:9].copy()
    kmeans(X, 9, init=start)
    assert np.array_equal(start, X[:9])


@pytest.mark.parametrize(
    "k, more, match",
    [
        (0, {}, "k must be between 1 and the number of rows, 5"),
        (6, {}, "k must be between 1"),
        (2, {"init": np.zeros((3, 2))}, r"init must have shape \(2, 2\), got \(3, 2\)"),
        (2, {"init": np.full((2, 2), np.nan)}, "init holds NaN"),
        (2, {"restarts": 0}, "restarts must be at least 1"),
        (2, {"iterations": -1}, "iterations at least 0"),
    ],
)
def test_kmeans_refuses(k, more, match):
    with pytest.raises(ValueError, match=match):
        kmeans(np.arange(10.0).reshape(5, 2), k, **more)


def test_predict_refuses_other_columns():
    with pytest.raises(ValueError, match="X must have 2 columns"):
        kmeans(np.arange(10.0).reshape(5, 2), 2).predict(np.zeros((1, 3)))


# --- log_gaussian ----------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 6), st.floats(1e-3, 1e3))
def test_log_gaussian_is_scipys(seed, d, scale):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(d, d))
    covariance, mean, X = scale * (A @ A.T + 0.1 * np.eye(d)), rng.normal(size=d), rng.normal(0, 3, (20, d))
    got = log_gaussian(X, mean, covariance)
    assert got.shape == (20,) and got.dtype == np.float64
    assert np.allclose(got, stats.multivariate_normal(mean, covariance).logpdf(X), rtol=1e-8, atol=1e-8)
    assert np.all(got <= log_gaussian(mean[None], mean, covariance))


@few
@given(seeds, st.floats(0.1, 10))
def test_log_gaussian_under_a_change_of_units(seed, scale):
    rng = np.random.default_rng(seed)
    X, covariance = rng.normal(size=(7, 3)), np.diag(rng.uniform(0.5, 2, 3))
    moved = log_gaussian(scale * X + 1, np.ones(3), scale**2 * covariance)
    assert np.allclose(moved, log_gaussian(X, np.zeros(3), covariance) - 3 * np.log(scale))


def test_log_gaussian_far_out_does_not_underflow():
    assert log_gaussian([[1e6]], [0.0], [[1.0]])[0] == pytest.approx(-5e11)


@pytest.mark.parametrize(
    "X, mean, covariance, match",
    [
        (np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2)), "not positive definite"),
        (np.zeros((2, 2)), np.zeros(2), np.diag([1.0, -1.0]), "not positive definite"),
        (np.zeros((2, 2)), np.zeros(2), [[1.0, 0.5], [0.1, 1.0]], "symmetric"),
        (np.zeros((2, 2)), np.zeros(2), np.ones((1, 2)), r"symmetric \(2, 2\)"),
        (np.zeros((2, 3)), np.zeros(2), np.eye(2), "X must have 2 columns"),
        (np.zeros((2, 2)), [0.0, np.nan], np.eye(2), "mean holds NaN"),
    ],
)
def test_log_gaussian_refuses(X, mean, covariance, match):
    with pytest.raises(ValueError, match=match):
        log_gaussian(X, mean, covariance)


# --- GaussianMixture -------------------------------------------------------------------------


@rarely
@given(either, st.data(), seeds, st.sampled_from([1e-6, 1e-2, 1.0]))
def test_likelihood_never_falls(X, data, seed, floor):
    X = X / max(1.0, np.abs(X).max() / 5)
    k = data.draw(st.integers(1, min(len(X), 4)))
    model = GaussianMixture(k, floor=floor, tol=0, iterations=25, rng=seed).fit(X)
    assert (np.diff(model.history_) >= -1e-8 * (1 + np.abs(model.history_).max())).all()
    assert np.isclose(model.history_[-1], model.score_samples(X).sum(), rtol=1e-9, atol=1e-7)
    variances = np.linalg.eigvalsh(model.covariances_)
    assert variances.min() >= floor * (1 - 1e-6) - 1e-14


@rarely
@given(seeds, st.integers(1, 4))
def test_responsibilities_are_posteriors(seed, k):
    X = cloud(seed)
    model = GaussianMixture(k, rng=seed, iterations=20).fit(X)
    R = model.predict_proba(X)
    assert R.shape == (len(X), k) and np.allclose(R.sum(axis=1), 1) and (R >= 0).all()
    assert np.array_equal(model.predict(X), R.argmax(axis=1))
    parts = [stats.multivariate_normal(m, S).pdf(X) for m, S in zip(model.means_, model.covariances_)]
    joint = model.weights_ * np.stack(parts, axis=1)
    assert np.allclose(np.exp(model.score_samples(X)), joint.sum(axis=1), rtol=1e-6)
    assert np.allclose(R, joint / joint.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.isclose(model.weights_.sum(), 1)


@rarely
@given(seeds, st.integers(1, 4))
def test_mixture_is_scikit_learns(seed, k):
    X = cloud(seed, n=200)
    first = GaussianMixture(k, iterations=1, floor=0).fit(X, init=X[:k])
    theirs = mixture.GaussianMixture(
        k,
        weights_init=first.weights_,
        means_init=first.means_,
        precisions_init=np.linalg.inv(first.covariances_),
        reg_covar=0,
        tol=0,
        max_iter=8,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped on purpose
        theirs.fit(X)
    ours = GaussianMixture(k, iterations=9, floor=0, tol=0).fit(X, init=X[:k])
    assume(len(ours.history_) == 9 or k == 1)
    assert np.isclose(ours.score_samples(X).mean(), theirs.score(X), rtol=1e-7)
    assert np.allclose(ours.covariances_, theirs.covariances_, rtol=1e-5, atol=1e-6)
    assert np.isclose(ours.bic(X), theirs.bic(X), rtol=1e-7)


@rarely
@given(seeds)
def test_one_component_is_mean_and_covariance(seed):
    X = cloud(seed, n=50)
    model = GaussianMixture(1).fit(X)
    assert np.allclose(model.means_[0], X.mean(axis=0)) and np.allclose(model.covariances_[0], np.cov(X.T, bias=True))
    assert np.isclose(model.bic(X), -2 * model.history_[-1] + 9 * np.log(50))


@rarely
@given(seeds, st.floats(0.2, 5))
def test_mixture_under_a_change_of_units(seed, scale):
    X = cloud(seed)
    one = GaussianMixture(2, tol=0, iterations=10, floor=1e-9).fit(X, init=X[:2])
    two = GaussianMixture(2, tol=0, iterations=10, floor=1e-9).fit(scale * X, init=scale * X[:2])
    assert np.allclose(two.score_samples(scale * X), one.score_samples(X) - 3 * np.log(scale), atol=1e-6)
    assert np.allclose(two.predict_proba(scale * X), one.predict_proba(X), atol=1e-6)


def test_density_integrates_to_one():
    model = GaussianMixture(3, rng=1).fit(cloud(1, d=1, k=3))
    x = np.linspace(-60, 60, 100_001)
    assert np.trapezoid(np.exp(model.score_samples(x[:, None])), x) == pytest.approx(1, abs=1e-6)


def test_mixture_recovers_what_made_the_data():
    rng = np.random.default_rng(2)
    which = rng.random(8000) < 0.3
    X = np.where(which[:, None], rng.normal([5, 0], [0.5, 2], (8000, 2)), rng.normal(0, 1, (8000, 2)))
    model = GaussianMixture(2, restarts=2).fit(X)
    small = model.weights_.argmin()
    assert abs(model.weights_[small] - 0.3) < 0.02 and np.allclose(model.means_[small], [5, 0], atol=0.15)
    assert np.allclose(np.diag(model.covariances_[small]), [0.25, 4], rtol=0.15)


def test_mixture_of_equal_rows_and_far_rows():
    X = np.full((6, 2), 2.0)
    model = GaussianMixture(3, floor=0.5).fit(X)
    assert np.isfinite(model.history_).all() and np.allclose(model.covariances_[0], 0.5 * np.eye(2))
    far = np.array([[1e7, -1e7]])
    assert np.isfinite(model.score_samples(far)).all() and np.isclose(model.predict_proba(far).sum(), 1)


def test_mixture_restarts_and_seed():
    X = cloud(3, n=200, k=5)
    singles = [GaussianMixture(5, rng=seed).fit(X).history_[-1] for seed in range(3)]
    many = GaussianMixture(5, restarts=15, rng=0).fit(X)
    assert many.history_[-1] >= max(singles) - 0.5
    assert np.array_equal(many.means_, GaussianMixture(5, restarts=15, rng=0).fit(X).means_)


@pytest.mark.parametrize(
    "k, more, match",
    [
        (0, {}, "k must be between 1"),
        (9, {}, "k must be between 1 and the number of rows, 8"),
        (2, {"floor": -1.0}, "floor and tol 0 or more"),
        (2, {"tol": np.nan}, "floor and tol 0 or more"),
        (2, {"iterations": 0}, "restarts and iterations must be 1 or more"),
        (2, {"restarts": 0}, "restarts and iterations must be 1 or more"),
        (8, {"floor": 0.0}, "not positive definite: raise the floor"),
    ],
)
def test_mixture_refuses(k, more, match):
    with pytest.raises(ValueError, match=match):
        GaussianMixture(k, **more).fit(cloud(4, n=8))


def test_mixture_refuses_data():
    with pytest.raises(ValueError, match="X holds NaN"):
        GaussianMixture(1).fit([[np.nan, 0.0]])
    with pytest.raises(ValueError, match="init must have shape"):
        GaussianMixture(2).fit(cloud(4), init=np.zeros((2, 5)))
    with pytest.raises(ValueError, match="X must have 3 columns"):
        GaussianMixture(2).fit(cloud(4)).score_samples(np.zeros((2, 4)))


# --- the simulator ---------------------------------------------------------------------------


@rarely
@given(st.integers(1, 5), st.integers(0, 48), seeds)
def test_metrics_have_shape_range_and_seed(days, faults, seed):
    X, fault = service_metrics(days, faults_per_day=faults, seed=seed)
    assert X.shape == (288 * days, len(METRICS)) and fault.shape == (288 * days,)
    assert np.isfinite(X).all() and (X[:, 1:] > 0).all()
    assert np.count_nonzero(fault) == 6 * faults * days and fault.max(initial=0) < len(FAULTS)
    again = service_metrics(days, faults_per_day=faults, seed=np.random.default_rng(seed))
    assert np.array_equal(X, again[0]) and np.array_equal(fault, again[1])


@rarely
@given(seeds)
def test_faults_change_only_their_rows(seed):
    clean, none = service_metrics(3, seed=seed)
    X, fault = service_metrics(3, faults_per_day=4, seed=seed)
    assert np.array_equal(X[fault == 0], clean[fault == 0]) and not none.any()
    assert (X[fault > 0] != clean[fault > 0]).any(axis=1).all()
    assert [np.count_nonzero(fault == kind) for kind in range(1, 5)] == [18] * 4


@rarely
@given(seeds)
def test_joint_faults_hide_in_the_margins(seed):
    clean, _ = service_metrics(14, seed=seed)
    X, fault = service_metrics(14, faults_per_day=4, seed=seed)
    joint = X[(fault > 0) & (fault < 4)]
    assert np.mean((joint > clean.min(axis=0)) & (joint < clean.max(axis=0))) > 0.99
    slow = fault == 4
    assert np.allclose(X[slow, 1], 4 * clean[slow, 1]) and np.array_equal(
        X[slow][:, [0, 2, 3]], clean[slow][:, [0, 2, 3]]
    )


def test_metrics_have_a_day_and_a_backup():
    X, _ = service_metrics(30, seed=8)
    hour = np.arange(len(X)) / 12 % 24
    assert X[(hour > 15) & (hour < 17), 0].mean() > X[(hour > 4) & (hour < 6), 0].mean() + 30
    night = (hour < 1) | ((hour > 2.6) & (hour < 4))
    assert X[(hour >= 1) & (hour < 2.5), 0].mean() > X[night, 0].mean() + 20
    assert np.corrcoef(np.log(X[:, 1]), np.log(X[:, 3]))[0, 1] > 0.9


@pytest.mark.parametrize("days, faults", [(0, 0), (-1, 0), (1, -1), (1, 49)])
def test_metrics_refuse(days, faults):
    with pytest.raises(ValueError, match="at least one day, and 0 to 48 faults"):
        service_metrics(days, faults_per_day=faults)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_kmeans_result_predicts_the_nearest_of_its_centers(k, d, seed):
    rng = np.random.default_rng(seed)
    centers, X = rng.standard_normal((k, d)), rng.standard_normal((7, d))
    found = KMeansResult(centers, np.zeros(0, int), 0.0, np.zeros(1)).predict(X)
    distance = ((X[:, None] - centers) ** 2).sum(axis=2)
    assert found.shape == (7,) and np.array_equal(found, distance.argmin(axis=1))
    nearest = KMeansResult(centers, np.zeros(0, int), 0.0, np.zeros(1)).predict(centers)
    assert np.array_equal(nearest, np.arange(k))  # a centre is nearest to itself


def test_a_kmeans_result_refuses_another_number_of_columns():
    with pytest.raises(ValueError):
        kmeans(np.arange(6.0).reshape(3, 2), 2).predict(np.ones((4, 3)))
