"""The optimizer playground computes in the browser: held to `groundup.optimization`, to 1e-9."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from figures_js import run, written

from groundup.calculus import gradient_check
from groundup.optimization import SGD, Adam, RMSProp, newton

CHAPTER = "foundations/optimization"
MAKERS = {
    "gradient descent": lambda p, s: SGD(p, s["lr"]),
    "momentum": lambda p, s: SGD(p, s["lr"], s["momentum"]),
    "Nesterov": lambda p, s: SGD(p, s["lr"], s["momentum"], nesterov=True),
    "RMSProp": lambda p, s: RMSProp(p, s["lr"], s["alpha"], s["eps"]),
    "Adam": lambda p, s: Adam(p, s["lr"], (s["momentum"], s["beta2"]), s["eps"]),
}
STEPS = "export const steps = (method, run, all, set) => all.reduce((r, g) => step(method, r, g, set), run);"


@pytest.fixture(scope="module")
def data() -> dict:
    return written(CHAPTER, "optimizer")


def height(terms, p):
    return sum(c * p[0] ** i * p[1] ** j for i, j, c in terms)


def slopes(terms, p):
    x, y = p
    return np.array([
        sum(i * c * x ** (i - 1) * y**j for i, j, c in terms if i),
        sum(j * c * x**i * y ** (j - 1) for i, j, c in terms if j),
    ])  # fmt: skip


def curvature(terms, p):
    x, y = p
    xx = sum(c * i * (i - 1) * x ** (i - 2) * y**j for i, j, c in terms if i > 1)
    xy = sum(c * i * j * x ** (i - 1) * y ** (j - 1) for i, j, c in terms if i and j)
    yy = sum(c * j * (j - 1) * x**i * y ** (j - 2) for i, j, c in terms if j > 1)
    return np.array([[xx, xy], [xy, yy]])


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_heights_and_slopes(data):
    points = np.random.default_rng(0).uniform(-3, 3, (40, 2)).tolist() + [[0, 0], [1, 0], [0, -1]]
    for surface in data["surfaces"]:
        terms = surface["terms"]
        close(run("optimizer", [["value", terms, p] for p in points]), [height(terms, p) for p in points])
        found = run("optimizer", [["gradient", terms, p] for p in points])
        close(found, [slopes(terms, p) for p in points])
        for p, g in zip(points[:40], found):  # elsewhere a slope is exactly 0
            assert gradient_check(partial(height, terms), np.array(g), np.array(p)) < 1e-5
        close(run("optimizer", [["hessian", terms, p] for p in points]), [curvature(terms, p) for p in points])


@pytest.mark.parametrize("method", MAKERS)
@pytest.mark.parametrize("seed", range(4))
def test_steps_on_any_gradients(data, method, seed):
    """The gradients are given, so that no error can grow by going round: 60 steps, random settings."""
    rng = np.random.default_rng(seed)
    settings = {**data["settings"], "lr": 10 ** rng.uniform(-4, 0), "momentum": rng.choice([0.01, 0.5, 0.9, 0.99])}
    gradients = rng.standard_normal((60, 2)) * 10 ** rng.uniform(-3, 3, (60, 1))
    x = rng.standard_normal(2)
    state, params = {"x": x.tolist(), "t": 0, "first": [0, 0], "second": [0, 0]}, [x.copy()]
    optimizer = MAKERS[method](params, settings)
    for g in gradients:
        optimizer.step([g])
    (found,) = run("optimizer", [["steps", method, state, gradients.tolist(), settings]], STEPS)
    close(found["x"], params[0])


@pytest.mark.parametrize("method", [*MAKERS, "Newton"])
def test_paths_as_the_figure_opens(data, method):
    for surface in data["surfaces"]:
        terms, steps = surface["terms"], 60
        settings = {**data["settings"], "lr": surface["lr"].get(method, 0), "momentum": 0.9}
        if method == "Newton":
            steps = 8
            expected = newton(partial(slopes, terms), partial(curvature, terms), surface["start"], steps)
        else:
            params = [np.array(surface["start"], float)]
            optimizer, expected = MAKERS[method](params, settings), [params[0].copy()]
            for _ in range(steps):
                optimizer.step([slopes(terms, params[0])])
                expected.append(params[0].copy())
        close(run("optimizer", [["path", terms, method, surface["start"], settings, steps]])[0], expected)


def test_what_diverges_ends_and_what_the_chapter_tuned_does_not(data):
    valley = data["surfaces"][0]
    settings = {**data["settings"], "lr": 0.3, "momentum": 0.9}
    (wild,) = run("optimizer", [["path", valley["terms"], "gradient descent", valley["start"], settings, 150]])
    assert len(wild) < 60 and np.abs(wild[-1]).max() >= 1e6 and np.isfinite(wild).all()
    for surface in data["surfaces"]:
        for method, lr in surface["lr"].items():
            call = ["path", surface["terms"], method, surface["start"], {**settings, "lr": lr}, surface["steps"]]
            (points,) = run("optimizer", [call])
            assert len(points) == surface["steps"] + 1
            left = height(surface["terms"], points[-1]) - surface["lowest"]
            assert left < 0.4 * (height(surface["terms"], points[0]) - surface["lowest"]), (surface["name"], method)


def test_the_data_are_complete(data):
    assert data["methods"] == [*MAKERS, "Newton"]
    for surface in data["surfaces"]:
        assert set(surface["lr"]) == set(MAKERS)
        for minimum in surface["minima"]:
            assert np.abs(slopes(surface["terms"], minimum)).max() < 1e-9
            assert np.isclose(height(surface["terms"], minimum), surface["lowest"])
        (x0, x1), (y0, y1) = surface["window"]
        assert x0 <= surface["start"][0] <= x1 and y0 <= surface["start"][1] <= y1
        span = x1 - x0
        for line in surface["contours"]:  # each point lies on its height, to 2 % of the window
            heights = np.array([height(surface["terms"], p) for p in line])
            steep = np.array([np.linalg.norm(slopes(surface["terms"], p)) for p in line])
            assert np.all(np.abs(heights - np.median(heights)) < 0.02 * span * steep + 0.01), surface["name"]
