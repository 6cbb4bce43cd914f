# Generated from chapters/language/tokenization.md; edit the chapter.
"""Tokenization. A language model never sees text. It sees integers, and a tokenizer decides which.
You build one: a trainer whose 500 merges equal those of Hugging Face's library, and an encoder
that gives GPT-2's and GPT-4's ids for code, prose, Chinese and emoji.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise
from operator import index

import regex

__all__ = [
    "byte_ids",
    "merge_pair",
    "train_bpe_naive",
    "GPT2_PATTERN",
    "CL100K_PATTERN",
    "train_bpe",
    "bpe",
    "Tokenizer",
]


def byte_ids() -> dict[bytes, int]:
    """The vocabulary that training starts from: each single byte -> its id, 0 to 255.

    Numbered as in GPT-2: first the 188 bytes that Latin-1 shows as a visible character.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    return {bytes([b]): i for i, b in enumerate(visible + hidden)}


def merge_pair(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """`ids` with every occurrence of `pair`, from the left, replaced by `new`."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def train_bpe_naive(text: str, merges: int, pattern: str) -> list[tuple[bytes, bytes]]:
    """The first merges of BPE, every pair counted anew for each; the pieces of `pattern` apart.

    Sennrich et al. (2016), algorithm 1. Ties go to the smaller ids (:func:`byte_ids`, then by
    age). Fewer are returned when no pair is left.
    """
    ids = byte_ids()
    tokens = list(ids)  # id -> bytes
    pieces = [[ids[bytes([b])] for b in _utf8(p)] for p in regex.findall(pattern, text)]
    found = []
    for _ in range(merges):
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not counts:
            break
        a, b = best = min(counts, key=lambda pair: (-counts[pair], pair))
        token = tokens[a] + tokens[b]
        if token not in ids:
            ids[token] = len(tokens)
            tokens.append(token)
        found.append((tokens[a], tokens[b]))
        pieces = [merge_pair(piece, best, ids[token]) for piece in pieces]
    return found


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        bad = text[error.start]
        raise ValueError(f"{bad!r} is half of a surrogate pair, not a character") from None


GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)"  # the ends of it's, I'd, I'm, don't, we'll, I've, you're
    r"| ?\p{L}+| ?\p{N}+"  # letters, or digits, with the space before them
    r"| ?[^\s\p{L}\p{N}]+"  # anything else that is not a space
    r"|\s+(?!\S)|\s+"  # spaces; one is left for the word that follows
)
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"  # also IT'S
    r"|[^\r\n\p{L}\p{N}]?+\p{L}++"  # letters with any one sign before them: .shape, _id
    r"|\p{N}{1,3}+"  # digits in threes, without the space
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"  # signs, with the line's end
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def train_bpe(text: str, merges: int, pattern: str = GPT2_PATTERN) -> list[tuple[bytes, bytes]]:
    """The first `merges` merges of byte-level BPE on `text`, most frequent pair first.

    Ties go to the smaller ids (:func:`byte_ids`, then by age). Fewer are returned when no
    pair is left. A merge costs time proportional to the distinct pieces that contain its pair.
    Sennrich et al. (2016), §3.2. Raises ValueError for negative `merges` or a lone surrogate.
    """
    if merges < 0:
        raise ValueError(f"the number of merges cannot be negative, got {merges}")
    ids = byte_ids()
    tokens = list(ids)  # id -> bytes
    weight, pieces = [], []  # per distinct piece: how often, and its ids
    for piece, n in Counter(regex.findall(pattern, text)).items():
        weight.append(n)
        pieces.append([ids[bytes([b])] for b in _utf8(piece)])
    counts, where = Counter(), defaultdict(set)  # pair -> occurrences; pieces that hold it
    for w, piece in enumerate(pieces):
        for pair in pairwise(piece):
            counts[pair] += weight[w]
            where[pair].add(w)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapify(heap)
    found = []
    while heap and len(found) < merges:
        n, pair = heappop(heap)
        if counts[pair] != -n:  # the count fell since this entry was made
            if counts[pair] > 0:
                heappush(heap, (-counts[pair], pair))
            continue
        a, b = tokens[pair[0]], tokens[pair[1]]
        found.append((a, b))
        new = ids.setdefault(a + b, len(tokens))
        if new == len(tokens):
            tokens.append(a + b)
        change = Counter()
        for w in where.pop(pair):
            before, after = pieces[w], merge_pair(pieces[w], pair, new)
            for each in pairwise(before):
                change[each] -= weight[w]
            for each in pairwise(after):
                change[each] += weight[w]
                where[each].add(w)
            pieces[w] = after
        for each, n in change.items():
            counts[each] += n
            if n > 0:
                heappush(heap, (-counts[each], each))
    return found


def bpe(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The ids of `piece` under BPE: join the neighbours of lowest rank, leftmost first, while any.

    `ranks` maps the bytes of each token to its id, in the order of the merges, and holds every
    single byte of `piece`. O(n log n) heap operations for n bytes.
    """
    end = list(range(1, len(piece) + 1))  # end[i]: where the part starting at i ends; 0 if joined
    before = list(range(-1, len(piece) - 1))  # before[i]: where the part before it starts
    pairs = ((i, i + 2) for i in range(len(piece) - 1))
    heap = [(ranks[joined], i, j) for i, j in pairs if (joined := piece[i:j]) in ranks]
    heapify(heap)

    def offer(i, j):
        if (rank := ranks.get(piece[i:j])) is not None:
            heappush(heap, (rank, i, j))

    while heap:
        _, i, j = heappop(heap)
        middle = end[i]
        if not 0 < middle < j or end[middle] != j:
            continue  # one of the two parts has been joined to something else
        end[i], end[middle] = j, 0
        if j < len(piece):
            before[j] = i
            offer(i, end[j])
        if before[i] >= 0:
            offer(before[i], j)
    ids, i = [], 0
    while i < len(piece):
        ids.append(ranks[piece[i : end[i]]])
        i = end[i]
    return ids


class Tokenizer:
    """Byte-level BPE with a given vocabulary: text to ids and back.

    Parameters
    ----------
    ranks : bytes of each token -> its id, in the order of the merges; holds all single bytes
    pattern : the regular expression of the pre-tokenization
    special : special tokens, text -> id; never produced by text unless allowed in `encode`

    Raises ValueError for a vocabulary without some byte, or for ids that are used twice.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        pattern: str = GPT2_PATTERN,
        special: Mapping[str, int] | None = None,
    ):
        self.ranks, self.special = dict(ranks), dict(special or {})
        self._pattern = regex.compile(pattern)
        absent = [b for b in range(256) if bytes([b]) not in self.ranks]
        if absent:
            raise ValueError(f"the vocabulary lacks {len(absent)} of the 256 bytes: {absent[:3]} …")
        self._tokens = {i: token for token, i in self.ranks.items()}
        self._tokens |= {i: text.encode() for text, i in self.special.items()}
        if len(self._tokens) != len(self.ranks) + len(self.special):
            raise ValueError("two tokens share an id")
        if "" in self.special:
            raise ValueError("a special token cannot be empty")
        longest = sorted(self.special, key=len, reverse=True)
        self._split = regex.compile("(" + "|".join(map(regex.escape, longest)) + ")")
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls, text: str, merges: int, pattern: str = GPT2_PATTERN, special: Iterable[str] = ()
    ) -> Tokenizer:
        """Learn the vocabulary from `text` (:func:`train_bpe`); special tokens get the last ids."""
        ranks = byte_ids()
        for a, b in train_bpe(text, merges, pattern):
            ranks.setdefault(a + b, len(ranks))
        return cls(ranks, pattern, {name: len(ranks) + i for i, name in enumerate(special)})

    def __len__(self) -> int:
        """The number of tokens, special ones included."""
        return len(self._tokens)

    def encode(self, text: str, allowed: Collection[str] = ()) -> list[int]:
        """Ids of `text`; the special tokens in `allowed` become their ids.

        Raises ValueError when `text` contains another special token, or a lone surrogate.
        Use `encode_ordinary` for text that you did not write.
        """
        if not self.special:
            return self.encode_ordinary(text)
        ids = []
        for i, part in enumerate(self._split.split(text)):
            if i % 2 == 0:
                ids += self.encode_ordinary(part)
            elif part in allowed:
                ids.append(self.special[part])
            else:
                raise ValueError(
                    f"the text contains the special token {part!r}: allow it if the text is yours, "
                    "or use encode_ordinary, which takes it for text"
                )
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it taken for text. ValueError for a lone surrogate."""
        ids, cache = [], self._cache
        for piece in self._pattern.findall(text):
            found = cache.get(piece)
            if found is None:
                found = bpe(_utf8(piece), self.ranks)
                if len(cache) < 100_000 and len(piece) < 50:  # an attacker must not fill memory
                    cache[piece] = found
            ids += found
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, valid UTF-8 or not; equal to `encode_ordinary` where they are text."""
        ids = []
        for piece in self._pattern.findall(data.decode("utf-8", "surrogateescape")):
            ids += bpe(piece.encode("utf-8", "surrogateescape"), self.ranks)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for. Raises ValueError for an id that is no token."""
        try:
            return b"".join([self._tokens[index(i)] for i in ids])
        except KeyError as error:
            raise ValueError(f"id {error} is not one of the {len(self)} tokens") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")
