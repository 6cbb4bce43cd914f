# Generated from chapters/language/embeddings.md; edit the chapter.
"""Embeddings. You turn words into vectors of 50 numbers, learned from nothing but which words
stand near each other. On a test fixed in advance, their neighbours beat those of raw counts at
least twofold. Two methods that look unrelated, factoring a matrix and training a predictor,
turn out to compute the same thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy import sparse

from groundup.classification import sigmoid
from groundup.linear_algebra import qr, svd
from groundup.optimization import warmup_linear

__all__ = [
    "simhash",
    "Vocabulary",
    "cooccurrence",
    "WordVectors",
    "ppmi",
    "randomized_svd",
    "sgns_loss",
    "sgns_gradient",
    "SkipGram",
    "skip_gram_pairs",
    "train_skip_gram",
    "Association",
    "weat",
]


def simhash(X: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """On which side of each plane through the origin each vector lies: (n, bits) bool.

    X : (n, d); planes : (bits, d), the normals, for instance standard normal draws. Two
    vectors at angle t agree in a bit with probability 1 - t/pi (Charikar, 2002, section 3).
    Raises ValueError for other shapes.
    """
    X, planes = np.asarray(X), np.asarray(planes)
    if X.ndim != 2 or planes.ndim != 2 or X.shape[1] != planes.shape[1]:
        raise ValueError(f"X (n, d) and planes (bits, d) do not fit: {X.shape}, {planes.shape}")
    return X @ planes.T > 0


class Vocabulary:
    """The words of some sentences, the most frequent first, and their ids 0, 1, …

    Attributes: words, a list of n; counts, (n,) int64. Ties are in order of appearance.
    Raises ValueError if no word occurs `min_count` times.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], min_count: int = 1):
        found = Counter(word for sentence in sentences for word in sentence)
        kept = [(word, n) for word, n in found.most_common() if n >= min_count]
        if not kept:
            raise ValueError(f"no word occurs {min_count} times: the vocabulary would be empty")
        self.words = [word for word, _ in kept]
        self.counts = np.array([n for _, n in kept], dtype=np.int64)
        self._ids = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def id(self, word: str) -> int:
        """Id of `word`; ValueError if it is unknown."""
        if word not in self._ids:
            raise ValueError(f"{word!r} is not one of the {len(self):,} words of the vocabulary")
        return self._ids[word]

    def encode(self, sentence: Sequence[str]) -> np.ndarray:
        """Ids of the known words of `sentence`, in order; unknown words are left out."""
        return np.array([self._ids[w] for w in sentence if w in self._ids], dtype=np.int64)


def _checked(sequences: Iterable[np.ndarray], size: int, window: int) -> list[np.ndarray]:
    sequences = [np.asarray(s, dtype=np.int64) for s in sequences]
    if window < 1:
        raise ValueError(f"the window must be at least 1 word, got {window}")
    if not any(len(s) for s in sequences):
        raise ValueError("there is no word to learn from")
    low, high = (f(f(s) for s in sequences if len(s)) for f in (min, max))
    if low < 0 or high >= size:
        raise ValueError(f"ids must be between 0 and {size - 1}, got {low} to {high}")
    return sequences


def _stream(sequences: list[np.ndarray], window: int) -> np.ndarray:
    """All sequences in one array, with `window` times -1 after each, so that none touch."""
    gap = np.full(window, -1)
    return np.concatenate([part for s in sequences for part in (s, gap)])


def cooccurrence(sequences: Iterable[np.ndarray], size: int, window: int) -> sparse.csr_array:
    """Entry (w, c): how often c stands at most `window` words before or after w.

    sequences : arrays of ids from 0 to size - 1; nothing is counted across their ends.
    Returns (size, size), symmetric, float64. A word beside itself counts from both sides.
    Raises ValueError for no words, ids out of range, or a window below 1.
    """
    stream = _stream(_checked(sequences, size, window), window)
    C = sparse.csr_array((size, size))
    for distance in range(1, window + 1):
        a, b = stream[:-distance], stream[distance:]
        inside = (a >= 0) & (b >= 0)
        ones = np.ones(inside.sum())
        C = C + sparse.coo_array((ones, (a[inside], b[inside])), (size, size)).tocsr()
    return (C + C.T).tocsr()


