"""groundup.probability and the latency simulator against scipy.stats, exact arithmetic and enumeration."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from groundup import probability
from groundup.datasets import LATENCY_CAUSES, latencies, latency_cdf
from groundup.probability import (
    Estimate,
    bayes_posterior,
    bootstrap_distribution,
    bootstrap_interval,
    coverage,
    empirical_cdf,
    exponential_mle,
    lognormal_mle,
    monte_carlo,
    quantile,
)

few = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
finite = st.floats(-1e300, 1e300)
moderate = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


def samples(elements=finite, max_size=40):
    return hnp.arrays(np.float64, st.integers(1, max_size), elements=elements)


# --- empirical_cdf ---------------------------------------------------------------------------


@few
@given(samples(), hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=finite))
def test_ecdf_counts(sample, t):
    got = empirical_cdf(sample, t)
    assert got.shape == t.shape and got.dtype == np.float64
    assert np.array_equal(got, (sample[:, None] <= t.ravel()).mean(axis=0).reshape(t.shape))


@few
@given(samples())
def test_ecdf_is_a_distribution_function(sample):
    assert np.all(np.diff(empirical_cdf(sample, np.sort(sample))) >= 0)
    assert empirical_cdf(sample, -np.inf) == 0 and empirical_cdf(sample, np.inf) == 1
    assert empirical_cdf(sample, sample.max()) == 1 and empirical_cdf(sample, np.nextafter(sample.min(), -np.inf)) == 0


@few
@given(samples())
def test_ecdf_agrees_with_scipy_and_leaves_its_input(sample):
    before = sample.copy()
    expected = stats.ecdf(sample).cdf.evaluate(sample)
    assert np.allclose(empirical_cdf(sample, sample), expected, rtol=0, atol=1e-15)
    assert np.array_equal(sample, before)


@pytest.mark.parametrize("bad", [[], 3.0, [[1.0, 2.0]]])
def test_ecdf_refuses_other_shapes(bad):
    with pytest.raises(ValueError, match="sample must be one-dimensional and not empty"):
        empirical_cdf(np.array(bad), 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_ecdf_refuses_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        empirical_cdf(np.array([1.0, bad]), 0.0)


# --- quantile --------------------------------------------------------------------------------


@few
@given(samples(), st.floats(0.001, 1.0))
def test_quantile_inverts_the_ecdf(sample, q):
    value = quantile(sample, q)
    assert value in sample
    assert empirical_cdf(sample, value) >= q * (1 - 1e-8)
    assert empirical_cdf(sample, np.nextafter(value, -np.inf)) < q


@few
@given(st.integers(1, 400), st.data())
def test_quantile_has_the_exact_rank(n, data):
    top = data.draw(st.integers(1, 1000))
    q = Fraction(top, 1000)  # what the decimal 0.07 means, not its binary neighbour
    assert quantile(np.arange(1, n + 1), float(q)) == ceil(n * q)


@few
@given(samples(), st.integers(1, 40), st.floats(0.1, 10), moderate, st.floats(0.01, 1.0))
def test_quantile_commutes_with_order_and_monotone_maps(sample, seed, scale, shift, q):
    shuffled = np.random.default_rng(seed).permutation(sample)
    assert quantile(shuffled, q) == quantile(sample, q)
    small = sample / 1e300
    assert quantile(small * scale + shift, q) == quantile(small, q) * scale + shift
    assert (
        quantile(np.exp(small), q)
        == np.exp(small)[np.argsort(small, kind="stable")][ceil(len(small) * q * (1 - 1e-9)) - 1]
    )


@few
@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=moderate),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    st.data(),
)
def test_quantile_reduces_one_axis(x, q, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    got = quantile(x, q, axis)
    assert got.shape == tuple(np.delete(x.shape, axis))
    assert np.array_equal(got, np.apply_along_axis(quantile, axis, x, q))


@few
@given(samples(moderate), st.sampled_from([0.25, 0.5, 0.75, 1.0]))  # exact in binary: no rounding to disagree on
def test_quantile_agrees_with_numpy(sample, q):
    assert quantile(sample, q) == np.quantile(sample, q, method="inverted_cdf")


@pytest.mark.parametrize("q", [0, -0.1, 1.0001, np.nan])
def test_quantile_refuses_levels(q):
    with pytest.raises(ValueError, match=r"q must lie in \(0, 1\]"):
        quantile(np.arange(3), q)


@pytest.mark.parametrize("bad", [np.array([]), np.array(1.0), np.zeros((3, 0))])
def test_quantile_refuses_nothing(bad):
    with pytest.raises(ValueError, match="empty sample"):
        quantile(bad, 0.5)


# --- bayes_posterior -------------------------------------------------------------------------

weights = hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 50))


@few
@given(st.integers(1, 5), st.integers(1, 4), seeds)
def test_posterior_is_enumeration(k, m, seed):
    """Build a population of (hypothesis, datum) cases in whole numbers and count."""
    cases = np.random.default_rng(seed).integers(1, 20, (k, m))
    prior = cases.sum(axis=1) / cases.sum()
    likelihood = cases / cases.sum(axis=1, keepdims=True)
    for datum in range(m):
        assert np.allclose(bayes_posterior(prior, likelihood[:, datum]), cases[:, datum] / cases[:, datum].sum())


@few
@given(weights, st.floats(1e-250, 1e250), seeds)
def test_posterior_ignores_the_scale_of_the_likelihood(weight, scale, seed):
    assume(weight.sum() > 0)
    prior = weight / weight.sum()
    likelihood = np.random.default_rng(seed).uniform(0.1, 1, weight.size)
    posterior = bayes_posterior(prior, likelihood)
    assert posterior.shape == prior.shape and np.isclose(posterior.sum(), 1) and (posterior >= 0).all()
    assert np.allclose(posterior, bayes_posterior(prior, likelihood * scale), rtol=1e-12)
    assert np.all(posterior[prior == 0] == 0)


@few
@given(st.integers(2, 5), seeds)
def test_posterior_in_two_steps_or_one(k, seed):
    rng = np.random.default_rng(seed)
    prior, one, two = rng.dirichlet(np.ones(k)), rng.random(k), rng.random(k)
    assert np.allclose(bayes_posterior(bayes_posterior(prior, one), two), bayes_posterior(prior, one * two))
    assert np.allclose(bayes_posterior(prior, np.full(k, 0.3)), prior)  # data that says nothing


@few
@given(st.integers(1, 4), st.integers(2, 4), seeds)
def test_posterior_broadcasts(rows, k, seed):
    rng = np.random.default_rng(seed)
    prior, likelihood = rng.dirichlet(np.ones(k), rows), rng.uniform(0.1, 2, k)
    each = [bayes_posterior(p, likelihood) for p in prior]
    assert np.allclose(bayes_posterior(prior, likelihood), each)


def test_posterior_survives_tiny_densities():
    assert np.allclose(bayes_posterior([0.5, 0.5], [5e-324, 0.0]), [1, 0])
    assert np.allclose(bayes_posterior([0.25, 0.75], [1e-308, 1e-308]), [0.25, 0.75])


@pytest.mark.parametrize("prior", [[0.5, 0.6], [-0.5, 1.5], 1.0, [np.nan, 1.0], []])
def test_posterior_refuses_a_prior(prior):
    with pytest.raises(ValueError, match="prior must be non-negative and sum to 1"):
        bayes_posterior(np.array(prior), np.array([0.5, 0.5]))


@pytest.mark.parametrize("likelihood", [[-0.1, 1], [np.nan, 1], [np.inf, 1]])
def test_posterior_refuses_a_likelihood(likelihood):
    with pytest.raises(ValueError, match="likelihood must be finite and non-negative"):
        bayes_posterior([0.5, 0.5], likelihood)


@pytest.mark.parametrize("prior, likelihood", [([1.0, 0.0], [0.0, 1.0]), ([0.5, 0.5], [0.0, 0.0])])
def test_posterior_refuses_impossible_data(prior, likelihood):
    with pytest.raises(ValueError, match="probability 0 under every hypothesis"):
        bayes_posterior(prior, likelihood)


# --- monte_carlo and Estimate ----------------------------------------------------------------


@few
@given(hnp.arrays(np.float64, st.integers(2, 60), elements=moderate))
def test_monte_carlo_is_mean_and_standard_error(values):
    got = monte_carlo(lambda n, rng: values, len(values), 0)
    assert isinstance(got, Estimate) and isinstance(got.value, float)
    assert np.isclose(got.value, values.mean(), atol=1e-9)
    assert np.isclose(got.standard_error, stats.sem(values), atol=1e-9)


@few
@given(seeds, st.floats(0.1, 50), moderate)
def test_monte_carlo_is_linear_and_seeded(seed, scale, shift):
    def draw(n, rng):
        return rng.gamma(2.0, size=n)

    one = monte_carlo(draw, 50, seed)
    assert one == monte_carlo(draw, 50, np.random.default_rng(seed))
    moved = monte_carlo(lambda n, rng: shift + scale * draw(n, rng), 50, seed)
    assert np.isclose(moved.value, shift + scale * one.value, atol=1e-6)
    assert np.isclose(moved.standard_error, scale * one.standard_error, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("law", [stats.gamma(3), stats.uniform(-2, 5), stats.binom(5, 0.3)])
def test_monte_carlo_errors_are_standard_normal(law):
    def draw(n, rng):
        return law.rvs(n, random_state=rng)

    z = [(e.value - law.mean()) / e.standard_error for e in (monte_carlo(draw, 400, i) for i in range(300))]
    assert abs(np.mean(z)) < 0.25 and 0.85 < np.std(z) < 1.15


def test_monte_carlo_takes_events():
    got = monte_carlo(lambda n, rng: rng.random(n) < 0.2, 10_000, 1)
    assert abs(got.value - 0.2) < 0.02 and np.isclose(got.standard_error, 0.004, rtol=0.05)
    assert monte_carlo(lambda n, rng: np.ones(n, dtype=bool), 5, 1) == Estimate(1.0, 0.0)


@pytest.mark.parametrize("n", [1, 0, -3])
def test_monte_carlo_refuses_few_draws(n):
    with pytest.raises(ValueError, match="at least 2 draws"):
        monte_carlo(lambda n, rng: rng.random(n), n, 0)


@pytest.mark.parametrize(
    "draw, match",
    [
        (lambda n, rng: rng.random(n + 1), r"must return shape \(4,\), got \(5,\)"),
        (lambda n, rng: rng.random((n, 1)), "one-dimensional"),
        (lambda n, rng: np.full(n, np.nan), "what draw returned holds NaN"),
    ],
)
def test_monte_carlo_refuses_draws(draw, match):
    with pytest.raises(ValueError, match=match):
        monte_carlo(draw, 4, 0)


# --- maximum likelihood ----------------------------------------------------------------------


@few
@given(samples(positive))
def test_exponential_agrees_with_scipy(sample):
    assert np.isclose(exponential_mle(sample), 1 / stats.expon.fit(sample, floc=0)[1], rtol=1e-10)


@few
@given(samples(positive), st.floats(0.01, 100))
def test_exponential_is_the_maximum_and_has_a_unit(sample, factor):
    rate = exponential_mle(sample)

    def log_likelihood(rate):
        return stats.expon.logpdf(sample, scale=1 / rate).sum()

    assert log_likelihood(rate) >= log_likelihood(rate * factor) - 1e-9 * abs(log_likelihood(rate))
    assert np.isclose(exponential_mle(sample * 1000), rate / 1000)  # seconds to milliseconds
    assert np.isclose(exponential_mle(np.repeat(sample, 3)), rate)  # weights cancel


@pytest.mark.parametrize(
    "bad, match",
    [([-1.0, 2.0], "at least 0"), ([0.0, 0.0], "not all of them are 0"), ([], "not empty"), ([np.nan], "NaN")],
)
def test_exponential_refuses(bad, match):
    with pytest.raises(ValueError, match=match):
        exponential_mle(np.array(bad))


def test_exponential_takes_a_zero_and_one_value():
    assert exponential_mle([0.0, 2.0]) == 1.0 and exponential_mle([4]) == 0.25


@few
@given(samples(positive))
def test_lognormal_agrees_with_scipy(sample):
    assume(np.ptp(np.log(sample)) > 1e-3)
    sigma, _, scale = stats.lognorm.fit(sample, floc=0)
    assert np.allclose(lognormal_mle(sample), (np.log(scale), sigma), rtol=1e-6, atol=1e-8)


@few
@given(samples(positive), st.floats(0.01, 100), st.floats(0.2, 4))
def test_lognormal_under_scaling_and_powers(sample, scale, power):
    mu, sigma = lognormal_mle(sample)
    assert sigma >= 0 and sample.min() * (1 - 1e-9) <= np.exp(mu) <= sample.max() * (1 + 1e-9)
    assert np.allclose(lognormal_mle(scale * sample), (mu + np.log(scale), sigma), atol=1e-9)
    assert np.allclose(lognormal_mle(sample**power), (power * mu, power * sigma), atol=1e-7)


@few
@given(samples(positive), st.floats(-1, 1), st.floats(0.5, 2))
def test_lognormal_is_the_maximum(sample, shift, factor):
    assume(np.ptp(np.log(sample)) > 1e-2)
    mu, sigma = lognormal_mle(sample)

    def log_likelihood(mu, sigma):
        return stats.lognorm.logpdf(sample, sigma, scale=np.exp(mu)).sum()

    assert log_likelihood(mu, sigma) >= log_likelihood(mu + shift * sigma, sigma * factor) - 1e-6


@pytest.mark.parametrize(
    "bad, match", [([0.0, 1.0], "above 0"), ([-1.0], "above 0"), ([], "not empty"), ([np.inf], "infinity")]
)
def test_lognormal_refuses(bad, match):
    with pytest.raises(ValueError, match=match):
        lognormal_mle(np.array(bad))


# --- bootstrap -------------------------------------------------------------------------------


def spread(x, y, axis):
    return np.std(x, axis=axis) - np.mean(y, axis=axis)


@few
@given(hnp.arrays(np.float64, st.integers(2, 30), elements=moderate), seeds, st.sampled_from([0.5, 0.9, 0.99]))
def test_interval_is_scipys(sample, seed, confidence):
    assume(np.ptp(sample) > 1e-3)
    theirs = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=50,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    ours = bootstrap_interval(sample, np.mean, confidence=confidence, resamples=50, rng=seed)
    assert np.allclose(ours, theirs.confidence_interval, rtol=1e-9, atol=1e-9)
    drawn = bootstrap_distribution(sample, np.mean, resamples=50, rng=seed)
    assert np.allclose(drawn, theirs.bootstrap_distribution, rtol=1e-9, atol=1e-9)


@few
@given(st.integers(2, 20), st.integers(2, 20), st.booleans(), seeds)
def test_two_samples_are_scipys(n, m, paired, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=n if paired else m)
    theirs = stats.bootstrap(
        (x, y),
        spread,
        n_resamples=40,
        paired=paired,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    ours = bootstrap_interval((x, y), spread, paired=paired, resamples=40, rng=seed)
    assert np.allclose(ours, theirs.confidence_interval, rtol=1e-9, atol=1e-9)


@few
@given(samples(moderate), seeds)
def test_replicates_stay_within_the_sample(sample, seed):
    for statistic in (np.mean, np.median, np.min, lambda x, axis: quantile(x, 0.9, axis)):
        drawn = bootstrap_distribution(sample, statistic, resamples=30, rng=seed)
        assert drawn.shape == (30,) and drawn.dtype == np.float64
        assert np.all((drawn >= sample.min() - 1e-6) & (drawn <= sample.max() + 1e-6))
    low, high = bootstrap_interval(sample, np.mean, resamples=30, rng=seed)
    assert isinstance(low, float) and low <= high


@few
@given(samples(moderate), seeds, st.floats(0.1, 10), moderate)
def test_interval_moves_with_the_unit(sample, seed, scale, shift):
    low, high = bootstrap_interval(sample, np.mean, resamples=40, rng=seed)
    moved = bootstrap_interval(shift + scale * sample, np.mean, resamples=40, rng=seed)
    assert np.allclose(moved, (shift + scale * low, shift + scale * high), rtol=1e-9, atol=1e-4)


@few
@given(samples(moderate), seeds)
def test_intervals_are_nested(sample, seed):
    narrow = bootstrap_interval(sample, np.mean, confidence=0.5, resamples=60, rng=seed)
    wide = bootstrap_interval(sample, np.mean, confidence=0.95, resamples=60, rng=seed)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


@few
@given(st.integers(1, 12), seeds)
def test_pairs_stay_together(n, seed):
    x = np.random.default_rng(seed).normal(size=n)
    difference = bootstrap_distribution(
        (x, x + 1), lambda a, b, axis: (b - a).mean(axis=axis), paired=True, resamples=20, rng=seed
    )
    assert np.allclose(difference, 1)


@few
@given(samples(moderate, max_size=12), seeds)
def test_loop_equals_vectorised(sample, seed):
    fast = bootstrap_distribution(sample, np.median, resamples=15, rng=seed)
    slow = bootstrap_distribution(sample, np.median, resamples=15, vectorized=False, rng=seed)
    assert np.array_equal(fast, slow)


def test_rows_of_a_matrix_are_resampled():
    table = np.stack([np.arange(50.0), -np.arange(50.0)], axis=1)  # (n, 2): the columns cancel
    assert np.allclose(bootstrap_distribution(table, np.sum, resamples=20, vectorized=False, rng=0), 0)
    sums = bootstrap_distribution(table, lambda t, axis: t.sum(axis=(1, 2)), resamples=20, rng=0)
    assert np.allclose(sums, 0)


def test_batches_do_not_change_one_sample(monkeypatch):
    sample = np.random.default_rng(3).normal(size=37)
    whole = bootstrap_distribution(sample, np.mean, resamples=101, rng=4)
    for size in (1, 37 * 10, 37 * 100):
        monkeypatch.setattr(probability, "_BATCH", size)
        assert np.array_equal(bootstrap_distribution(sample, np.mean, resamples=101, rng=4), whole)


def test_distribution_has_the_known_mean_and_variance():
    sample = np.random.default_rng(5).gamma(1.0, size=80)
    drawn = bootstrap_distribution(sample, np.mean, resamples=20_000, rng=6)
    assert abs(drawn.mean() - sample.mean()) < 4 * drawn.std() / np.sqrt(20_000)
    assert np.isclose(drawn.std(), sample.std() / np.sqrt(80), rtol=0.03)


def test_constant_and_single_samples():
    assert bootstrap_interval(np.full(9, 2.5), np.mean, resamples=10, rng=0) == (2.5, 2.5)
    assert bootstrap_interval([7.0], np.median, resamples=10, rng=0) == (7.0, 7.0)


@pytest.mark.parametrize("bad", [[], 3.0, (), ([1.0], [])])
def test_bootstrap_refuses_empty_samples(bad):
    with pytest.raises(ValueError, match="at least one value along axis 0"):
        bootstrap_distribution(bad, np.mean, rng=0)


def test_bootstrap_refuses_unequal_pairs():
    with pytest.raises(ValueError, match=r"equal lengths, got \[2, 3\]"):
        bootstrap_interval((np.ones(2), np.ones(3)), spread, paired=True, rng=0)


@pytest.mark.parametrize("resamples", [0, -5])
def test_bootstrap_refuses_no_resamples(resamples):
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        bootstrap_distribution(np.ones(3), np.mean, resamples=resamples, rng=0)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, np.nan])
def test_interval_refuses_confidence(confidence):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        bootstrap_interval(np.ones(3), np.mean, confidence=confidence, rng=0)


def test_bootstrap_refuses_a_statistic_that_ignores_the_axis():
    with pytest.raises(ValueError, match="does it reduce axis 1"):
        bootstrap_distribution(np.arange(5.0), lambda x, axis: x.mean(), rng=0)


# --- coverage --------------------------------------------------------------------------------


def normal(rng):
    return rng.normal(3.0, 2.0, size=40)


def t_interval(x, rng):
    return stats.t.interval(0.9, len(x) - 1, x.mean(), stats.sem(x))


def test_coverage_of_an_exact_interval():
    got = coverage(normal, t_interval, 3.0, repetitions=2000, rng=1)
    assert abs(got.value - 0.9) < 4 * got.standard_error
    assert np.isclose(got.standard_error, np.sqrt(got.value * (1 - got.value) / 1999))


@few
@given(st.floats(0, 1), st.floats(0, 1), seeds)
def test_coverage_counts(a, b, seed):
    low, high = sorted((a, b))
    got = coverage(lambda rng: rng.random(), lambda x, rng: (x + low, x + high), 1.0, repetitions=60, rng=seed)
    u = np.random.default_rng(seed).random(60)
    assert np.isclose(got.value, np.mean((u + low <= 1) & (1 <= u + high)))
    assert 0 <= got.value <= 1


def test_coverage_extremes_and_seed():
    everything = coverage(normal, lambda x, rng: (-np.inf, np.inf), 3.0, repetitions=20, rng=0)
    nothing = coverage(normal, lambda x, rng: (1e9, 1e9), 3.0, repetitions=20, rng=0)
    assert everything == Estimate(1.0, 0.0) and nothing == Estimate(0.0, 0.0)
    assert coverage(normal, lambda x, rng: (3.0, 3.0), 3.0, repetitions=5, rng=0).value == 1.0  # the ends count
    again = [coverage(normal, t_interval, 3.0, repetitions=50, rng=9) for _ in range(2)]
    assert again[0] == again[1]


def test_bootstrap_covers_where_it_should():
    got = coverage(
        lambda rng: rng.normal(size=150),
        lambda x, rng: bootstrap_interval(x, np.mean, resamples=300, rng=rng),
        0.0,
        repetitions=1000,
        rng=2,
    )
    assert 0.925 < got.value < 0.97


@pytest.mark.parametrize("ends", [(2.0, 1.0), (np.nan, 1.0)])
def test_coverage_refuses_intervals(ends):
    with pytest.raises(ValueError, match="low must not exceed high"):
        coverage(normal, lambda x, rng: ends, 3.0, repetitions=5, rng=0)


def test_coverage_refuses_one_repetition():
    with pytest.raises(ValueError, match="at least 2 draws"):
        coverage(normal, t_interval, 3.0, repetitions=1, rng=0)


# --- the simulator ---------------------------------------------------------------------------


@few
@given(st.one_of(st.integers(0, 50), st.tuples(st.integers(0, 5), st.integers(0, 5))), seeds)
def test_latencies_shape_and_seed(n, seed):
    t = latencies(n, seed)
    assert t.shape == (n if isinstance(n, tuple) else (n,)) and (t > 0).all()
    assert np.array_equal(t, latencies(n, seed)) and np.array_equal(t, latencies(n, np.random.default_rng(seed)))


@pytest.mark.parametrize("seed", [10, 11, 12])
def test_latencies_follow_their_distribution(seed):
    assert stats.kstest(latencies(20_000, seed), latency_cdf).pvalue > 1e-4


@few
@given(hnp.arrays(np.float64, 10, elements=st.floats(-1e3, 1e9)))
def test_latency_cdf_is_a_mixture(t):
    t = np.sort(t)
    got = latency_cdf(t)
    expected = sum(w * stats.lognorm.cdf(t, s, scale=m) for w, m, s in LATENCY_CAUSES.values())
    assert np.allclose(got, expected, atol=1e-12) and np.all(np.diff(got) >= -1e-15)
    assert latency_cdf(0.0) == 0 and latency_cdf(np.inf) == 1 and np.all(got[t <= 0] == 0)
