# Generated from chapters/retrieval/vector-search.md; edit the chapter.
"""Vector search. You build the three indexes that vector databases are made of, behind one
interface. The graph finds 95 % of the true neighbours of a query after a small fraction of the
distances that a full scan computes, and `faiss` confirms each part.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from groundup import artifacts
from groundup.clustering import assign, kmeans

__all__ = [
    "VectorIndex",
    "best",
    "Flat",
    "recall",
    "TrainedIndex",
    "IVF",
    "LayeredGraph",
    "HNSW",
    "graph_arrays",
    "from_graph",
    "build_graphs",
    "documentation_graphs",
    "PQ",
    "merge_top",
]


class VectorIndex:
    """What all indexes share: ids, rows, checks at the boundary, and a counter of work.

    `add`, `search` and `delete` are the protocol; a subclass says in `_insert` where new rows go
    and in `_candidates` which rows a query is compared with. Vectors are kept as float32.

    distances : vectors compared so far, in searches and in building; set it to 0 to start anew
    """

    def __init__(self):
        self.ids: list[Hashable] = []  # row -> id, deleted ones too
        self.rows: dict[Hashable, int] = {}  # id -> row, live ones
        self.alive = np.zeros(0, dtype=bool)
        self.vectors = np.zeros((0, 0), np.float32)  # room for more rows than are used
        self.width: int | None = None
        self.distances = 0

    def __len__(self) -> int:
        """Vectors that can be found."""
        return len(self.rows)

    def _checked(self, vectors, ndim: int) -> np.ndarray:
        found = np.asarray(vectors, dtype=np.float32)
        if found.ndim != ndim or found.shape[-1] != (self.width or found.shape[-1]):
            shape = "(n, d)" if ndim == 2 else "(d,)"
            raise ValueError(f"need {shape} with d = {self.width}, got {found.shape}")
        if not np.isfinite(found).all():
            raise ValueError("vectors must be finite: there is a NaN or an infinity among them")
        return found

    def add(self, ids: Sequence[Hashable], vectors: np.ndarray) -> None:
        """Take in vectors (n, d), one per id.

        Raises ValueError for an id that is there or given twice, another number of ids than rows,
        another d than before, and values that are not finite.
        """
        ids, vectors = list(ids), self._checked(vectors, 2)
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        if len(set(ids)) < len(ids) or not self.rows.keys().isdisjoint(ids):
            raise ValueError("an id is given twice or in the index already; delete it first")
        if not ids:
            return
        self._prepare(vectors)
        start, self.width = len(self.ids), vectors.shape[1]
        self.ids += ids
        self.rows |= {id: start + i for i, id in enumerate(ids)}
        self.alive = np.append(self.alive, np.ones(len(ids), dtype=bool))
        self._store(start, vectors)
        self._insert(np.arange(start, len(self.ids)), vectors)

    def _prepare(self, vectors: np.ndarray) -> None:
        """Train, if that is still to be done."""

    def _store(self, start: int, vectors: np.ndarray) -> None:
        if len(self.ids) > len(self.vectors):  # double the room
            more = np.zeros((max(len(self.ids), 2 * start), self.width), np.float32)
            if start:
                more[:start] = self.vectors[:start]
            self.vectors = more
        self.vectors[start : len(self.ids)] = vectors

    def _insert(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Put new rows where a search will find them."""

    def delete(self, id: Hashable) -> None:
        """Hide a vector from now on. Raises ValueError for an unknown id."""
        if id not in self.rows:
            raise ValueError(f"{id!r} is not in the index")
        self.alive[self.rows.pop(id)] = False

    def search(self, query: np.ndarray, k: int = 10) -> list[tuple[Hashable, float]]:
        """(id, dot product) of the k best for query (d,), best first, equals by age.

        Fewer if fewer were found. Raises ValueError for k < 1, another d than that of the
        vectors, and values that are not finite.
        """
        query = self._checked(query, 1)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        rows, scores = self._candidates(query, k) if self.rows else (np.zeros(0, int), np.zeros(0))
        return [(self.ids[row], score) for row, score in best(rows, scores, k)]

    def _candidates(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _compare(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Dot products of some rows with the query, counted."""
        self.distances += len(rows)
        return self.vectors[rows] @ query

    @property
    def nbytes(self) -> int:
        """Bytes of vectors and structure, without room for growth, ids and Python's objects."""
        return 4 * len(self.ids) * (self.width or 0)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    """(row, score) of the k largest scores (n,), largest first, equals by row."""
    if len(scores) > k:
        kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return list(zip(rows[order].tolist(), scores[order].tolist()))


class Flat(VectorIndex):
    """Exact search: every vector is compared."""

    def _candidates(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.alive)
        if len(rows) < len(self.ids):
            return rows, self._compare(rows, query)
        self.distances += len(rows)
        return rows, self.vectors[: len(rows)] @ query

    def search_batch(self, queries: np.ndarray, k: int = 10) -> list[list[tuple[Hashable, float]]]:
        """As `search` for each row of queries (b, d), by one matrix product."""
        queries = self._checked(queries, 2)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        rows = np.flatnonzero(self.alive)
        if not len(rows):
            return [[] for _ in queries]
        self.distances += len(rows) * len(queries)
        products = queries @ self.vectors[: len(self.ids)].T  # (b, n)
        return [[(self.ids[r], s) for r, s in best(rows, p[rows], k)] for p in products]


def recall(found: Sequence[tuple], exact: Sequence[tuple]) -> float:
    """Share of the ids in `exact` that are in `found`; both are lists of (id, score).

    Raises ValueError if `exact` is empty: nothing can be missed there.
    """
    if not exact:
        raise ValueError("recall needs at least one exact neighbour")
    wanted = {id for id, _ in exact}
    return len(wanted & {id for id, _ in found}) / len(wanted)


class TrainedIndex(VectorIndex):
    """An index that learns something before the first vector goes in.

    From :meth:`train`, else from the first vectors added.
    """

    def train(self, vectors: np.ndarray) -> None:
        """Learn from vectors (n, d). Raises ValueError after an add, or for none."""
        vectors = self._checked(vectors, 2)
        if self.ids or not len(vectors):
            raise ValueError("train before the first add, on at least one vector")
        self._prepare(vectors)
        self.width = vectors.shape[1]


class IVF(TrainedIndex):
    """Inverted file: k-means cuts space into `lists` cells; a search looks into `probes` of them.

    It learns the centres, at most as many as it is given vectors. Looks into further lists while
    it has fewer than k vectors.

    Raises ValueError for lists or probes below 1.
    Source: Jégou, Douze & Schmid (2011), section IV, without the quantiser of residuals.
    """

    def __init__(self, lists: int = 64, probes: int = 4, seed: int = 0, iterations: int = 10):
        super().__init__()
        if min(lists, probes, iterations) < 1:
            raise ValueError(f"need lists, probes and iterations ≥ 1: {lists, probes, iterations}")
        self.lists, self.probes, self.seed, self.iterations = lists, probes, seed, iterations
        self.centers: np.ndarray | None = None  # (lists, d)
        self.members: list[list[int]] = []  # of each list, its live rows

    def _prepare(self, vectors: np.ndarray) -> None:
        if self.centers is None:
            k = min(self.lists, len(vectors))
            found = kmeans(vectors, k, rng=self.seed, iterations=self.iterations)
            self.centers = found.centers.astype(np.float32)
            self.members = [[] for _ in self.centers]

    def _insert(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        for row, cell in zip(rows.tolist(), assign(vectors, self.centers)[0].tolist()):
            self.members[cell].append(row)
        self.distances += len(rows) * len(self.centers)

    def delete(self, id: Hashable) -> None:
        """Take a vector out of its list. Raises ValueError for an unknown id."""
        row = self.rows.get(id)
        super().delete(id)
        next(cell for cell in self.members if row in cell).remove(row)

    def _candidates(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        near = self.centers @ query - (self.centers**2).sum(axis=1) / 2  # nearest = largest
        self.distances += len(near)
        rows: list[int] = []
        for i, cell in enumerate(np.argsort(-near, kind="stable")):
            if i >= self.probes and len(rows) >= k:
                break
            rows += self.members[cell]
        rows = np.array(rows, dtype=int)
        return rows, self._compare(rows, query)

    @property
    def nbytes(self) -> int:
        centers = 0 if self.centers is None else self.centers.nbytes
        return super().nbytes + centers + 4 * len(self)  # a row number per vector


class LayeredGraph(VectorIndex):
    """Layers of links between vectors, and the walk through them from the sparsest one down.

    ef : candidates kept while searching (at least k)

    Deleted vectors stay as waypoints and are not returned. On unit vectors the largest dot
    product is the smallest distance; on others a dot product is no metric, and recall suffers.
    A subclass makes the links. Source: Malkov & Yashunin (2020), algorithms 2 and 5.
    """

    def __init__(self, ef: int = 50):
        super().__init__()
        self.ef = ef
        self.links: list[dict[int, np.ndarray]] = []  # layer -> row -> rows it links to
        self.entry = -1

    def _candidates(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._descend(query, 0)
        found = self._search_layer(query, found, max(self.ef, k), 0, self.alive)
        return np.array([row for _, row in found]), np.array([score for score, _ in found])

    def _descend(self, query: np.ndarray, layer: int) -> list[tuple[float, int]]:
        """Algorithm 5: from the entry to the row nearest to the query above `layer`, greedily."""
        found = [(float(self._compare(np.array([self.entry]), query)[0]), self.entry)]
        for above in range(len(self.links) - 1, layer, -1):
            found = self._search_layer(query, found, 1, above)
        return found

    def _search_layer(self, query, start, ef: int, layer: int, alive=None) -> list:
        """Algorithm 2: (score, row) of about the ef nearest in a layer, best first."""
        links, seen = self.links[layer], np.zeros(len(self.ids), dtype=bool)
        seen[[row for _, row in start]] = True
        todo = [(-score, row) for score, row in start]  # a heap: the best is expanded next
        found = [(s, -row) for s, row in start if alive is None or alive[row]]  # the worst on top
        heapq.heapify(todo)
        heapq.heapify(found)
        while todo:
            score, row = heapq.heappop(todo)
            if len(found) >= ef and -score < found[0][0]:
                break  # everything left is worse than what we have
            near = links[row]
            near = near[~seen[near]]
            seen[near] = True
            scores = self._compare(near, query)
            if len(found) >= ef:
                better = scores > found[0][0]
                near, scores = near[better], scores[better]
            for score, row in zip(scores.tolist(), near.tolist()):
                if len(found) < ef or score > found[0][0]:
                    heapq.heappush(todo, (-score, row))
                    if alive is None or alive[row]:
                        heapq.heappush(found, (score, -row))
                        if len(found) > ef:
                            heapq.heappop(found)
        return [(score, -row) for score, row in sorted(found, reverse=True)]

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(a.nbytes for layer in self.links for a in layer.values())


class HNSW(LayeredGraph):
    """Hierarchical navigable small world: a layered graph that grows vector by vector.

    m : links a new vector gets per layer; at most m are kept above, 2m in the lowest layer
    ef_construction, ef : candidates kept while inserting and searching (at least k)
    heuristic : spread links in all directions (algorithm 4), else take the nearest (algorithm 3)

    Raises ValueError for m < 2, ef_construction < 1 or ef < 1.
    Source: Malkov & Yashunin (2020), algorithms 1, 3 and 4.
    """

    def __init__(self, m: int = 16, ef_construction: int = 100, ef: int = 50, seed: int = 0,
                 heuristic: bool = True):  # fmt: skip
        super().__init__(ef)
        if m < 2 or ef_construction < 1 or ef < 1:
            raise ValueError(f"need m ≥ 2, ef_construction ≥ 1, ef ≥ 1: {m, ef_construction, ef}")
        self.m, self.ef_construction, self.heuristic = m, ef_construction, heuristic
        self.rng = np.random.default_rng(seed)

    def _insert(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Algorithm 1."""
        for row, vector in zip(rows.tolist(), vectors):
            level = int(-math.log(1 - self.rng.random()) / math.log(self.m))
            found = self._descend(vector, level) if self.links else []
            for layer in range(min(level, len(self.links) - 1), -1, -1):
                found = self._search_layer(vector, found, self.ef_construction, layer)
                links, most = self.links[layer], self.m if layer else 2 * self.m
                links[row] = self._select(found, self.m)
                for other in links[row].tolist():
                    links[other] = np.append(links[other], np.int32(row))
                    if len(links[other]) > most:  # too many: choose again
                        scores = self._compare(links[other], self.vectors[other])
                        again = sorted(zip(scores.tolist(), links[other].tolist()), reverse=True)
                        links[other] = self._select(again, most)
            if level >= len(self.links):
                new = range(len(self.links), level + 1)
                self.links += [{row: np.zeros(0, np.int32)} for _ in new]
                self.entry = row

    def _select(self, found: list[tuple[float, int]], most: int) -> np.ndarray:
        """Algorithm 4: nearest first, but none that is nearer to one chosen than to the centre.

        Places that stay free go to the nearest of those left out. Of `found`, best first.
        """
        rows = np.array([row for _, row in found], np.int32)
        if not self.heuristic or len(rows) <= 1:
            return rows[:most]
        between = self.vectors[rows] @ self.vectors[rows].T
        self.distances += len(rows) * (len(rows) - 1) // 2
        nearest, chosen, left = np.full(len(rows), -np.inf, np.float32), [], []
        for i, (score, _) in enumerate(found):
            if nearest[i] < score and len(chosen) < most:
                chosen.append(i)
                nearest = np.maximum(nearest, between[i])
            else:
                left.append(i)
        return rows[(chosen + left)[:most]]


def graph_arrays(index: HNSW) -> dict[str, np.ndarray]:
    """The links of an index as arrays, for safetensors; vectors and ids are not among them."""
    found = {"entry": np.array([index.entry])}
    for layer, links in enumerate(index.links):
        found[f"rows.{layer}"] = np.array(list(links), np.int32)
        found[f"counts.{layer}"] = np.array([len(other) for other in links.values()], np.int32)
        found[f"links.{layer}"] = np.concatenate(list(links.values()))
    return found


def from_graph(ids: Sequence[Hashable], vectors: np.ndarray, arrays: Mapping, **options) -> HNSW:
    """The index whose links :func:`graph_arrays` gave, around the same vectors (n, d).

    Raises ValueError if the graph was built for another number of vectors.
    """
    index = HNSW(**options)
    if len(arrays["rows.0"]) != len(ids):
        raise ValueError(f"the graph is one of {len(arrays['rows.0'])} vectors, got {len(ids)}")
    index._insert = lambda rows, vectors: None  # links come from the arrays
    index.add(ids, vectors)
    del index._insert
    index.entry = int(arrays["entry"][0])
    for layer in range(sum(name.startswith("rows.") for name in arrays)):
        ends = np.cumsum(arrays[f"counts.{layer}"])[:-1]
        parts = np.split(arrays[f"links.{layer}"], ends)
        index.links.append(dict(zip(arrays[f"rows.{layer}"].tolist(), parts)))
    return index


def build_graphs(vectors: np.ndarray, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Graphs of the first `sizes` rows, ascending, default options: "size/name" -> array."""
    index, found = HNSW(), {}
    for start, stop in zip([0, *sizes], sizes):
        index.add(range(start, stop), vectors[start:stop])
        found |= {f"{stop}/{name}": array for name, array in graph_arrays(index).items()}
    return found


def documentation_graphs(vectors: np.ndarray, sizes: Sequence[int]) -> dict[int, dict]:
    """size -> :func:`graph_arrays` of the first rows of `vectors`, made once and kept."""
    found = artifacts.cached("documentation-graphs", build_graphs, vectors, list(sizes))
    graphs: dict[int, dict] = {size: {} for size in sizes}
    for name, array in found.items():
        size, _, name = name.partition("/")
        graphs[int(size)][name] = array
    return graphs


class PQ(TrainedIndex):
    """Product quantisation: `parts` codes of `bits` bits in place of a vector.

    Each of the parts of a vector is replaced by the nearest of 2**bits centres of that part. A
    query is compared with the centres once; a vector's score is the sum of `parts` entries of
    that table. With rerank > 0 the exact vectors are kept, and that many of the best are compared
    exactly. `distances` counts the table as 2**bits comparisons, and a sum of `parts` entries as
    parts / d of one.

    Raises ValueError for bits outside 1 to 8, parts below 1 or that do not divide d, rerank < 0.
    Source: Jégou, Douze & Schmid (2011), sections II and III (asymmetric distances).
    """

    def __init__(self, parts: int = 48, bits: int = 8, rerank: int = 0, seed: int = 0,
                 iterations: int = 8):  # fmt: skip
        super().__init__()
        if not (1 <= bits <= 8 and parts >= 1 and rerank >= 0 and iterations >= 1):
            raise ValueError(f"need 1 ≤ bits ≤ 8, parts ≥ 1, rerank ≥ 0: {bits, parts, rerank}")
        self.parts, self.bits, self.rerank = parts, bits, rerank
        self.seed, self.iterations = seed, iterations
        self.books: np.ndarray | None = None  # (parts, centres, d / parts)
        self.codes = np.zeros((0, parts), np.uint8)

    def _prepare(self, vectors: np.ndarray) -> None:
        if self.books is None:
            if vectors.shape[1] % self.parts:
                raise ValueError(f"{self.parts} parts do not divide d = {vectors.shape[1]}")
            k = min(2**self.bits, len(vectors))
            options = {"rng": self.seed, "iterations": self.iterations}
            cut = np.split(vectors, self.parts, axis=1)
            self.books = np.stack([kmeans(p, k, **options).centers for p in cut]).astype(np.float32)

    def _store(self, start: int, vectors: np.ndarray) -> None:
        if self.rerank:
            super()._store(start, vectors)

    def _insert(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self.codes = np.concatenate([self.codes, self.encode(vectors)])

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes (n, parts) uint8 of vectors (n, d). Raises ValueError before training."""
        if self.books is None:
            raise ValueError("not trained yet")
        cut = np.split(self._checked(vectors, 2), self.parts, axis=1)
        return np.stack([assign(p, b)[0] for p, b in zip(cut, self.books)], 1).astype(np.uint8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The vectors (n, d) that codes (n, parts) stand for."""
        return self.books[np.arange(self.parts), codes].reshape(len(codes), -1)

    def _candidates(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        table = np.einsum("pcd,pd->pc", self.books, query.reshape(self.parts, -1))
        rows = np.flatnonzero(self.alive)
        scores = table[np.arange(self.parts), self.codes[rows]].sum(axis=1)  # (n,)
        self.distances += table.shape[1] + math.ceil(len(rows) * self.parts / self.width)
        if self.rerank:
            rows = np.array([row for row, _ in best(rows, scores, max(k, self.rerank))])
            scores = self._compare(rows, query)
        return rows, scores

    @property
    def nbytes(self) -> int:
        books = 0 if self.books is None else self.books.nbytes
        exact = super().nbytes if self.rerank else 0
        return math.ceil(len(self.ids) * self.parts * self.bits / 8) + books + exact


def merge_top(parts: Sequence[Sequence[tuple[Hashable, float]]], k: int = 10) -> list[tuple]:
    """The k best of several shards' answers, best first; equals by shard, then by place in it.

    It is the exact answer if each part is the exact top k of its shard. Raises ValueError for
    k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return sorted((hit for part in parts for hit in part), key=lambda hit: -hit[1])[:k]
