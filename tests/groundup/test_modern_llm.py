"""groundup.modern_llm against transformers and torch on sizes the chapter does not show."""

import math
import warnings
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groundup.attention import MultiHeadAttention, attention, causal_mask
from groundup.decoding import KVCache
from groundup.modern_llm import (
    GroupedQueryAttention,
    Llama,
    LlamaBlock,
    LlamaConfig,
    SwiGLU,
    count_llama_parameters,
    interleaved_to_halves,
    kv_cache_bytes,
    load_llama,
    read_llama_config,
    rotary_table,
    rotate,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its progress bars look for widgets
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM, MistralConfig
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

few = settings(deadline=None, max_examples=12)
seeds = st.integers(0, 2**31)
SMALL = LlamaConfig(11, 12, 16, 2, 4, 2, 24)


@st.composite
def configs(draw):
    kv_heads, group, half = (draw(st.integers(1, 3)) for _ in range(3))
    heads = kv_heads * group
    return LlamaConfig(
        vocabulary=draw(st.integers(2, 40)),
        context=draw(st.integers(1, 12)),
        width=heads * 2 * half,
        layers=draw(st.integers(1, 3)),
        heads=heads,
        kv_heads=kv_heads,
        hidden=draw(st.integers(1, 30)),
        theta=draw(st.sampled_from([100.0, 10_000.0, 500_000.0])),
        eps=draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        tied=draw(st.booleans()),
        head_width=draw(st.sampled_from([None, 2, 6])),
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample_ids(config, seed=0, batch=2, time=None):
    return torch.randint(config.vocabulary, (batch, time or config.context), generator=generator(seed))


def theirs(config, seed, **more):
    model = LlamaForCausalLM(
        TheirConfig(
            vocab_size=config.vocabulary, max_position_embeddings=config.context,
            hidden_size=config.width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            intermediate_size=config.hidden, rms_norm_eps=config.eps, head_dim=config.dim,
            tie_word_embeddings=config.tied, bos_token_id=0, eos_token_id=0, pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": config.theta}, **more,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator(seed)))
    return model


# --- the whole model against transformers -------------------------------------------------------


@few
@given(configs(), seeds)
def test_logits_and_gradients_are_transformers(config, seed):
    reference = theirs(config, seed)
    model, ids = load_llama(reference), sample_ids(config, seed)
    assert replace(model.config, head_width=config.dim) == replace(config, head_width=config.dim)
    ours, expected = model(ids), reference(ids).logits
    scale = 1 + expected.detach().abs().max()
    assert torch.allclose(ours / scale, expected / scale, rtol=0, atol=1e-5)
    ours.tanh().sum().backward()
    expected.tanh().sum().backward()
    mine, other = model.blocks[0], reference.model.layers[0]
    for a, b in (
        (model.tokens.weight, reference.model.embed_tokens.weight),
        (model.norm.weight, reference.model.norm.weight),
        (mine.attention.key.weight, other.self_attn.k_proj.weight),
        (mine.attention.output.weight, other.self_attn.o_proj.weight),
        (mine.feed.gate.weight, other.mlp.gate_proj.weight),
        (mine.feed_norm.weight, other.post_attention_layernorm.weight),
    ):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4 * (1 + b.grad.abs().max()))
    assert count_llama_parameters(config) == sum(p.numel() for p in reference.parameters())
    assert count_llama_parameters(config) == sum(p.numel() for p in model.parameters())


@few
@given(configs(), seeds, st.data())
def test_with_a_cache_in_pieces_it_says_the_same(config, seed, data):
    model, ids = Llama(replace(config, std=0.3), generator(seed)).double(), sample_ids(config, seed)
    caches, parts, at = [KVCache() for _ in model.blocks], [], 0
    with torch.no_grad():
        while at < config.context:
            n = data.draw(st.integers(1, config.context - at))
            parts.append(model(ids[:, at : at + n], caches))
            at += n
            assert caches[0].length == at
        whole = model(ids)
        assert torch.allclose(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
        assert torch.allclose(model(ids, last=True), whole[:, -1:], rtol=0, atol=1e-12)
        held = caches[0].append(*torch.zeros(2, 2, config.kv_heads, 1, config.dim).double())[0]
        bytes_held = held[:, :, :-1].nbytes * 2 * config.layers  # not the one just added
        assert bytes_held == kv_cache_bytes(config, 2, config.context, 8)


@few
@given(configs(), seeds)
def test_no_position_sees_a_later_token(config, seed):
    model, ids = Llama(replace(config, std=0.3), generator(seed)), sample_ids(config, seed)
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % config.vocabulary
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :-1], model(other)[:, :-1])


def test_a_state_dict_loads_without_a_copy_and_a_model_with_one():
    reference = theirs(replace(SMALL, tied=False), 3)
    config, ids = read_llama_config(reference.config), sample_ids(SMALL)
    state = reference.state_dict() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    shared, copied = load_llama(state, config), load_llama(reference)
    assert shared.tokens.weight.data_ptr() == reference.model.embed_tokens.weight.data_ptr()
    with torch.no_grad():
        assert torch.allclose(shared(ids), reference(ids).logits, atol=1e-4)
        reference.model.embed_tokens.weight.zero_()
    assert copied.tokens.weight.abs().sum() > 0 and not copied.training
    bare = {k.removeprefix("model."): t for k, t in copied_state(copied).items()}
    assert torch.equal(load_llama(bare, config)(ids), copied(ids))


def copied_state(model):
    """Hugging Face's names for our tensors."""
    from groundup.modern_llm import LLAMA_NAMES

    back = {v: k for k, v in LLAMA_NAMES.items()}
    state = {}
    for key, t in model.state_dict().items():
        name = key.removesuffix(".weight")
        prefix = ""
        if name.startswith("blocks."):
            _, layer, name = name.split(".", 2)
            prefix = f"model.layers.{layer}."
        elif name != "head":
            prefix = "model."
        state[f"{prefix}{back[name]}.weight"] = t
    return state


def test_a_tied_file_needs_no_head_and_mixed_types_become_one():
    model = Llama(SMALL, generator(2))
    state = copied_state(model)
    del state["lm_head.weight"]
    state["model.norm.weight"] = state["model.norm.weight"].double()
    loaded = load_llama(state, SMALL)
    assert loaded.head.weight is loaded.tokens.weight and loaded.norm.weight.dtype == torch.float32
    assert torch.equal(loaded(sample_ids(SMALL)), model(sample_ids(SMALL)))
    loaded(sample_ids(SMALL)).sum().backward()
    assert loaded.tokens.weight.grad.abs().sum() > 0


def change(**more):
    config = theirs(SMALL, 0).config
    for key, value in more.items():
        setattr(config, key, value)
    return config


@pytest.mark.parametrize(
    "config, message",
    [
        (lambda: change(attention_bias=True), "attention_bias"),
        (lambda: change(mlp_bias=True), "mlp_bias"),
        (lambda: change(hidden_act="gelu"), "not gelu"),
        (lambda: change(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "linear"),
        (lambda: change(rope_parameters={"rope_type": "default", "rope_theta": 1e4,
                                         "partial_rotary_factor": 0.5}), "a part"),
        (MistralConfig, "mistral"),
    ],
)  # fmt: skip
def test_variants_are_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        read_llama_config(config())


def test_files_that_do_not_fit_are_refused():
    state = copied_state(Llama(SMALL, generator()))
    with pytest.raises(ValueError, match="give `config`"):
        load_llama(state)
    with pytest.raises(ValueError, match="embed_tokens.weight is missing"):
        load_llama({k: t for k, t in state.items() if "embed" not in k}, SMALL)
    with pytest.raises(ValueError, match="Llama has no model.layers.0.self_attn.q_proj.bias"):
        load_llama(state | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}, SMALL)
    with pytest.raises(ValueError, match="lm_head.weight differs"):
        load_llama(state | {"lm_head.weight": torch.ones(11, 16)}, SMALL)
    with pytest.raises(ValueError, match="do not fit"):
        load_llama(state, replace(SMALL, kv_heads=4))
    with pytest.raises(ValueError, match="do not fit"):
        load_llama({k: t for k, t in state.items() if "layers.1" not in k}, SMALL)
    with pytest.raises(ValueError, match="do not fit"):
        load_llama({k: t for k, t in state.items() if "lm_head" not in k}, replace(SMALL, tied=False))


# --- parts --------------------------------------------------------------------------------------


@few
@given(st.integers(1, 8), st.integers(1, 9), seeds, st.sampled_from([10.0, 1e4, 1e6]))
def test_rotation_is_theirs_keeps_lengths_and_knows_distance_only(half, time, seed, theta):
    g, dim = generator(seed), 2 * half
    q, k = torch.randn(2, 2, 3, time, dim, dtype=torch.float64, generator=g)
    cos, sin = rotary_table(torch.arange(time), dim, theta, torch.float64)
    assert cos.shape == sin.shape == (time, half)
    pair = apply_rotary_pos_emb(q, k, cos.repeat(1, 2)[None], sin.repeat(1, 2)[None])
    assert torch.allclose(rotate(q, cos, sin), pair[0]) and torch.allclose(rotate(k, cos, sin), pair[1])
    assert torch.allclose(rotate(q, cos, sin).norm(dim=-1), q.norm(dim=-1))
    shift = torch.randint(10_000, (1,), generator=g)
    moved = rotary_table(torch.arange(time) + shift, dim, theta, torch.float64)
    near, far = (rotate(q, *t) @ rotate(k, *t).mT for t in ((cos, sin), moved))
    assert torch.allclose(near, far, rtol=0, atol=1e-8)
    undone = rotate(rotate(q, cos, sin), cos, -sin)
    assert torch.allclose(undone, q)


def test_tables_are_exact_and_take_fractions():
    cos, sin = rotary_table(torch.tensor([0.0, 0.5, 100_000.0]), 4, 100.0)
    assert cos.dtype == torch.float32
    for i, t in enumerate((0, 0.5, 100_000)):
        for j, rate in enumerate((1, 0.1)):
            assert math.isclose(cos[i, j], math.cos(t * rate), abs_tol=1e-6)
            assert math.isclose(sin[i, j], math.sin(t * rate), abs_tol=1e-6)


@few
@given(st.integers(1, 4), st.integers(1, 5), seeds)
def test_reordered_rows_turn_neighbours_into_halves(heads, half, seed):
    weight = torch.randn(heads * 2 * half, 7, generator=generator(seed))
    moved = interleaved_to_halves(weight, heads)
    for h in range(heads):
        for i in range(half):
            for side in (0, 1):
                new, old = h * 2 * half + side * half + i, h * 2 * half + 2 * i + side
                assert torch.equal(moved[new], weight[old])
    assert torch.equal(interleaved_to_halves(weight[:, 0], heads), moved[:, 0])


@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), seeds)
def test_grouped_heads_are_full_heads_repeated(kv_heads, group, half, seed):
    heads, dim, width, time = kv_heads * group, 2 * half, 10, 7
    torch.manual_seed(seed)
    layer = GroupedQueryAttention(width, heads, kv_heads, dim).double()
    x, mask = torch.randn(2, time, width, dtype=torch.float64), causal_mask(time)
    rotary = rotary_table(torch.arange(time), dim, dtype=torch.float64)
    q, k, v = (f(x).unflatten(-1, (-1, dim)).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    k, v = rotate(k, *rotary).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    blend = attention(rotate(q, *rotary), k, v, mask).transpose(1, 2).flatten(2)
    assert torch.allclose(layer(x, rotary, mask), layer.output(blend))
    padded = mask & (torch.arange(time) > 1)[None, None, None, :] | torch.eye(time, dtype=torch.bool)
    blend = attention(rotate(q, *rotary), k, v, padded).transpose(1, 2).flatten(2)
    assert torch.allclose(layer(x, rotary, padded), layer.output(blend))


def test_full_heads_at_one_position_are_multi_head_attention():
    torch.manual_seed(0)
    old, new = MultiHeadAttention(12, 3, bias=False), GroupedQueryAttention(12, 3, 3, 4)
    new.load_state_dict(old.state_dict())
    x = torch.randn(2, 5, 12)
    assert torch.allclose(new(x, rotary_table(torch.zeros(5), 4)), old(x), atol=1e-6)


def test_swiglu_is_its_formula():
    torch.manual_seed(0)
    layer, x = SwiGLU(5, 7), torch.randn(3, 4, 5)
    g, u = x @ layer.gate.weight.T, x @ layer.up.weight.T
    assert torch.allclose(layer(x), (g * torch.sigmoid(g) * u) @ layer.down.weight.T, atol=1e-6)
    assert not any(name.endswith("bias") for name, _ in Llama(SMALL).named_parameters())


# --- sizes, starts, counts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        ({"vocabulary": 0}, "whole number"),
        ({"hidden": 2.5}, "whole number"),
        ({"heads": 3, "kv_heads": 3}, "do not divide a width"),
        ({"kv_heads": 3}, "3 key heads do not divide 4"),
        ({"width": 12}, "even width"),
        ({"head_width": 3}, "even width"),
        ({"head_width": 0}, "even width"),
        ({"theta": 0.0}, "theta > 0"),
        ({"std": 0.0}, "std > 0"),
        ({"eps": -1e-6}, "eps ≥ 0"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **more)


def test_a_config_is_frozen_and_a_head_may_be_wider_than_its_share():
    with pytest.raises(FrozenInstanceError):
        SMALL.width = 3
    wide = replace(SMALL, head_width=10)
    assert SMALL.dim == 4 and wide.dim == 10
    assert Llama(wide)(sample_ids(SMALL)).shape == (2, 12, 11)


def test_the_start_is_seeded_and_writes_to_the_stream_are_small():
    config = LlamaConfig(200, 8, 64, 8, 4, 2, 128)
    a, b = Llama(config, generator(1)), Llama(config, generator(1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert math.isclose(a.blocks[0].attention.query.weight.std().item(), 0.02, rel_tol=0.1)
    assert math.isclose(a.blocks[0].feed.down.weight.std().item(), 0.02 / 4, rel_tol=0.1)
    assert torch.equal(a.norm.weight, torch.ones(64))


def test_ids_that_do_not_fit_are_refused():
    model = Llama(SMALL, generator())
    for ids, message in (
        (torch.zeros(1, 3), "int32 or int64"),
        ([[1, 2]], "int32 or int64"),
        (torch.zeros(3, dtype=torch.long), "batch, time"),
        (torch.zeros(1, 0, dtype=torch.long), "not empty"),
        (torch.zeros(1, 13, dtype=torch.long), "13 positions, but the context is 12"),
        (torch.full((1, 2), 11), "vocabulary is 0 to 10"),
        (torch.full((1, 2), -1), "ids from -1"),
    ):
        with pytest.raises(ValueError, match=message):
            model(ids)
    caches = [KVCache() for _ in model.blocks]
    with torch.no_grad():
        model(torch.zeros(1, 12, dtype=torch.int32), caches)
        with pytest.raises(ValueError, match="13 positions"):
            model(torch.zeros(1, 1, dtype=torch.long), caches)


def test_parts_refuse_what_does_not_fit():
    table, x = rotary_table(torch.arange(3), 4), torch.zeros(2, 3, 4)
    for args, message in (
        ((x, *rotary_table(torch.arange(2), 4)), "3 positions in x"),
        ((x, *rotary_table(torch.arange(1), 4)), "3 positions in x"),
        ((torch.zeros(2, 3, 6), *table), r"\(time, dim/2\)"),
        ((x, table[0], table[1][:2]), r"\(time, dim/2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            rotate(*args)
    for dim, theta in ((3, 1e4), (0, 1e4), (4, 0.0)):
        with pytest.raises(ValueError, match="even dim"):
            rotary_table(torch.arange(3), dim, theta)
    for weight, heads in ((torch.zeros(6, 2), 2), (torch.zeros(4, 2), 0), (torch.zeros(0, 2), 1)):
        with pytest.raises(ValueError, match="heads of an even width"):
            interleaved_to_halves(weight, heads)
    for sizes, message in (((8, 3, 2, 4), "do not divide"), ((8, 2, 0, 4), "do not divide"), ((8, 2, 1, 3), "even")):
        with pytest.raises(ValueError, match=message):
            GroupedQueryAttention(*sizes)
    layer = GroupedQueryAttention(8, 2, 1, 4)
    with pytest.raises(ValueError, match=r"\(batch, time, 8\)"):
        layer(torch.zeros(2, 3, 7), table)
    with pytest.raises(ValueError, match="three axes"):
        layer(torch.zeros(2, 3, 8), table, torch.ones(2, 3, 3, dtype=torch.bool))


def test_cache_bytes_are_counted_and_refuse_nonsense():
    assert kv_cache_bytes(SMALL, 1, 1) == 2 * 2 * 2 * 2 * 4
    assert kv_cache_bytes(SMALL, 3, 5, 0.5) == 3 * 5 * 2 * 2 * 2 * 4 // 2
    assert kv_cache_bytes(SMALL, 1, 0) == 0
    for args in ((0, 1), (1, -1), (1, 13), (1, 1, 0)):
        with pytest.raises(ValueError, match="need batch"):
            kv_cache_bytes(SMALL, *args)


def test_it_runs_on_another_device_and_in_half_precision():
    with torch.device("meta"):
        assert Llama(SMALL)(torch.zeros(2, 5, dtype=torch.long)).device.type == "meta"
    model = Llama(SMALL, generator()).bfloat16()
    assert model(sample_ids(SMALL)).dtype == torch.bfloat16
    assert isinstance(model.norm, nn.Module)


def test_a_block_adds_attention_and_then_the_feed_forward_part_to_the_stream():
    block, x = LlamaBlock(SMALL), torch.randn(2, 5, SMALL.width, generator=generator(1))
    table = rotary_table(torch.arange(5), SMALL.width // SMALL.heads)
    with torch.no_grad():
        u = x + block.attention(block.attention_norm(x), table)
        expected = u + block.feed(block.feed_norm(u))
        assert isinstance(block.feed, SwiGLU) and torch.allclose(block(x, table), expected)
        for out in (block.attention.output, block.feed.down):
            out.weight.zero_()
        assert torch.equal(block(x, table), x)  # nothing is added: nothing changes
    assert [type(b) for b in Llama(SMALL).blocks] == [LlamaBlock] * SMALL.layers
