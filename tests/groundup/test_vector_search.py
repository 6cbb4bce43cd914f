"""groundup.vector_search against brute force and faiss."""

import ast
import inspect

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import groundup.vector_search
from groundup.vector_search import (
    HNSW,
    IVF,
    PQ,
    Flat,
    LayeredGraph,
    TrainedIndex,
    VectorIndex,
    best,
    build_graphs,
    documentation_graphs,
    from_graph,
    graph_arrays,
    merge_top,
    recall,
)

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 10**6)


def unit(rng, n, d):
    X = rng.standard_normal((n, d)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def clustered(rng, n, d, centers):
    X = unit(rng, centers, d)[np.sort(rng.integers(0, centers, n))]
    X = X + 0.3 * unit(rng, n, d)
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def small(kind):
    return {
        "flat": Flat,
        "ivf": lambda: IVF(lists=4, probes=4),
        "pq": lambda: PQ(parts=2, bits=3, rerank=10**6),
        "hnsw": lambda: HNSW(m=8, ef_construction=60, ef=60),
    }[kind]()


KINDS = ("flat", "ivf", "pq", "hnsw")
kinds = pytest.mark.parametrize("kind", KINDS)


# --- exact --------------------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 60), st.integers(1, 12), st.integers(1, 80))
def test_flat_is_faiss(seed, n, d, k):
    rng = np.random.default_rng(seed)
    X, q = rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((3, d))
    flat, theirs = Flat(), faiss.IndexFlatIP(d)
    flat.add(range(n), X)
    theirs.add(X)
    scores, rows = theirs.search(q.astype(np.float32), min(k, n))
    for one, batch, score, row in zip(q, flat.search_batch(q, k), scores, rows):
        found = flat.search(one, k)
        assert [id for id, _ in found] == [id for id, _ in batch] == row.tolist()
        np.testing.assert_allclose([s for _, s in found], score, rtol=1e-4, atol=1e-5)
    assert flat.distances == 6 * n and flat.nbytes == 4 * n * d


@few
@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 40))
def test_best_is_a_stable_sort(values, k):
    scores, rows = np.array(values, float), np.arange(len(values))
    expected = sorted(zip(rows.tolist(), scores.tolist()), key=lambda hit: -hit[1])[:k]
    assert best(rows, scores, k) == expected


def test_best_names_rows_and_not_places():
    rows, scores = np.array([9, 4, 7]), np.array([1.0, 2.0, 2.0])
    assert best(rows, scores, 2) == [(4, 2.0), (7, 2.0)]  # equals by row, whatever the order
    assert best(rows[::-1], scores[::-1], 3)[2] == (9, 1.0)


@few
@given(seeds, st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 30))
def test_merged_shards_are_the_whole(seed, sizes, k):
    rng, whole, parts, start = np.random.default_rng(seed), Flat(), [], 0
    query = rng.standard_normal(5)
    for size in sizes:
        X, ids = unit(rng, size, 5), range(start, start + size)
        shard, start = Flat(), start + size
        shard.add(ids, X)
        whole.add(ids, X)
        parts.append(shard.search(query, k))
    merged, exact = merge_top(parts, k), whole.search(query, k)
    assert {id for id, _ in merged} == {id for id, _ in exact}
    np.testing.assert_allclose([s for _, s in merged], [s for _, s in exact], rtol=1e-5, atol=1e-6)


# --- what all indexes promise -------------------------------------------------------------------


@kinds
def test_the_base_class_checks_and_counts_and_leaves_the_search_to_others(kind):
    assert isinstance(small(kind), VectorIndex)
    base = VectorIndex()
    base.add(["a", "b"], [[1.0, 0.0], [0.0, 1.0]])
    assert (len(base), base.nbytes, base.distances) == (2, 16, 0)
    with pytest.raises(NotImplementedError):
        base.search([1.0, 0.0])
    base.delete("a")
    base.delete("b")
    assert base.search([1.0, 0.0]) == []  # nothing to search


