"""Bias, variance and penalised fits are computed in the browser: held to the library, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written

from groundup.generalization import bias_variance
from groundup.linear_algebra import least_squares
from groundup.regression import LinearModel, ridge


@pytest.fixture(scope="module")
def data() -> dict:
    return written("learning/generalization", "bias")


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def legendre(x, degree):
    return np.polynomial.legendre.legvander(np.asarray(x), degree)


def test_the_basis_is_that_of_numpy():
    x = np.random.default_rng(0).uniform(-1, 1, 30)
    for degree in (0, 1, 2, 15):
        close(run("bias", [["powers", x.tolist(), degree]])[0], legendre(x, degree))


@pytest.mark.parametrize("degree", [0, 1, 6, 15])
@pytest.mark.parametrize("alpha", [0, 1e-5, 0.03, 1, 100])
def test_fits_are_those_of_ridge(degree, alpha):
    rng = np.random.default_rng(degree)
    x, x_new, y = np.sort(rng.uniform(-1, 1, 40)), rng.uniform(-1, 1, 20), rng.standard_normal(40)
    (S,) = run("bias", [["smoother", {"x_train": x.tolist(), "x_new": x_new.tolist()}, degree, alpha]])
    if degree == 0:
        close(S @ y, np.full(20, y.mean()))
    else:
        model = LinearModel(ridge, alpha=alpha).fit(legendre(x, degree)[:, 1:], y)
        close(S @ y, model.predict(legendre(x_new, degree)[:, 1:]))
    if alpha == 0:
        close(S @ y, legendre(x_new, degree) @ least_squares(legendre(x, degree), y))


@pytest.mark.parametrize(
    ("degree", "alpha", "sigma"), [(1, 0, 0.3), (6, 0, 0.3), (15, 0, 1.0), (15, 1, 0.5), (9, 0.03, 0.1)]
)
def test_bias_and_variance_are_those_of_many_training_sets(data, degree, alpha, sigma):
    (S,) = run("bias", [["smoother", data, degree, alpha]])
    (found,) = run("bias", [["split", data, S, sigma]])
    rng, f = np.random.default_rng(1), np.array(data["f_train"])
    noise = sigma * rng.standard_normal((10_000, len(f)))
    drawn = (f + np.concatenate([noise, -noise])) @ np.transpose(S)  # in pairs: the mean is exact
    bias2, variance = (part.mean() for part in bias_variance(drawn, data["f_new"]))
    assert found["variance"] == pytest.approx(variance, rel=0.03)
    assert found["bias"] == pytest.approx(bias2, rel=1e-9, abs=1e-12)


def test_the_data_are_complete(data):
    x, noise = np.array(data["x_train"]), np.array(data["noise"])
    assert noise.shape == (12, len(x)) and len(data["f_train"]) == len(x) and len(data["f_new"]) == len(data["x_new"])
    assert 0.8 < noise.std() < 1.2 and data["penalties"][0] == 0 and data["penalties"] == sorted(set(data["penalties"]))
    close(data["f_new"], np.sin(3 * np.array(data["x_new"])) + 0.5 * np.cos(5 * np.array(data["x_new"])))
