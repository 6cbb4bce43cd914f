"""Chapter "Attention": against torch on shapes, masks and dtypes the page does not show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from groundup.attention import (
    MultiHeadAttention,
    attention,
    attention_weights,
    causal_mask,
    sinusoidal_positions,
    tiled_attention,
)
from groundup.classification import softmax

few = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
leads = st.sampled_from([(), (1,), (3,), (2, 3), (0,), (2, 0, 1)])
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


def normal(seed, *shapes, dtype=torch.float64, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def inputs(seed, lead, sizes, **how):
    queries, keys, dim, dim_v = sizes
    return normal(seed, (*lead, queries, dim), (*lead, keys, dim), (*lead, keys, dim_v), **how)


def some_mask(seed, *shape):
    """Random, with a row of False now and then."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=g) < torch.rand((*shape[:-1], 1), generator=g)


def by_hand(q, k, v, mask):
    """Loops over NumPy arrays without leading axes."""
    q, k, v = (x.numpy() for x in (q, k, v))
    out = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        allowed = np.flatnonzero(mask[i].numpy())
        if len(allowed):
            p = softmax(k[allowed] @ q[i] / np.sqrt(q.shape[1]))
            out[i] = p @ v[allowed]
    return out


# --- attention --------------------------------------------------------------------------------


@few
@given(leads, sizes, seeds, st.sampled_from([None, "full", "queries", "keys"]))
def test_attention_is_torchs(lead, sizes, seed, kind):
    q, k, v = inputs(seed, lead, sizes)
    queries, keys = sizes[:2]
    shape = {"full": (*lead, queries, keys), "queries": (queries, 1), "keys": (keys,)}.get(kind)
    mask = None if kind is None else some_mask(seed, *shape)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    assert attention(q, k, v, mask).shape == expected.shape
    torch.testing.assert_close(attention(q, k, v, mask), expected, rtol=1e-10, atol=1e-12)


@few
@given(sizes, seeds)
def test_attention_is_the_definition(sizes, seed):
    q, k, v = inputs(seed, (), sizes)
    mask = some_mask(seed, *sizes[:2])
    np.testing.assert_allclose(attention(q, k, v, mask).numpy(), by_hand(q, k, v, mask), rtol=1e-10, atol=1e-12)


@few
@given(leads, sizes, seeds)
def test_gradients_are_torchs_and_never_nan(lead, sizes, seed):
    tensors, mask = inputs(seed, lead, sizes), some_mask(seed, *sizes[:2])
    found = []
    for f in (attention, F.scaled_dot_product_attention, lambda *x: tiled_attention(*x, tile=3)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        f(*leaves, mask).sin().sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs, tiled in zip(*found):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours, tiled, rtol=1e-9, atol=1e-11)


@few
@given(sizes, seeds)
def test_leading_axes_broadcast(sizes, seed):
    queries, keys, dim, dim_v = sizes
    q, k, v = normal(seed, (2, 1, queries, dim), (3, keys, dim), (keys, dim_v))
    whole = attention(q, k, v)
    assert whole.shape == (2, 3, queries, dim_v)
    one = attention(q[1, 0], k[2], v)
    torch.testing.assert_close(whole[1, 2], one, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tiled_attention(q, k, v, tile=2), whole, rtol=1e-12, atol=1e-13)


@few
@given(leads, sizes, seeds)
def test_weights_are_shares_of_what_the_mask_allows(lead, sizes, seed):
    q, k, v = inputs(seed, lead, sizes, scale=3.0)
    mask = some_mask(seed, *sizes[:2])
    weights = attention_weights(q, k, mask)
    allowed = mask.expand_as(weights)
    assert weights.shape == (*lead, *sizes[:2])
    assert (weights >= 0).all() and (weights[~allowed] == 0).all()
    torch.testing.assert_close(weights.sum(-1), allowed.any(-1).double())
    torch.testing.assert_close(attention_weights(q, k).sum(-1), torch.ones(*lead, sizes[0]).double())
    assert torch.equal(weights @ v, attention(q, k, v, mask))


