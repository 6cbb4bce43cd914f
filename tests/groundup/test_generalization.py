"""groundup.generalization against scikit-learn's splitters, scipy.stats, exact identities and simulation."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import model_selection
from sklearn.linear_model import Ridge

from groundup.generalization import (
    BiasVariance,
    Difference,
    EarlyStopping,
    Fold,
    LearningCurve,
    bias_variance,
    cross_validate,
    group_k_fold,
    k_fold,
    learning_curve,
    paired_difference,
    sample_size_for_difference,
    split,
    time_series_folds,
    wilson_interval,
)
from groundup.probability import bootstrap_interval

few = settings(deadline=None, max_examples=60)
fewer = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
moderate = st.floats(-1e6, 1e6)
labels = st.lists(st.sampled_from("abcde"), min_size=2, max_size=60).map(np.array)


def sorted_rows(rows):
    return rows.dtype.kind == "i" and rows.ndim == 1 and np.all(np.diff(rows) > 0)


def partition(fold, n):
    return sorted_rows(fold.train) and sorted_rows(fold.test) and np.array_equal(np.sort(np.r_[fold]), np.arange(n))


# --- bias_variance, BiasVariance -------------------------------------------------------------


@st.composite
def predicted(draw):
    D, points = draw(st.integers(1, 8)), draw(st.integers(0, 6))
    values = hnp.arrays(np.float64, (D + 1, points), elements=st.floats(-1e3, 1e3))
    block = draw(values)
    return block[1:], block[0]


@few
@given(predicted())
def test_decomposition_adds_up_to_the_error(data):
    predictions, truth = data
    got = bias_variance(predictions, truth)
    assert isinstance(got, BiasVariance) and got.bias_squared.shape == got.variance.shape == truth.shape
    error = ((predictions - truth) ** 2).mean(axis=0)
    assert np.allclose(got.bias_squared + got.variance, error, rtol=1e-9, atol=1e-6)
    assert (got.bias_squared >= 0).all() and (got.variance >= 0).all()


@few
@given(predicted(), st.floats(-50, 50))
def test_shift_moves_only_the_bias(data, shift):
    predictions, truth = data
    one, two = bias_variance(predictions, truth), bias_variance(predictions + shift, truth + shift)
    assert np.allclose(one.bias_squared, two.bias_squared, atol=1e-6)
    assert np.allclose(one.variance, bias_variance(predictions + shift, truth).variance, atol=1e-6)
    assert np.allclose(one.variance, np.var(predictions, axis=0), atol=1e-6)


@few
@given(predicted(), seeds)
def test_order_of_training_sets_does_not_matter(data, seed):
    predictions, truth = data
    shuffled = np.random.default_rng(seed).permutation(predictions)
    assert np.allclose(bias_variance(predictions, truth), bias_variance(shuffled, truth), atol=1e-6)
    same = bias_variance(np.repeat(predictions[:1], 5, axis=0), truth)
    assert np.allclose(same.variance, 0, atol=1e-9)


@pytest.mark.parametrize("shapes", [((3, 4), (5,)), ((4,), (4,)), ((0, 4), (4,)), ((2, 3, 4), (3, 4))])
def test_bias_variance_refuses_shapes(shapes):
    with pytest.raises(ValueError, match=r"predictions must be \(D, points\)"):
        bias_variance(np.zeros(shapes[0]), np.zeros(shapes[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bias_variance_refuses_values(bad):
    with pytest.raises(ValueError, match="finite"):
        bias_variance(np.full((2, 2), bad), np.zeros(2))


# --- split, Fold -----------------------------------------------------------------------------


@few
@given(st.integers(2, 200), st.floats(0.001, 0.999), seeds)
def test_split_partitions(n, share, seed):
    fold = split(n, share, rng=seed)
    assert isinstance(fold, Fold) and partition(fold, n)
    assert len(fold.test) == min(max(round(share * n), 1), n - 1)
    assert all(np.array_equal(a, b) for a, b in zip(fold, split(n, share, rng=seed)))


@few
@given(labels, st.floats(0.05, 0.95), seeds)
def test_split_stratifies_within_one_row(y, share, seed):
    fold = split(len(y), share, stratify=y, rng=seed)
    assert partition(fold, len(y))
    actual = len(fold.test) / len(y)
    for label in np.unique(y):
        assert abs(np.sum(y[fold.test] == label) - actual * np.sum(y == label)) <= 1 + 1e-9


@few
@given(labels, st.floats(0.05, 0.95), seeds)
def test_split_keeps_groups_whole(groups, share, seed):
    if len(np.unique(groups)) < 2:
        with pytest.raises(ValueError, match="at least 2 groups"):
            split(len(groups), share, groups=groups, rng=seed)
        return
    fold = split(len(groups), share, groups=groups, rng=seed)
    assert partition(fold, len(groups)) and len(fold.train) and len(fold.test)
    assert not set(groups[fold.train]) & set(groups[fold.test])
    largest = np.unique(groups, return_counts=True)[1].max()
    assert abs(len(fold.test) - share * len(groups)) <= largest + 1


def test_split_draws_every_row_equally_often():
    y = np.array([0] * 7 + [1] * 3)
    for labelled in (None, y):
        hits = sum(np.isin(np.arange(10), split(10, 0.3, stratify=labelled, rng=s).test) for s in range(2000))
        expected = np.full(10, 600) if labelled is None else [600] * 7 + [600] * 3
        if labelled is None:
            assert np.all(np.abs(hits - expected) < 5 * np.sqrt(420))
        else:  # equal within a class
            assert np.ptp(hits[:7]) < 200 and np.ptp(hits[7:]) < 200


@pytest.mark.parametrize("n, share", [(1, 0.5), (0, 0.5), (10, 0.0), (10, 1.0), (10, np.nan)])
def test_split_refuses_sizes(n, share):
    with pytest.raises(ValueError, match="need n ≥ 2 and 0 < test_share < 1"):
        split(n, share, rng=0)


def test_split_refuses_labels():
    with pytest.raises(ValueError, match="not both"):
        split(3, groups=[1, 2, 3], stratify=[1, 2, 3], rng=0)
    for name in ("groups", "stratify"):
        with pytest.raises(ValueError, match="one label per row"):
            split(4, **{name: [1, 2, 3]}, rng=0)


# --- k_fold ----------------------------------------------------------------------------------

sizes_and_folds = st.integers(2, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, min(n, 12))))


@few
@given(sizes_and_folds)
def test_k_fold_is_sklearns(nk):
    n, k = nk
    for ours, (train, test) in zip(k_fold(n, k), model_selection.KFold(k).split(np.zeros(n)), strict=True):
        assert np.array_equal(ours.train, train) and np.array_equal(ours.test, test)


@few
@given(sizes_and_folds, seeds)
def test_k_fold_tests_every_row_once(nk, seed):
    n, k = nk
    folds = k_fold(n, k, rng=seed)
    assert len(folds) == k and all(partition(f, n) for f in folds)
    assert np.array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(n))
    assert np.ptp([len(f.test) for f in folds]) <= 1


@few
@given(labels, st.integers(2, 8), st.none() | seeds)
def test_k_fold_stratifies(y, k, seed):
    k = min(k, len(y))
    folds = k_fold(len(y), k, stratify=y, rng=seed)
    assert np.array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(len(y)))
    counts = np.array([[np.sum(y[f.test] == c) for c in np.unique(y)] for f in folds])
    assert np.all(np.ptp(counts, axis=0) <= 1) and np.ptp(counts.sum(axis=1)) <= 1
    if np.unique(y, return_counts=True)[1].min() >= k:
        theirs = model_selection.StratifiedKFold(k).split(y, y)
        theirs = np.array([[np.sum(y[t] == c) for c in np.unique(y)] for _, t in theirs])
        assert np.array_equal(np.sort(counts, axis=0), np.sort(theirs, axis=0))


@pytest.mark.parametrize("n, k", [(5, 1), (5, 6), (5, 0), (0, 2), (1, 2)])
def test_k_fold_refuses(n, k):
    with pytest.raises(ValueError, match="k must be at least 2 and at most"):
        k_fold(n, k)
    with pytest.raises(ValueError, match="one label per row"):
        k_fold(4, 2, stratify=[0, 1])


# --- group_k_fold ----------------------------------------------------------------------------


@few
@given(labels, st.integers(2, 5))
def test_group_k_fold_keeps_groups_and_sklearns_sizes(groups, k):
    many = len(np.unique(groups))
    if k > many:
        with pytest.raises(ValueError, match="number of groups"):
            group_k_fold(groups, k)
        return
    folds = group_k_fold(groups, k)
    assert all(partition(f, len(groups)) and len(f.test) for f in folds)
    assert np.array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(len(groups)))
    assert all(not set(groups[f.train]) & set(groups[f.test]) for f in folds)
    theirs = model_selection.GroupKFold(k).split(groups, groups=groups)
    assert sorted(len(f.test) for f in folds) == sorted(len(t) for _, t in theirs)


@few
@given(labels)
def test_group_k_fold_is_within_a_third_of_the_best_balance(groups):
    counts = np.unique(groups, return_counts=True)[1]
    if len(counts) < 2:
        return
    heaviest = max(len(f.test) for f in group_k_fold(groups, 2))
    best = min(
        max(s, len(groups) - s)
        for s in (counts[np.array(list(np.binary_repr(b, len(counts)))) == "1"].sum() for b in range(2 ** len(counts)))
    )
    assert heaviest <= (4 / 3 - 1 / 6) * best + 1e-9  # Graham's bound for two machines


@few
@given(labels, seeds)
def test_group_k_fold_ignores_names(groups, seed):
    if len(np.unique(groups)) < 2:
        return
    names, codes = np.unique(groups, return_inverse=True)
    renamed = np.random.default_rng(seed).permutation(len(names))[codes]
    one, two = group_k_fold(groups, 2), group_k_fold(renamed, 2)
    assert sorted(len(f.test) for f in one) == sorted(len(f.test) for f in two)


@pytest.mark.parametrize("groups", [np.zeros((2, 2)), np.array(3)])
def test_group_k_fold_refuses_shapes(groups):
    with pytest.raises(ValueError, match="one label per row"):
        group_k_fold(groups, 2)


def test_group_k_fold_refuses_nothing():
    with pytest.raises(ValueError, match="at most 0"):
        group_k_fold(np.array([]), 2)


# --- time_series_folds -----------------------------------------------------------------------


@few
@given(st.integers(3, 150), st.integers(2, 8), st.integers(0, 5))
def test_time_series_folds_are_sklearns(n, k, gap):
    if k > n - 1 or gap >= n - k * (n // (k + 1)):
        with pytest.raises(ValueError, match=r"k must be|gap must lie"):
            time_series_folds(n, k, gap=gap)
        return
    theirs = model_selection.TimeSeriesSplit(k, gap=gap).split(np.zeros(n))
    for ours, (train, test) in zip(time_series_folds(n, k, gap=gap), theirs, strict=True):
        assert np.array_equal(ours.train, train) and np.array_equal(ours.test, test)


@few
@given(st.integers(3, 150), st.integers(2, 8))
def test_time_series_folds_look_only_back(n, k):
    if k > n - 1:
        return
    folds = time_series_folds(n, k)
    assert all(f.train.max() + 1 == f.test.min() for f in folds)
    assert len({len(f.test) for f in folds}) == 1 and folds[-1].test[-1] == n - 1
    tested = np.concatenate([f.test for f in folds])
    assert np.array_equal(tested, np.arange(tested[0], n))


@few
@given(st.integers(20, 150), st.integers(2, 5), st.integers(0, 3))
def test_time_series_gap_removes_exactly_that_many(n, k, gap):
    for with_gap, without in zip(time_series_folds(n, k, gap=gap), time_series_folds(n, k)):
        assert np.array_equal(with_gap.train, without.train[: len(without.train) - gap])
        assert np.array_equal(with_gap.test, without.test)


@pytest.mark.parametrize("k, gap, match", [(1, 0, "k must"), (10, 0, "k must"), (2, -1, "gap must"), (2, 4, "gap must")])
def test_time_series_folds_refuse(k, gap, match):
    with pytest.raises(ValueError, match=match):
        time_series_folds(10, k, gap=gap)


# --- cross_validate --------------------------------------------------------------------------


def ridge(X, y):
    return Ridge(0.1).fit(X, y)


def r2(model, X, y):
    return model.score(X, y)


def table(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    return X, X @ rng.standard_normal(3) + rng.standard_normal(n)


@fewer
@given(st.integers(10, 60), st.integers(2, 5), seeds)
def test_cross_validate_is_cross_val_score(n, k, seed):
    X, y = table(n, seed)
    folds = k_fold(n, k, rng=seed)
    theirs = model_selection.cross_val_score(Ridge(0.1), X, y, cv=folds)
    assert np.allclose(cross_validate(ridge, r2, X, y, folds), theirs, rtol=1e-12, atol=1e-12)


@fewer
@given(st.integers(4, 40), st.integers(2, 4), seeds)
def test_cross_validate_fits_and_scores_the_rows_of_the_fold(n, k, seed):
    X, y = np.arange(n), np.arange(n) * 10
    folds = k_fold(n, k, rng=seed)
    seen = []
    got = cross_validate(lambda A, b: (A, b), lambda m, A, b: seen.append((m, A, b)) or len(A), X, y, folds)
    assert got.dtype == np.float64 and got.tolist() == [len(f.test) for f in folds]
    for ((A, a), B, b), fold in zip(seen, folds, strict=True):
        assert np.array_equal(A, fold.train) and np.array_equal(B, fold.test)
        assert np.array_equal(a, fold.train * 10) and np.array_equal(b, fold.test * 10)


@fewer
@given(st.integers(6, 40), st.integers(2, 5), seeds)
def test_a_constant_model_scores_the_mean_of_its_training_rows(n, k, seed):
    y = np.random.default_rng(seed).standard_normal(n)
    folds = k_fold(n, k, rng=seed)
    got = cross_validate(lambda X, y: y.mean(), lambda m, X, y: np.mean((y - m) ** 2), y, y, folds)
    expected = [np.mean((y[f.test] - y[f.train].mean()) ** 2) for f in folds]
    assert np.allclose(got, expected)
    weighted = np.average(got, weights=[len(f.test) for f in folds])
    assert weighted >= y.var() - 1e-12  # held out never beats the fit on all rows


@pytest.mark.parametrize(
    "X, y, folds, match",
    [
        (np.zeros((4, 1)), np.zeros(3), [([0], [1])], "same number of rows"),
        (np.float64(1), np.zeros(1), [([0], [0])], "same number of rows"),
        (np.zeros((4, 1)), np.zeros(4), [], "no folds"),
        (np.zeros((4, 1)), np.zeros(4), [([], [1])], "fold 0 is empty"),
        (np.zeros((4, 1)), np.zeros(4), [([0], [1]), ([0], [4])], "fold 1 is empty or has rows outside 0 … 3"),
        (np.zeros((4, 1)), np.zeros(4), [([0], [-1])], "rows outside"),
        (np.zeros((4, 1)), np.zeros(4), [([0, 1], [1, 2])], "tests rows that it trains on"),
    ],
)
def test_cross_validate_and_learning_curve_refuse(X, y, folds, match):
    with pytest.raises(ValueError, match=match):
        cross_validate(ridge, r2, X, y, folds)
    with pytest.raises(ValueError, match=match):
        learning_curve(ridge, r2, X, y, [1], folds)


# --- learning_curve, LearningCurve -----------------------------------------------------------


@fewer
@given(st.integers(20, 60), st.integers(2, 4), seeds)
def test_learning_curve_is_sklearns(n, k, seed):
    X, y = table(n, seed)
    folds, sizes = k_fold(n, k, rng=seed), [4, 7, n // 2 - 1]
    ours = learning_curve(ridge, r2, X, y, sizes, folds)
    _, train, test = model_selection.learning_curve(Ridge(0.1), X, y, train_sizes=np.unique(sizes), cv=folds)
    assert isinstance(ours, LearningCurve) and ours.train.shape == ours.test.shape == (3, k)
    assert np.allclose(ours.train[np.unique(sizes, return_index=True)[1]], train, atol=1e-9)
    assert np.allclose(ours.test[np.unique(sizes, return_index=True)[1]], test, atol=1e-9)


@fewer
@given(st.integers(8, 40), seeds)
def test_learning_curve_ends_at_cross_validation(n, seed):
    X, y = table(n, seed)
    folds = k_fold(n, 2)
    most = min(len(f.train) for f in folds)
    folds = [Fold(f.train[:most], f.test) for f in folds]
    ours = learning_curve(ridge, r2, X, y, [most], folds, rng=seed)
    assert np.allclose(ours.test[0], cross_validate(ridge, r2, X, y, folds), atol=1e-8)


@fewer
@given(st.integers(8, 40), st.integers(2, 4), seeds)
def test_learning_curve_trains_on_nested_subsets(n, k, seed):
    folds, seen = k_fold(n, k), []
    sizes = [1, 2, 4]
    learning_curve(lambda X, y: seen.append(set(X)), lambda m, X, y: 0.0, np.arange(n), np.arange(n), sizes, folds, rng=seed)
    for j, fold in enumerate(folds):
        small, middle, large = seen[3 * j : 3 * j + 3]
        assert [len(small), len(middle), len(large)] == sizes
        assert small < middle < large <= set(fold.train)


@pytest.mark.parametrize("sizes", [[], [0], [6], [2, 6], [-1]])
def test_learning_curve_refuses_sizes(sizes):
    with pytest.raises(ValueError, match="sizes must lie between 1 and 5"):
        learning_curve(ridge, r2, np.zeros((10, 1)), np.zeros(10), sizes, k_fold(10, 2))


# --- EarlyStopping ---------------------------------------------------------------------------

losses = st.lists(st.floats(-100, 100) | st.just(np.nan), min_size=0, max_size=50)


@few
@given(losses, st.integers(1, 8))
def test_early_stopping_finds_the_first_minimum(values, patience):
    stop = EarlyStopping(patience)
    for value in values:
        stop.update(value)
    assert stop.steps == len(values)
    if np.isfinite(values).any():
        assert stop.best_step == np.nanargmin(values) and stop.best_loss == np.nanmin(values)
    else:
        assert stop.best_step is None and stop.best_loss == np.inf


@few
@given(losses, st.integers(1, 8))
def test_early_stopping_waits_exactly_patience_steps(values, patience):
    stop = EarlyStopping(patience)
    for i, value in enumerate(values):
        said = stop.update(value)
        before = values[: i + 1 - patience]
        recent = [v for v in values[max(i + 1 - patience, 0) : i + 1] if v == v]
        floor = min((v for v in before if v == v), default=np.inf)
        assert said == (i + 1 >= patience and all(v >= floor for v in recent))


@few
@given(st.integers(1, 8), st.integers(1, 40))
def test_early_stopping_never_stops_a_falling_loss(patience, n):
    stop = EarlyStopping(patience)
    assert not any(stop.update(-float(i)) for i in range(n)) and stop.best_step == n - 1
    assert [stop.update(0.0) for _ in range(patience)] == [False] * (patience - 1) + [True]


@pytest.mark.parametrize("patience", [0, -1])
def test_early_stopping_refuses(patience):
    with pytest.raises(ValueError, match="patience must be at least 1"):
        EarlyStopping(patience)


# --- wilson_interval -------------------------------------------------------------------------

counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(0.01, 0.999)


@few
@given(counts, levels)
def test_wilson_is_scipys(rn, confidence):
    right, n = rn
    theirs = stats.binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert np.allclose(wilson_interval(right, n, confidence), theirs, atol=1e-9)


@few
@given(counts, levels)
def test_wilson_ends_are_z_standard_errors_away(rn, confidence):
    right, n = rn
    z, p = stats.norm.ppf((1 + confidence) / 2), right / n
    low, high = wilson_interval(right, n, confidence)
    assert 0 <= low <= p <= high <= 1 and low < high
    for end in (low, high):
        if 0 < end < 1:
            assert np.isclose(abs(p - end), z * np.sqrt(end * (1 - end) / n), rtol=1e-6)


@few
@given(counts, st.floats(0.05, 0.9))
def test_wilson_mirrors_and_widens(rn, confidence):
    right, n = rn
    low, high = wilson_interval(right, n, confidence)
    assert np.allclose(wilson_interval(n - right, n, confidence), (1 - high, 1 - low), atol=1e-12)
    wide, more = wilson_interval(right, n, confidence + 0.09), wilson_interval(4 * right, 4 * n, confidence)
    assert wide[0] <= low and high <= wide[1] and more[1] - more[0] < high - low


@pytest.mark.parametrize("right, n", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_counts(right, n):
    with pytest.raises(ValueError, match="0 ≤ right ≤ n"):
        wilson_interval(right, n)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, np.nan])
def test_levels_are_refused(confidence):
    for function in (
        lambda: wilson_interval(1, 2, confidence),
        lambda: sample_size_for_difference(0.1, 0.2, confidence=confidence),
        lambda: paired_difference([0, 1], [1, 1], confidence=confidence, rng=0),
    ):
        with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1"):
            function()


# --- paired_difference, Difference -----------------------------------------------------------


@st.composite
def scores(draw):
    n = draw(st.integers(1, 30))
    values = hnp.arrays(np.float64, n, elements=st.floats(-100, 100))
    return draw(values), draw(values)


@few
@given(scores(), seeds)
def test_paired_difference_is_the_bootstrap_of_the_differences(ab, seed):
    a, b = ab
    got = paired_difference(a, b, resamples=80, rng=seed)
    assert isinstance(got, Difference) and np.isclose(got.value, np.mean(a - b), atol=1e-9)
    assert np.allclose(got[1:], bootstrap_interval(a - b, np.mean, resamples=80, rng=seed), atol=1e-9)
    assert np.min(a - b) - 1e-9 <= got.low <= got.high <= np.max(a - b) + 1e-9


@few
@given(scores(), seeds, st.floats(-50, 50))
def test_paired_difference_turns_round_and_ignores_what_is_common(ab, seed, common):
    a, b = ab
    one, two = (paired_difference(*pair, resamples=60, rng=seed) for pair in ((a, b), (b, a)))
    assert np.allclose((two.value, two.low, two.high), (-one.value, -one.high, -one.low), atol=1e-9)
    moved = paired_difference(a + common, b + common, resamples=60, rng=seed)
    assert np.allclose(moved, one, atol=1e-9)
    assert paired_difference(a, a, resamples=20, rng=seed) == (0, 0, 0)


@few
@given(scores(), seeds, st.integers(2, 5))
def test_copies_of_rows_in_one_group_change_nothing(ab, seed, copies):
    a, b = ab
    plain = paired_difference(a, b, resamples=60, rng=seed)
    copied = [np.repeat(v, copies) for v in (a, b, np.arange(len(a)))]
    order = np.random.default_rng(seed).permutation(len(copied[0]))
    a, b, groups = (v[order] for v in copied)
    assert np.allclose(paired_difference(a, b, groups=groups, resamples=60, rng=seed), plain, atol=1e-9)


@fewer
@given(st.integers(100, 300), seeds)
def test_paired_difference_has_the_width_of_theory(n, seed):
    d = np.random.default_rng(seed).choice([1.0, 0.0, -1.0], n, p=[0.3, 0.5, 0.2])
    got = paired_difference(d > 0, d < 0, rng=seed)
    psi, delta = np.mean(d != 0), d.mean()
    assert np.isclose(got.high - got.low, 2 * 1.96 * np.sqrt((psi - delta**2) / n), rtol=0.15)


@pytest.mark.parametrize("a, b", [([], []), ([1, 2], [1]), ([[1, 2]], [[1, 2]]), (1, 2)])
def test_paired_difference_refuses_shapes(a, b):
    with pytest.raises(ValueError, match=r"a and b must be \(n,\)"):
        paired_difference(a, b, rng=0)


def test_paired_difference_refuses_values_and_groups():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            paired_difference([1, bad], [1, 1], rng=0)
    with pytest.raises(ValueError, match="one label per row"):
        paired_difference([1, 0], [1, 1], groups=[1], rng=0)


# --- sample_size_for_difference --------------------------------------------------------------

effects = st.floats(0.005, 1).flatmap(lambda psi: st.tuples(st.floats(0.001, psi), st.just(psi)))


@few
@given(effects, st.floats(0.5, 0.999), st.floats(0.5, 0.99))
def test_sample_size_reaches_the_power_and_one_row_less_does_not(effect, confidence, power):
    delta, psi = effect
    n = sample_size_for_difference(delta, psi, confidence=confidence, power=power)
    assert isinstance(n, int) and n >= 1
    alpha, beta = stats.norm.ppf((1 + confidence) / 2), stats.norm.ppf(power)

    def enough(n):
        return delta >= alpha * np.sqrt(psi / n) + beta * np.sqrt((psi - delta**2) / n) - 1e-12

    assert enough(n) and (n == 1 or not enough(n - 1 - 1e-6 * n))


@few
@given(effects)
def test_sample_size_is_monotone(effect):
    delta, psi = effect
    n = sample_size_for_difference(delta, psi)
    assert n == sample_size_for_difference(-delta, psi)
    assert sample_size_for_difference(delta / 2, psi) >= n
    assert sample_size_for_difference(delta, min(1, 1.2 * psi)) >= n
    assert sample_size_for_difference(delta, psi, power=0.95) >= n
    assert sample_size_for_difference(delta, psi, confidence=0.99) >= n


@few
@given(st.floats(0.5, 0.99), st.floats(0.01, 0.2))
def test_independent_models_need_what_two_test_sets_need(p, delta):
    q = p - delta
    n = sample_size_for_difference(delta, p * (1 - q) + q * (1 - p))
    z_alpha, z_beta = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    separate = p * (1 - p) + q * (1 - q)  # the variance of the two-sample difference
    root = z_alpha * np.sqrt(separate + delta**2) + z_beta * np.sqrt(separate)
    assert abs(n - ceil((root / delta) ** 2)) <= 1


def test_sample_size_agrees_with_simulation():
    rng = np.random.default_rng(0)
    for delta, psi, power in [(0.015, 0.07, 0.9), (0.04, 0.3, 0.6)]:
        n = sample_size_for_difference(delta, psi, power=power)
        a, b, _ = rng.multinomial(n, [(psi + delta) / 2, (psi - delta) / 2, 1 - psi], 20_000).T
        assert abs(np.mean(np.abs(a - b) > 1.96 * np.sqrt(a + b)) - power) < 0.025


@pytest.mark.parametrize("delta, psi", [(0, 0.1), (0.2, 0.1), (0.1, 1.1), (np.nan, 0.1), (0.1, np.nan)])
def test_sample_size_refuses_effects(delta, psi):
    with pytest.raises(ValueError, match=r"0 < \|difference\| ≤ disagreement ≤ 1"):
        sample_size_for_difference(delta, psi)


@pytest.mark.parametrize("power", [0.49, 1, np.nan])
def test_sample_size_refuses_power(power):
    with pytest.raises(ValueError, match="power must lie in"):
        sample_size_for_difference(0.1, 0.2, power=power)
