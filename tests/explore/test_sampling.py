"""The filters and the draw in the browser: held to `groundup.decoding`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from figures_js import run, written

from groundup.decoding import Sampler

#: JSON has no infinity: excluded tokens come as null
KEPT = "export const kept = (logits, set) => filter(logits, set).map((z) => (z === -Infinity ? null : z));"


@pytest.fixture(scope="module")
def data() -> dict:
    return written("language/decoding", "sampling")


def settings(rng) -> dict:
    return {
        "temperature": float(rng.choice([0, 0.05, 0.3, 0.7, 1, 1.6, 2])),
        "k": int(rng.integers(1, 60)) if rng.random() < 0.6 else None,
        "p": float(rng.uniform(0.02, 1)) if rng.random() < 0.6 else None,
        "least": float(10 ** rng.uniform(-3, 0)) if rng.random() < 0.6 else None,
    }


def ours(logits, given) -> torch.Tensor:
    sampler = Sampler(given["temperature"], given["k"], given["p"], given["least"])
    return sampler.filter(torch.tensor(logits, dtype=torch.float64))


def same(found, expected) -> None:
    found = np.array([-math.inf if z is None else z for z in found], float)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected.numpy()))
    shares = [torch.softmax(torch.tensor(z), -1).numpy() for z in (found, expected.numpy())]
    np.testing.assert_allclose(*shares, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_filters_on_random_logits(seed):
    rng = np.random.default_rng(seed)
    cases = [((3 * rng.standard_normal(rng.integers(2, 200))).tolist(), settings(rng)) for _ in range(60)]
    cases += [(np.round(logits).tolist(), given | {"p": None}) for logits, given in cases]  # many of them equal
    for (logits, given), found in zip(cases, run("sampling", [["kept", *case] for case in cases], KEPT)):
        same(found, ours(logits, given))


def test_filters_on_the_models_logits(data):
    rng = np.random.default_rng(9)
    cases = [(place["logits"], settings(rng)) for place in data["places"] for _ in range(6)]
    for (logits, given), found in zip(cases, run("sampling", [["kept", *case] for case in cases], KEPT)):
        same(found, ours(logits, given))


def test_of_equal_tokens_top_p_keeps_the_lower_ids():
    given = {"temperature": 1, "k": None, "p": 0.5, "least": None}
    (found,) = run("sampling", [["kept", [1.0] * 8, given]], KEPT)
    assert [z is not None for z in found] == [True] * 4 + [False] * 4
    same(found, ours([1.0] * 8, given))


def test_draw(monkeypatch):
    rng = np.random.default_rng(5)
    calls, expected = [], []
    for _ in range(200):
        logits, u = (2 * rng.standard_normal(50)).tolist(), float(rng.uniform())
        monkeypatch.setattr(torch, "rand", lambda size, u=u, **how: torch.full(size, u, dtype=torch.float64))
        calls.append(["draw", logits, u])
        expected.append(int(Sampler()(torch.tensor(logits, dtype=torch.float64))))
    assert run("sampling", calls) == expected and len(set(expected)) > 10


def test_the_data_are_complete(data):
    assert len(data["places"]) == len({place["text"] for place in data["places"]}) > 3
    for place in data["places"]:
        assert len(place["logits"]) == len(data["tokens"])
        assert abs(np.exp(place["logits"]).sum() - 1) < 1e-3  # rounded log-probabilities