@few
@given(st.integers(1, 12), st.integers(1, 8), seeds, st.randoms(use_true_random=False))
def test_without_positions_order_is_invisible(time, width, seed, random):
    order = list(range(time))
    random.shuffle(order)
    (x,) = normal(seed, (time, width))
    torch.testing.assert_close(attention(x[order], x, x), attention(x, x, x)[order])  # queries: equivariant
    torch.testing.assert_close(attention(x, x[order], x[order]), attention(x, x, x))  # keys: invariant


def test_numbers_that_would_overflow_without_the_maximum():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        q, k = torch.full((2, 4), 100.0, dtype=dtype), torch.eye(4, dtype=dtype) * 100
        out = attention(q, k, torch.eye(4, dtype=dtype))
        assert out.dtype == dtype and torch.allclose(out, torch.full((2, 4), 0.25, dtype=dtype))
        assert torch.equal(tiled_attention(q, k, torch.eye(4, dtype=dtype), tile=3), out)


def test_a_query_that_may_look_at_nothing_gets_zeros_and_no_keys_do_too():
    q, k, v = inputs(0, (2,), (3, 4, 5, 6))
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2] = True
    for f in (attention, tiled_attention):
        out = f(q, k, v, mask)
        assert (out[:, [0, 2]] == 0).all() and torch.equal(out[:, 1], v[:, 2])
        assert torch.equal(f(q, k[:, :0], v[:, :0]), torch.zeros(2, 3, 6, dtype=torch.float64))
        assert f(q[:, :0], k, v).shape == (2, 0, 6)


def test_one_masked_key_changes_nothing_whatever_it_holds():
    q, k, v = inputs(1, (), (3, 5, 4, 2))
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3] = False
    expected = attention(q, k[[0, 1, 2, 4]], v[[0, 1, 2, 4]])
    k[3] = 1e150
    torch.testing.assert_close(attention(q, k, v, mask), expected)
    torch.testing.assert_close(tiled_attention(q, k, v, mask, tile=2), expected)


x34 = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("q", "k", "v", "mask", "words"),
    [
        (x34, torch.zeros(3, 5), x34, None, "4 features, k has 5"),
        (torch.zeros(3, 0), torch.zeros(3, 0), x34, None, "above 0"),
        (x34, x34, torch.zeros(2, 4), None, "3 keys but 2 values"),
        (torch.zeros(4), x34, x34, None, r"q must be a tensor of floats, .* \(4,\)"),
        (x34, x34.int(), x34, None, "k must be a tensor of floats, .* torch.int32"),
        (x34, x34, [[1.0]], None, "v must be a tensor of floats, .* list"),
        (x34, x34.double(), x34, None, "k is torch.float64"),
        (torch.zeros(2, 3, 4), torch.zeros(5, 3, 4), torch.zeros(2, 3, 4), None, "leading axes do not broadcast"),
        (x34, x34, x34, torch.ones(3, 3), "boolean"),
        (x34, x34, x34, [[True]], "boolean"),
        (x34, x34, x34, torch.ones(3, 2, dtype=torch.bool), r"\(3, 2\) does not broadcast to \(3, 3\)"),
        (x34, x34, x34, torch.ones(1, 3, 3, dtype=torch.bool), "does not broadcast"),
    ],
)
def test_attention_refuses_what_does_not_fit(q, k, v, mask, words):
    for f in (attention, tiled_attention):
        with pytest.raises(ValueError, match=words):
            f(q, k, v, mask)


def test_weights_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="k has 5"):
        attention_weights(x34, torch.zeros(3, 5))
    with pytest.raises(ValueError, match="does not broadcast"):
        attention_weights(x34, x34, torch.ones(2, 3, dtype=torch.bool))


# --- causal_mask ------------------------------------------------------------------------------


@few
@given(st.integers(0, 20))
def test_causal_mask_allows_the_past_and_the_present(time):
    mask = causal_mask(time)
    i, j = np.indices((time, time))
    assert mask.dtype == torch.bool and mask.shape == (time, time)
    assert np.array_equal(mask.numpy(), j <= i)
    assert int(mask.sum()) == time * (time + 1) // 2


@few
@given(leads, st.integers(1, 9), st.integers(1, 5), seeds)
def test_causal_attention_is_torchs_and_blind_to_the_future(lead, time, dim, seed):
    q, k, v = inputs(seed, lead, (time, time, dim, dim))
    out = attention(q, k, v, causal_mask(time))
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-10, atol=1e-12)
    cut = time // 2
    k[..., cut:, :], v[..., cut:, :] = 7.0, -7.0
    changed = attention(q, k, v, causal_mask(time))
    assert torch.equal(changed[..., :cut, :], out[..., :cut, :])


