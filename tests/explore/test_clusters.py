"""k-means and mixtures are computed in the browser: held to `groundup.clustering`, step by step, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written

from groundup.clustering import GaussianMixture, assign, kmeans


@pytest.fixture(scope="module")
def data() -> dict:
    return written("learning/clustering", "clusters")


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in groups of their own widths, and a start: rows, places far off, or two that coincide."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 7))
    middle, width = rng.uniform(-10, 10, (k, 2)), rng.uniform(0.2, 3, (k, 2))
    group = rng.integers(k, size=200)
    X = middle[group] + width[group] * rng.standard_normal((200, 2))
    start = X[rng.choice(200, k, replace=False)]
    if seed % 3 == 1:
        start = rng.uniform(-30, 30, (k, 2))
    elif seed % 3 == 2 and k > 1:
        start[1] = start[0]  # its cluster is empty
    return X, start


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_k_means_takes_the_same_steps(seed):
    X, start = case(seed)
    (found,) = run("clusters", [["lloyd", X.tolist(), start.tolist()]])
    whole = kmeans(X, len(start), init=start)
    close([half["value"] for half in found], whole.history)
    assert (found[0]["labels"] == assign(X, start)[0]).all() and found[0]["centers"] == start.tolist()
    for passes in range(1, len(found) // 2 + 1):
        so_far = kmeans(X, len(start), init=start, iterations=passes)
        updated, assigned = found[2 * passes - 1 : 2 * passes + 1]
        close(updated["centers"], so_far.centers)
        close(assigned["centers"], so_far.centers)
        assert (assigned["labels"] == so_far.labels).all()
        assert updated["labels"] == found[2 * passes - 2]["labels"]


@pytest.mark.parametrize("floor", [1e-6, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_the_mixture_takes_the_same_steps(seed, floor):
    X, start = case(seed)
    (found,) = run("clusters", [["em", X.tolist(), start.tolist(), floor, 1e-6, 40]])
    whole = GaussianMixture(len(start), floor=floor, iterations=40).fit(X, start)
    assert len(found) == len(whole.history_) + 1
    close([step["value"] for step in found[1:]], whole.history_ / len(X))
    chosen = sorted({1, 2, 5, len(found) - 1} & set(range(len(found))))
    densities = run("clusters", [["expect", X.tolist(), found[steps]["parts"]] for steps in chosen])
    for steps, expected in zip(chosen, densities):
        so_far = GaussianMixture(len(start), floor=floor, iterations=steps, tol=0).fit(X, start)
        parts = found[steps]["parts"]
        close([part["weight"] for part in parts], so_far.weights_)
        close(found[steps]["centers"], so_far.means_)
        close([[[a, b], [b, c]] for a, b, c in (part["covariance"] for part in parts)], so_far.covariances_)
        close(expected["density"], so_far.score_samples(X))
        sure = np.sort(so_far.predict_proba(X), axis=1)
        clear = sure[:, -1] - sure[:, -2] > 1e-6 if len(start) > 1 else np.ones(len(X), bool)
        assert (np.array(found[steps]["labels"]) == so_far.predict(X))[clear].all()


def test_a_component_on_one_row_stops_at_the_floor():
    X = np.concatenate([np.random.default_rng(0).standard_normal((50, 2)), [[1000.0, 0.0]]])
    start = [[0.0, 0.0], [1000.0, 0.0]]
    (found,) = run("clusters", [["em", X.tolist(), start, 1e-4, 1e-6, 5]])
    close(found[-1]["parts"][1]["covariance"], [1e-4, 0, 1e-4])
    close(found[-1]["parts"][1]["weight"], 1 / 51)


def test_the_data_are_complete(data):
    assert [each["name"] for each in data["sets"]] == ["four groups", "elongated", "unequal sizes", "not convex"]
    for each in data["sets"]:
        rows, k = np.array(each["rows"]), each["k"]
        (x0, x1), (y0, y1) = each["window"]
        assert (rows > [x0, y0]).all() and (rows < [x1, y1]).all()
        assert all(np.shape(start) == (6, 2) for start in each["starts"]) and len(each["starts"]) >= 8
        start = np.array(each["starts"][-1])[:k]
        assert kmeans(rows, k, init=start).inertia >= each["best"]["k-means"] * (1 - 1e-9)
        fitted = GaussianMixture(k, floor=data["floor"]).fit(rows, start)
        assert fitted.history_[-1] / len(rows) <= each["best"]["mixture"] + 1e-3
    bad = data["sets"][0]
    (stuck,) = run("clusters", [["lloyd", bad["rows"], bad["starts"][0][:4]]])
    assert stuck[-1]["value"] > 3 * bad["best"]["k-means"], "the bad start of the chapter"
    moved = [*stuck[-1]["centers"]]
    left = min(range(4), key=lambda j: sum(moved[j]))  # of the two in the lower left group
    moved[left] = [18.0, 0.0]
    (freed,) = run("clusters", [["lloyd", bad["rows"], moved]])
    assert freed[-1]["value"] == pytest.approx(bad["best"]["k-means"], rel=1e-6), "one move frees it"
