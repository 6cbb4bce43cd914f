"""The denoising strip only selects: what the chapter wrote is complete, and is what it shows."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import run, written


@pytest.fixture(scope="module")
def data() -> dict:
    return written("diffusion/guidance", "denoising")


def test_there_is_a_picture_for_every_choice(data):
    shape = len(data["scales"]), len(data["digits"]), len(data["steps"])
    assert data["scales"] == sorted(data["scales"]) and 1 in data["scales"] and data["steps"][0] == 0
    for kind in ("states", "expected"):
        texts = np.array(data[kind])
        assert texts.shape == shape
        for text in texts.flat:
            assert len(text) == data["side"] ** 2 and set(text) <= set("0123456789abcdef")
    judged = np.array(data["judged"])
    assert judged.shape == shape and judged.min() >= 0 and judged.max() <= 1


def test_every_scale_starts_from_the_same_noise_and_ends_at_its_estimate(data):
    states, expected = np.array(data["states"]), np.array(data["expected"])
    assert (states[:, :, 0] == states[:1, :, 0]).all(), "the same start, whatever w"
    assert (states[:, :, -1] == expected[:, :, -1]).all()
    assert len(set(states[:, 0, -1])) > 1, "w makes a difference"
    judged = np.array(data["judged"])
    high = [i for i, w in enumerate(data["scales"]) if w >= 3]
    assert judged[high, :, -1].min() > 0.5, "guided samples are recognised"


def test_pictures_are_read_row_by_row(data):
    text = data["states"][0][0][0]
    ((*found,),) = run("denoising", [["rows", text, data["side"]]])
    expected = np.array([int(c, 16) / 15 for c in text]).reshape(data["side"], data["side"])
    np.testing.assert_allclose(found, expected, atol=1e-12)