def test_causal_mask_knows_its_device_and_refuses_negative_time():
    assert causal_mask(3, "meta").device.type == "meta" and causal_mask(3).device.type == "cpu"
    with pytest.raises(ValueError, match="-1"):
        causal_mask(-1)
    with pytest.raises(ValueError, match="mask is on meta"):
        attention(x34, x34, x34, causal_mask(3, "meta"))


# --- tiled_attention --------------------------------------------------------------------------


@few
@given(leads, sizes, seeds, st.integers(1, 12), st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
def test_tiled_is_plain_for_every_tile(lead, sizes, seed, tile, scale, masked):
    q, k, v = inputs(seed, lead, sizes, scale=scale)
    mask = some_mask(seed, *sizes[:2]) if masked else None
    expected = attention(q, k, v, mask)
    torch.testing.assert_close(tiled_attention(q, k, v, mask, tile=tile), expected, rtol=1e-9, atol=1e-11)


@few
@given(leads, st.integers(1, 14), st.integers(1, 5), seeds, st.integers(1, 16))
def test_tiled_causal_is_torchs(lead, time, dim, seed, tile):
    q, k, v = inputs(seed, lead, (time, time, dim, 3))
    mask = some_mask(seed, time, time)
    ours = tiled_attention(q, k, v, causal=True, tile=tile)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-9, atol=1e-11)
    both = tiled_attention(q, k, v, mask, causal=True, tile=tile)
    torch.testing.assert_close(both, attention(q, k, v, mask & causal_mask(time)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tiled_adds_up_half_precision_in_float32(dtype):
    q, k, v = inputs(3, (2,), (40, 3000, 16, 8), dtype=dtype)
    exact = attention(q.double(), k.double(), v.double())
    out = tiled_attention(q, k, v, tile=64)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() < 2 * torch.finfo(dtype).eps * exact.abs().max()


def test_tiled_skips_the_future():
    q = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    flops = []
    for causal in (False, True):
        with FlopCounterMode(display=False) as counter:
            tiled_attention(q, q, q, causal=causal, tile=8)
        flops.append(counter.get_total_flops())
    assert flops == [4 * 64 * 64 * 8, 4 * (8 * 9 // 2) * 8 * 8 * 8]


def test_tiled_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one row, not 0"):
        tiled_attention(x34, x34, x34, tile=0)
    with pytest.raises(ValueError, match="not 2 and 3"):
        tiled_attention(x34[:2], x34, x34, causal=True)


# --- MultiHeadAttention -----------------------------------------------------------------------


def twin(ours, bias=True):
    """torch.nn.MultiheadAttention with the weights of `ours`."""
    theirs = torch.nn.MultiheadAttention(ours.width, ours.heads, bias=bias, batch_first=True).double()
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
            theirs.out_proj.bias.copy_(ours.output.bias)
    return theirs


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 7), st.integers(1, 7), st.booleans(), seeds)  # fmt: skip
def test_multi_head_is_torchs_forward_and_backward(heads, size, batch, time, keys, bias, seed):
    torch.manual_seed(seed % 2**31)
    ours = MultiHeadAttention(heads * size, heads, bias).double()
    theirs = twin(ours, bias)
    x, context = normal(seed, (batch, time, heads * size), (batch, keys, heads * size))
    for context_, mask in ((x, causal_mask(time)), (context, None)):
        out = ours(x, context_, mask)
        expected, weights = theirs(
            x, context_, context_, attn_mask=None if mask is None else ~mask, average_attn_weights=False
        )
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.weights(x, context_, mask), weights, rtol=1e-9, atol=1e-11)
        ours.zero_grad(), theirs.zero_grad()
        out.sin().sum().backward(), expected.sin().sum().backward()
        g = torch.cat([p.weight.grad for p in (ours.query, ours.key, ours.value)])
        torch.testing.assert_close(g, theirs.in_proj_weight.grad, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(ours.output.weight.grad, theirs.out_proj.weight.grad, rtol=1e-8, atol=1e-10)


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), seeds)
def test_each_head_is_torchs_on_its_own_features(heads, size, time, seed):
    layer = MultiHeadAttention(heads * size, heads).double()
    (x,) = normal(seed, (2, time, heads * size))
    mask = causal_mask(time)
    blends = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        q, k, v = (f(x)[..., own] for f in (layer.query, layer.key, layer.value))
        blends.append(F.scaled_dot_product_attention(q, k, v, mask))
    torch.testing.assert_close(layer(x, mask=mask), layer.output(torch.cat(blends, -1)), rtol=1e-9, atol=1e-11)


