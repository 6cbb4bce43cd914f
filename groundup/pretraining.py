# Generated from chapters/language/pretraining.md; edit the chapter.
"""Pretraining. You train a GPT from random weights on the King James Bible, in under a minute of
one processor. On text that it never saw it costs fewer bits per byte than the interpolated
order-5 model of Information, and a run that is killed and resumed ends with the same weights,
bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from groundup import artifacts
from groundup.datasets import king_james
from groundup.optimization import warmup_cosine
from groundup.tokenization import Tokenizer, byte_ids
from groundup.training import (
    Batches,
    CheckpointError,
    load_checkpoint,
    previous_generation,
    save_checkpoint,
)
from groundup.transformer import GPT, GPTConfig

__all__ = [
    "split",
    "tokenizer_of",
    "TokenStream",
    "token_costs",
    "bits_per_byte",
    "Recipe",
    "optimizer_for",
    "train",
    "save_pretrained",
    "load_pretrained",
]


def split() -> tuple[str, str, str]:
    """The King James Bible in three: all but the last 400 kB to train, 200 kB each for
    validation and test.
    """
    data = king_james().encode()
    parts = data[:-400_000], data[-400_000:-200_000], data[-200_000:]
    return tuple(part.decode() for part in parts)


def tokenizer_of(merges: Sequence[tuple[bytes, bytes]]) -> Tokenizer:
    """The tokenizer with these merges of :func:`groundup.tokenization.train_bpe`."""
    ranks = byte_ids()
    for a, b in merges:
        ranks.setdefault(a + b, len(ranks))
    return Tokenizer(ranks)


class TokenStream:
    """Endless batches (x, y) of windows of a long text: y is x moved on by one token.

    x and y are int64 (batch, time). Each epoch cuts `ids` into windows that do not overlap, at an
    offset of its own, and gives them out in an order of its own; what does not fill a batch is
    left out. Both follow from (seed, epoch), so the state is a few integers.

    Raises ValueError for ids that are not one axis of integers or do not fill one batch.
    """

    def __init__(self, ids: torch.Tensor, batch: int, time: int, seed: int = 0):
        if not torch.is_tensor(ids) or ids.ndim != 1 or ids.dtype not in (torch.int32, torch.int64):
            raise ValueError("ids must be a tensor of one axis, int32 or int64")
        if batch < 1 or time < 1:
            raise ValueError(f"batch and time must be at least 1: {batch}, {time}")
        windows = (len(ids) - time) // time  # the offset, up to time − 1, and the last target fit
        if windows < batch:
            raise ValueError(f"{len(ids)} ids do not fill {batch} windows of {time} + 1")
        self.ids, self.time = ids.long(), time
        self.batches = Batches(windows // batch * batch, batch, seed)

    def __iter__(self):
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        key = self.batches.seed, self.batches.epoch, 1
        offset = int(np.random.default_rng(key).integers(self.time))
        start = next(self.batches) * self.time + offset
        window = self.ids[start[:, None] + torch.arange(self.time + 1)]  # (batch, time + 1)
        return window[:, :-1], window[:, 1:]

    def state_dict(self) -> dict[str, int]:
        """Where the stream is; the sizes are there to be compared."""
        return {"ids": len(self.ids), "time": self.time} | self.batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was called. ValueError for the state of another stream."""
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(f"not the state of a TokenStream: {sorted(state)}")
        if (state["ids"], state["time"]) != (mine["ids"], mine["time"]):
            raise ValueError(
                f"state of {state['ids']} ids in windows of {state['time']}, "
                f"but these are {mine['ids']} in {mine['time']}"
            )
        self.batches.load_state_dict({k: v for k, v in state.items() if k not in ("ids", "time")})


def token_costs(
    model: nn.Module, ids: torch.Tensor, stride: int | None = None, batch: int = 16
) -> torch.Tensor:
    """Nats (n,) that `model` pays for each token of a long text `ids` (n,), as float64.

    A window of the model's context moves on by `stride` tokens (half the context if None), and
    only what is new in it counts: each token has at least context − stride before it, or all
    there are. The first, which nothing predicts, costs ln of the vocabulary. Raises ValueError
    for ids that are not one axis of integers, or a stride outside 1 … context.
    """
    T, V = model.config.context, model.config.vocabulary
    stride = T // 2 or 1 if stride is None else stride
    if not torch.is_tensor(ids) or ids.ndim != 1 or not len(ids) or ids.is_floating_point():
        raise ValueError("ids must be a tensor of one axis of integers, and not empty")
    if not 1 <= stride <= T:
        raise ValueError(f"the stride must be from 1 to the context {T}, not {stride}")
    was, ids = model.training, ids.long()
    model.eval()

    @torch.no_grad()
    def cost(rows: torch.Tensor, new: int) -> torch.Tensor:
        """Nats of the last `new` tokens of each row."""
        logits = model(rows[:, :-1])[:, -new:]
        nats = F.cross_entropy(logits.flatten(0, 1), rows[:, -new:].flatten(), reduction="none")
        return nats.double()

    costs = [torch.full((1,), math.log(V), dtype=torch.float64)]
    done = min(len(ids), T + 1)  # the first window
    if done > 1:
        costs.append(cost(ids[None, :done], done - 1))
    whole = (len(ids) - done) // stride
    starts = done + stride * torch.arange(1, whole + 1) - (T + 1)
    for some in starts.split(batch) if whole else ():
        costs.append(cost(ids[some[:, None] + torch.arange(T + 1)], stride))
    if rest := len(ids) - done - whole * stride:
        costs.append(cost(ids[None, -(T + 1) :], rest))
    model.train(was)
    return torch.cat(costs)


