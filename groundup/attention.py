# Generated from chapters/language/attention.md; edit the chapter.
"""Attention. You build the operation by which one position of a sequence reads from the others. It
equals PyTorch's to $10^{-6}$, and a second form of it, exact as well, needs memory in
proportion to the length of the sequence instead of its square.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = [
    "attention_weights",
    "attention",
    "causal_mask",
    "MultiHeadAttention",
    "sinusoidal_positions",
    "tiled_attention",
]


def _check(q, k, mask=None, v=None) -> None:
    """Raise ValueError where q, k, v and mask do not fit together."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x is None:
            continue
        if not torch.is_tensor(x) or not x.is_floating_point() or x.ndim < 2:
            what = f"{x.dtype} {tuple(x.shape)}" if torch.is_tensor(x) else type(x).__name__
            raise ValueError(f"{name} must be a tensor of floats, (..., time, dim), not {what}")
        if (x.dtype, x.device) != (q.dtype, q.device):
            raise ValueError(f"{name} is {x.dtype} on {x.device}, q is {q.dtype} on {q.device}")
    if q.shape[-1] != k.shape[-1] or not q.shape[-1]:
        raise ValueError(f"q has {q.shape[-1]} features, k has {k.shape[-1]}: need equal, above 0")
    if v is not None and k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{k.shape[-2]} keys but {v.shape[-2]} values")
    try:
        lead = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v) if x is not None))
    except RuntimeError:
        shapes = [tuple(x.shape) for x in (q, k, v) if x is not None]
        raise ValueError(f"the leading axes do not broadcast: {shapes}") from None
    if mask is None:
        return
    if not torch.is_tensor(mask) or mask.dtype != torch.bool:
        raise ValueError("mask must be a boolean tensor: True where a query may look")
    if mask.device != q.device:
        raise ValueError(f"mask is on {mask.device}, q is on {q.device}")
    full = (*lead, q.shape[-2], k.shape[-2])
    fits = mask.ndim <= len(full) and all(
        n in (1, m) for n, m in zip(reversed(mask.shape), reversed(full))
    )
    if not fits:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not broadcast to {full}")


def attention_weights(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q kᵀ / √dim) over the keys: what share of each value each query gets.

    q is (..., queries, dim), k is (..., keys, dim), mask is boolean and broadcasts to
    (..., queries, keys): True where a query may look. Returns (..., queries, keys). Rows
    sum to 1, or are all 0 where the mask allows nothing. Raises ValueError for tensors
    that do not fit. Source: Vaswani et al. (2017), eq. 1.
    """
    _check(q, k, mask)
    scores = q / math.sqrt(q.shape[-1]) @ k.mT  # (..., queries, keys)
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min  # not -inf: a row of -inf has no softmax
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0)


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Scaled dot-product attention: each query gets a blend of the values.

    q is (..., queries, dim), k is (..., keys, dim), v is (..., keys, dim_v); the leading
    axes broadcast. mask is boolean and broadcasts to (..., queries, keys): True where a
    query may look. Returns (..., queries, dim_v); a query that may look at nothing gets
    zeros. Raises ValueError for tensors that do not fit.
    """
    _check(q, k, mask, v)
    return attention_weights(q, k, mask) @ v


def causal_mask(time: int, device: torch.device | str | None = None) -> torch.Tensor:
    """(time, time) boolean: query i may look at the keys 0 to i.

    Raises ValueError for a negative time.
    """
    if time < 0:
        raise ValueError(f"time is a number of positions, not {time}")
    return torch.ones(time, time, dtype=torch.bool, device=device).tril()