@pytest.mark.parametrize("make", [lambda: IVF(4, 1), lambda: PQ(2, 3)])
def test_training_first_is_training_on_the_first_vectors(make):
    rng = np.random.default_rng(11)
    X, later, early, late = unit(rng, 40, 4), unit(rng, 40, 4), make(), make()
    assert isinstance(early, TrainedIndex) and not isinstance(Flat(), TrainedIndex)
    early.train(X)
    for index in (early, late):
        index.add(range(40), X)
        index.add(range(40, 80), later)  # changes nothing that was learned
    for q in unit(rng, 10, 4):
        assert early.search(q, 5) == late.search(q, 5)
    with pytest.raises(ValueError, match="d = 4"):
        early.train(unit(rng, 5, 6))
    with pytest.raises(ValueError, match="before the first add"):
        late.train(X)


@kinds
def test_errors_at_the_boundary(kind):
    index, rng = small(kind), np.random.default_rng(0)
    assert index.search([1.0, 2.0]) == [] and len(index) == 0 and index.nbytes == 0
    index.add([], np.zeros((0, 4)))
    with pytest.raises(ValueError, match="2 ids for 3 vectors"):
        index.add(["a", "b"], unit(rng, 3, 4))
    with pytest.raises(ValueError, match="twice"):
        index.add(["a", "a"], unit(rng, 2, 4))
    with pytest.raises(ValueError, match="finite"):
        index.add(["a"], [[np.nan, 0, 0, 1]])
    with pytest.raises(ValueError, match="need"):
        index.add(["a"], np.ones(4))
    assert len(index) == 0
    index.add(list("abcdefghij"), unit(rng, 10, 4))
    for bad in (["a"], ["z", "z"]):
        with pytest.raises(ValueError, match="delete it first"):
            index.add(bad, unit(rng, len(bad), 4))
    with pytest.raises(ValueError, match="d = 4"):
        index.add(["k"], unit(rng, 1, 6))
    for query in (np.ones(3), np.ones((1, 4))):
        with pytest.raises(ValueError, match="d = 4"):
            index.search(query)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            index.search([0, value, 0, 0])
    with pytest.raises(ValueError, match="k must be"):
        index.search(np.ones(4), 0)
    with pytest.raises(ValueError, match="'z' is not in"):
        index.delete("z")
    index.delete("c")
    with pytest.raises(ValueError, match="'c' is not in"):
        index.delete("c")
    assert len(index) == 9


@kinds
def test_k_larger_than_the_corpus_returns_everything_that_lives(kind):
    index, rng = small(kind), np.random.default_rng(1)
    index.add(range(30), unit(rng, 30, 4))
    for id in range(0, 30, 3):
        index.delete(id)
    found = index.search(unit(rng, 1, 4)[0], 100)
    assert {id for id, _ in found} == set(range(30)) - set(range(0, 30, 3))
    scores = [s for _, s in found]
    assert scores == sorted(scores, reverse=True)
    for id in range(30):
        if id % 3:
            index.delete(id)
    assert index.search(np.ones(4), 5) == [] and len(index) == 0
    index.add([0, "new"], unit(rng, 2, 4))  # after everything is gone, and an id again
    assert {id for id, _ in index.search(np.ones(4), 5)} == {0, "new"}


@few
@given(st.sampled_from(KINDS), seeds, st.lists(st.integers(0, 25), max_size=60))
def test_adding_and_deleting_one_by_one_is_flat_search(kind, seed, operations):
    rng, index, model = np.random.default_rng(seed), small(kind), {}
    index.add(["first"], [[1.0, 0, 0, 0]])
    model["first"] = np.array([1.0, 0, 0, 0], np.float32)
    for id in operations:
        if id in model:
            index.delete(id)
            del model[id]
        else:
            model[id] = unit(rng, 1, 4)[0]
            index.add([id], model[id][None])
    query = unit(rng, 1, 4)[0]
    exact = Flat()
    exact.add(list(model), np.array(list(model.values())))
    found, expected = index.search(query, 5), exact.search(query, 5)
    assert recall(found, expected) == 1.0
    for id, score in found:
        assert score == pytest.approx(float(model[id] @ query), abs=1e-5)


