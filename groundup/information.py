# Generated from chapters/foundations/information.md; edit the chapter.
"""Information. A language model is a compressor, and its training loss is the size of the file.
Here you build both halves: a model that predicts the next byte, and an arithmetic coder that
turns predictions into bits and back. The file it writes is within 1 % of what the model's
cross-entropy promises, and smaller than what gzip and zstd make of the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import special

__all__ = [
    "entropy",
    "cross_entropy",
    "kl_divergence",
    "bits_per_byte",
    "perplexity",
    "Model",
    "FULL",
    "HALF",
    "QUARTER",
    "encode",
    "decode",
    "NGram",
]


def entropy(p: np.ndarray) -> np.ndarray:
    """Bits per symbol that the best code needs, Σ p log₂(1/p), with 0 log 0 = 0.

    Parameters
    ----------
    p : (..., k) probabilities, summing to 1 along the last axis

    Returns
    -------
    (...) float64, between 0 and log₂ k

    Raises
    ------
    ValueError : `p` is not a distribution
    """
    return special.entr(_distribution(p, "p")).sum(axis=-1) / np.log(2)


def cross_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bits per symbol of a code made for `q` when symbols come from `p`: Σ p log₂(1/q).

    Parameters
    ----------
    p, q : (..., k) probabilities of the same k symbols; broadcast

    Returns
    -------
    (...) float64, at least ``entropy(p)``; infinite where q = 0 < p

    Raises
    ------
    ValueError : `p` or `q` is not a distribution, or their k differ
    """
    p, q = _pair(p, q)
    return -special.xlogy(p, q).sum(axis=-1) / np.log(2)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bits per symbol lost by coding `p` with a code made for `q`: Σ p log₂(p/q).

    Shapes and errors as in :func:`cross_entropy`; at least 0, and 0 only for p = q.
    """
    p, q = _pair(p, q)
    # Σ (p ln(p/q) − p + q) has no negative term, so rounding cannot make it negative
    return special.kl_div(p, q).sum(axis=-1) / np.log(2)


def _distribution(p: np.ndarray, name: str) -> np.ndarray:
    p = np.asarray(p, dtype=float)
    if p.ndim == 0 or p.shape[-1] == 0:
        raise ValueError(f"{name} must hold at least one probability along its last axis")
    if not (p >= 0).all() or not np.allclose(p.sum(axis=-1), 1):
        raise ValueError(f"{name} must be non-negative and sum to 1 along its last axis")
    return p


def _pair(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q = _distribution(p, "p"), _distribution(q, "q")
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p has {p.shape[-1]} symbols, q has {q.shape[-1]}")
    return p, q


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Compressed bits per byte of raw text, from the summed loss of that text in nats.

    Parameters
    ----------
    nats : Σ −ln q over all symbols (bytes, tokens, …) that make up the text
    n_bytes : length of that text in bytes, whatever the symbols were

    Raises
    ------
    ValueError : `nats` is negative or NaN, or `n_bytes` below 1
    """
    if not nats >= 0 or n_bytes < 1:
        raise ValueError(f"needs nats ≥ 0 and n_bytes ≥ 1, got {nats} and {n_bytes}")
    return float(nats / np.log(2) / n_bytes)


def perplexity(bits: float | np.ndarray) -> np.ndarray:
    """2^bits: how many equally likely symbols cost that many bits each on average.

    Parameters
    ----------
    bits : cross-entropy in bits per symbol, any shape; at least 0, infinity allowed

    Raises
    ------
    ValueError : `bits` is negative or NaN
    """
    bits = np.asarray(bits, dtype=float)
    if not (bits >= 0).all():
        raise ValueError("a cross-entropy cannot be negative or NaN")
    return np.exp2(bits)


# symbols so far -> (k,) integer frequencies
Model = Callable[[Sequence[int]], np.ndarray]

FULL, HALF, QUARTER = 1 << 32, 1 << 31, 1 << 30