class MultiHeadAttention(nn.Module):
    """Attention by `heads` heads side by side, each on its own width / heads features.

    `forward(x, context=None, mask=None, cache=None)`: x is (batch, time, width); keys and
    values come from context (batch, keys, width), by default from x itself. mask is
    boolean: (time, keys) for all alike, or broadcastable to (batch, heads, time, keys);
    True where a query may look. Returns (batch, time, width). Raises ValueError for sizes
    that do not fit, heads that do not divide width, and masks of three axes, whose first is
    ambiguous. cache, if given, has `append(k, v)`: it takes the new keys and values, (batch, heads,
    keys, width / heads), and returns all those to look at. Source: Vaswani et al. (2017),
    section 3.2.2.
    """

    def __init__(self, width: int, heads: int, bias: bool = True):
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.width, self.heads = width, heads
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.output = nn.Linear(width, width, bias)

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        cache=None,
    ) -> torch.Tensor:
        context = self._context(x, context, mask)
        q, k, v = self.query(x), self.key(context), self.value(context)
        q, k, v = self._split(q), self._split(k), self._split(v)
        if cache is not None:
            k, v = cache.append(k, v)
        blend = attention(q, k, v, mask)
        return self.output(blend.transpose(1, 2).flatten(2))  # heads side by side again

    def weights(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What `forward` blends with: (batch, heads, time, keys)."""
        context = self._context(x, context, mask)
        q, k = self._split(self.query(x)), self._split(self.key(context))
        return attention_weights(q, k, mask)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> (batch, heads, time, width / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _context(self, x, context, mask) -> torch.Tensor:
        context = x if context is None else context
        for name, t in (("x", x), ("context", context)):
            if not torch.is_tensor(t) or t.ndim != 3 or t.shape[-1] != self.width:
                shape = tuple(t.shape) if torch.is_tensor(t) else type(t).__name__
                raise ValueError(f"{name} must be (batch, time, {self.width}), not {shape}")
        if len(context) != len(x):
            raise ValueError(f"x has {len(x)} sequences and context has {len(context)}")
        if torch.is_tensor(mask) and mask.ndim == 3:
            raise ValueError(
                "is the first axis of the mask batch or heads? Give (time, keys) or "
                "(batch, 1, time, keys)"
            )
        return context


def sinusoidal_positions(
    time: int, width: int, device: torch.device | str | None = None
) -> torch.Tensor:
    """(time, width): sin(t ωᵢ) in column 2i and cos(t ωᵢ) in 2i + 1, ωᵢ = 10000^(−2i/width).

    Raises ValueError for a negative time, and a width that is not even and positive.
    Source: Vaswani et al. (2017), section 3.5.
    """
    if time < 0 or width < 2 or width % 2:
        raise ValueError(f"need time ≥ 0 and an even width above 0, not {time} and {width}")
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(time, dtype=torch.float64).unsqueeze(-1) * rates  # (time, width/2)
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return table.to(device=device, dtype=torch.float32)


def tiled_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    tile: int = 256,
) -> torch.Tensor:
    """`attention`, holding scores of tile × tile at a time instead of queries × keys.

    Shapes and errors as in `attention`. causal=True is causal_mask without the (time, time)
    array, skips tiles in the future, and needs as many queries as keys. float16 and
    bfloat16 are added up in float32. Call it under torch.no_grad: autograd would keep every
    tile. Raises ValueError also for tile < 1. Source: Milakov & Gimelshein (2018), alg. 3;
    Dao et al. (2022), alg. 1.
    """
    _check(q, k, mask, v)
    queries, keys = q.shape[-2], k.shape[-2]
    wide = torch.promote_types(q.dtype, torch.float32)
    if tile < 1:
        raise ValueError(f"a tile holds at least one row, not {tile}")
    if causal and queries != keys:
        raise ValueError(f"causal needs as many queries as keys, not {queries} and {keys}")
    lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    result = q.new_empty(*lead, queries, v.shape[-1])
    at = torch.arange(keys, device=q.device)
    if mask is not None:
        mask = mask.expand(*lead, queries, keys)  # a view: no memory
    for top in range(0, queries, tile):
        rows = slice(top, min(top + tile, queries))
        q_tile = q[..., rows, :].to(wide) / math.sqrt(q.shape[-1])
        peak = q_tile.new_full((*lead, q_tile.shape[-2], 1), torch.finfo(wide).min)  # m
        total, blend = torch.zeros_like(peak), 0.0  # l, o
        for left in range(0, rows.stop if causal else keys, tile):
            cols = slice(left, min(left + tile, keys))
            scores = q_tile @ k[..., cols, :].to(wide).mT  # (..., tile, tile)
            if mask is not None:
                scores = scores.masked_fill(~mask[..., rows, cols], -torch.inf)
            if causal:
                scores = scores.masked_fill(at[cols] > at[rows, None], -torch.inf)
            higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
            shrink, e = (peak - higher).exp(), (scores - higher).exp()
            total = shrink * total + e.sum(-1, keepdim=True)
            blend = shrink * blend + e @ v[..., cols, :].to(wide)
            peak = higher
        result[..., rows, :] = blend / total.clamp(min=1)  # total is 0, or at least e⁰ = 1
    return result