def test_recall_and_merge():
    assert recall([("a", 1.0), ("x", 0.5)], [("a", 1.0), ("b", 0.9)]) == 0.5
    assert merge_top([[("a", 2.0)], [], [("b", 2.0), ("c", 1.0)]], 2) == [("a", 2.0), ("b", 2.0)]
    with pytest.raises(ValueError, match="at least one"):
        recall([("a", 1.0)], [])
    with pytest.raises(ValueError, match="k must"):
        merge_top([], 0)
    with pytest.raises(ValueError, match="k must"):
        Flat().search_batch(np.ones((1, 2)), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IVF(0), lambda: IVF(4, 0), lambda: PQ(0), lambda: PQ(4, 9), lambda: PQ(4, 0),
        lambda: PQ(4, 8, -1), lambda: HNSW(1), lambda: HNSW(4, 0), lambda: HNSW(4, 4, 0),
    ],
)  # fmt: skip
def test_bad_sizes(make):
    with pytest.raises(ValueError, match="need"):
        make()


# --- IVF ----------------------------------------------------------------------------------------


def test_ivf_with_all_lists_is_exact_and_scans_what_it_counts():
    rng = np.random.default_rng(2)
    X, Q = unit(rng, 400, 8), unit(rng, 20, 8)
    ivf, flat = IVF(16, 16), Flat()
    for index in (ivf, flat):
        index.add(range(400), X)
    assert sorted(sum(ivf.members, [])) == list(range(400))
    assert [recall(ivf.search(q), flat.search(q)) for q in Q] == [1.0] * 20
    ivf.probes, ivf.distances = 1, 0
    ivf.search(Q[0], 1)
    cell = np.argmin(((ivf.centers - Q[0]) ** 2).sum(axis=1))
    assert ivf.distances == 16 + len(ivf.members[cell])


def test_ivf_is_trained_once_and_looks_further_for_k():
    rng = np.random.default_rng(3)
    ivf = IVF(8, 1)
    ivf.train(unit(rng, 50, 4))
    ivf.add(range(20), unit(rng, 20, 4))
    assert len(ivf.centers) == 8 and len(ivf.search(np.ones(4), 20)) == 20
    for vectors in (unit(rng, 5, 4), np.zeros((0, 4))):
        with pytest.raises(ValueError, match="before the first add"):
            ivf.train(vectors)
    with pytest.raises(ValueError, match="at least one vector"):
        IVF().train(np.zeros((0, 4)))


def test_ivf_scans_faisss_lists_with_faisss_centres():
    rng = np.random.default_rng(4)
    X, Q = clustered(rng, 600, 12, 10), unit(rng, 30, 12)
    ivf = IVF(12, 3)
    ivf.add(range(600), X)
    quantizer = faiss.IndexFlatL2(12)
    theirs = faiss.IndexIVFFlat(quantizer, 12, 12, faiss.METRIC_L2)
    quantizer.add(ivf.centers)
    theirs.is_trained = True
    theirs.add(X)
    theirs.nprobe = 3
    rows = theirs.search(Q, 5)[1]
    for q, row in zip(Q, rows):
        assert {id for id, _ in ivf.search(q, 5)} == set(row.tolist())


# --- PQ -----------------------------------------------------------------------------------------


def test_pq_scores_are_those_of_the_decoded_vectors():
    rng = np.random.default_rng(5)
    X, q = unit(rng, 300, 12), unit(rng, 1, 12)[0]
    pq = PQ(parts=4, bits=4)
    pq.add(range(300), X)
    decoded = pq.decode(pq.codes)
    for id, score in pq.search(q, 300):
        assert score == pytest.approx(float(decoded[id] @ q), abs=1e-5)
    assert pq.nbytes == 300 * 4 * 4 / 8 + 4 * 16 * 3 * 4  # codes and codebooks, no vectors
    assert pq.vectors.size == 0 and pq.codes.dtype == np.uint8
    errors = [np.mean((p.decode(p.codes) - X) ** 2) for p in (pq, finer(X, 4, 6), finer(X, 6, 6))]
    assert errors[0] > errors[1] > errors[2]


def finer(X, parts, bits):
    pq = PQ(parts, bits)
    pq.add(range(len(X)), X)
    return pq