def encode(symbols: Sequence[int], model: Model) -> bytes:
    """Arithmetic code of `symbols`, about Σ log₂(total/frequency) bits long.

    The integer coder of Witten, Neal & Cleary (1987) with a 32-bit window.

    Parameters
    ----------
    symbols : integers from 0 to k − 1, bytes for instance; may be empty
    model : ``model(history)``, called before each symbol, returns k integer frequencies
        with a sum from 1 to 2³⁰, the same for the same history; must not change it

    Returns
    -------
    the code, without the number of symbols: store that beside it

    Raises
    ------
    ValueError : a symbol has frequency 0 or is out of range, or frequencies are invalid
    """
    low, high, pending = 0, FULL - 1, 0
    bits: list[int] = []
    history: list[int] = []
    for symbol in symbols:
        cum = _cumulative(model, history)
        if not 0 <= symbol < len(cum) - 1 or cum[symbol] == cum[symbol + 1]:
            raise ValueError(f"symbol {symbol} at position {len(history)} has frequency 0: no code")
        low, high = _narrow(low, high, cum, symbol)
        while (shift := _shift(low, high)) is not None:
            if shift == QUARTER:
                pending += 1
            else:
                bit = int(shift == HALF)
                bits += [bit] + [1 - bit] * pending
                pending = 0
            low, high = 2 * (low - shift), 2 * (high - shift) + 1
        history.append(int(symbol))
    if low or pending:  # low < HALF ≤ high: a 1 and endless zeros lies inside
        bits.append(1)
    return np.packbits(np.array(bits, dtype=np.uint8)).tobytes()


def decode(code: bytes, length: int, model: Model) -> list[int]:
    """The `length` symbols that :func:`encode` turned into `code` with the same model.

    Zeros are read beyond the end of `code`, so every byte string decodes to something.

    Raises
    ------
    ValueError : `length` is negative, or frequencies are invalid
    """
    if length < 0:
        raise ValueError(f"length must be at least 0, got {length}")
    bits = iter(np.unpackbits(np.frombuffer(code, np.uint8)).tolist())
    low, high, value = 0, FULL - 1, 0
    for _ in range(32):
        value = 2 * value + next(bits, 0)
    history: list[int] = []
    while len(history) < length:
        cum = _cumulative(model, history)
        target = ((value - low + 1) * int(cum[-1]) - 1) // (high - low + 1)
        symbol = int(np.searchsorted(cum, target, side="right")) - 1
        low, high = _narrow(low, high, cum, symbol)
        while (shift := _shift(low, high)) is not None:
            low, high = 2 * (low - shift), 2 * (high - shift) + 1
            value = 2 * (value - shift) + next(bits, 0)
        history.append(symbol)
    return history


def _narrow(low: int, high: int, cum: np.ndarray, symbol: int) -> tuple[int, int]:
    """The part of [low, high] that belongs to `symbol`, in exact integers."""
    width, total = high - low + 1, int(cum[-1])
    begin, end = int(cum[symbol]), int(cum[symbol + 1])
    return low + width * begin // total, low + width * end // total - 1


def _shift(low: int, high: int) -> int | None:
    """What to subtract before doubling the window; None once it is wide enough."""
    if high < HALF:
        return 0
    if low >= HALF:
        return HALF
    return QUARTER if low >= QUARTER and high < 3 * QUARTER else None


def _cumulative(model: Model, history: Sequence[int]) -> np.ndarray:
    frequencies = np.asarray(model(history))
    if frequencies.ndim != 1 or frequencies.dtype.kind not in "iu":
        raise ValueError("a model must return a one-dimensional array of integers")
    cum = np.zeros(len(frequencies) + 1, dtype=np.int64)
    np.cumsum(frequencies, out=cum[1:])
    if not 1 <= cum[-1] <= QUARTER or frequencies.min() < 0:
        raise ValueError("frequencies must be at least 0, with a sum from 1 to 2**30")
    return cum


