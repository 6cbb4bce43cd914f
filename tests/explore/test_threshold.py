"""What follows from the counts at a threshold: the browser's figures are those of `groundup.classification`."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written

from groundup import classification


@pytest.fixture(scope="module")
def data() -> dict:
    return written("learning/classification", "threshold")


def case(seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """Labels, scores with ties, and their counts as the chapter writes them."""
    rng = np.random.default_rng(seed)
    y = (rng.random(300) < rng.uniform(0.05, 0.6)).astype(int)
    y[:2] = 0, 1
    p = classification.sigmoid((2 * y + rng.standard_normal(300)).round(1) - 1)
    cuts = classification.sigmoid(np.linspace(-9, 9, 181).round(1))
    model = {name: [int(((p >= c) & (y == k)).sum()) for c in cuts] for name, k in (("tp", 1), ("fp", 0))}
    counts = {"positives": int(y.sum()), "negatives": int((1 - y).sum()), "thresholds": cuts.tolist()}
    return y, p, {"model": model, "data": counts}


@pytest.mark.parametrize("seed", range(5))
def test_rates_and_costs_at_every_threshold(seed):
    y, p, given = case(seed)
    cuts = np.array(given["data"]["thresholds"])
    c_fp, c_fn = np.random.default_rng(seed).uniform(0.5, 50, 2)
    found = run("threshold", [["judge", given["model"], i, given["data"], c_fp, c_fn] for i in range(len(cuts))])
    costs = classification.expected_cost(y, p, cuts, c_fp, c_fn)
    np.testing.assert_allclose([f["cost"] for f in found], costs, rtol=1e-12)
    fpr, tpr, at = classification.roc_curve(y, p)
    precision, recall, thresholds = classification.precision_recall_curve(y, p)
    for cut, f in zip(cuts, found):
        matrix = classification.confusion_matrix(y, (p >= cut).astype(int), 2)
        assert [[f["tn"], f["fp"]], [f["fn"], f["tp"]]] == matrix.tolist()
        i = np.flatnonzero(at >= cut)[-1]
        assert [f["fpr"], f["recall"]] == pytest.approx([fpr[i], tpr[i]], abs=1e-12)
        if cut <= p.max():
            i = np.searchsorted(thresholds, cut)
            assert [f["precision"], f["recall"]] == pytest.approx([precision[i], recall[i]], abs=1e-12)
        else:
            assert f["precision"] is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("c_fn", [0.1, 1, 20, 500])
def test_the_cheapest_is_the_one_the_sweep_finds(seed, c_fn):
    y, p, given = case(seed)
    cuts = np.array(given["data"]["thresholds"])
    (i,) = run("threshold", [["cheapest", given["model"], given["data"], 1, c_fn]])
    costs = classification.expected_cost(y, p, cuts, 1, c_fn)
    assert i == len(cuts) - 1 - np.argmin(costs[::-1])
    best = classification.best_threshold(y, p, 1, c_fn)
    assert costs[i] == pytest.approx(classification.expected_cost(y, p, best, 1, c_fn), rel=1e-12), (
        "scores lie on the grid"
    )


def test_the_formula_is_among_the_thresholds(data):
    for c_fn, i in zip(data["prices"], run("threshold", [["formula", data, 1, c_fn] for c_fn in data["prices"]])):
        assert data["thresholds"][i] == pytest.approx(1 / (1 + c_fn), rel=1e-11)


def test_the_data_are_complete(data):
    places = len(data["thresholds"])
    assert data["thresholds"] == sorted(set(data["thresholds"])) and 20 in data["prices"] and data["weekly"] == 1008
    assert [model["name"] for model in data["models"]] == ["as observed", "balanced", "balanced, shifted back"]
    for model in data["models"]:
        for name, total in (("tp", data["positives"]), ("fp", data["negatives"])):
            assert len(model[name]) == places and total >= model[name][0] >= model[name][-1] >= 0
            assert np.all(np.diff(model[name]) <= 0)
    shift = [np.interp(0.5 * data["positives"], m["tp"][::-1], np.arange(places)[::-1]) for m in data["models"]]
    assert shift[1] > shift[0] + 50, "balancing moves all probabilities up"