def test_pq_agrees_with_faiss_on_the_same_codebooks():
    rng = np.random.default_rng(6)
    X, Q = clustered(rng, 500, 16, 12), unit(rng, 10, 16)
    pq = finer(X, 4, 8)
    theirs = faiss.IndexPQ(16, 4, 8, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(pq.books.ravel(), theirs.pq.centroids)
    theirs.is_trained = True
    theirs.add(X)
    assert np.array_equal(faiss.vector_to_array(theirs.codes).reshape(500, 4), pq.codes)
    scores = theirs.search(Q, 10)[0]
    for q, score in zip(Q, scores):
        np.testing.assert_allclose([s for _, s in pq.search(q, 10)], score, atol=1e-5)


def test_pq_errors_and_reranking():
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="do not divide"):
        PQ(5).add(["a"], np.ones((1, 12)))
    with pytest.raises(ValueError, match="not trained"):
        PQ(2).encode(np.ones((1, 4)))
    pq = PQ(3, 2, rerank=40)
    pq.train(unit(rng, 100, 6))
    X, flat = unit(rng, 200, 6), Flat()
    pq.add(range(200), X)
    flat.add(range(200), X)
    with pytest.raises(ValueError, match="before the first add"):
        pq.train(X)
    Q = unit(rng, 30, 6)
    with_exact = np.mean([recall(pq.search(q), flat.search(q)) for q in Q])
    pq.rerank = 0
    assert with_exact > np.mean([recall(pq.search(q), flat.search(q)) for q in Q])


# --- HNSW ---------------------------------------------------------------------------------------


def by_score(found, exact):
    """Recall that lets equal vectors stand for each other."""
    return sum(s >= exact[-1][1] - 1e-5 for _, s in found) / len(exact)


@pytest.mark.parametrize("kind", ["random", "clustered", "duplicates"])
def test_hnsw_recall(kind):
    rng = np.random.default_rng(8)
    X = {
        "random": unit(rng, 1200, 16),
        "clustered": clustered(rng, 1200, 16, 15),
        "duplicates": np.repeat(unit(rng, 240, 16), 5, axis=0),
    }[kind]
    hnsw, flat = HNSW(m=12, ef_construction=80, ef=80), Flat()
    for index in (hnsw, flat):
        index.add(range(1200), X)
    assert len(hnsw.search(X[0], 1200)) == 1200  # all can be reached
    Q = np.concatenate([X[::40], unit(rng, 30, 16)])
    hnsw.distances = 0
    assert np.mean([by_score(hnsw.search(q), flat.search(q)) for q in Q]) > 0.95
    assert hnsw.distances < 0.6 * len(Q) * 1200


@few
@given(seeds, st.integers(1, 80), st.integers(2, 6))
def test_hnsw_structure(seed, n, m):
    index = HNSW(m=m, ef_construction=10, seed=seed)
    index.add(range(n), unit(np.random.default_rng(seed), n, 6))
    assert set(index.links[0]) == set(range(n)) and index.entry in index.links[-1]
    for layer, links in enumerate(index.links):
        for row, others in links.items():
            assert row not in others and len(set(others.tolist())) == len(others)
            assert len(others) <= (m if layer else 2 * m) and set(others.tolist()) <= set(links)
    for above, below in zip(index.links[1:], index.links):
        assert set(above) <= set(below)


def test_hnsw_is_deterministic_and_its_layers_shrink_by_m():
    rng = np.random.default_rng(9)
    X = unit(rng, 800, 4)
    pair = [HNSW(m=4, ef_construction=20, seed=3) for _ in range(2)]
    for index in pair:
        index.add(range(800), X)
    assert pair[0].search(X[5], 10) == pair[1].search(X[5], 10)
    sizes = [len(links) for links in pair[0].links]
    assert 130 < sizes[1] < 270 and 25 < sizes[2] < 80  # 800 / 4, 800 / 16


def test_deleted_vectors_are_waypoints():
    rng = np.random.default_rng(10)
    X, hnsw, flat = unit(rng, 800, 12), HNSW(m=8, ef_construction=60, ef=60), Flat()
    for index in (hnsw, flat):
        index.add(range(800), X)
        for id in rng.permutation(800)[:600] if index is hnsw else sorted(set(range(800)) - set(hnsw.rows)):
            index.delete(int(id))
    Q = unit(rng, 40, 12)
    assert np.mean([recall(hnsw.search(q), flat.search(q)) for q in Q]) > 0.95