class NGram:
    """Interpolated n-gram model of bytes with Witten–Bell weights, in integers.

    ``q_n(b|c) = (N(cb) + T(c) q_{n−1}(b|c')) / (N(c) + T(c))`` with q₀ = 1/256; c is
    the last n − 1 bytes, fewer at the start of a text (Witten & Bell, 1991, method C).

    Parameters
    ----------
    text : the training bytes; may be empty
    order : n, from 1 to 8

    Raises
    ------
    ValueError : `order` is out of range, or a text is not a bytes object
    """

    UNIT, TOTAL = 1 << 32, 1 << 24  # 1.0 inside the recursion, and for the coder

    def __init__(self, text: bytes, order: int):
        if not 1 <= order <= 8:
            raise ValueError(f"order must be from 1 to 8, got {order}")
        self.order = order
        self.tables = []  # for n = 1 … order: sorted n-grams, running sum of counts
        for keys in _ngrams(text, order):
            grams, counts = np.unique(keys, return_counts=True)
            self.tables.append((grams, np.concatenate([[0], np.cumsum(counts)])))
        self._cache: dict[bytes, np.ndarray] = {}

    def costs(self, text: bytes) -> np.ndarray:
        """Bits (order + 1, len(text)) that each byte costs; row k is for order k."""
        rows = [P := np.full(len(text), self.UNIT // 256)]
        for keys, (grams, cum) in zip(_ngrams(text, self.order), self.tables):
            begin, end = _followers(grams, keys)
            at = np.searchsorted(grams, keys)
            after = np.searchsorted(grams, keys, side="right")
            N, T, count = cum[end] - cum[begin], end - begin, cum[after] - cum[at]
            known = P[len(P) - len(keys) :]  # the first bytes have no context that long
            mixed = (count * self.UNIT + T * known) // np.maximum(N + T, 1)
            P = np.concatenate([P[: len(P) - len(keys)], np.where(N > 0, mixed, known)])
            rows.append(P)
        return np.log2(self.TOTAL) - np.log2(self._rescale(np.stack(rows)))

    def frequencies(self, history: Sequence[int]) -> np.ndarray:
        """Frequencies (256,) int64 of the next byte, each ≥ 1, with a sum ≤ 2²⁴."""
        context = bytes(history[max(len(history) - self.order + 1, 0) :])
        return self._rescale(self._units(context))

    def _units(self, context: bytes) -> np.ndarray:
        """Probabilities (256,) after `context` in units of 2⁻³², remembered."""
        if context in self._cache:
            return self._cache[context]
        uniform = np.full(256, self.UNIT // 256)
        shorter = self._units(context[1:]) if context else uniform
        grams, cum = self.tables[len(context)]
        begin, end = _followers(grams, np.uint64(int.from_bytes(context) << 8))
        N, T = cum[end] - cum[begin], end - begin
        if N == 0:
            return shorter
        units = T * shorter
        units[_last(grams[begin:end])] += np.diff(cum[begin : end + 1]) * self.UNIT
        if len(self._cache) >= 20_000:  # 40 MB
            self._cache.clear()
        self._cache[context] = units // (N + T)
        return self._cache[context]

    def _rescale(self, units: np.ndarray) -> np.ndarray:
        return 1 + (units * (self.TOTAL - 256) >> 32)


def _ngrams(text: bytes, order: int) -> Iterator[np.ndarray]:
    """For n = 1 … order, all n-grams of `text` as uint64, the last byte lowest."""
    if not isinstance(text, (bytes, bytearray)):
        raise ValueError(f"text must be bytes, got {type(text).__name__}: encode it")
    s = np.frombuffer(text, np.uint8).astype(np.uint64)
    keys = np.zeros(len(s) + 1, np.uint64)
    for n in range(1, order + 1):
        keys = keys[:-1] << np.uint64(8) | s[n - 1 :]  # one byte longer, one fewer
        yield keys


def _followers(grams: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the sorted `grams` those with the context of `key` begin and end."""
    first, last = key & ~np.uint64(255), key | np.uint64(255)
    return np.searchsorted(grams, first), np.searchsorted(grams, last, side="right")


def _last(grams: np.ndarray) -> np.ndarray:
    return (grams & np.uint64(255)).astype(int)
