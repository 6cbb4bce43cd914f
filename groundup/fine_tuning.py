# Generated from chapters/post-training/fine-tuning.md; edit the chapter.
"""Fine-tuning. You turn a model that continues the King James Bible into one that answers requests
with commands, exactly right on at least 95 % of held-out requests. Then you adapt it again by
training less than a tenth of its numbers, and show that this LoRA equals `peft`'s.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from groundup.decoding import greedy, new_caches
from groundup.tokenization import Tokenizer
from groundup.training import Dropout

__all__ = [
    "REQUEST",
    "ANSWER",
    "END",
    "IGNORE",
    "format_prompt",
    "format_example",
    "renew_markers",
    "collate",
    "masked_loss",
    "answers",
    "exact_match",
    "LoRALinear",
    "add_lora",
    "adapters_of",
    "lora_parameters",
    "merge_lora",
    "unmerge_lora",
]

REQUEST, ANSWER, END = b"\xfd", b"\xfe", b"\xff"  # bytes that no UTF-8 text contains
IGNORE = -100  # a target that is not trained, as in F.cross_entropy


def format_prompt(request: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of REQUEST, the request, ANSWER: what a server feeds. ValueError if it is empty."""
    if not request.strip():
        raise ValueError("the request is empty")
    middle = tokenizer.encode_ordinary(" " + request.strip())
    return [tokenizer.ranks[REQUEST], *middle, tokenizer.ranks[ANSWER]]


