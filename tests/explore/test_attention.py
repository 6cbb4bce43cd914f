"""The explorer only selects: what the chapter wrote for it is complete, and attention of the kind it says."""

from __future__ import annotations

import numpy as np
import pytest
from figures_js import written

PAIRS, TIME = 4, 16
CAUSAL = {"all parts": True, "no scale": True, "no positions": True, "no mask": False, "no positions, no mask": False}


@pytest.fixture(scope="module")
def models() -> list[dict]:
    return written("language/attention", "attention")["models"]


def test_every_choice_has_a_row(models):
    assert [model["name"] for model in models] == [*CAUSAL]
    for model in models:
        assert [text["tokens"] for text in model["texts"]] == [text["tokens"] for text in models[0]["texts"]]
        for text in model["texts"]:
            maps = np.array(text["maps"])
            assert maps.shape == (2, 1, TIME, TIME) and len(text["tokens"]) == len(text["next"]) == TIME
            assert (maps >= 0).all() and np.abs(maps.sum(-1) - 1).max() < 5e-3  # three digits
            assert all(0 < chance <= 1 for _, chance in text["next"])


def test_only_models_without_a_mask_look_ahead(models):
    for model in models:
        ahead = max(np.triu(np.array(text["maps"]), 1).max() for text in model["texts"])
        assert (ahead == 0) == CAUSAL[model["name"]], model["name"]


def test_texts_are_logs_and_the_whole_model_reads_them(models):
    for text in models[0]["texts"]:
        names = text["tokens"]
        writes = dict(zip(names[: 2 * PAIRS : 2], names[1 : 2 * PAIRS : 2]))
        reads = dict(zip(names[2 * PAIRS :: 2], names[2 * PAIRS + 1 :: 2]))
        assert writes == reads and len(writes) == PAIRS
        first, second = np.array(text["maps"])[:, 0]
        for at in range(2 * PAIRS, TIME, 2):
            assert text["next"][at][0] == names[at + 1]
            assert second[at].argmax() == names.index(names[at]) + 1
        assert all(first[at].argmax() == at - 1 for at in range(1, 2 * PAIRS, 2))