class WordVectors:
    """Words with their vectors: neighbours by cosine, and analogies.

    Attributes: words, a list of n; vectors, (n, d); unit, the same at length 1 (a zero
    vector stays zero). Raises ValueError for shapes that do not fit, no words, or doubles.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray):
        self.words, self.vectors = list(words), np.asarray(vectors)
        self._ids = {word: i for i, word in enumerate(self.words)}
        if not self.words or self.vectors.ndim != 2 or len(self.words) != len(self.vectors):
            shape = self.vectors.shape
            raise ValueError(f"need a vector per word: {len(self.words)} words, {shape}")
        if len(self._ids) < len(self.words):
            raise ValueError("a word occurs twice")
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.unit = self.vectors / np.where(lengths > 0, lengths, 1)

    def id(self, word: str) -> int:
        """Row of `word`; ValueError if it has none."""
        if word not in self._ids:
            raise ValueError(f"{word!r} has no vector; {len(self.words):,} words have")
        return self._ids[word]

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vectors[self.id(word)]

    def cosine(self, one: str, other: str) -> float:
        """Cosine of the angle between the vectors of two words."""
        return float(self.unit[self.id(one)] @ self.unit[self.id(other)])

    def nearest(
        self, query: str | np.ndarray, k: int = 10, exclude: Iterable[str] = ()
    ) -> list[tuple[str, float]]:
        """The k words of largest cosine with a word (itself left out) or a vector (d,).

        Words in `exclude` are left out as well. Raises ValueError for a zero vector, a
        wrong length, an unknown word, or k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        out = [self.id(word) for word in exclude]
        if isinstance(query, str):
            out.append(self.id(query))
            query = self[query]
        query = np.asarray(query, dtype=float)
        if query.shape != self.vectors.shape[1:] or not np.any(query):
            raise ValueError(f"a query is a word or a vector {self.vectors.shape[1:]}, not zero")
        cosines = self.unit @ (query / np.linalg.norm(query))
        cosines[out] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(k, len(self.words) - len(set(out)))]
        return [(self.words[i], float(cosines[i])) for i in best]

    def analogy(self, a: str, b: str, c: str, k: int = 1, exclude: bool = True) -> list:
        """`a` is to `b` as `c` is to …: the k words nearest to b - a + c, of unit vectors.

        With `exclude`, the three given words cannot be the answer (Mikolov et al., 2013).
        """
        a_, b_, c_ = (self.unit[self.id(word)] for word in (a, b, c))
        return self.nearest(b_ - a_ + c_, k, (a, b, c) if exclude else ())


def ppmi(counts, shift: float = 1.0, smoothing: float = 1.0) -> sparse.csr_array:
    """max(0, PMI - log shift) of a matrix of counts, in nats; cells without counts are 0.

    counts : (n, m), sparse or dense, not negative
    shift : k of skip-gram with k negative samples (Levy & Goldberg, 2014)
    smoothing : exponent on the context counts; 0.75 favours rare contexts less
    Raises ValueError for negative or no counts, or settings that are not positive.
    """
    C = sparse.coo_array(counts)
    C.sum_duplicates()
    if C.ndim != 2 or C.sum() <= 0 or not np.isfinite(C.data).all() or C.data.min() < 0:
        raise ValueError("counts must be a matrix, finite, not negative and not all zero")
    if shift <= 0 or smoothing <= 0:
        raise ValueError(f"shift and smoothing must be positive, got {shift}, {smoothing}")
    C.eliminate_zeros()
    rows, columns = C.coords
    words, contexts = C.sum(axis=1), C.sum(axis=0) ** smoothing
    expected = words[rows] * contexts[columns] / contexts.sum()
    x = np.log(C.data / expected) - np.log(shift)
    keep = x > 0
    return sparse.csr_array((x[keep], (rows[keep], columns[keep])), C.shape)