def test_hnsw_has_fewer_than_120_lines_of_code():
    tree = ast.parse(inspect.getsource(groundup.vector_search))
    source = inspect.getsource(groundup.vector_search).splitlines()
    lines = set()
    for node in tree.body:
        if getattr(node, "name", None) in ("LayeredGraph", "HNSW"):
            lines |= set(range(node.lineno, node.end_lineno + 1))
            for inner in ast.walk(node):
                if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                    lines -= set(range(inner.lineno, inner.end_lineno + 1))  # docstrings
    assert 60 < sum(bool(source[i - 1].strip()) for i in lines) < 120


def path_graph(ef, gap=None):
    """Eleven points on a quarter circle, each linked to those beside it, without the link after `gap`."""
    angles = np.linspace(0, np.pi / 2, 11)
    graph = LayeredGraph(ef=ef)
    graph.add(range(11), np.column_stack([np.cos(angles), np.sin(angles)]))
    pairs = [(i, i + 1) for i in range(10) if i != gap]
    graph.links = [{i: np.array([a + b - i for a, b in pairs if i in (a, b)], np.int32) for i in range(11)}]
    graph.entry = 0
    return graph


@few
@given(st.integers(1, 12), st.integers(0, 10), st.integers(0, 9))
def test_a_walk_goes_along_links_to_the_goal_or_to_the_last_before_a_gap(ef, goal, gap):
    whole, broken = path_graph(ef), path_graph(ef, gap)
    query = whole.vectors[goal].copy()
    assert whole.search(query, 1)[0][0] == goal
    assert broken.search(query, 1)[0][0] == min(goal, gap)
    assert whole.nbytes == 4 * 22 + 4 * 20  # vectors, links both ways
    whole.delete(goal)  # passed, not returned
    assert whole.search(query, 1)[0][0] in (goal - 1, goal + 1) or ef == 1


def test_upper_layers_shorten_the_walk():
    low, high = path_graph(1), path_graph(1)
    high.links.append({0: np.array([9], np.int32), 9: np.array([0], np.int32)})
    query = high.vectors[10].copy()
    assert low.search(query, 1) == high.search(query, 1)
    assert high.distances < low.distances


@few
@given(seeds, st.integers(1, 60), st.integers(2, 5))
def test_a_graph_survives_as_arrays_and_can_grow_on(seed, n, m):
    rng = np.random.default_rng(seed)
    X, more, index = unit(rng, n, 6), unit(rng, 1, 6), HNSW(m=m, ef_construction=10)
    index.add(range(n), X)
    again = from_graph(range(n), X, graph_arrays(index), m=m)
    assert again.entry == index.entry and len(again.links) == len(index.links)
    for before, after in zip(index.links, again.links):
        assert {row: others.tolist() for row, others in before.items()} == {
            row: others.tolist() for row, others in after.items()
        }
    assert again.search(X[0], 5) == index.search(X[0], 5)
    again.add(["new"], more)
    assert len(again) == n + 1 and len(again.links[0]) == n + 1
    with pytest.raises(ValueError, match=f"one of {n} vectors, got {n + 1}"):
        from_graph(range(n + 1), np.concatenate([X, more]), graph_arrays(index))


def test_graphs_of_a_corpus_are_stages_of_one_construction_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path))
    vectors = unit(np.random.default_rng(12), 60, 8)
    kept, built = documentation_graphs(vectors, [20, 60]), build_graphs(vectors, [20, 60])
    assert list(kept) == [20, 60]
    for size, arrays in kept.items():
        alone = HNSW()
        alone.add(range(size), vectors[:size])
        expected = graph_arrays(alone)
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)
            np.testing.assert_array_equal(built[f"{size}/{name}"], array)
    assert build_graphs(vectors, [60]).keys() == {name for name in built if name.startswith("60/")}
    (file,) = tmp_path.glob("documentation-graphs.*")
    made = file.stat().st_mtime_ns
    documentation_graphs(vectors, [20, 60])
    assert file.stat().st_mtime_ns == made
    documentation_graphs(vectors[::-1].copy(), [20, 60])  # other vectors, another graph
    assert file.stat().st_mtime_ns > made
