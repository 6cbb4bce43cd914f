# Generated from chapters/retrieval/search.md; edit the chapter.
"""Search. You build a search engine: an index that takes pages in and out, finds phrases, and
ranks by BM25 with scores equal to those of `bm25s` to $10^{-6}$. A benchmark of questions with
known answers then says how good it is, with intervals, and where it fails.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = [
    "STOP_WORDS",
    "PORTER",
    "porter",
    "analyse",
    "Segment",
    "build_segment",
    "merge_segments",
    "BM25",
    "Levels",
    "Writer",
    "Index",
    "hit_at_k",
    "reciprocal_rank",
    "ndcg_at_k",
    "evaluate",
]

STOP_WORDS = (
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "if", "in", "into",
    "is", "it", "its", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then",
    "there", "these", "they", "this", "to", "was", "were", "which", "will", "with",
)  # fmt: skip

PORTER = (  # steps 2, 3 and 4: suffix -> replacement
    {"ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
     "abli": "able", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous",
     "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive",
     "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble"},
    {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "",
     "ness": ""},
    {"al": "", "ance": "", "ence": "", "er": "", "ic": "", "able": "", "ible": "", "ant": "",
     "ement": "", "ment": "", "ent": "", "ion": "", "ou": "", "ism": "", "ate": "", "iti": "",
     "ous": "", "ive": "", "ize": ""},
)  # fmt: skip


def _shape(word: str) -> str:
    """c for a consonant, v for a vowel; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _measure(stem: str) -> int:
    return len(re.findall("v+c+", _shape(stem)))


def _short_end(stem: str) -> bool:
    """consonant, vowel, consonant other than w, x, y at the end: as in hop"""
    return _shape(stem).endswith("cvc") and stem[-1] not in "wxy"


