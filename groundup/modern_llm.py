# Generated from chapters/language/modern-llm.md; edit the chapter.
"""Modern LLM. You change GPT-2 into Llama, five changes one after the other. At the end your model
loads weights in Hugging Face's format, and its logits and gradients are those of
`LlamaForCausalLM`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from groundup.training import RMSNorm
from groundup.transformer import GPT

__all__ = [
    "LlamaConfig",
    "rotary_table",
    "rotate",
    "interleaved_to_halves",
    "SwiGLU",
    "LlamaBlock",
    "GroupedQueryAttention",
    "Llama",
    "LLAMA_NAMES",
    "read_llama_config",
    "load_llama",
    "count_llama_parameters",
    "kv_cache_bytes",
]


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama. Raises ValueError for sizes that cannot be built.

    vocabulary : number of token ids; context : most positions a sequence may have
    width : features of the residual stream; layers : blocks
    heads : query heads of a layer; kv_heads : its key and value heads, which divide heads
    hidden : units of the feed-forward layers
    theta : base of the rotary wavelengths; eps : of the norms
    tied : the head uses the weights of the token embedding; std : of the initial weights
    head_width : features of a head, even; width / heads if None (see the property `dim`)
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    theta: float = 10_000.0
    eps: float = 1e-5
    tied: bool = True
    std: float = 0.02
    head_width: int | None = None

    def __post_init__(self):
        sizes = self.vocabulary, self.context, self.width, self.layers, self.heads, self.kv_heads
        if any(not isinstance(n, int) or n < 1 for n in (*sizes, self.hidden)):
            raise ValueError(f"every size is a whole number above 0: {self}")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} key heads do not divide {self.heads} query heads")
        if not isinstance(self.dim, int) or self.dim < 2 or self.dim % 2:
            raise ValueError(f"rotation needs heads of an even width, not {self.dim}")
        if not (self.theta > 0 and self.std > 0 and self.eps >= 0):
            raise ValueError(f"need theta > 0, std > 0 and eps ≥ 0: {self}")

    @property
    def dim(self) -> int:
        """Features of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width


def rotary_table(
    positions: torch.Tensor,
    dim: int,
    theta: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the angles t · theta^(−2i/dim), each (time, dim / 2).

    positions : (time,), whole or not. Computed in float64, on their device, then rounded to
    dtype. Raises ValueError for a dim that is not even and above 0, and theta not above 0.
    Source: Su et al. (2021), eq. 15.
    """
    if dim < 2 or dim % 2 or not theta > 0:
        raise ValueError(f"need an even dim above 0 and theta > 0, not {dim} and {theta}")
    pairs = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device)
    angles = positions.double().unsqueeze(-1) * theta ** (-pairs / dim)  # (time, dim/2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (x[i], x[i + dim/2]) by its angle: (..., time, dim) -> the same.

    cos and sin are (time, dim / 2), see `rotary_table`. Raises ValueError for other shapes.
    """
    if x.ndim < 2 or cos.shape != sin.shape or x.shape[-1] != 2 * cos.shape[-1]:
        shapes = tuple(x.shape), tuple(cos.shape), tuple(sin.shape)
        raise ValueError("x must be (..., time, dim), cos and sin (time, dim/2): %s %s %s" % shapes)
    if cos.ndim != 2 or len(cos) != x.shape[-2]:
        raise ValueError(f"{x.shape[-2]} positions in x, but a table of {tuple(cos.shape)}")
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def interleaved_to_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of W_q or W_k: heads that pair (2i, 2i + 1) then pair (i, i + dim/2).

    weight : (heads · dim, width), or a bias (heads · dim,). Raises ValueError if its first
    axis is not heads times an even number.
    """
    if heads < 1 or weight.ndim < 1 or not len(weight) or len(weight) % (2 * heads):
        raise ValueError(f"{tuple(weight.shape)} is not {heads} heads of an even width")
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), each position by itself: (..., width) -> (..., width).

    Source: Shazeer (2020), eq. 6.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class LlamaBlock(nn.Module):
    """One layer of Llama, pre-norm: (batch, time, width) -> (batch, time, width).

    rotary, mask and cache as in `GroupedQueryAttention`. Source: Touvron et al. (2023).
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.eps)
        self.attention = GroupedQueryAttention(
            config.width, config.heads, config.kv_heads, config.dim
        )
        self.feed_norm = RMSNorm(config.width, config.eps)
        self.feed = SwiGLU(config.width, config.hidden)

    def forward(self, x: torch.Tensor, rotary, mask=None, cache=None) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, mask, cache)
        return x + self.feed(self.feed_norm(x))