def format_example(request: str, answer: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Ids of the prompt, the answer and END, and the position where the answer starts.

    Raises ValueError for an empty request or answer.
    """
    if not answer.strip():
        raise ValueError(f"the answer to {request!r} is empty")
    prompt = format_prompt(request, tokenizer)
    ids = tokenizer.encode_ordinary(" " + answer.strip())
    return [*prompt, *ids, tokenizer.ranks[END]], len(prompt)


@torch.no_grad
def renew_markers(model: nn.Module, tokenizer: Tokenizer, generator: torch.Generator) -> None:
    """Draw the markers' rows of `model.tokens` from N(mean, std²) of its columns, in place."""
    table = model.tokens.weight  # (vocabulary, width)
    rows = [tokenizer.ranks[byte] for byte in (REQUEST, ANSWER, END)]
    noise = torch.randn(3, table.shape[1], generator=generator, device=generator.device)
    table[rows] = table.mean(0) + table.std(0) * noise.to(table)


def collate(
    examples: Sequence[tuple[str, str]], tokenizer: Tokenizer, context: int, masked: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and targets, int64 (batch, time), for (request, answer) pairs.

    targets[:, t] is the token after ids[:, t] where that belongs to the answer or is END, and
    IGNORE elsewhere; masked=False trains the request as well. Rows are padded with END.
    Raises ValueError for no examples, empty texts, and examples longer than the context.
    """
    if not examples:
        raise ValueError("a batch needs at least one example")
    rows = [format_example(request, answer, tokenizer) for request, answer in examples]
    time = max(len(row) for row, _ in rows) - 1
    if time > context:
        raise ValueError(f"an example feeds {time} tokens, but the context is {context}")
    ids = torch.full((len(rows), time), tokenizer.ranks[END])
    targets = torch.full((len(rows), time), IGNORE)
    for i, (row, start) in enumerate(rows):
        n, first = len(row) - 1, start - 1 if masked else 0
        ids[i, :n] = torch.tensor(row[:-1])
        targets[i, first:n] = torch.tensor(row[first + 1 :])
    return ids, targets


def masked_loss(model: nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the targets that are not IGNORE.

    ids and targets are int64 (batch, time). The head runs only where there is a target; `model`
    has `stream`, `norm` and `head`. Raises ValueError when the shapes differ, or when nothing
    is to be trained.
    """
    if ids.shape != targets.shape:
        raise ValueError(f"ids are {tuple(ids.shape)}, targets {tuple(targets.shape)}")
    counts = targets != IGNORE
    if not counts.any():
        raise ValueError("every target is IGNORE: the mean over nothing is undefined")
    *_, x = model.stream(ids)  # (batch, time, width)
    return F.cross_entropy(model.head(model.norm(x[counts])), targets[counts])


@torch.no_grad
def answers(
    model: nn.Module, tokenizer: Tokenizer, requests: Sequence[str], limit: int = 10
) -> list[str | None]:
    """The greedy answer to each request; None where no END comes within `limit` tokens.

    Put the model into evaluation mode first. Raises ValueError for an empty request, and when
    prompt and `limit` exceed the context.
    """
    prompts = [format_prompt(request, tokenizer) for request in requests]
    if prompts and max(map(len, prompts)) + limit > model.config.context:
        raise ValueError(f"a prompt and {limit} tokens exceed the context {model.config.context}")
    found, groups = [None] * len(prompts), defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[len(prompt)].append(i)
    end, device = tokenizer.ranks[END], model.tokens.weight.device
    for members in groups.values():
        caches, written = new_caches(model), []
        ids = torch.tensor([prompts[i] for i in members], device=device)
        ended = torch.zeros(len(members), 1, dtype=torch.bool, device=device)
        while len(written) < limit and not ended.all():
            ids = greedy(model(ids, caches)[:, -1])[:, None]
            written.append(ids)
            ended |= ids == end
        for i, row in zip(members, torch.cat(written, 1).tolist()):
            if end in row:
                found[i] = tokenizer.decode(row[: row.index(end)]).strip()
    return found


def exact_match(
    model: nn.Module, tokenizer: Tokenizer, items: Sequence[tuple[str, str]], limit: int = 10
) -> int:
    """How many of the (request, answer) items `answers` gets exactly right."""
    given = answers(model, tokenizer, [request for request, _ in items], limit)
    return sum(text == answer.strip() for text, (_, answer) in zip(given, items))


class LoRALinear(nn.Module):
    """A frozen linear layer plus (alpha / rank) · B A: (..., inputs) -> (..., outputs).

    linear : the layer, which is kept as `base` and frozen; rank : from 1 to its smaller side
    alpha : scale of the change; dropout : share of the adapter's inputs dropped in training
    generator : draws A from U(-1/√inputs, 1/√inputs); B starts at 0

    Raises ValueError for another layer, a rank that does not fit, and alpha ≤ 0.
    Source: Hu et al. (2022), section 4.1, where A is Gaussian; the uniform is that of `peft`.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"an adapter goes on an nn.Linear, not on {type(linear).__name__}")
        most = min(linear.in_features, linear.out_features)
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"the rank of this layer's adapter is from 1 to {most}, not {rank}")
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, not {alpha}")
        self.base, weight = linear.requires_grad_(False), linear.weight
        self.A = nn.Parameter(weight.new_empty(rank, linear.in_features))
        self.B = nn.Parameter(weight.new_zeros(linear.out_features, rank))
        bound = 1 / math.sqrt(linear.in_features)
        nn.init.uniform_(self.A, -bound, bound, generator=generator)
        self.scale, self.merged, self.drop = alpha / rank, False, Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if self.merged:
            return y
        return y + self.scale * F.linear(F.linear(self.drop(x), self.A), self.B)

    @torch.no_grad
    def change(self) -> torch.Tensor:
        """(alpha / rank) · B A, the shape of the base's weight."""
        return self.scale * self.B @ self.A


def add_lora(
    model: nn.Module,
    names: Sequence[str],
    rank: int,
    alpha: float,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Freeze `model` and put an adapter on each linear layer that `names` selects.

    A name selects the layers whose dotted name ends with it. Changes the model in place and
    returns it. Raises ValueError for a name that ends no linear layer, and for a layer that has
    an adapter already; the model is then as it was.
    """
    found, modules = {}, dict(model.named_modules())
    for name in names:
        hits = [n for n in modules if n == name or n.endswith("." + name)]
        if any(isinstance(modules[n], LoRALinear) for n in hits):
            raise ValueError(f"{name!r} has an adapter already: merge it, or start from the base")
        hits = [n for n in hits if isinstance(modules[n], nn.Linear)]
        if not hits:
            raise ValueError(f"no linear layer is called {name!r}")
        found |= dict.fromkeys(hits)
    ordered = [n for n in modules if n in found]
    frozen = {p: p.requires_grad for p in model.parameters()}
    try:
        adapters = {n: LoRALinear(modules[n], rank, alpha, 0.0, generator) for n in ordered}
    except ValueError:
        for p, flag in frozen.items():
            p.requires_grad_(flag)
        raise
    model.requires_grad_(False)
    for name, adapter in adapters.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, adapter)
    return model


def adapters_of(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapters of a model by dotted name. ValueError if it has none."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    if not found:
        raise ValueError("the model has no adapter: call add_lora first")
    return found


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What an adapter file holds: "layer.A" (rank, inputs) and "layer.B" (outputs, rank)."""
    layers = adapters_of(model).items()
    return {f"{n}.{k}": getattr(layer, k) for n, layer in layers for k in ("A", "B")}


@torch.no_grad
def merge_lora(model: nn.Module) -> nn.Module:
    """Add each adapter's change to its base weight, in place. ValueError if one is merged."""
    layers = adapters_of(model).values()
    if any(layer.merged for layer in layers):
        raise ValueError("merged already: a second time would add the change twice")
    for layer in layers:
        layer.base.weight += layer.change()
        layer.merged = True
    return model


@torch.no_grad
def unmerge_lora(model: nn.Module) -> nn.Module:
    """Undo `merge_lora`, up to rounding. ValueError if an adapter is not merged."""
    layers = adapters_of(model).values()
    if not all(layer.merged for layer in layers):
        raise ValueError("not merged: there is nothing to take out")
    for layer in layers:
        layer.base.weight -= layer.change()
        layer.merged = False
    return model
