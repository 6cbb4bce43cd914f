# Generated from chapters/language/transformer.md; edit the chapter.
"""Transformer. You build GPT-2. It loads weights in Hugging Face's format and gives the same
logits to $10^{-5}$; trained from scratch on a source whose entropy is known, it comes within
0.1 nats of what the best predictor pays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from groundup.attention import MultiHeadAttention, causal_mask
from groundup.training import Dropout, LayerNorm

__all__ = [
    "GPTConfig",
    "gelu",
    "FeedForward",
    "Block",
    "GPT",
    "NAMES",
    "load_gpt2",
    "count_parameters",
    "forward_flops",
]


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT-2. Raises ValueError for sizes that cannot be built.

    vocabulary : number of token ids; context : most positions a sequence may have
    width : features of the residual stream; heads must divide it; layers : blocks
    dropout : share of entries dropped in training, after the embedding and each sub-layer
    hidden : units of the feed-forward layers, 4 · width if None
    eps : of the layer norms; std : of the initial weights
    tied : the head uses the weights of the token embedding
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    dropout: float = 0.0
    hidden: int | None = None
    eps: float = 1e-5
    std: float = 0.02
    tied: bool = True

    def __post_init__(self):
        sizes = self.vocabulary, self.context, self.width, self.layers, self.heads, self.inner
        if any(not isinstance(n, int) or n < 1 for n in sizes):
            raise ValueError(f"every size is a whole number above 0: {self}")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if not (0 <= self.dropout < 1 and self.std > 0 and self.eps >= 0):
            raise ValueError(f"need 0 ≤ dropout < 1, std > 0 and eps ≥ 0: {self}")

    @property
    def inner(self) -> int:
        """Units of a feed-forward layer."""
        return 4 * self.width if self.hidden is None else self.hidden


def gelu(x: torch.Tensor) -> torch.Tensor:
    """x · Φ(x), Φ by tanh; entry by entry. Source: Hendrycks & Gimpel (2016), section 2."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class FeedForward(nn.Module):
    """Two layers with a GELU between, each position by itself: (..., width) -> (..., width)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))  # = gelu above


class Block(nn.Module):
    """One layer of GPT-2, pre-norm: (batch, time, width) -> (batch, time, width).

    mask is boolean, (time, keys), True = may look; cache as in MultiHeadAttention.
    Source: Radford et al. (2019), section 2.3.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.attention_norm = LayerNorm(config.width, config.eps)
        self.attention = MultiHeadAttention(config.width, config.heads)
        self.feed_norm = LayerNorm(config.width, config.eps)
        self.feed = FeedForward(config.width, config.inner)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, cache=None
    ) -> torch.Tensor:
        x = x + self.drop(self.attention(self.attention_norm(x), mask=mask, cache=cache))
        return x + self.drop(self.feed(self.feed_norm(x)))


