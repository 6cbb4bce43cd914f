"""The walk through the graph, computed in the browser: held to `groundup.vector_search`, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written

from groundup.vector_search import HNSW, Flat


class Traced(HNSW):
    """Keeps the rows of every comparison."""

    trace: list[list[int]]

    def _compare(self, rows, query):
        self.trace.append(np.asarray(rows).tolist())
        return super()._compare(rows, query)


@pytest.fixture(scope="module")
def data() -> dict:
    return written("retrieval/vector-search", "hnsw")


@pytest.fixture(scope="module")
def index(data) -> Traced:
    """The chapter's graph, put together again from what it wrote."""
    index = Traced()
    index.trace, index._insert = [], lambda rows, vectors: None
    index.add(range(len(data["points"])), np.array(data["points"]))
    index.entry = data["entry"]
    index.links = [
        {row: np.array(links, np.int32) for row, links in zip(layer["rows"], layer["links"])} for layer in data["layers"]
    ]
    return index


def test_the_graph_is_whole(data):
    (lowest, *above), count = data["layers"], len(data["points"])
    assert lowest["rows"] == list(range(count)) and data["entry"] in above[-1]["rows"]
    for low, high in zip(data["layers"], above):
        assert set(high["rows"]) < set(low["rows"])
    for layer in data["layers"]:
        rows = set(layer["rows"])
        assert len(layer["links"]) == len(rows) and all(set(links) <= rows for links in layer["links"])
    assert np.allclose(np.linalg.norm(data["points"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("ef", [1, 2, 6, 17, 40])
def test_every_comparison_and_every_answer(data, index, ef):
    goals = np.random.default_rng(ef).uniform(-0.6, 0.6, (60, 2)).round(2).tolist() + [data["goal"]]
    vectors = run("hnsw", [["query", *goal] for goal in goals])
    found = run("hnsw", [["search", data, vector, ef] for vector in vectors])
    index.ef = ef
    for goal, vector, steps in zip(goals, vectors, found):
        q = np.array([*goal, np.sqrt(1 - np.square(goal).sum())], np.float32)
        assert np.array_equal(q, np.array(vector, np.float32))
        index.trace = []
        answer = [row for row, _ in index.search(q, data["k"])]
        compared = [step["compared"] for step in steps if not step["stop"]]
        assert compared == index.trace, goal
        assert steps[-1]["beam"][: data["k"]] == answer, goal
        assert [step["layer"] for step in steps] == sorted((step["layer"] for step in steps), reverse=True)


def test_the_nearest_by_comparing_all(data):
    flat = Flat()
    flat.add(range(len(data["points"])), np.array(data["points"]))
    goals = np.random.default_rng(1).uniform(-0.6, 0.6, (40, 2)).tolist()
    vectors = run("hnsw", [["query", *goal] for goal in goals])
    for vector, rows in zip(vectors, run("hnsw", [["nearest", data, vector] for vector in vectors])):
        assert rows == [row for row, _ in flat.search(np.array(vector), data["k"])]


def test_what_the_chapter_calls_hard_is_missed_by_a_greedy_walk_alone(data):
    assert len(data["hard"]) >= 5 and data["k"] == 1
    vectors = run("hnsw", [["query", *goal] for goal in data["hard"]])
    truth = run("hnsw", [["nearest", data, vector] for vector in vectors])
    for ef, missed in ((1, len(vectors)), (40, 0)):
        found = run("hnsw", [["search", data, vector, ef] for vector in vectors])
        assert sum(steps[-1]["beam"][0] != row for steps, (row,) in zip(found, truth)) == missed
