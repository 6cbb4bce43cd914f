"""groundup.information against scipy.stats, exact integer arithmetic, a naive n-gram and round trips."""

from collections import Counter
from fractions import Fraction
from itertools import product
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from groundup.information import (
    QUARTER,
    NGram,
    bits_per_byte,
    cross_entropy,
    decode,
    encode,
    entropy,
    kl_divergence,
    perplexity,
)

few = settings(deadline=None, max_examples=60)
fewer = settings(deadline=None, max_examples=25)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


@st.composite
def distributions(draw, count=1, zeros=True):
    """`count` distributions of one shape, some with zeros and with masses of very different size."""
    shape = draw(shapes)
    made = []
    for _ in range(count):
        exponents = draw(hnp.arrays(np.float64, shape, elements=st.floats(-200, 0)))
        mass = 10.0**exponents
        if zeros:
            mass *= draw(hnp.arrays(np.bool_, shape))
        mass[..., 0] += mass.sum(axis=-1) == 0
        made.append(mass / mass.sum(axis=-1, keepdims=True))
    return made if count > 1 else made[0]


# --- entropy -----------------------------------------------------------------------------------


@few
@given(distributions())
def test_entropy_agrees_with_scipy(p):
    got = entropy(p)
    assert got.shape == p.shape[:-1]
    assert np.allclose(got, stats.entropy(p, base=2, axis=-1), atol=1e-12)


@few
@given(distributions())
def test_entropy_lies_between_zero_and_log_k(p):
    assert np.all(entropy(p) >= 0) and np.all(entropy(p) <= log2(p.shape[-1]) + 1e-12)
    assert np.allclose(entropy(np.full(p.shape, 1 / p.shape[-1])), log2(p.shape[-1]))


@few
@given(distributions(), st.randoms(use_true_random=False))
def test_entropy_ignores_names_and_impossible_symbols(p, random):
    order = list(range(p.shape[-1]))
    random.shuffle(order)
    assert np.allclose(entropy(p[..., order]), entropy(p), atol=1e-12)
    padded = np.concatenate([p, np.zeros(p.shape)], axis=-1)
    assert np.allclose(entropy(padded), entropy(p), atol=1e-12)


@few
@given(distributions(2))
def test_entropy_adds_for_independent_symbols(pair):
    p, q = pair
    joint = (p[..., :, None] * q[..., None, :]).reshape(*p.shape[:-1], -1)
    assert np.allclose(entropy(joint), entropy(p) + entropy(q), atol=1e-9)


BAD = [
    (np.array(1.0), "at least one probability"),
    (np.array([]), "at least one probability"),
    (np.ones((3, 0)), "at least one probability"),
    (np.array([0.5, 0.6]), "sum to 1"),
    (np.array([1.5, -0.5]), "non-negative"),
    (np.array([np.nan, 1.0]), "non-negative and sum to 1"),
    (np.array([np.inf, 0.0]), "sum to 1"),
    (np.array([[0.5, 0.5], [0.5, 0.4]]), "sum to 1"),
]


@pytest.mark.parametrize("bad, match", BAD)
def test_distributions_are_checked(bad, match):
    with pytest.raises(ValueError, match=match):
        entropy(bad)
    for function in (cross_entropy, kl_divergence):
        with pytest.raises(ValueError, match="p must.*"):
            function(bad, np.array([0.5, 0.5]))
        with pytest.raises(ValueError, match="q must.*"):
            function(np.array([0.5, 0.5]), bad)


