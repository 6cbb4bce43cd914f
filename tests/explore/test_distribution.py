"""Entropy, cross-entropy and codes in the browser: held to `groundup.information`, and Huffman's to the chapter's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from figures_js import ROOT, run, written

from groundup.information import cross_entropy, entropy, kl_divergence

RNG = np.random.default_rng(0)


def distributions(count: int) -> list[list[float]]:
    found = []
    for _ in range(count):
        p = RNG.dirichlet(np.full(RNG.integers(2, 9), 10 ** RNG.uniform(-1, 1)))
        if RNG.random() < 0.4:
            p[RNG.integers(len(p))] = 0
        found.append((p / p.sum()).tolist())
    return found + [[1.0, 0.0], [0.25] * 4, [0.2] * 5, [0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def data() -> dict:
    return written("foundations/information", "distribution")


@pytest.fixture(scope="module")
def huffman():
    """The chapter's own, which it does not export."""
    notebook = json.loads((ROOT / "_build/executed/chapters/foundations/information.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    source = next(source for source in sources if source.startswith("def huffman("))
    space = {}
    exec("import heapq\nimport numpy as np\n" + source.split("\n\n\n")[0], space)
    return space["huffman"]


def test_prices():
    pairs = [(p, RNG.permutation(p).tolist()) for p in distributions(200)]
    pairs += [(p, RNG.dirichlet(np.ones(len(p))).tolist()) for p in distributions(200)]
    for name, ours in (("crossEntropy", cross_entropy), ("divergence", kl_divergence)):
        found = run("distribution", [[name, p, q] for p, q in pairs])
        expected = [float(ours(p, q)) for p, q in pairs]
        assert [x is None for x in found] == [np.isinf(x) for x in expected]  # JSON writes ∞ as null
        assert any(x is None for x in found)
        np.testing.assert_allclose(np.array(found, float), np.where(np.isinf(expected), np.nan, expected), atol=1e-9)
    found = run("distribution", [["entropy", p] for p, _ in pairs])
    np.testing.assert_allclose(found, [entropy(p) for p, _ in pairs], atol=1e-9)


def test_words_are_the_chapters_and_none_begins_another(huffman):
    some = distributions(200)
    lengths = run("distribution", [["huffman", p] for p in some])
    assert lengths == [huffman(np.array(p)).tolist() for p in some]
    for each, code in zip(lengths, run("distribution", [["words", each] for each in lengths])):
        assert [len(word) for word in code] == each
        assert not [1 for a in range(len(code)) for b in range(len(code)) if a != b and code[a].startswith(code[b])]


def test_a_share_that_is_set_stays_and_the_others_keep_their_proportions():
    for p in distributions(100):
        which, share = int(RNG.integers(len(p))), float(RNG.choice([0, 0.3, 1]))
        (found,) = run("distribution", [["put", p, which, share]])
        others, before = np.delete(found, which), np.delete(p, which)
        assert found[which] == share and np.isclose(sum(found), 1) and min(found) >= 0
        if before.sum():
            np.testing.assert_allclose(others, before / before.sum() * (1 - share), atol=1e-12)


def test_the_data_are_distributions(data):
    for _, p in data["presets"]:
        assert len(p) == len(data["symbols"]) and np.isclose(sum(p), 1) and min(p) >= 0
