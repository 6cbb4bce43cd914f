"""groundup.embeddings against scikit-learn, SciPy, torch and recounting, on generated input."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import permutation_test
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import NearestNeighbors

from groundup.calculus import gradient_check
from groundup.embeddings import (
    Association,
    SkipGram,
    Vocabulary,
    WordVectors,
    cooccurrence,
    ppmi,
    randomized_svd,
    sgns_gradient,
    sgns_loss,
    simhash,
    skip_gram_pairs,
    train_skip_gram,
    weat,
)

few = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**32 - 1)
id_lists = st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=5)


# --- words ------------------------------------------------------------------------------------


@few
@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=12), max_size=6), st.integers(1, 4))
def test_vocabulary_counts(sentences, least):
    counts = Counter(w for s in sentences for w in s)
    kept = {w: n for w, n in counts.items() if n >= least}
    if not kept:
        with pytest.raises(ValueError, match="would be empty"):
            Vocabulary(sentences, least)
        return
    vocabulary = Vocabulary(sentences, least)
    assert len(vocabulary) == len(kept) and dict(zip(vocabulary.words, vocabulary.counts.tolist())) == kept
    assert vocabulary.counts.tolist() == sorted(kept.values(), reverse=True)
    for i, word in enumerate(vocabulary.words):
        assert vocabulary.id(word) == i and word in vocabulary
    for sentence in sentences:
        assert [vocabulary.words[i] for i in vocabulary.encode(sentence)] == [w for w in sentence if w in kept]


def test_vocabulary_names_an_unknown_word():
    vocabulary = Vocabulary([["log", "line"]])
    assert "node" not in vocabulary and vocabulary.encode(["node"]).tolist() == []
    with pytest.raises(ValueError, match="'node' is not one of the 2 words"):
        vocabulary.id("node")
    with pytest.raises(ValueError, match="would be empty"):
        Vocabulary([])


# --- counts and PMI -----------------------------------------------------------------------------


def recount(sequences, size, window):
    C = np.zeros((size, size))
    for s in sequences:
        for i, w in enumerate(s):
            for j in range(max(0, i - window), min(len(s), i + window + 1)):
                if i != j:
                    C[w, s[j]] += 1
    return C


@few
@given(id_lists, st.integers(1, 4))
def test_cooccurrence_is_recounting(sequences, window):
    assume(any(sequences))
    C = cooccurrence(sequences, 6, window)
    assert sparse.issparse(C)
    np.testing.assert_array_equal(C.toarray(), recount(sequences, 6, window))


@pytest.mark.parametrize(
    ("sequences", "size", "window", "message"),
    [
        ([], 5, 2, "no word to learn from"),
        ([[], []], 5, 2, "no word to learn from"),
        ([[0, 5]], 5, 2, "between 0 and 4, got 0 to 5"),
        ([[-1, 2]], 5, 2, "between 0 and 4, got -1 to 2"),
        ([[0, 1]], 5, 0, "window must be at least 1"),
    ],
)
def test_bad_sequences_are_refused(sequences, size, window, message):
    with pytest.raises(ValueError, match=message):
        cooccurrence(sequences, size, window)
    with pytest.raises(ValueError, match=message):
        skip_gram_pairs(sequences, size, window, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        train_skip_gram(sequences, size, window=window)


@few
@given(seeds, st.floats(0.5, 6), st.floats(0.5, 1))
def test_ppmi_is_its_definition(seed, shift, smoothing):
    counts = np.random.default_rng(seed).poisson(1.5, (7, 5)).astype(float)
    assume(counts.sum() > 0)
    p = counts / counts.sum()
    contexts = counts.sum(axis=0) ** smoothing
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(p / np.outer(p.sum(axis=1), contexts / contexts.sum())) - math.log(shift)
    expected = np.where(counts > 0, np.maximum(pmi, 0), 0)
    for given_counts in (counts, sparse.csr_array(counts)):
        np.testing.assert_allclose(ppmi(given_counts, shift, smoothing).toarray(), expected, atol=1e-12)


@few
@given(seeds)
def test_ppmi_of_a_tiny_shift_averages_to_mutual_information(seed):
    counts = np.random.default_rng(seed).integers(1, 30, (4, 6)).astype(float)
    pmi = ppmi(counts, shift=1e-9).toarray() + math.log(1e-9)  # nothing is cut off
    np.testing.assert_allclose((counts * pmi).sum() / counts.sum(), mutual_info_score(None, None, contingency=counts))


@few
@given(seeds, st.floats(0.1, 50))
def test_ppmi_does_not_depend_on_scale(seed, factor):
    counts = np.random.default_rng(seed).integers(0, 9, (6, 6)) + np.eye(6)
    np.testing.assert_allclose(ppmi(counts * factor).toarray(), ppmi(counts).toarray(), atol=1e-9)


@pytest.mark.parametrize("counts", [np.zeros((2, 2)), [[1, -1], [0, 3]], [[np.nan, 1], [1, 1]], np.ones(3)])
def test_ppmi_refuses_what_is_not_a_count(counts):
    with pytest.raises(ValueError, match="counts must be a matrix"):
        ppmi(np.asarray(counts, dtype=float))


@pytest.mark.parametrize("settings_", [{"shift": 0}, {"smoothing": 0}, {"shift": -1}])
def test_ppmi_refuses_settings(settings_):
    with pytest.raises(ValueError, match="must be positive"):
        ppmi(np.ones((2, 2)), **settings_)


# --- the randomised SVD ---------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 6), st.booleans())
def test_randomized_svd_is_exact_for_low_rank(seed, rank, as_sparse):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((30, rank)) @ rng.standard_normal((rank, 20))
    given_A = sparse.csr_array(A) if as_sparse else A
    U, s, Vt = randomized_svd(given_A, 8, seed=seed % 7)
    assert len(s) == rank
    np.testing.assert_allclose(s, scipy.linalg.svdvals(A)[:rank], rtol=1e-7)
    np.testing.assert_allclose((U * s) @ Vt, A, atol=1e-9 * s[0])


@few
@given(seeds)
def test_randomized_svd_agrees_with_sklearn(seed):
    A = sparse.random_array((60, 45), density=0.2, rng=np.random.default_rng(seed))
    U, s, Vt = randomized_svd(A, 5, oversample=20, iterations=10)
    theirs = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(A)
    np.testing.assert_allclose(s, theirs.singular_values_, rtol=1e-3)
    np.testing.assert_allclose(U.T @ U, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(5), atol=1e-10)
    left = np.linalg.norm(A.toarray() - (U * s) @ Vt)
    best = np.linalg.norm(A.toarray() - theirs.inverse_transform(theirs.transform(A)))
    assert best * (1 - 1e-9) <= left <= best * 1.001


def test_randomized_svd_gets_better_with_iterations():
    A = np.random.default_rng(0).standard_normal((200, 150))
    exact = scipy.linalg.svdvals(A)[:10]
    errors = [np.abs(randomized_svd(A, 10, iterations=q)[1] - exact).max() for q in (0, 2, 20)]
    assert errors[0] > 2 * errors[1] > 10 * errors[2]


@pytest.mark.parametrize("k", [0, 6, -1])
def test_randomized_svd_refuses_k(k):
    with pytest.raises(ValueError, match="1 <= k"):
        randomized_svd(np.ones((5, 7)), k)


def test_randomized_svd_refuses_settings():
    with pytest.raises(ValueError, match="need a matrix"):
        randomized_svd(np.ones(5), 1)
    with pytest.raises(ValueError, match="must not be negative"):
        randomized_svd(np.ones((5, 5)), 1, iterations=-1)


# --- skip-gram ------------------------------------------------------------------------------------


def batch(seed, b=5, m=3, d=4, scale=1.0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal((rows, d)) for rows in (b, b, m)]


@few
@given(seeds, st.floats(0, 9), st.integers(1, 6), st.integers(1, 5))
def test_sgns_gradient_agrees_with_torch(seed, k, b, m):
    parts = batch(seed, b, m)
    u, v, n = (torch.tensor(part, requires_grad=True) for part in parts)
    logsigmoid = torch.nn.functional.logsigmoid
    loss = -logsigmoid((u * v).sum(1)).sum() - k / m * logsigmoid(-(u @ n.T)).sum()
    loss.backward()
    np.testing.assert_allclose(sgns_loss(*parts, k), loss.item(), rtol=1e-10)
    for ours, theirs in zip(sgns_gradient(*parts, k), (u.grad, v.grad, n.grad)):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_sgns_gradient_agrees_with_differences(seed):
    parts = batch(seed)
    for i, gradient in enumerate(sgns_gradient(*parts, 2)):

        def loss(x, i=i):
            return sgns_loss(*parts[:i], x, *parts[i + 1 :], 2)

        assert gradient_check(loss, gradient, parts[i]) < 1e-7


def test_sgns_does_not_overflow_and_keeps_the_type():
    parts = [part.astype(np.float32) for part in batch(0, scale=100)]
    assert np.isfinite(sgns_loss(*parts, 5))
    assert all(g.dtype == np.float32 and np.isfinite(g).all() for g in sgns_gradient(*parts, 5))


def test_sgns_refuses_shapes_and_k():
    u, v, n = batch(0)
    for bad in ((u, v[:2], n), (u, v, n[:, :2]), (u, v, n[:0]), (u[0], v[0], n)):
        with pytest.raises(ValueError, match="need u, v"):
            sgns_loss(*bad, 5)
    with pytest.raises(ValueError, match="k cannot be negative"):
        sgns_gradient(u, v, n, -1)


@few
@given(id_lists, st.integers(1, 3), seeds)
def test_skip_gram_pairs_are_neighbours(sequences, window, seed):
    C = recount(sequences, 6, window)
    assume(C.sum() > 0)
    words, contexts = skip_gram_pairs(sequences, 6, window, 0, np.random.default_rng(seed))
    found = np.zeros((6, 6))
    np.add.at(found, (words, contexts), 1)
    near = recount(sequences, 6, 1)
    assert (found <= C).all() and (found >= near).all()  # neighbours at distance 1 are always there


def test_skip_gram_pairs_weigh_by_distance():
    sequence = np.arange(4000) % 4  # distance 1: ±1 mod 4; distance 2: 2; distance 4: itself
    words, contexts = skip_gram_pairs([sequence], 4, 4, 0, np.random.default_rng(0))
    share = np.bincount((contexts - words) % 4) / len(words)
    # pairs kept at distance 1, 2, 3, 4: all, ¾, ½, ¼
    np.testing.assert_allclose(share, [0.25 / 2.5, 1.5 / 5, 0.75 / 2.5, 1.5 / 5], atol=0.02)


def test_skip_gram_pairs_drop_frequent_words():
    rng = np.random.default_rng(1)
    sequence = np.where(rng.random(20_000) < 0.5, 0, rng.integers(1, 100, 20_000))
    words, _ = skip_gram_pairs([sequence], 100, 2, 1e-3, np.random.default_rng(2))
    before, after = (np.bincount(x, minlength=100) / len(x) for x in (sequence, words))
    keep = np.sqrt(1e-3 / before) + 1e-3 / before
    expected = before * np.minimum(keep, 1)
    np.testing.assert_allclose(after[0], (expected / expected.sum())[0], atol=0.02)
    with pytest.raises(ValueError, match="subsample cannot be negative"):
        skip_gram_pairs([sequence], 100, 2, -1, rng)
    with pytest.raises(ValueError, match="no two words"):
        skip_gram_pairs([[0], [1]], 2, 2, 0, rng)


def topics(seed=0, topics=4, words=6, sentences=1500):
    """Sentences of eight words, all from one topic of `words` words."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, topics, sentences)
    return list(which[:, None] * words + rng.integers(0, words, (sentences, 8)))