@cache
def porter(word: str) -> str:
    """The stem of an English word in lower-case ASCII letters; words of 1 or 2 letters stay.

    A stem is a key, not a word: queries -> queri. Raises ValueError for other characters.
    Source: Porter (1980), section 6.
    """
    if not (word.isascii() and word.isalpha() and word.islower()):
        raise ValueError(f"porter takes lower-case letters a to z, got {word!r}")
    if len(word) < 3:
        return word
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) else word
    elif ending := re.search("(ed|ing)$", word):
        stem = word[: ending.start()]
        if "v" in _shape(stem):
            if stem.endswith(("at", "bl", "iz")) or (_measure(stem) == 1 and _short_end(stem)):
                stem += "e"
            elif re.search(r"([^aeioulsz])\1$", stem):
                stem = stem[:-1]
            word = stem
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    for least, table in zip((0, 0, 1), PORTER):
        if suffix := next((word[-n:] for n in range(7, 1, -1) if word[-n:] in table), ""):
            stem = word[: -len(suffix)]
            if _measure(stem) > least and (suffix != "ion" or stem.endswith(("s", "t"))):
                word = stem + table[suffix]
    if word.endswith("e"):
        m = _measure(word[:-1])
        if m > 1 or (m == 1 and not _short_end(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


@cache
def _terms(word: str, lower: bool, split: bool, whole: bool, stop: bool, stem: bool) -> list[str]:
    pieces = word.split(".") if split and not word[0].isdigit() else [word]
    found = [word] if whole and len(pieces) > 1 else []
    for piece in pieces:
        parts = re.split(r"_+|(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", piece)
        parts = [part for part in parts if part] if split else []
        found += [piece] if parts in ([], [piece]) else [piece, *parts] if whole else parts
    if lower:
        found = [term.lower() for term in found]
    if stop:
        found = [term for term in found if term.lower() not in STOP_WORDS]
    if stem:
        found = [porter(t) if re.fullmatch("[a-z]+", t) else t for t in found]
    return found


def analyse(
    text: str,
    *,
    lower: bool = True,
    split: bool = True,
    whole: bool = True,
    stop: bool = True,
    stem: bool = True,
) -> list[str]:
    """The terms of `text` in order; an index must analyse pages and queries alike.

    lower : lower-case everything
    split : cut words at dots, underscores and where a capital follows: read_csv -> read csv
    whole : keep each cut word, and each of its dotted pieces, in front of its parts
    stop : drop the words in STOP_WORDS
    stem : replace words of the letters a to z by their stems, see :func:`porter`
    """
    words = re.findall(r"\w+(?:\.\w+)*", text)
    of = {word: _terms(word, lower, split, whole, stop, stem) for word in set(words)}
    return [term for word in words for term in of[word]]


@dataclass(frozen=True)
class Segment:
    """An immutable inverted index of some pages. Everything is sorted: terms, pages, positions.

    names : of the pages; page number -> name
    lengths : (pages,) terms per page
    terms : term -> its row, in alphabetical order
    starts : (terms + 1,) row r has the postings starts[r] to starts[r + 1]
    docs : (postings,) page numbers, ascending in a row
    offsets : (postings + 1,) posting p has the positions offsets[p] to offsets[p + 1]
    positions : (occurrences,) places in the page, ascending in a posting
    """

    names: tuple[str, ...]
    lengths: np.ndarray
    terms: dict[str, int]
    starts: np.ndarray
    docs: np.ndarray
    offsets: np.ndarray
    positions: np.ndarray

    def postings(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """(docs, counts) of `term`; empty arrays if no page holds it."""
        row = self.terms.get(term)
        span = slice(0, 0) if row is None else slice(*self.starts[row : row + 2].tolist())
        ends = self.offsets[span.start : span.stop + 1]
        return self.docs[span], np.diff(ends)

    def occurrences(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """(docs, positions) of `term`, one entry per occurrence."""
        docs, counts = self.postings(term)
        first = self.offsets[self.starts[self.terms[term]]] if len(docs) else 0
        return np.repeat(docs, counts), self.positions[first : first + counts.sum()]


def _sorted_segment(names, lengths, terms, rows, docs, positions) -> Segment:
    """From parallel arrays of occurrences whose pages and positions ascend within each term."""
    order = np.argsort(rows, kind="stable")
    rows, docs, positions = rows[order], docs[order], positions[order]
    new = np.ones(len(rows), dtype=bool)  # where a posting begins
    new[1:] = (np.diff(rows) != 0) | (np.diff(docs) != 0)
    first = np.flatnonzero(new)
    starts = np.searchsorted(rows[first], np.arange(len(terms) + 1))
    offsets = np.append(first, len(rows))
    terms = {term: row for row, term in enumerate(terms)}
    return Segment(tuple(names), lengths, terms, starts, docs[first], offsets, positions)


def build_segment(pages: Iterable[tuple[str, Sequence[str | None]]]) -> Segment:
    """A segment of (name, terms) pairs. A None among the terms is a gap: a place without a term."""
    names, sizes, ids, vocabulary = [], [], array("i"), defaultdict()
    vocabulary.default_factory = vocabulary.__len__  # a new term gets the next number
    for name, terms in pages:
        names.append(name)
        sizes.append(len(terms))
        ids.extend(map(vocabulary.__getitem__, terms))
    ids, gap = np.array(ids, dtype=np.int32), vocabulary.pop(None, -1)
    docs = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
    positions = np.arange(len(ids), dtype=np.int32) - np.repeat(np.cumsum([0, *sizes])[:-1], sizes)
    terms, real = sorted(vocabulary), ids != gap
    row = np.zeros(len(vocabulary) + 1, dtype=np.int32)
    row[[vocabulary[term] for term in terms]] = np.arange(len(terms))
    ids, docs, positions = ids[real], docs[real], positions[real].astype(np.int32)
    lengths = np.bincount(docs, minlength=len(names))
    return _sorted_segment(names, lengths, terms, row[ids], docs, positions)


def merge_segments(
    segments: Sequence[Segment], alive: Sequence[np.ndarray] | None = None
) -> Segment:
    """One segment from several; pages keep their order, first those of the first segment.

    alive : a boolean (pages,) for each segment; pages marked False are dropped, all stay if None
    Raises ValueError if two pages that stay have one name, or alive does not fit.
    """
    alive = [np.ones(len(s.names), dtype=bool) for s in segments] if alive is None else alive
    if [len(a) for a in alive] != [len(s.names) for s in segments]:
        raise ValueError("alive needs one boolean array per segment, one entry per page")
    names = [n for s, a in zip(segments, alive) for n, stays in zip(s.names, a) if stays]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is in two segments")
    parts, before = [[], [], [], []], 0
    held = [np.repeat(s.docs, np.diff(s.offsets)) for s in segments]  # page of each occurrence
    rows = [np.repeat(np.arange(len(s.terms)), np.diff(s.offsets[s.starts])) for s in segments]
    kept = [np.array(list(s.terms), dtype=object)[np.unique(r[a[d]])]
            for s, r, d, a in zip(segments, rows, held, alive)]  # fmt: skip
    terms = sorted(set().union(*kept)) if kept else []
    position = {term: i for i, term in enumerate(terms)}
    for s, r, d, a in zip(segments, rows, held, alive):
        new_row = np.array([position.get(term, -1) for term in s.terms], dtype=np.int32)
        new_doc = (before + np.cumsum(a) - 1).astype(np.int32)
        stays = a[d]
        arrays = s.lengths[a], new_row[r[stays]], new_doc[d[stays]], s.positions[stays]
        for part, values in zip(parts, arrays):
            part.append(values)
        before += int(a.sum())
    empty = np.zeros(0, dtype=np.int32)
    lengths, rows, docs, positions = (np.concatenate([empty, *part]) for part in parts)
    return _sorted_segment(names, lengths, terms, rows, docs, positions)


@dataclass(frozen=True)
class BM25:
    """How much a term says about a page that holds it.

    k1 : how slowly repetitions saturate; b : how far long pages are held to be wordy, 0 to 1
    Raises ValueError for k1 < 0 or b outside 0 to 1.
    Source: Robertson & Zaragoza (2009), with Lucene's idf, which cannot be negative.
    """

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self):
        if not (0 <= self.k1 < math.inf and 0 <= self.b <= 1):
            raise ValueError(f"need k1 ≥ 0 and 0 ≤ b ≤ 1, got k1={self.k1}, b={self.b}")

    def idf(self, df: int, n: int) -> float:
        """Weight in nats of a term that `df` of `n` pages hold."""
        return math.log(1 + (n - df + 0.5) / (df + 0.5))

    def saturation(self, tf: np.ndarray, length: np.ndarray, average: float) -> np.ndarray:
        """Share of that weight for `tf` occurrences in a page of `length` terms: 0 to 1."""
        return tf / (tf + self.k1 * (1 - self.b + self.b * length / average))


class Levels:
    """Immutable segments in levels; `fanout` segments of a level are merged into one of the next.

    Raises ValueError for fanout < 2.
    """

    def __init__(self, fanout: int = 4):
        if fanout < 2:
            raise ValueError(f"need fanout ≥ 2, got {fanout}")
        self.fanout = fanout
        self.levels: list[list[tuple[Segment, np.ndarray]]] = []  # with their live pages
        self.place: dict[str, tuple[np.ndarray, int]] = {}  # name -> its entry among the live
        self.written = 0  # occurrences, in flushes and merges

    def __len__(self) -> int:
        """Pages that can be found."""
        return len(self.place)

    @property
    def parts(self) -> list[tuple[Segment, np.ndarray]]:
        """(segment, live pages) of all levels."""
        return [part for level in self.levels for part in level]

    def put(self, segment: Segment, level: int = 0) -> None:
        """Take in a segment of pages that are not there, and merge a level that is full."""
        alive = np.ones(len(segment.names), dtype=bool)
        self.place |= {name: (alive, doc) for doc, name in enumerate(segment.names)}
        self.levels += [[] for _ in range(level + 1 - len(self.levels))]
        self.levels[level].append((segment, alive))
        self.written += len(segment.positions)
        if len(self.levels[level]) == self.fanout:
            full, self.levels[level] = self.levels[level], []
            self.put(merge_segments(*zip(*full)), level + 1)

    def hide(self, name: str) -> None:
        """Mark a page as deleted; a merge drops it. Raises ValueError for an unknown name."""
        if name not in self.place:
            raise ValueError(f"{name!r} is not in the index")
        alive, doc = self.place.pop(name)
        alive[doc] = False

    def merge(self) -> None:
        """Make one segment of all, without the deleted pages."""
        parts, self.levels = self.parts, []
        if parts:
            self.put(merge_segments(*zip(*parts)))


class Writer(Levels):
    """Pages that come and go: those that were added wait to be flushed as a segment.

    analyse : text -> terms
    title : the page's name counts as if the page began with that many copies of it
    buffer : pages held in memory before they are flushed

    Raises ValueError for title < 0, buffer < 1 or fanout < 2.
    """

    def __init__(
        self,
        analyse: Callable[[str], list[str]] = analyse,
        *,
        title: int = 1,
        buffer: int = 1000,
        fanout: int = 4,
    ):
        super().__init__(fanout)
        if title < 0 or buffer < 1:
            raise ValueError(f"need title ≥ 0 and buffer ≥ 1, got {title} and {buffer}")
        self.analyse, self.title, self.buffer = analyse, title, buffer
        self.waiting: dict[str, list] = {}  # name -> terms, not yet searchable

    def add(self, name: str, text: str) -> None:
        """Take in a page. Raises ValueError for a name that is there: delete it first."""
        if name in self.place or name in self.waiting:
            raise ValueError(f"{name!r} is in the index; delete it first")
        heading = [*self.analyse(name), None] if self.title else []
        self.waiting[name] = heading * self.title + self.analyse(text)
        if len(self.waiting) >= self.buffer:
            self.flush()

    def delete(self, name: str) -> None:
        """Hide a page from now on. Raises ValueError for an unknown name."""
        if self.waiting.pop(name, None) is None:
            self.hide(name)

    def flush(self) -> None:
        """Make what was added searchable, as a segment."""
        if self.waiting:
            segment, self.waiting = build_segment(self.waiting.items()), {}
            self.put(segment)

    def compact(self) -> None:
        """Flush, and merge everything into one segment without the deleted pages."""
        self.flush()
        self.merge()


class Index(Writer):
    """BM25 search in pages that come and go. Pages can be found once they are flushed.

    analyse : text -> terms, for pages and queries; scoring : its `idf` and `saturation` are used
    options : title, buffer and fanout as in :class:`Writer`, which raises ValueError for bad ones
    """

    def __init__(
        self,
        analyse: Callable[[str], list[str]] = analyse,
        *,
        scoring: BM25 | None = None,
        **options: int,
    ):
        super().__init__(analyse, **options)
        self.scoring = scoring or BM25()

    def _found(self, term: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(docs, counts) of the live pages of each part."""
        found = []
        for segment, alive in self.parts:
            docs, counts = segment.postings(term)
            if not alive.all():
                docs, counts = docs[alive[docs]], counts[alive[docs]]
            found.append((docs, counts))
        return found

    def frequency(self, term: str) -> int:
        """How many pages hold `term`, as `analyse` makes it."""
        return sum(len(docs) for docs, _ in self._found(term))

    def search(self, query: str, k: int = 10) -> list[tuple[str, float]]:
        """The k best pages that hold a term of `query`, best first, equals by name: (name, score).

        Fewer if fewer match, none for an empty query. Raises ValueError for k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        n, parts = len(self), self.parts
        average = sum(int(s.lengths[alive].sum()) for s, alive in parts) / max(n, 1)
        scores = [np.zeros(len(s.names)) for s, _ in parts]
        for term, times in Counter(self.analyse(query)).items():
            found = self._found(term)
            weight = times * self.scoring.idf(sum(len(docs) for docs, _ in found), n)
            for (s, _), score, (docs, tf) in zip(parts, scores, found):
                score[docs] += weight * self.scoring.saturation(tf, s.lengths[docs], average)
        everything = np.concatenate([np.zeros(0), *scores])
        least = np.partition(everything, -k)[-k] if len(everything) > k else 0.0
        hits = [
            (s.names[i], float(score[i]))
            for (s, _), score in zip(parts, scores)
            for i in np.flatnonzero((score > 0) & (score >= least))
        ]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]

    def phrase(self, text: str) -> list[str]:
        """Names of the pages that hold the terms of `text` one behind the other, sorted."""
        terms, names = self.analyse(text), []
        for s, alive in self.parts if terms else ():
            width = int(s.positions.max(initial=0)) + 1 + len(terms)
            starts = None  # where the phrase may begin, as page · width + position
            for i, term in enumerate(terms):
                docs, positions = s.occurrences(term)
                here = docs.astype(np.int64) * width + positions - i
                starts = here if starts is None else np.intersect1d(starts, here)
            docs = np.unique(starts // width)
            names += [s.names[doc] for doc in docs[alive[docs]]]
        return sorted(names)


def _checked(ranking: Sequence[str], answers: Collection[str], k: int) -> tuple[list, set]:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if isinstance(answers, str) or not answers:
        raise ValueError("answers must be a collection of at least one name")
    if isinstance(ranking, str) or len(set(ranking)) < len(ranking):
        raise ValueError("ranking must be a sequence that lists each name once")
    return list(ranking)[:k], set(answers)


def hit_at_k(ranking: Sequence[str], answers: Collection[str], k: int) -> float:
    """1 if one of the first k names is an answer, else 0."""
    first, answers = _checked(ranking, answers, k)
    return float(not answers.isdisjoint(first))


def reciprocal_rank(ranking: Sequence[str], answers: Collection[str]) -> float:
    """1 over the rank of the first answer, counted from 1; 0 if there is none."""
    ranking, answers = _checked(ranking, answers, max(1, len(ranking)))
    return next((1 / rank for rank, name in enumerate(ranking, 1) if name in answers), 0.0)


def ndcg_at_k(ranking: Sequence[str], answers: Collection[str], k: int) -> float:
    """Answers among the first k, one at rank r counting 1/log2(r + 1), over the best possible sum.

    Source: Järvelin & Kekäläinen (2002), for answers that are right or wrong.
    """
    first, answers = _checked(ranking, answers, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gain = sum(discount[i] for i, name in enumerate(first) if name in answers)
    return float(gain / discount[: len(answers)].sum())


def evaluate(search, queries, k: int = 10) -> dict[str, np.ndarray]:
    """Each metric for each query: name of the metric -> (queries,).

    search : (text, k) -> [(name, score)], best first; queries : with `text` and `answers`
    The metrics are hit@1, hit@5, hit@k, rr@k and ndcg@k; all see the first k results only.
    Raises ValueError for no queries, or k < 1.
    """
    queries = list(queries)
    if not queries or k < 1:
        raise ValueError("need at least one query, and k of at least 1")
    rows = []
    for query in queries:
        ranking = [name for name, _ in search(query.text, k)][:k]
        row = {f"hit@{j}": hit_at_k(ranking, query.answers, j) for j in sorted({1, min(5, k), k})}
        row[f"rr@{k}"] = reciprocal_rank(ranking, query.answers)
        row[f"ndcg@{k}"] = ndcg_at_k(ranking, query.answers, k)
        rows.append(row)
    return {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}
