"""groundup.pretraining: streams, scores and runs against slow forms and torch, and every error."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from groundup import artifacts
from groundup.datasets import king_james
from groundup.optimization import warmup_cosine
from groundup.pretraining import (
    Recipe,
    TokenStream,
    bits_per_byte,
    load_pretrained,
    optimizer_for,
    save_pretrained,
    split,
    token_costs,
    tokenizer_of,
    train,
)
from groundup.tokenization import Tokenizer, train_bpe
from groundup.training import CheckpointError, encode_state, save_checkpoint
from groundup.transformer import GPT, GPTConfig

few = settings(deadline=None, max_examples=15)


def tiny(seed=0, context=8, **more):
    config = GPTConfig(**{"vocabulary": 17, "context": context, "width": 8, "layers": 1, "heads": 2} | more)
    return GPT(config, torch.Generator().manual_seed(seed))


def ids(n, seed=0):
    return torch.randint(17, (n,), generator=torch.Generator().manual_seed(seed))


def test_split_is_the_whole_text_in_order():
    parts = split()
    assert "".join(parts) == king_james()
    assert [len(part.encode()) for part in parts[1:]] == [200_000, 200_000]


@few
@given(st.text("aab cè", min_size=1, max_size=60), st.integers(0, 12))
def test_tokenizer_of_equals_training_it(text, count):
    ours, theirs = tokenizer_of(train_bpe(text, count)), Tokenizer.train(text, count)
    assert ours.encode(text) == theirs.encode(text) and len(ours) == len(theirs)


@few
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 60), st.integers(0, 5))
def test_a_stream_covers_an_epoch_once_and_moves_targets_by_one(batch, time, more, seed):
    n = time * (batch + 1) + more
    stream = TokenStream(torch.arange(n), batch, time, seed)
    steps = stream.batches.n // batch
    for _ in range(2):
        pairs = [next(stream) for _ in range(steps)]
        xs = torch.cat([x.flatten() for x, _ in pairs])
        assert all(x.shape == y.shape == (batch, time) and (y == x + 1).all() for x, y in pairs)
        assert len(xs.unique()) == len(xs) == steps * batch * time
    assert stream.batches.epoch == 2


@few
@given(st.integers(0, 30), st.integers(0, 30))
def test_a_stream_goes_on_where_it_was(before, after):
    stream = TokenStream(torch.arange(101), 3, 7, seed=2)
    for _ in range(before):
        next(stream)
    other = TokenStream(torch.arange(101), 3, 7, seed=5)
    other.load_state_dict(stream.state_dict())
    for _ in range(after):
        assert all(map(torch.equal, next(stream), next(other)))


def test_epochs_differ_in_order_and_offset():
    stream = TokenStream(torch.arange(400), 2, 20)
    steps = stream.batches.n // 2
    epochs = [torch.cat([next(stream)[0][:, 0] for _ in range(steps)]) for _ in range(3)]
    assert len({tuple((e % 20).unique().tolist()) for e in epochs}) > 1
    assert all(len((e % 20).unique()) == 1 for e in epochs)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (([1, 2, 3], 1, 1), "one axis"),
        ((torch.zeros(4, 4, dtype=torch.long), 1, 1), "one axis"),
        ((torch.zeros(9), 1, 1), "one axis"),
        ((torch.arange(9), 0, 1), "at least 1"),
        ((torch.arange(9), 1, 0), "at least 1"),
        ((torch.arange(9), 1, 9), "do not fill"),
        ((torch.arange(9), 5, 2), "do not fill"),
    ],
)
def test_streams_refuse(arguments, match):
    with pytest.raises(ValueError, match=match):
        TokenStream(*arguments)


def test_states_of_other_streams_are_refused():
    stream = TokenStream(torch.arange(100), 2, 5)
    for state, match in [
        ({}, "not the state"),
        (TokenStream(torch.arange(99), 2, 5).state_dict(), "99 ids"),
        (TokenStream(torch.arange(100), 2, 4).state_dict(), "windows of 4"),
        (TokenStream(torch.arange(100), 3, 5).state_dict(), "batches of 3"),
    ]:
        with pytest.raises(ValueError, match=match):
            stream.load_state_dict(state)


@few
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 3))
def test_costs_equal_one_token_at_a_time(n, stride, batch):
    model, text = tiny(std=0.5), ids(n, seed=n)
    found = token_costs(model, text, stride, batch)
    assert found.shape == (n,) and math.isclose(found[0], math.log(17))
    T = 8
    for i in range(1, n):
        # the first window scores T tokens; then each window of T + 1 tokens ends after `stride` new ones
        if i <= T:
            start = 0
        else:
            end = min(T + 1 + stride * math.ceil((i - T) / stride), n)
            start = end - T - 1
        with torch.no_grad():
            logits = model(text[None, start:i])[0, -1]
        assert math.isclose(found[i], cross_entropy(logits, text[i]), abs_tol=1e-4)
        assert i - start >= min(i, T + 1 - stride)


def test_bits_per_byte_adds_up_and_leaves_the_mode():
    model = tiny(std=0.5, dropout=0.3)
    text = ids(50)
    bits = bits_per_byte(model, text, 120)
    assert model.training and math.isclose(bits * 120 * math.log(2), token_costs(model, text).sum())
    assert bits == bits_per_byte(model.eval(), text.int(), 120) and not model.training
    assert math.isclose(bits_per_byte(tiny(std=1e-9), text, 50), math.log2(17), abs_tol=1e-5)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: token_costs(tiny(), ids(9)[None]), "one axis"),
        (lambda: token_costs(tiny(), ids(0)), "not empty"),
        (lambda: token_costs(tiny(), torch.zeros(5)), "integers"),
        (lambda: token_costs(tiny(), ids(9), 0), "stride"),
        (lambda: token_costs(tiny(), ids(9), 9), "context 8"),
        (lambda: bits_per_byte(tiny(), ids(9), 0), "at least one byte"),
    ],
)
def test_scores_refuse(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_decay_is_for_matrices_only():
    model = tiny()
    matrices, vectors = optimizer_for(model, Recipe(10, warmup=2, decay=0.3)).param_groups
    assert matrices["weight_decay"] == 0.3 and vectors["weight_decay"] == 0
    assert all(p.ndim > 1 for p in matrices["params"]) and all(p.ndim == 1 for p in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_training_equals_a_plain_loop():
    recipe = Recipe(12, peak=1e-2, warmup=3, clip=0.5)
    model, twin = tiny(), tiny()
    seen = []
    log = train(model, TokenStream(ids(300), 4, 8), recipe, watch=seen.append)
    named = list(twin.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    stream = TokenStream(ids(300), 4, 8)
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, 1e-2, 12, 3, 1e-3)
        x, y = next(stream)
        loss = cross_entropy(twin(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
        assert math.isclose(log["loss"][step], loss.item(), rel_tol=1e-4)
    assert seen == list(range(1, 13)) and len(log["norm"]) == 12
    for a, b in zip(model.parameters(), twin.parameters()):
        assert torch.allclose(a, b, atol=1e-4)


@few
@given(stop=st.integers(1, 19), every=st.integers(1, 7))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path_factory, stop, every):
    folder, recipe = tmp_path_factory.mktemp("run"), Recipe(20, warmup=4)

    class Killed(Exception):
        pass

    def die(step):
        if step == stop:
            raise Killed

    def run(name, watch=None):
        torch.manual_seed(0)
        model = tiny(dropout=0.2)
        return train(model, TokenStream(ids(300), 2, 8), recipe, folder / name, every, watch), model

    log, model = run("whole")
    with pytest.raises(Killed):
        run("broken", die)
    again, other = run("broken")
    assert again == log and encode_state(model.state_dict()) == encode_state(other.state_dict())
    assert (folder / "whole").read_bytes() == (folder / "broken").read_bytes()
    assert run("broken")[0] == log  # finished: nothing is left to do


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    path = tmp_path / "run"
    train(tiny(), TokenStream(ids(300), 2, 8), Recipe(3, warmup=1), path)
    with pytest.raises(ValueError, match="another recipe"):
        train(tiny(), TokenStream(ids(300), 2, 8), Recipe(4, warmup=1), path)
    with pytest.raises(ValueError, match="batches of 2"):
        train(tiny(), TokenStream(ids(300), 3, 8), Recipe(3, warmup=1), path)
    save_checkpoint(path, {"something": 1})
    with pytest.raises(CheckpointError, match="not the checkpoint"):
        train(tiny(), TokenStream(ids(300), 2, 8), Recipe(3, warmup=1), path)


def test_clip_none_does_not_clip():
    free = train(tiny(std=1.0), TokenStream(ids(300), 2, 8), Recipe(3, warmup=1, clip=None))
    tight = train(tiny(std=1.0), TokenStream(ids(300), 2, 8), Recipe(3, warmup=1, clip=1e-3))
    assert free["norm"][0] == tight["norm"][0] and free["loss"][2] != tight["loss"][2]


@pytest.mark.parametrize(
    "settings_, match",
    [
        ({"steps": 0}, "steps"),
        ({"steps": 5, "warmup": 5}, "warmup"),
        ({"steps": 50, "peak": -1.0}, "peak"),
        ({"steps": 50, "floor": 2.0}, "floor"),
        ({"steps": 50, "clip": 0.0}, "clip"),
    ],
)
def test_recipes_refuse(settings_, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings_)


def test_every_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="every"):
        train(tiny(), TokenStream(ids(300), 2, 8), Recipe(3, warmup=1), tmp_path / "run", every=0)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_comes_back(tmp_path, monkeypatch, tied):
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path))
    with pytest.raises(artifacts.ArtifactError):
        load_pretrained()
    text = "in the beginning was the word, and the word was with God"
    merges = train_bpe(text, 20)
    model = tiny(vocabulary=len(tokenizer_of(merges)), tied=tied)
    save_pretrained(model, merges)
    loaded, tokenizer = load_pretrained()
    assert not loaded.training and dataclasses.asdict(loaded.config) == dataclasses.asdict(model.config)
    assert (loaded.head.weight is loaded.tokens.weight) == tied
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert encode_state(loaded.state_dict()) == encode_state(model.state_dict())


def test_decay_pulls_on_matrices_and_leaves_vectors_alone():
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer_for(model, Recipe(100, decay=0.5)).param_groups
    assert sum(len(g["params"]) for g in groups) == len(names)
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.5}
    assert all(g["weight_decay"] == 0 for g in optimizer_for(model, Recipe(100, decay=0.0)).param_groups)


def test_what_is_saved_with_other_merges_is_another_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path))
    for merges, n in (([], 3), ([(b"t", b"h"), (b"th", b"e")], 1)):
        save_pretrained(tiny(vocabulary=len(tokenizer_of(merges))), merges)
        assert len(load_pretrained()[1].encode("the")) == n
    assert [len(text) > 0 for text in split()] == [True] * 3