def test_train_skip_gram_finds_topics():
    run = train_skip_gram(topics(), 24, 8, subsample=0, batch=64, noise=32, lr=0.1)
    assert isinstance(run, SkipGram) and run.words.shape == run.contexts.shape == (24, 8)
    assert run.words.dtype == np.float32 and np.isclose(run.losses[0], 6 * math.log(2), rtol=1e-3)
    assert run.losses[-20:].mean() < 0.8 * run.losses[0]
    vectors = WordVectors([str(i) for i in range(24)], run.words)
    for i in range(24):
        assert {int(w) // 6 for w, _ in vectors.nearest(str(i), 5)} == {i // 6}


def test_train_skip_gram_is_seeded():
    first, again, other = (train_skip_gram(topics(1), 24, 4, epochs=1, seed=s) for s in (3, 3, 4))
    assert {type(run) for run in (first, again, other)} == {SkipGram}
    np.testing.assert_array_equal(first.words, again.words)
    assert not np.array_equal(first.words, other.words)


def test_train_skip_gram_says_that_it_diverges():
    with pytest.raises(RuntimeError, match="diverged at step"):
        train_skip_gram(topics(), 24, 8, subsample=0, lr=50)


@pytest.mark.parametrize("bad", [{"d": 0}, {"epochs": 0}, {"batch": 0}, {"noise": 0}, {"lr": 0}])
def test_train_skip_gram_refuses_settings(bad):
    with pytest.raises(ValueError, match="must be at least 1, and lr positive"):
        train_skip_gram([[0, 1, 0, 1]], 2, **bad)


# --- neighbours -----------------------------------------------------------------------------------


def random_vectors(seed, n=40, d=5):
    return WordVectors([f"w{i}" for i in range(n)], np.random.default_rng(seed).standard_normal((n, d)))


@few
@given(seeds, st.integers(1, 60))
def test_nearest_agrees_with_sklearn(seed, k):
    vectors = random_vectors(seed)
    query = np.random.default_rng(seed + 1).standard_normal(5)
    ours = vectors.nearest(query, k)
    theirs = NearestNeighbors(n_neighbors=min(k, 40), metric="cosine").fit(vectors.vectors)
    distance, rows = theirs.kneighbors(query[None])
    assert [w for w, _ in ours] == [f"w{i}" for i in rows[0]]
    np.testing.assert_allclose([c for _, c in ours], 1 - distance[0], atol=1e-12)
    assert vectors.nearest(7.5 * query, k)[0][0] == ours[0][0]


@few
@given(seeds)
def test_nearest_leaves_out_the_word_and_what_is_excluded(seed):
    vectors = random_vectors(seed)
    everything = [w for w, _ in vectors.nearest("w3", 99)]
    assert len(everything) == 39 and "w3" not in everything
    others = [w for w, _ in vectors.nearest("w3", 99, exclude=["w5", "w5", "w3"])]
    assert others == [w for w in everything if w != "w5"]
    for word, cosine in vectors.nearest("w3", 3):
        assert np.isclose(cosine, vectors.cosine("w3", word)) and np.array_equal(
            vectors[word], vectors.vectors[vectors.id(word)]
        )


def test_analogy_follows_the_offset():
    rng = np.random.default_rng(0)
    base, offset = rng.standard_normal((10, 30)), rng.standard_normal(30)
    rows = np.concatenate([base, base + 0.8 * offset])
    vectors = WordVectors([f"{kind}{i}" for kind in "ab" for i in range(10)], rows)
    for i in range(1, 10):
        assert vectors.analogy("a0", "b0", f"a{i}")[0][0] == f"b{i}"
    assert vectors.analogy("a0", "a0", "a4", exclude=False)[0][0] == "a4"
    assert "a4" not in [w for w, _ in vectors.analogy("a0", "a0", "a4", k=20)]


def test_word_vectors_refuse():
    with pytest.raises(ValueError, match="need a vector per word"):
        WordVectors(["a", "b"], np.ones((3, 2)))
    with pytest.raises(ValueError, match="need a vector per word"):
        WordVectors([], np.ones((0, 2)))
    with pytest.raises(ValueError, match="occurs twice"):
        WordVectors(["a", "a"], np.ones((2, 2)))
    vectors = WordVectors(["a", "b"], [[1.0, 2.0], [0.0, 0.0]])
    assert vectors.cosine("a", "b") == 0 and "a" in vectors and "c" not in vectors
    for call in (lambda: vectors["c"], lambda: vectors.nearest("c"), lambda: vectors.analogy("a", "b", "c")):
        with pytest.raises(ValueError, match="'c' has no vector; 2 words have"):
            call()
    for query in ("b", np.zeros(2), np.ones(3)):
        with pytest.raises(ValueError, match="a query is a word or a vector"):
            vectors.nearest(query)
    with pytest.raises(ValueError, match="k must be at least 1"):
        vectors.nearest("a", 0)


# --- bias and hashing -------------------------------------------------------------------------------


@few
@given(seeds, st.integers(2, 5), st.integers(2, 5))
def test_weat_agrees_with_scipys_permutation_test(seed, n, m):
    rng = np.random.default_rng(seed)
    X, Y, A, B = (rng.standard_normal((rows, 3)) for rows in (n, m, 4, 2))
    found = weat(X, Y, A, B)
    assert isinstance(found, Association) and found.x.shape == (n,) and found.y.shape == (m,)
    theirs = permutation_test(
        (found.x, found.y), lambda x, y: x.mean() - y.mean(), alternative="greater", n_resamples=np.inf
    )
    np.testing.assert_allclose(found.p, theirs.pvalue, atol=1e-12)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    s = np.mean([cosine(X[0], a) for a in A]) - np.mean([cosine(X[0], b) for b in B])
    np.testing.assert_allclose(found.x[0], s)
    swapped = weat(Y, X, A, B)
    np.testing.assert_allclose(swapped.effect, -found.effect, atol=1e-12)
    np.testing.assert_allclose(weat(3 * X, Y, A, 0.1 * B).effect, found.effect)


def test_weat_by_random_splits_comes_near_the_exact_value():
    rng = np.random.default_rng(0)
    X, Y, A, B = (rng.standard_normal((8, 5)) for _ in range(4))
    exact, drawn = weat(X, Y, A, B), weat(X, Y, A, B, draws=5000)
    assert exact.p != drawn.p and abs(exact.p - drawn.p) < 4 * math.sqrt(exact.p * (1 - exact.p) / 5000) + 1e-3
    assert type(drawn) is Association and np.array_equal(drawn.x, exact.x)
    far = weat(X + 50 * A.sum(0), Y - 50 * A.sum(0), A, -A, draws=100)
    assert 0 < far.p <= 0.05  # never zero: the observed split counts


def test_weat_refuses():
    two = np.eye(3)[:2]
    for bad in ((two, two, two, two[:, :2]), (two[0], two, two, two), (two, two, two[:0], two)):
        with pytest.raises(ValueError, match="four sets of vectors"):
            weat(*bad)
    with pytest.raises(ValueError, match="at least two words"):
        weat(two[:1], two, two, two)
    with pytest.raises(ValueError, match="zero vector has no direction"):
        weat(two, two, two, np.zeros((1, 3)))


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0, math.pi), st.integers(2, 30))
def test_simhash_collides_as_the_angle_says(seed, angle, d):
    rng = np.random.default_rng(seed)
    first, second = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
    X = np.stack([first, math.cos(angle) * first + math.sin(angle) * second])
    codes = simhash(X * rng.uniform(0.1, 9, (2, 1)), rng.standard_normal((20_000, d)))
    assert codes.shape == (2, 20_000) and codes.dtype == bool
    p = 1 - angle / math.pi
    assert abs((codes[0] == codes[1]).mean() - p) < 6 * math.sqrt(p * (1 - p) / 20_000) + 1e-3


def test_simhash_ignores_length_and_refuses_shapes():
    rng = np.random.default_rng(0)
    X, planes = rng.standard_normal((6, 4)), rng.standard_normal((9, 4))
    np.testing.assert_array_equal(simhash(5 * X, planes), simhash(X, planes))
    np.testing.assert_array_equal(simhash(-X, planes), ~simhash(X, planes))
    for bad in ((X[0], planes), (X, planes[0]), (X, planes[:, :3])):
        with pytest.raises(ValueError, match="do not fit"):
            simhash(*bad)