@pytest.mark.parametrize("function", [cross_entropy, kl_divergence])
def test_alphabets_must_agree(function):
    with pytest.raises(ValueError, match="p has 2 symbols, q has 3"):
        function([0.5, 0.5], [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="p has 1 symbols, q has 2"):  # no silent broadcasting of k
        function([1.0], [0.5, 0.5])


# --- cross_entropy and kl_divergence -------------------------------------------------------------


@few
@given(distributions(2))
def test_kl_agrees_with_scipy(pair):
    p, q = pair
    got = kl_divergence(p, q)
    assert got.shape == p.shape[:-1]
    expected = np.sum(stats.entropy(p, q, base=2, axis=-1, keepdims=True), axis=-1)
    assert np.allclose(got, expected, rtol=1e-9, atol=1e-12)


@few
@given(distributions(2))
def test_kl_is_never_negative_and_zero_for_equals(pair):
    p, q = pair
    assert np.all(kl_divergence(p, q) >= 0)
    assert np.all(kl_divergence(p, p) == 0)
    tiny = p * (1 + 1e-9 * np.sign(q - 0.5))  # rounding must not make it negative
    assert np.all(kl_divergence(p, tiny / tiny.sum(axis=-1, keepdims=True)) >= 0)


@few
@given(distributions(2))
def test_cross_entropy_is_floor_plus_surcharge(pair):
    p, q = pair
    got = cross_entropy(p, q)
    assert got.shape == p.shape[:-1]
    assert np.allclose(got, entropy(p) + kl_divergence(p, q), rtol=1e-9, atol=1e-9)
    assert np.allclose(cross_entropy(p, p), entropy(p), atol=1e-12)
    assert np.all(got >= entropy(p) - 1e-12)


@few
@given(distributions(2))
def test_infinite_exactly_where_q_misses_what_p_does(pair):
    p, q = pair
    missed = ((q == 0) & (p > 0)).any(axis=-1)
    assert np.array_equal(np.isinf(cross_entropy(p, q)), missed)
    assert np.array_equal(np.isinf(kl_divergence(p, q)), missed)
    assert not np.isnan(cross_entropy(p, q)).any()


@few
@given(distributions(2, zeros=False), st.floats(0, 1))
def test_mixing_in_the_truth_helps(pair, share):
    p, q = pair
    mixed = share * p + (1 - share) * q
    assert np.all(kl_divergence(p, mixed) <= kl_divergence(p, q) * (1 + 1e-9) + 1e-9)


@few
@given(st.integers(1, 6), st.integers(1, 5))
def test_broadcasting(rows, k):
    p = np.full(k, 1 / k)
    q = np.random.default_rng(rows).dirichlet(np.ones(k), rows)
    for function in (cross_entropy, kl_divergence):
        assert np.allclose(function(p, q), [function(p, row) for row in q])
        assert function(p, q[0]).shape == ()


# --- bits_per_byte and perplexity ------------------------------------------------------------------


@few
@given(st.floats(0, 1e12), st.integers(1, 10**9), st.integers(1, 1000))
def test_bits_per_byte_is_a_rate(nats, n_bytes, times):
    got = bits_per_byte(nats, n_bytes)
    assert isinstance(got, float) and got >= 0
    assert np.isclose(bits_per_byte(nats * times, n_bytes * times), got)
    assert np.isclose(bits_per_byte(nats * times, n_bytes), got * times)


@few
@given(st.integers(2, 256), st.integers(1, 1000), st.integers(1, 8))
def test_bits_per_byte_of_a_uniform_model(k, symbols, width):
    assert np.isclose(bits_per_byte(symbols * np.log(k), symbols * width), log2(k) / width)
    assert bits_per_byte(0.0, symbols) == 0.0
    assert bits_per_byte(np.inf, symbols) == np.inf


@pytest.mark.parametrize("nats, n_bytes", [(-1.0, 5), (np.nan, 5), (1.0, 0), (1.0, -3)])
def test_bits_per_byte_refuses(nats, n_bytes):
    with pytest.raises(ValueError, match="nats ≥ 0 and n_bytes ≥ 1"):
        bits_per_byte(nats, n_bytes)


@few
@given(distributions())
def test_perplexity_of_an_entropy_counts_symbols(p):
    got = perplexity(entropy(p))
    assert got.shape == p.shape[:-1]
    assert np.all(got >= 1) and np.all(got <= p.shape[-1] * (1 + 1e-9))
    assert np.allclose(perplexity(entropy(np.full(p.shape, 1 / p.shape[-1]))), p.shape[-1])


@few
@given(st.floats(0, 500), st.floats(0, 500))
def test_perplexity_multiplies_and_grows(a, b):
    assert np.isclose(perplexity(a + b), perplexity(a) * perplexity(b))
    assert (perplexity(a) <= perplexity(b)) == (a <= b) or np.isclose(a, b)
    assert np.isclose(np.log2(perplexity(a)), a)


def test_perplexity_extremes():
    assert perplexity(0) == 1 and perplexity(np.inf) == np.inf and perplexity([]).shape == (0,)


@pytest.mark.parametrize("bad", [-0.1, np.nan, [1.0, -1.0]])
def test_perplexity_refuses(bad):
    with pytest.raises(ValueError, match="cannot be negative or NaN"):
        perplexity(bad)


# --- encode and decode ---------------------------------------------------------------------------


@st.composite
def messages(draw):
    """Frequencies with zeros and extremes, and symbols among those that are possible."""
    size = st.one_of(st.integers(0, 9), st.integers(0, 2**16), st.just(2**24))
    frequencies = np.array(draw(st.lists(size, min_size=1, max_size=12)))
    frequencies[draw(st.integers(0, len(frequencies) - 1))] += 1
    possible = np.flatnonzero(frequencies).tolist()
    return frequencies, draw(st.lists(st.sampled_from(possible), max_size=80))


def static(frequencies):
    return lambda history: frequencies


def surprise(frequencies, symbols):
    total = int(frequencies.sum())
    return sum(log2(total / int(frequencies[s])) for s in symbols)


@few
@given(messages())
def test_round_trip_of_any_alphabet(message):
    frequencies, symbols = message
    code = encode(symbols, static(frequencies))
    assert isinstance(code, bytes)
    assert decode(code, len(symbols), static(frequencies)) == symbols


@few
@given(messages())
def test_length_is_at_most_the_surprise(message):
    frequencies, symbols = message
    bits = surprise(frequencies, symbols)
    # an interval edge is rounded by at most 1 part in (2^30 / total) of the rarest symbol
    slack = len(symbols) * log2(1 / (1 - min(frequencies.sum() / 2**30, 0.5))) + 2
    assert len(encode(symbols, static(frequencies))) <= ceil((bits + slack) / 8)


@few
@given(messages())
def test_the_code_names_a_number_in_the_exact_interval(message):
    frequencies, symbols = message
    if frequencies.sum() & (frequencies.sum() - 1):  # powers of two divide the window exactly
        frequencies = np.append(frequencies, 2 ** int(frequencies.sum()).bit_length() - frequencies.sum())
    total = int(frequencies.sum())
    low, width = Fraction(0), Fraction(1)
    cum = np.concatenate([[0], np.cumsum(frequencies)]).tolist()
    symbols = symbols[:2]  # two symbols fit the 32-bit window without rounding if total ≤ 2^14
    if total > 2**14:
        return
    for s in symbols:
        low += width * Fraction(cum[s], total)
        width *= Fraction(int(frequencies[s]), total)
    code = encode(symbols, static(frequencies))
    value = Fraction(int.from_bytes(code), 256 ** len(code)) if code else Fraction(0)
    assert low <= value < low + width


@pytest.mark.parametrize("frequencies", [[1, 1, 1], [1, 900, 3], [5, 2, 1]])
def test_no_two_messages_share_a_code_and_none_is_free_on_average(frequencies):
    frequencies, n = np.array(frequencies), 6
    p = frequencies / frequencies.sum()
    everything = list(product(range(3), repeat=n))
    codes = [encode(m, static(frequencies)) for m in everything]
    assert len({code.rstrip(b"\0") for code in codes}) == len(everything)
    mean = sum(np.prod(p[list(m)]) * 8 * len(code) for m, code in zip(everything, codes))
    # lengths are known beforehand here, so the code need not be prefix-free
    assert n * entropy(p) - np.log2(n * entropy(p) + 1) - 2 <= mean <= n * entropy(p) + 9


@few
@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_round_trip_with_a_model_that_depends_on_the_history(data, seed):
    table = np.random.default_rng(seed).integers(1, 2**14, (4, 256))

    def model(history):
        return table[(len(history) + sum(history[-3:])) % 4]

    assert bytes(decode(encode(data, model), len(data), model)) == data


@few
@given(st.binary(max_size=60), st.integers(0, 60))
def test_every_byte_string_decodes(noise, length):
    frequencies = np.array([3, 0, 1, 500, 7])
    symbols = decode(noise, length, static(frequencies))
    assert len(symbols) == length and set(symbols) <= {0, 2, 3, 4}
    assert decode(noise + b"\0\0", length, static(frequencies)) == symbols
    assert decode(encode(symbols, static(frequencies)), length, static(frequencies)) == symbols


@few
@given(messages(), st.integers(0, 80))
def test_a_prefix_can_be_decoded(message, length):
    frequencies, symbols = message
    code = encode(symbols, static(frequencies))
    length = min(length, len(symbols))
    assert decode(code, length, static(frequencies)) == symbols[:length]


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 4000])
@pytest.mark.parametrize("frequencies", [[1, 1, 1], [1, 2, 1], [2**28 - 1, 2, 2**28 - 1], [1, QUARTER - 2, 1]])
def test_runs_that_straddle_the_middle(frequencies, n):
    frequencies = np.array(frequencies)
    for symbols in ([1] * n, [1] * n + [0], [1] * n + [2], [0] * n, [2] * n):
        code = encode(symbols, static(frequencies))
        assert decode(code, len(symbols), static(frequencies)) == symbols


