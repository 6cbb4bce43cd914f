"""Pages and their tails are computed in the browser: held to `groundup.datasets` and SciPy, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written
from scipy import optimize, special

from groundup import datasets
from groundup.probability import quantile

TIMES = [-3.0, 0.0, *np.geomspace(0.5, 20_000, 40)]


@pytest.fixture(scope="module")
def data() -> dict:
    return written("foundations/probability", "tail")


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)


@pytest.fixture
def truth(monkeypatch):
    """`truth(causes, t)`: P(T > t) by the library's own distribution, given these causes."""

    def slower(causes, t):
        monkeypatch.setattr(datasets, "LATENCY_CAUSES", {name: tuple(row) for name, *row in causes})
        return 1 - datasets.latency_cdf(t)

    return slower


def test_the_normal_tail_is_right_far_out():
    z = np.concatenate([np.linspace(-9, 9, 181), [3.0, 3.0000001, -3.0000001, 20.0, 37.0, 0.0]])
    np.testing.assert_allclose(run("tail", [["above", float(v)] for v in z]), special.ndtr(-z), rtol=1e-11)


def test_one_backend_is_that_of_the_library(data, truth):
    assert {name: tuple(row) for name, *row in data["causes"]} == datasets.LATENCY_CAUSES
    for stalls, median in [(0.02, 250), (0.0025, 50), (0.1, 1000)]:
        (causes,) = run("tail", [["service", data["causes"], stalls, median]])
        assert sum(share for _, share, *_ in causes) == pytest.approx(1, abs=1e-12)
        assert causes[-1][1:3] == [stalls, median]
        ours = np.array(run("tail", [["slower", causes, t] for t in TIMES]))
        np.testing.assert_allclose(ours, truth(causes, np.array(TIMES)), rtol=0, atol=1e-12)
    assert run("tail", [["service", data["causes"], *data["causes"][-1][1:3]]])[0] == data["causes"]


@pytest.mark.parametrize("delay", [None, 5, 30, 300])
@pytest.mark.parametrize("n", [1, 2, 69, 1000])
def test_independent_pages_are_powers_of_one_backend(data, truth, n, delay):
    (kinds,) = run("tail", [["moments", data["causes"], data["a"], 0]])
    one = truth(data["causes"], np.array(TIMES))
    if delay is not None:
        one = one * truth(data["causes"], np.array(TIMES) - delay)
    ours = run("tail", [["page", kinds, n, delay, t] for t in TIMES])
    np.testing.assert_allclose(ours, 1 - (1 - one) ** n, rtol=0, atol=1e-11 * n)

    def off(t):
        one = truth(data["causes"], t) * (1 if delay is None else truth(data["causes"], t - delay))
        return 1 - (1 - one) ** n - level

    for level in (0.5, 0.01):
        (found,) = run("tail", [["exceeded", kinds, n, delay, level]])
        np.testing.assert_allclose(found, optimize.brentq(off, 1e-3, 1e6, xtol=1e-12, rtol=1e-14), rtol=1e-9)


def test_a_shared_cause_leaves_each_backend_alone(data, truth):
    for c in (0.05, 0.5, 1.0):
        ((bad, bad_causes), (good, good_causes)) = kinds = run("tail", [["moments", data["causes"], data["a"], c]])[0]
        stalls = data["causes"][-1][1]
        assert bad + good == pytest.approx(1) and bad_causes[-1][1] == data["a"]
        assert bad * data["a"] == pytest.approx(c * stalls, rel=1e-12), "the share of stalls that come in bad moments"
        both = bad * truth(bad_causes, np.array(TIMES)) + good * truth(good_causes, np.array(TIMES))
        close(both, truth(data["causes"], np.array(TIMES)))
        close(
            run("tail", [["page", kinds, 1, None, t] for t in TIMES[2:20]]),
            truth(data["causes"], np.array(TIMES[2:20])),
        )


def test_simulated_pages_agree(data, monkeypatch):
    """Without the formula: draw moments, then backends and their copies, and count."""
    rng, pages, n = np.random.default_rng(0), 4000, 50
    (kinds,) = run("tail", [["moments", data["causes"], data["a"], 0.6]])
    drawn = []
    for (_, causes), many in zip(kinds, rng.multinomial(pages, [probability for probability, _ in kinds])):
        monkeypatch.setattr(datasets, "LATENCY_CAUSES", {name: tuple(row) for name, *row in causes})
        drawn.append(datasets.latencies((many, n, 2), rng))
    drawn = np.concatenate(drawn)
    for delay, page in [(None, drawn[..., 0]), (30, np.minimum(drawn[..., 0], drawn[..., 1] + 30))]:
        slowest = page.max(axis=1)
        for level in (0.5, 0.1, 0.01):
            (t,) = run("tail", [["exceeded", kinds, n, delay, level]])
            assert abs(np.mean(slowest > t) - level) < 4 * np.sqrt(level * (1 - level) / pages)
            assert quantile(slowest, 1 - 2 * level if level < 0.5 else 0.4) < t


def test_the_data_are_complete(data):
    assert data["fanouts"] == sorted(set(data["fanouts"])) and data["fanouts"][0] == 1 and 100 in data["fanouts"]
    assert data["delays"][0] is None and data["delays"][1:] == sorted(set(data["delays"][1:]))