class GroupedQueryAttention(nn.Module):
    """Causal self-attention in which heads / kv_heads query heads share a key and value head.

    `forward(x, rotary, mask=None, cache=None)`: x is (batch, time, width); rotary is the
    `rotary_table` of its positions; mask is boolean, (time, keys) or (batch, 1, time, keys),
    True where a query may look. cache, if given, has `append(k, v)`: it takes the new keys,
    rotated, and values, (batch, kv_heads, time, head_width), and returns all those to look at.
    Returns (batch, time, width). Raises ValueError for sizes that do not fit.
    Source: Ainslie et al. (2023), section 2.2.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int):
        super().__init__()
        if min(width, heads, kv_heads) < 1 or heads % kv_heads:
            raise ValueError(f"{kv_heads} key heads do not divide {heads} query heads")
        if head_width < 2 or head_width % 2:
            raise ValueError(f"rotation needs heads of an even width, not {head_width}")
        self.width, self.heads, self.kv_heads, self.head_width = width, heads, kv_heads, head_width
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, kv_heads * head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None = None,
        cache=None,
    ) -> torch.Tensor:
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(f"x must be (batch, time, {self.width}), not {tuple(x.shape)}")
        if mask is not None and mask.ndim == 3:
            raise ValueError("a mask is (time, keys) or (batch, 1, time, keys), not of three axes")
        q = rotate(self._split(self.query(x)), *rotary)  # (batch, heads, time, dim)
        k, v = rotate(self._split(self.key(x)), *rotary), self._split(self.value(x))
        if cache is not None:
            k, v = cache.append(k, v)  # (batch, kv_heads, keys, dim)
        blend = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
        return self.output(blend.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, heads · dim) -> (batch, heads, time, dim)"""
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


class Llama(nn.Module):
    """Llama: ids (batch, time) -> logits (batch, time, vocabulary) for the token that follows.

    config : its sizes
    generator : draws the initial weights, on its own device; else torch's global generator

    Raises ValueError for ids that are not integers of two axes, lie outside the vocabulary,
    or are longer than the context. Looking at their values waits for the device.
    Source: Touvron et al. (2023), section 2.2; with kv_heads < heads the later models.
    """

    initialise, _check = GPT.initialise, GPT._check  # these did not change

    def __init__(self, config: LlamaConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.tokens.weight
        self.initialise(generator)

    def stream(self, ids: torch.Tensor, caches=None) -> Iterator[torch.Tensor]:
        """The residual stream (batch, time, width): as embedded, then after each block.

        caches: one per block, with `length` and `append` (see GroupedQueryAttention): ids then
        follow the `length` positions that the caches hold.
        """
        start = caches[0].length if caches else 0
        stop = self._check(ids, start)
        x = self.tokens(ids)
        yield x
        at = torch.arange(start, stop, device=ids.device)
        rotary = rotary_table(at, self.config.dim, self.config.theta, x.dtype)
        mask = None  # one token may look at everything
        if ids.shape[1] > 1:
            mask = torch.ones(len(at), stop, dtype=torch.bool, device=ids.device).tril(start)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, mask, caches[i] if caches else None)
            yield x

    def forward(self, ids: torch.Tensor, caches=None, last: bool = False) -> torch.Tensor:
        """Logits; with last=True for the last position only, (batch, 1, vocabulary)."""
        for x in self.stream(ids, caches):
            pass  # the last one counts
        return self.head(self.norm(x[:, -1:] if last else x))


LLAMA_NAMES = {  # Hugging Face's name -> ours
    "embed_tokens": "tokens",
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "post_attention_layernorm": "feed_norm",
    "mlp.gate_proj": "feed.gate",
    "mlp.up_proj": "feed.up",
    "mlp.down_proj": "feed.down",
    "norm": "norm",
    "lm_head": "head",
}


