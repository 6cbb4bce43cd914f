"""The explorer only selects: what the chapters wrote for it is complete, and attention of the kind they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figures_js import written
from torch.nn.functional import scaled_dot_product_attention

from groundup.modern_llm import rotate
from groundup.real_model import load_smollm2

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



@pytest.fixture(scope="module")
def smol() -> dict:
    return written("language/real-model", "attention")


def test_every_head_of_the_real_model_is_there_and_looks_back(smol):
    (model,) = smol["models"]
    (text,) = model["texts"]
    maps, time = np.array(text["maps"]), len(text["tokens"])
    assert maps.shape == (30, 9, time, time) and len(text["next"]) == time
    assert not np.triu(maps, 1).any() and np.abs(maps.sum(-1) - 1).max() < 0.005 * time  # hundredths
    opens = maps[smol["opens"]["layer"] - 1, smol["opens"]["head"] - 1]
    assert opens[smol["opens"]["at"]].argmax() > 0, "it opens on a head that looks something up"


def test_the_real_models_shares_are_pytorchs(smol):
    """From the queries and keys of two layers, by another route than the chapter's."""
    model, tokenizer = load_smollm2()
    (text,) = smol["models"][0]["texts"]
    ids = torch.tensor([tokenizer.encode_ordinary("".join(text["tokens"]).replace("␣", " "))])
    for layer in (0, 17):
        part, (rotary, shares) = model.blocks[layer].attention, caught(model, layer, ids)
        assert part.head_width == 64 and rotary[0].shape == (ids.shape[1], 32)
        assert np.abs(shares.numpy() - np.array(text["maps"])[layer]).max() < 0.0051


def caught(model, layer: int, ids: torch.Tensor):
    """The rotary table that a layer was given, and its shares by PyTorch's attention."""
    part, seen = model.blocks[layer].attention, {}

    def keep(name):
        return lambda *given: seen.update({name: given[-1]})

    hooks = [part.register_forward_pre_hook(keep("given"))]
    hooks += [getattr(part, name).register_forward_hook(keep(name)) for name in ("query", "key")]
    model(ids)
    for hook in hooks:
        hook.remove()
    rotary = seen["given"][1]
    q, k = (rotate(seen[name].unflatten(-1, (-1, 64)).transpose(1, 2), *rotary) for name in ("query", "key"))
    eye = torch.eye(ids.shape[1]).expand(1, 9, -1, -1)  # as values they give the shares
    return rotary, scaled_dot_product_attention(q, k.repeat_interleave(3, 1), eye, is_causal=True)[0]