def test_masks_per_sequence_and_per_head():
    torch.manual_seed(0)
    layer = MultiHeadAttention(6, 3).double()
    (x,) = normal(5, (2, 4, 6))
    mask = some_mask(6, 2, 3, 4, 4)
    weights = layer.weights(x, mask=mask)
    assert weights.shape == (2, 3, 4, 4) and (weights[~mask] == 0).all()
    padding = torch.tensor([[True, True, True, False], [True, True, False, False]])[:, None, None]
    out = layer(x, mask=padding)
    torch.testing.assert_close(out[0, :3], layer(x[:1, :3])[0])
    torch.testing.assert_close(out[1, :2], layer(x[1:, :2])[0])


def test_multi_head_names_its_layers_and_moves_with_to():
    layer = MultiHeadAttention(8, 2)
    names = [f"{n}.{p}" for n in ("query", "key", "value", "output") for p in ("weight", "bias")]
    assert [n for n, _ in layer.named_parameters()] == names
    assert sum(p.numel() for p in layer.parameters()) == 4 * (8 * 8 + 8)
    assert sum(p.numel() for p in MultiHeadAttention(8, 2, bias=False).parameters()) == 4 * 8 * 8
    meta = layer.to("meta")
    assert meta(torch.zeros(1, 3, 8, device="meta"), mask=causal_mask(3, "meta")).shape == (1, 3, 8)


@pytest.mark.parametrize(("width", "heads"), [(8, 3), (8, 0), (0, 1), (8, -2), (2, 4)])
def test_heads_that_do_not_divide_are_refused(width, heads):
    with pytest.raises(ValueError, match=f"{heads} heads do not divide a width of {width}"):
        MultiHeadAttention(width, heads)


def test_multi_head_refuses_what_does_not_fit():
    layer, x = MultiHeadAttention(4, 2), torch.zeros(2, 3, 4)
    for f in (layer, layer.weights):
        with pytest.raises(ValueError, match=r"x must be \(batch, time, 4\), not \(3, 4\)"):
            f(x[0])
        with pytest.raises(ValueError, match=r"context must be \(batch, time, 4\)"):
            f(x, torch.zeros(2, 3, 5))
        with pytest.raises(ValueError, match="2 sequences and context has 1"):
            f(x, x[:1])
        with pytest.raises(ValueError, match="batch or heads"):
            f(x, mask=torch.ones(2, 3, 3, dtype=torch.bool))
        with pytest.raises(ValueError, match="does not broadcast"):
            f(x, mask=causal_mask(4))


# --- sinusoidal_positions ---------------------------------------------------------------------


@few
@given(st.integers(0, 50), st.integers(1, 16))
def test_positions_are_the_formula(time, half):
    table = sinusoidal_positions(time, 2 * half)
    assert table.shape == (time, 2 * half) and table.dtype == torch.float32
    for t in range(0, time, 7):
        for i in range(half):
            angle = t / 10_000 ** (2 * i / (2 * half))
            assert abs(table[t, 2 * i] - math.sin(angle)) < 1e-6
            assert abs(table[t, 2 * i + 1] - math.cos(angle)) < 1e-6


@few
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(1, 16))
def test_products_of_positions_depend_on_their_distance_alone(a, b, shift, half):
    table = sinusoidal_positions(41, 2 * half)
    torch.testing.assert_close(table[a] @ table[b], table[a + shift] @ table[b + shift], rtol=1e-4, atol=1e-4)
    assert math.isclose(float(table[a] @ table[a]), half, rel_tol=1e-5)


def test_positions_know_their_device_and_refuse_the_rest():
    assert sinusoidal_positions(3, 4, "meta").device.type == "meta"
    for time, width in ((-1, 4), (3, 5), (3, 0)):
        with pytest.raises(ValueError, match=f"not {time} and {width}"):
            sinusoidal_positions(time, width)