def read_llama_config(theirs) -> LlamaConfig:
    """The sizes in a transformers LlamaConfig. Raises ValueError for what Llama does not build."""
    rope = getattr(theirs, "rope_parameters", None) or getattr(theirs, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if theirs.model_type != "llama":
        raise ValueError(f"this is a {theirs.model_type}, not a llama")
    if kind != "default":
        raise ValueError(f"Llama turns by position and nothing else, not with {kind} rope scaling")
    if rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError("Llama turns all features of a head, not a part of them")
    if theirs.attention_bias or theirs.mlp_bias:
        raise ValueError("Llama has no biases; this one sets attention_bias or mlp_bias")
    if theirs.hidden_act not in ("silu", "swish"):
        raise ValueError(f"the gate of Llama is silu, not {theirs.hidden_act}")
    usual = theirs.head_dim * theirs.num_attention_heads == theirs.hidden_size
    return LlamaConfig(
        theirs.vocab_size, theirs.max_position_embeddings, theirs.hidden_size,
        theirs.num_hidden_layers, theirs.num_attention_heads, theirs.num_key_value_heads,
        theirs.intermediate_size, theta=float(rope.get("rope_theta") or theirs.rope_theta),
        eps=theirs.rms_norm_eps, tied=theirs.tie_word_embeddings,
        std=theirs.initializer_range, head_width=None if usual else theirs.head_dim,
    )  # fmt: skip


def load_llama(
    source: nn.Module | Mapping[str, torch.Tensor], config: LlamaConfig | None = None
) -> Llama:
    """A Llama with the weights of Hugging Face's LlamaForCausalLM, in evaluation mode.

    source : such a model, whose weights are copied, or its state dict, whose tensors are
        used without a copy where their type is that of the embedding
    config : needed with a state dict, whose shapes do not tell heads, theta and eps

    Raises ValueError for tensors that are missing, unknown or do not fit, a head that is not
    the embedding where config ties them, and variants of Llama that are not built here.
    """
    if isinstance(source, nn.Module):
        config = config or read_llama_config(source.config)
        source = {key: t.detach().clone() for key, t in source.state_dict().items()}
    if config is None:
        raise ValueError("the shapes do not tell heads, theta and eps: give `config`")
    loaded = {}
    for key, t in source.items():
        if key.endswith("rotary_emb.inv_freq"):
            continue  # the rates of the rotation, which older files hold
        match = re.fullmatch(r"(?:model\.)?(?:layers\.(\d+)\.)?(.+)\.weight", key)
        if not match or match[2] not in LLAMA_NAMES:
            raise ValueError(f"Llama has no {key}")
        layer = f"blocks.{match[1]}." if match[1] else ""
        loaded[f"{layer}{LLAMA_NAMES[match[2]]}.weight"] = t
    if "tokens.weight" not in loaded:
        raise ValueError("not the weights of a Llama: embed_tokens.weight is missing")
    tokens = loaded["tokens.weight"]
    if config.tied and not torch.equal(loaded.setdefault("head.weight", tokens), tokens):
        raise ValueError("the config ties the head to the embedding, but lm_head.weight differs")
    loaded = {key: t.to(tokens.device, tokens.dtype) for key, t in loaded.items()}
    with torch.device("meta"):  # shapes without memory: nothing is drawn
        model = Llama(config)
    try:
        model.load_state_dict(loaded, assign=True)
    except RuntimeError as error:
        raise ValueError(f"these tensors do not fit together: {error}") from None
    if config.tied:
        model.head.weight = model.tokens.weight
    return model.eval()


def count_llama_parameters(config: LlamaConfig) -> int:
    """Parameters of Llama(config), shared ones counted once."""
    d, q, kv = config.width, config.heads * config.dim, config.kv_heads * config.dim
    block = 2 * d * q + 2 * d * kv + 3 * d * config.hidden + 2 * d
    embeddings = config.vocabulary * d * (1 if config.tied else 2)
    return embeddings + config.layers * block + d


def kv_cache_bytes(config: LlamaConfig, batch: int, time: int, bytes_per_number: float = 2) -> int:
    """Bytes of the keys and values of `batch` sequences of `time` tokens, in all layers.

    Raises ValueError for a time beyond the context, and negative or empty amounts.
    """
    if batch < 1 or not 0 <= time <= config.context or not bytes_per_number > 0:
        raise ValueError(
            f"need batch ≥ 1, 0 ≤ time ≤ {config.context} and bytes > 0: "
            f"{batch}, {time}, {bytes_per_number}"
        )
    numbers = 2 * config.layers * config.kv_heads * config.dim * batch * time
    return math.ceil(numbers * bytes_per_number)