def bits_per_byte(
    model: nn.Module, ids: torch.Tensor, n_bytes: int, stride: int | None = None, batch: int = 16
) -> float:
    """Bits per byte of a text of `n_bytes` bytes with tokens `ids` (:func:`token_costs`).

    Raises ValueError also for n_bytes below 1.
    """
    if n_bytes < 1:
        raise ValueError(f"a text has at least one byte, not {n_bytes}")
    return token_costs(model, ids, stride, batch).sum().item() / math.log(2) / n_bytes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: `peak` learning rate after `warmup` steps, falling to `floor` · peak.

    decay : weight decay of the matrices; biases and norms have none
    clip : longest gradient, None for any; betas : of AdamW

    Raises ValueError for settings that cannot be run.
    """

    steps: int
    peak: float = 6e-3
    warmup: int = 40
    floor: float = 0.1
    decay: float = 0.1
    clip: float | None = 1.0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self):
        if self.steps < 1 or not 0 <= self.warmup < self.steps:
            raise ValueError(f"need steps ≥ 1 and warmup from 0 to below steps: {self}")
        if not (0 < self.peak < math.inf and 0 <= self.floor <= 1 and self.decay >= 0):
            raise ValueError(f"need peak > 0, floor from 0 to 1 and decay ≥ 0: {self}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is above 0, or None: {self}")

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …"""
        return warmup_cosine(step, self.peak, self.steps, self.warmup, self.floor * self.peak)


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that shrinks matrices and tables, not biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak, betas=recipe.betas, fused=True)


def train(
    model: nn.Module,
    stream: TokenStream,
    recipe: Recipe,
    checkpoint: str | Path | None = None,
    every: int = 100,
    watch: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Train `model` in place; returns {"loss", "norm"}: nats per token and gradient, by step.

    checkpoint : a file, saved each `every` steps and at the end. If it is there, the run goes on
        from it, and what it returns includes the steps before
    watch : called with the number of steps done, after each

    Raises ValueError for a checkpoint of another recipe or stream, or every < 1, and
    CheckpointError for a file of something else, or without a whole checkpoint.
    """
    if every < 1:
        raise ValueError(f"every is a number of steps above 0, not {every}")
    optimizer, log = optimizer_for(model, recipe), {"loss": [], "norm": []}
    step, settings = 0, dataclasses.asdict(recipe) | {"betas": list(recipe.betas)}
    if checkpoint and (Path(checkpoint).exists() or previous_generation(checkpoint).exists()):
        state = load_checkpoint(checkpoint)
        if not isinstance(state, dict) or "recipe" not in state:
            raise CheckpointError(f"{checkpoint} is not the checkpoint of a run of `train`")
        if state["recipe"] != settings:
            raise ValueError(f"the checkpoint is of another recipe: {state['recipe']}")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        stream.load_state_dict(state["stream"])
        torch.set_rng_state(state["rng"])  # dropout draws from it
        step, log = state["step"], state["log"]
    model.train()
    for step in range(step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        x, y = next(stream)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
        optimizer.step()
        log["loss"].append(loss.item())
        log["norm"].append(norm.item())
        if checkpoint and ((step + 1) % every == 0 or step + 1 == recipe.steps):
            save_checkpoint(checkpoint, {
                "recipe": settings, "step": step + 1, "log": log, "rng": torch.get_rng_state(),
                "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "stream": stream.state_dict(),
            })  # fmt: skip
        if watch:
            watch(step + 1)
    return log


def save_pretrained(model: GPT, merges: Sequence[tuple[bytes, bytes]]) -> None:
    """Keep a model and its tokenizer as the artifacts `kjv-gpt` and `kjv-gpt-setup`."""
    tensors = model.state_dict()
    if model.config.tied:
        del tensors["head.weight"]  # the same tensor as tokens.weight
    artifacts.save("kjv-gpt", tensors)
    config = dataclasses.asdict(model.config)
    pairs = [[a.hex(), b.hex()] for a, b in merges]
    artifacts.save("kjv-gpt-setup", {"config": config, "merges": pairs})


def load_pretrained() -> tuple[GPT, Tokenizer]:
    """The model that this chapter trains, in evaluation mode, and its tokenizer.

    Raises groundup.artifacts.ArtifactError when the chapter has not been run.
    """
    setup, tensors = artifacts.load("kjv-gpt-setup"), artifacts.load("kjv-gpt")
    model = GPT(GPTConfig(**setup["config"]))
    if model.config.tied:
        tensors["head.weight"] = tensors["tokens.weight"]
    model.load_state_dict(tensors)
    merges = [(bytes.fromhex(a), bytes.fromhex(b)) for a, b in setup["merges"]]
    return model.eval(), tokenizer_of(merges)