def randomized_svd(
    A, k: int, oversample: int = 10, iterations: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About the k largest singular values and vectors of a matrix, sparse or dense.

    A : (m, n), used only in products with tall matrices of k + oversample columns
    iterations : of the power method; more when singular values decay slowly
    Returns U (m, r), s (r,) falling, Vt (r, n), as `svd`; r is k, or the rank if less.
    Raises ValueError for k outside 1 … min(m, n), negative settings, or not a matrix.
    Source: Halko, Martinsson & Tropp (2011), algorithms 4.4 and 5.1.
    """
    if np.ndim(A) != 2 or not 1 <= k <= min(A.shape):
        raise ValueError(f"need a matrix and 1 <= k <= its smaller side, got k = {k}")
    if oversample < 0 or iterations < 0:
        raise ValueError("oversample and iterations must not be negative")
    width = min(k + oversample, *A.shape)
    Q, _ = qr(A @ np.random.default_rng(seed).standard_normal((A.shape[1], width)))
    for _ in range(iterations):  # orthonormal again each time: else all columns become u_1
        Q, _ = qr(A.T @ Q)
        Q, _ = qr(A @ Q)
    U, s, Vt = svd((A.T @ Q).T, min(k, Q.shape[1]))  # B = Q.T A
    return Q @ U, s, Vt


def _batch(u, v, n, k):
    u, v, n = np.asarray(u), np.asarray(v), np.asarray(n)
    if u.ndim != 2 or u.shape != v.shape or n.ndim != 2 or not len(n) or n.shape[1] != u.shape[1]:
        raise ValueError(f"need u, v (b, d) and n (m, d): {u.shape}, {v.shape}, {n.shape}")
    if k < 0:
        raise ValueError(f"k cannot be negative, got {k}")
    return u, v, n


def sgns_loss(u: np.ndarray, v: np.ndarray, n: np.ndarray, k: float) -> float:
    """Skip-gram's loss with negative sampling, summed over a batch of b pairs, in nats.

    u, v : (b, d), the vectors of each pair's word and context
    n : (m, d), context vectors of m noise words, shared by the batch and weighed k/m
    Source: Mikolov et al. (2013), eq. 4; shared noise as in Ji et al. (2019).
    Raises ValueError for shapes that do not fit, or k < 0.
    """
    u, v, n = _batch(u, v, n, k)
    real, fake = (u * v).sum(axis=1), u @ n.T
    return float(np.logaddexp(0, -real).sum() + k / len(n) * np.logaddexp(0, fake).sum())


def sgns_gradient(
    u: np.ndarray, v: np.ndarray, n: np.ndarray, k: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of :func:`sgns_loss` in u, v and n, each of its argument's shape and type."""
    u, v, n = _batch(u, v, n, k)
    g = sigmoid((u * v).sum(axis=1, keepdims=True)) - 1  # (b, 1)
    h = sigmoid(u @ n.T) * u.dtype.type(k / len(n))  # (b, m)
    return g * v + h @ n, g * u, h.T @ u


@dataclass(frozen=True)
class SkipGram:
    """Result of :func:`train_skip_gram`.

    Attributes: words and contexts, (size, d) float32, row i for id i; losses, the mean loss
    per pair of every hundredth batch, in nats.
    """

    words: np.ndarray
    contexts: np.ndarray
    losses: np.ndarray


def skip_gram_pairs(
    sequences: Iterable[np.ndarray], size: int, window: int, subsample: float, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled pairs (word, context), two arrays of ids, from one pass over the text.

    A word of frequency f is kept with probability sqrt(t/f) + t/f, t = `subsample`, if below
    1 (0: keep all). Each word draws its window from 1 … `window`. Raises ValueError as
    `cooccurrence`, for a negative subsample, and if no pair is left.
    """
    if subsample < 0:
        raise ValueError(f"subsample cannot be negative, got {subsample}")
    stream = _stream(_checked(sequences, size, window), window)
    real = stream >= 0
    f = np.bincount(stream[real], minlength=size) / real.sum()
    if subsample:
        ratio = subsample / np.maximum(f, 1e-300)
        keep = np.append(np.minimum(np.sqrt(ratio) + ratio, 1), 1)  # the last is for -1
        stream = stream[rng.random(len(stream)) < keep[stream]]
    reach = rng.integers(1, window + 1, len(stream))
    words, contexts = [], []
    for distance in range(1, window + 1):
        a, b = stream[:-distance], stream[distance:]
        inside = (a >= 0) & (b >= 0)
        for word, context, far in ((a, b, reach[:-distance]), (b, a, reach[distance:])):
            use = inside & (far >= distance)
            words.append(word[use])
            contexts.append(context[use])
    words, contexts = np.concatenate(words), np.concatenate(contexts)
    if not len(words):
        raise ValueError("no two words stand within the window of each other")
    order = rng.permutation(len(words))
    return words[order], contexts[order]


def _add_rows(table: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    """table[ids] += rows, where an id may occur several times; touches only its rows."""
    different, place = np.unique(ids, return_inverse=True)
    one = np.ones(len(ids), dtype=rows.dtype)
    gather = sparse.csc_array((one, place, np.arange(len(ids) + 1)), (len(different), len(ids)))
    table[different] += gather @ rows


def train_skip_gram(
    sequences: Iterable[np.ndarray],
    size: int,
    d: int = 50,
    *,
    window: int = 5,
    k: float = 5,
    epochs: int = 3,
    lr: float = 0.2,
    batch: int = 512,
    noise: int = 64,
    subsample: float = 1e-4,
    seed: int = 0,
) -> SkipGram:
    """Word vectors by skip-gram with negative sampling (Mikolov et al., 2013).

    Plain SGD on the sum over each batch; the learning rate falls linearly to zero. The
    sequences are arrays of ids from 0 to size - 1. Raises ValueError as `skip_gram_pairs`
    and for settings below 1; RuntimeError if it diverges.
    """
    if min(d, epochs, batch, noise) < 1 or lr <= 0:
        raise ValueError("d, epochs, batch and noise must be at least 1, and lr positive")
    rng = np.random.default_rng(seed)
    sequences = _checked(sequences, size, window)
    cumulative = np.cumsum(np.bincount(np.concatenate(sequences), minlength=size) ** 0.75)
    U = ((rng.random((size, d)) - 0.5) / d).astype(np.float32)
    V = np.zeros((size, d), dtype=np.float32)
    losses, step, total = [], 0, None
    for _ in range(epochs):
        words, contexts = skip_gram_pairs(sequences, size, window, subsample, rng)
        total = total or epochs * -(-len(words) // batch)
        for start in range(0, len(words), batch):
            w, c = words[start : start + batch], contexts[start : start + batch]
            n = np.searchsorted(cumulative, rng.random(noise) * cumulative[-1], side="right")
            u, v, z = U[w], V[c], V[n]
            if not max(np.abs(u).max(), np.abs(z).max()) < 1e3:
                raise RuntimeError(f"diverged at step {step}: lower lr or batch, or raise noise")
            if step % 100 == 0:
                losses.append(sgns_loss(u, v, z, k) / len(u))
            rate = np.float32(-warmup_linear(step, lr, total))
            du, dv, dz = sgns_gradient(u, v, z, k)
            _add_rows(U, w, rate * du)
            _add_rows(V, np.append(c, n), rate * np.concatenate([dv, dz]))
            step += 1
    return SkipGram(U, V, np.array(losses))


@dataclass(frozen=True)
class Association:
    """Result of :func:`weat`.

    Attributes: effect, in standard deviations, positive if X goes with A; p, one-sided;
    x and y, the association s of each target.
    """

    effect: float
    p: float
    x: np.ndarray
    y: np.ndarray


def weat(
    X: np.ndarray, Y: np.ndarray, A: np.ndarray, B: np.ndarray, draws: int = 20_000, seed: int = 0
) -> Association:
    """Word-embedding association test (Caliskan, Bryson & Narayanan, 2017).

    X, Y, A, B : vectors (…, d), at least two targets in each of X, Y, one attribute in A, B
    draws : all splits are tried if there are no more than this, else so many at random
    Raises ValueError for shapes that do not fit or a zero vector.
    """
    sets = [np.asarray(part, dtype=float) for part in (X, Y, A, B)]
    if any(p.ndim != 2 or not len(p) or p.shape[1] != sets[0].shape[1] for p in sets):
        raise ValueError(f"need four sets of vectors of one length: {[p.shape for p in sets]}")
    if min(len(sets[0]), len(sets[1])) < 2:
        raise ValueError("each set of targets needs at least two words")
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in sets]
    if any((length == 0).any() for length in lengths):
        raise ValueError("a zero vector has no direction, so no association")
    X, Y, A, B = (part / length for part, length in zip(sets, lengths))
    targets, n = np.concatenate([X, Y]), len(X)
    s = (targets @ A.T).mean(axis=1) - (targets @ B.T).mean(axis=1)
    if comb(len(s), n) <= draws:
        chosen, extra = np.array(list(combinations(range(len(s)), n))), 0
    else:
        shuffled = np.tile(np.arange(len(s)), (draws, 1))
        chosen, extra = np.random.default_rng(seed).permuted(shuffled, axis=1)[:, :n], 1
    sums = s[chosen].sum(axis=1)  # the difference of means grows with the sum over X
    reached = (sums >= s[:n].sum() - 1e-12).sum()
    effect = (s[:n].mean() - s[n:].mean()) / s.std(ddof=1)
    p = (reached + extra) / (len(chosen) + extra)  # the observed split counts as one
    return Association(float(effect), float(p), s[:n], s[n:])