class GPT(nn.Module):
    """GPT-2: ids (batch, time) -> logits (batch, time, vocabulary) for the token that follows.

    config : its sizes
    generator : draws the initial weights, on its own device; else torch's global generator
    block : makes a layer from the config

    Raises ValueError for ids that are not integers of two axes, lie outside the vocabulary,
    or are longer than the context. Looking at their values waits for the device.
    Source: Radford et al. (2019), section 2.3.
    """

    def __init__(
        self,
        config: GPTConfig,
        generator: torch.Generator | None = None,
        block: Callable[[GPTConfig], nn.Module] = Block,
    ):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.tokens.weight
        self.initialise(generator)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Weights from N(0, std²), those that write to the stream from N(0, std²/(2·layers))."""
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif "norm" not in name:
                writes = name.endswith(("attention.output.weight", "feed.down.weight"))
                std = self.config.std / math.sqrt(2 * self.config.layers if writes else 1)
                where = p.device if generator is None else generator.device
                drawn = torch.empty(p.shape, dtype=p.dtype, device=where)
                p.data.copy_(drawn.normal_(0, std, generator=generator))

    def stream(self, ids: torch.Tensor, caches=None) -> Iterator[torch.Tensor]:
        """The residual stream (batch, time, width): as embedded, then after each block.

        caches: one per block, with `length` and `append` (see MultiHeadAttention): ids then
        follow the `length` positions that the caches hold.
        """
        start = caches[0].length if caches else 0
        stop = self._check(ids, start)
        x = self.drop(self.tokens(ids) + self.positions.weight[start:stop])
        yield x
        mask = causal_mask(stop, ids.device)[start:]
        for i, block in enumerate(self.blocks):
            x = block(x, mask, caches[i]) if caches else block(x, mask)
            yield x

    def forward(self, ids: torch.Tensor, caches=None) -> torch.Tensor:
        for x in self.stream(ids, caches):
            pass  # the last one counts
        return self.head(self.norm(x))

    def _check(self, ids: torch.Tensor, start: int) -> int:
        if not torch.is_tensor(ids) or ids.dtype not in (torch.int32, torch.int64):
            what = ids.dtype if torch.is_tensor(ids) else type(ids).__name__
            raise ValueError(f"ids must be a tensor of int32 or int64, not {what}")
        if ids.ndim != 2 or not ids.numel():
            raise ValueError(f"ids must be (batch, time) and not empty, got {tuple(ids.shape)}")
        stop = start + ids.shape[1]
        if stop > self.config.context:
            raise ValueError(f"{stop} positions, but the context is {self.config.context}")
        if not ids.is_meta and not 0 <= ids.min() <= ids.max() < self.config.vocabulary:
            raise ValueError(
                f"ids from {ids.min()} to {ids.max()}, but the vocabulary is 0 to "
                f"{self.config.vocabulary - 1}"
            )
        return stop


NAMES = {  # Hugging Face's name -> ours
    "wte": ("tokens",),
    "wpe": ("positions",),
    "ln_1": ("attention_norm",),
    "attn.c_attn": ("attention.query", "attention.key", "attention.value"),
    "attn.c_proj": ("attention.output",),
    "ln_2": ("feed_norm",),
    "mlp.c_fc": ("feed.up",),
    "mlp.c_proj": ("feed.down",),
    "ln_f": ("norm",),
}


def load_gpt2(source: nn.Module | Mapping[str, torch.Tensor], heads: int | None = None) -> GPT:
    """A GPT with the weights of Hugging Face's GPT2LMHeadModel or GPT2Model, in evaluation mode.

    source : such a model, or its state dict with or without the prefix "transformer."
    heads : needed with a state dict, whose shapes do not tell; a model knows its own

    Weights are copied; dropout is 0. Raises ValueError for tensors that are missing, unknown
    or do not fit, and for variants of GPT-2 that GPT does not build.
    """
    eps = 1e-5
    if isinstance(source, nn.Module):
        theirs, source = source.config, source.state_dict()
        heads, eps = theirs.n_head, theirs.layer_norm_epsilon
        if theirs.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
            raise ValueError(f"GPT has the tanh form of GELU, not {theirs.activation_function}")
        if not theirs.scale_attn_weights or theirs.scale_attn_by_inverse_layer_idx:
            raise ValueError("GPT divides the scores by √(width / heads) and by nothing else")
    if heads is None:
        raise ValueError("the shapes do not tell the number of heads: give `heads`")
    state = {key.removeprefix("transformer."): t for key, t in source.items()}
    if missing := {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.bias"} - state.keys():
        raise ValueError(f"not the weights of a GPT-2: {min(missing)} is missing")
    tokens = state["wte.weight"]
    head = state.pop("lm_head.weight", tokens)
    loaded, layers = {"head.weight": head}, 0
    for key, t in state.items():
        if key.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # causal masks, which older files hold
        match = re.fullmatch(r"(?:h\.(\d+)\.)?(.+)\.(weight|bias)", key)
        if not match or match[2] not in NAMES:
            raise ValueError(f"GPT-2 has no {key}")
        layer, part, kind = match.groups()
        if layer:
            layers = max(layers, int(layer) + 1)
        if kind == "weight" and part.startswith(("attn", "mlp")):
            t = t.T  # (inputs, outputs) there, (outputs, inputs) here
        for name, piece in zip(NAMES[part], t.chunk(len(NAMES[part]))):
            loaded[(f"blocks.{layer}." if layer else "") + f"{name}.{kind}"] = piece
    config = GPTConfig(
        len(tokens), len(state["wpe.weight"]), tokens.shape[1], layers, heads,
        hidden=len(state["h.0.mlp.c_fc.bias"]), eps=eps, tied=torch.equal(head, tokens),
    )  # fmt: skip
    model = GPT(config).to(tokens.device, tokens.dtype).eval()
    try:
        model.load_state_dict(loaded)
    except RuntimeError as error:
        raise ValueError(f"these tensors do not fit together: {error}") from None
    return model


def count_parameters(config: GPTConfig) -> int:
    """Parameters of GPT(config), shared ones counted once."""
    d, h = config.width, config.inner
    block = 4 * (d * d + d) + (2 * d * h + h + d) + 2 * 2 * d
    embeddings = (config.vocabulary * (1 if config.tied else 2) + config.context) * d
    return embeddings + config.layers * block + 2 * d


def forward_flops(config: GPTConfig, batch: int, time: int) -> int:
    """FLOPs of the matrix products in one forward pass of `batch` sequences of `time` tokens.

    A multiplication and an addition are 2; what the causal mask throws away is included. The
    backward pass takes twice as many. Raises ValueError for a time beyond the context.
    """
    if batch < 1 or not 1 <= time <= config.context:
        raise ValueError(f"need batch ≥ 1 and 1 ≤ time ≤ {config.context}: {batch}, {time}")
    d, h, tokens = config.width, config.inner, batch * time
    block = 8 * d * d + 4 * d * h + 4 * time * d
    return tokens * (config.layers * block + 2 * d * config.vocabulary)