def test_nothing_and_certainty_cost_nothing():
    assert encode([], static(np.array([1]))) == b"" and encode(b"", static(np.ones(256, int))) == b""
    assert encode([0] * 10_000, static(np.array([5]))) == b""
    assert encode([1] * 10_000, static(np.array([0, QUARTER]))) == b""
    assert decode(b"", 3, static(np.array([0, 9]))) == [1, 1, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_dtypes_do_not_overflow(dtype):
    frequencies = np.full(100, 100, dtype=dtype)
    symbols = [99, 0, 50] * 20
    assert decode(encode(symbols, static(frequencies)), 60, static(frequencies)) == symbols


def test_numpy_symbols_and_history():
    seen = []

    def model(history):
        seen.append(list(history))
        return np.array([1, 1])

    code = encode(np.array([1, 0, 1]), model)
    assert seen == [[], [1], [1, 0]]
    assert decode(code, 3, model) == [1, 0, 1] and all(type(s) is int for s in decode(code, 3, model))


@pytest.mark.parametrize("symbol", [1, 3, -1, 256])
def test_encode_refuses_symbols_without_a_code(symbol):
    with pytest.raises(ValueError, match=f"symbol {symbol} at position 1 has frequency 0"):
        encode([0, symbol], static(np.array([1, 0, 1])))


@pytest.mark.parametrize(
    "bad, match",
    [
        ([], "one-dimensional array of integers"),
        ([0.5, 0.5], "one-dimensional array of integers"),
        ([[1, 1]], "one-dimensional array of integers"),
        ([True, True], "one-dimensional array of integers"),
        ([0, 0], "sum from 1 to 2"),
        ([2, -1], "at least 0"),
        ([QUARTER, 1], "sum from 1 to 2"),
    ],
)
def test_frequencies_are_checked(bad, match):
    with pytest.raises(ValueError, match=match):
        encode([0], lambda history: np.array(bad))
    with pytest.raises(ValueError, match=match):
        decode(b"\x12", 1, lambda history: np.array(bad))


def test_decode_refuses_a_negative_length():
    with pytest.raises(ValueError, match="length must be at least 0"):
        decode(b"", -1, static(np.array([1])))


# --- NGram ---------------------------------------------------------------------------------------

texts = st.one_of(
    st.binary(max_size=60),
    st.text("ab", max_size=60).map(str.encode),
    st.sampled_from([b"", b"\0", b"\xff" * 30, bytes(range(256)), b"\0\xff" * 20]),
)
orders = st.integers(1, 8)


def witten_bell(text, order):
    """The formula itself, in fractions, by counting with dictionaries."""

    def q(b, context):
        shorter = q(b, context[1:]) if context else Fraction(1, 256)
        k = len(context)
        followers = Counter(text[i + k] for i in range(len(text) - k) if text[i : i + k] == context)
        N, T = followers.total(), len(followers)
        return (followers[b] + T * shorter) / (N + T) if N else shorter

    return lambda b, history: q(b, history[max(len(history) - order + 1, 0) :])


@fewer
@given(texts, texts.map(lambda t: t[:12]), orders)
def test_costs_are_the_formula(text, message, order):
    exact, got = witten_bell(text, order), NGram(text, order).costs(message)
    assert got.shape == (order + 1, len(message)) and got.dtype == np.float64
    for i, b in enumerate(message):
        p = float(exact(b, message[:i]))
        # floors of 2^-32 per order, and the coder's floor of 2^-24
        assert abs(2.0 ** -got[-1, i] - p) <= 2.0**-23 + 256 / 2**24 * p


@few
@given(texts, texts, orders)
def test_rows_are_the_lower_orders(text, message, order):
    rows = NGram(text, order).costs(message)
    assert np.allclose(rows[0], 8, atol=1e-4)
    for k in range(1, order + 1):
        assert np.array_equal(rows[k], NGram(text, k).costs(message)[-1])
    assert np.all(rows >= 0) and np.all(rows <= 24)


@few
@given(texts, texts, orders)
def test_frequencies_are_a_distribution_and_agree_with_costs(text, message, order):
    model = NGram(text, order)
    for i, b in enumerate(message[:20]):
        frequencies = model.frequencies(message[:i])
        assert frequencies.shape == (256,) and frequencies.dtype.kind == "i"
        assert frequencies.min() >= 1
        assert NGram.TOTAL - 256 - 256 * order <= frequencies.sum() <= NGram.TOTAL
        assert np.isclose(model.costs(message)[-1, i], 24 - np.log2(frequencies[b]), atol=1e-12)


@few
@given(texts, st.lists(st.integers(0, 255), max_size=20), orders)
def test_only_the_last_bytes_of_any_sequence_matter(text, history, order):
    model = NGram(text, order)
    got = model.frequencies(history)
    assert np.array_equal(got, model.frequencies(bytes(history)))
    assert np.array_equal(got, NGram(text, order).frequencies(bytes(history)))  # no memory of earlier calls
    tail = history[len(history) - order + 1 :] if len(history) >= order else history
    assert np.array_equal(got, model.frequencies([7] * 3 + tail) if len(tail) == order - 1 else got)


@few
@given(texts, texts, orders)
def test_ngram_round_trip_and_size(text, message, order):
    model = NGram(text, order)
    code = encode(message, model.frequencies)
    assert bytes(decode(code, len(message), NGram(text, order).frequencies)) == message
    bits = model.costs(message)[-1].sum()
    assert 8 * len(code) <= bits + 10 + 0.05 * len(message)


@few
@given(st.binary(max_size=30), orders)
def test_an_untrained_model_is_uniform(message, order):
    rows = NGram(b"", order).costs(message)
    assert np.allclose(rows, 8, atol=1e-4)
    assert len(set(NGram(b"", order).frequencies(message).tolist())) == 1


@few
@given(texts, orders)
def test_tables_count(text, order):
    model = NGram(text, order)
    for n, (grams, cum) in enumerate(model.tables, start=1):
        counted = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        assert [int(g).to_bytes(n) for g in grams] == sorted(counted)
        assert np.diff(cum).tolist() == [counted[g] for g in sorted(counted)]


def letters(n, seed):
    drawn = np.random.default_rng(seed).choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    return (drawn + ord("a")).astype(np.uint8).tobytes()


def test_the_training_text_becomes_cheaper_with_order():
    text = letters(3000, seed=0)
    assert np.all(np.diff(NGram(text, 8).costs(text).mean(axis=1)) < 0)
    fresh = NGram(letters(50_000, seed=0), 1).costs(letters(50_000, seed=1))[-1].mean()
    assert abs(fresh - entropy([0.4, 0.3, 0.2, 0.1])) < 0.02


def test_the_cache_is_bounded():
    model = NGram(bytes(range(256)) * 2, 3)
    rng = np.random.default_rng(2)
    model._cache.update({rng.bytes(9): np.zeros(1) for _ in range(20_000)})
    before = NGram(bytes(range(256)) * 2, 3).frequencies(b"\x05\x06")
    assert np.array_equal(model.frequencies(b"\x05\x06"), before) and len(model._cache) < 20_000


def test_large_counts_do_not_overflow():
    text = b"a" * 3_000_000 + b"b"
    rows = NGram(text, 2).costs(b"aab")
    assert 0 <= rows[-1, 1] < 1e-3 and 10 < rows[-1, 2] <= 24


@pytest.mark.parametrize("order", [0, -1, 9])
def test_ngram_refuses_orders(order):
    with pytest.raises(ValueError, match="order must be from 1 to 8"):
        NGram(b"abc", order)


@pytest.mark.parametrize("text", ["abc", [1, 2]])
def test_ngram_refuses_what_is_not_bytes(text):
    with pytest.raises(ValueError, match="text must be bytes"):
        NGram(text, 2)
    with pytest.raises(ValueError, match="text must be bytes"):
        NGram(b"abc", 2).costs(text)
