"""groundup.transformer against transformers and torch on sizes the chapter does not show."""

import ast
import inspect
import math
import warnings
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import groundup.transformer
from groundup.attention import causal_mask
from groundup.transformer import (
    GPT,
    NAMES,
    Block,
    FeedForward,
    GPTConfig,
    count_parameters,
    forward_flops,
    gelu,
    load_gpt2,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its progress bars look for widgets
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

few = settings(deadline=None, max_examples=12)
seeds = st.integers(0, 2**31)


@st.composite
def configs(draw):
    heads = draw(st.integers(1, 4))
    return GPTConfig(
        vocabulary=draw(st.integers(2, 40)),
        context=draw(st.integers(1, 12)),
        width=heads * draw(st.integers(1, 6)),
        layers=draw(st.integers(1, 3)),
        heads=heads,
        hidden=draw(st.none() | st.integers(1, 30)),
        tied=draw(st.booleans()),
        eps=draw(st.sampled_from([1e-5, 1e-3])),
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample_ids(config, seed, batch=2, time=None):
    return torch.randint(config.vocabulary, (batch, time or config.context), generator=generator(seed))


def shaken(model, seed):
    """No weight is 0 or 1 any more."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator(seed), dtype=p.dtype))
    return model


def theirs(config, seed, kind=GPT2LMHeadModel, **settings):
    model = kind(
        GPT2Config(
            vocab_size=config.vocabulary, n_positions=config.context, n_embd=config.width,
            n_layer=config.layers, n_head=config.heads, n_inner=config.hidden,
            layer_norm_epsilon=config.eps, tie_word_embeddings=config.tied,
            bos_token_id=0, eos_token_id=0, **settings,
        )
    )  # fmt: skip
    return shaken(model.double().eval(), seed)


# --- the whole model against transformers -------------------------------------------------------


@few
@given(configs(), seeds)
def test_logits_and_gradients_are_transformers(config, seed):
    reference = theirs(config, seed)
    model, ids = load_gpt2(reference), sample_ids(config, seed)
    assert replace(model.config, hidden=config.hidden) == config and not model.training
    ours, expected = model(ids), reference(ids).logits
    assert torch.allclose(ours, expected, rtol=0, atol=1e-10)
    ours.square().sum().backward()
    expected.square().sum().backward()
    for mine, other in (
        (model.tokens.weight, reference.transformer.wte.weight),
        (model.positions.weight, reference.transformer.wpe.weight),
        (model.norm.bias, reference.transformer.ln_f.bias),
        (model.blocks[0].feed.up.bias, reference.transformer.h[0].mlp.c_fc.bias),
    ):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-6, atol=1e-8)
    mine, other = model.blocks[0].attention.output, reference.transformer.h[0].attn.c_proj
    assert torch.allclose(mine.weight.grad.T, other.weight.grad, rtol=1e-6, atol=1e-8)


@few
@given(configs(), seeds, st.booleans())
def test_a_state_dict_loads_with_or_without_prefix_and_masks(config, seed, prefix):
    reference = theirs(replace(config, tied=True, eps=1e-5), seed)
    state = reference.state_dict() if prefix else reference.transformer.state_dict()
    state |= {"h.0.attn.bias": torch.ones(1), "h.0.attn.masked_bias": torch.ones(1)}
    ids, model = sample_ids(config, seed), load_gpt2(state, heads=config.heads)
    assert torch.allclose(model(ids), reference(ids).logits, rtol=0, atol=1e-10)
    assert model.head.weight is model.tokens.weight
    model.tokens.weight.data.zero_()  # a copy: the source is not changed
    assert reference.transformer.wte.weight.abs().sum() > 0


def test_a_bare_gpt2model_gets_a_tied_head_and_float32_stays_float32():
    config = GPTConfig(11, 7, 12, 2, 3)
    bare = theirs(config, 3, kind=GPT2Model).float()
    model, ids = load_gpt2(bare), sample_ids(config, 3)
    hidden = bare(ids).last_hidden_state
    assert model(ids).dtype == torch.float32
    assert (model(ids) - hidden @ bare.wte.weight.T).abs().max() < 1e-5


def test_load_says_what_is_wrong():
    config = GPTConfig(11, 7, 12, 2, 3)
    state = theirs(config, 0).state_dict()
    for change, words in (
        ({"transformer.h.0.attn.c_who.weight": torch.ones(2, 2)}, "has no h.0.attn.c_who.weight"),
        ({"transformer.wpe.weight": torch.ones(7, 5)}, "do not fit together"),
        ({"transformer.h.1.mlp.c_fc.weight": torch.ones(48, 12)}, "do not fit together"),
    ):
        with pytest.raises(ValueError, match=words):
            load_gpt2(state | change, heads=3)
    for gone, words in (
        ("transformer.wte.weight", "wte.weight is missing"),
        ("transformer.h.1.ln_2.bias", "blocks.1.feed_norm.bias"),
    ):
        with pytest.raises(ValueError, match=words):
            load_gpt2({k: v for k, v in state.items() if k != gone}, heads=3)
    with pytest.raises(ValueError, match="give `heads`"):
        load_gpt2(state)
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        load_gpt2(state, heads=5)
    with pytest.raises(ValueError, match="not the weights of a GPT-2"):
        load_gpt2({}, heads=3)
    with pytest.raises(ValueError, match="tanh form"):
        load_gpt2(theirs(config, 0, activation_function="relu"))
    with pytest.raises(ValueError, match="by nothing else"):
        load_gpt2(theirs(config, 0, scale_attn_by_inverse_layer_idx=True))


def test_names_cover_every_parameter_of_a_block():
    model = GPT(GPTConfig(5, 4, 6, 1, 2))
    ours = {part for parts in NAMES.values() for part in parts}
    named = {n.removeprefix("blocks.0.").rpartition(".")[0] for n, _ in model.named_parameters()}
    assert ours == named and len(ours) == len([p for parts in NAMES.values() for p in parts])


def test_the_model_and_its_loader_have_fewer_than_150_lines_of_code():
    tree = ast.parse(inspect.getsource(groundup.transformer))
    counted = 0
    for node in tree.body:
        name = getattr(node, "name", None)
        if isinstance(node, ast.Assign):
            name = node.targets[0].id
        if name in {"GPTConfig", "FeedForward", "Block", "GPT", "NAMES", "load_gpt2"}:
            lines = set(range(node.lineno, node.end_lineno + 1))
            for inner in ast.walk(node):
                if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                    lines -= set(range(inner.lineno, inner.end_lineno + 1))  # docstrings
            source = inspect.getsource(groundup.transformer).splitlines()
            counted += sum(bool(source[i - 1].strip()) for i in lines)
    assert 80 < counted < 150


# --- the parts ----------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([torch.float32, torch.float64]))
def test_gelu_is_torchs_with_its_gradient(seed, scale, dtype):
    x = (scale * torch.randn(50, generator=generator(seed), dtype=dtype)).requires_grad_()
    y, expected = gelu(x), nn.functional.gelu(x, approximate="tanh")
    tight = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.allclose(y, expected, rtol=tight, atol=tight)
    (mine,), (other,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x)
    assert torch.allclose(mine, other, rtol=10 * tight, atol=10 * tight)
    assert gelu(torch.zeros(1, dtype=dtype)) == 0 and torch.equal(y.detach(), gelu(x.detach()))


def test_gelu_is_close_to_the_exact_form_and_keeps_shapes():
    x = torch.linspace(-8, 8, 999, dtype=torch.float64).reshape(3, 333)
    assert (gelu(x) - nn.functional.gelu(x)).abs().max() < 1e-3
    assert gelu(x).shape == (3, 333) and gelu(x).argmin() == x.sub(-0.752).abs().argmin()


@few
@given(st.integers(1, 6), st.integers(1, 9), seeds)
def test_feed_forward_works_on_each_position_alone(width, hidden, seed):
    layer = FeedForward(width, hidden).double()
    x = torch.randn(2, 5, width, generator=generator(seed), dtype=torch.float64)
    whole = layer(x)
    assert whole.shape == x.shape
    assert torch.allclose(layer(x[:, 3]), whole[:, 3], atol=1e-12)
    expected = gelu(x @ layer.up.weight.T + layer.up.bias) @ layer.down.weight.T + layer.down.bias
    assert torch.allclose(whole, expected, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == 2 * width * hidden + width + hidden


@few
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7), seeds)
def test_block_is_torchs_encoder_layer(heads, per_head, time, seed):
    width = heads * per_head
    config = GPTConfig(5, 8, width, 1, heads, hidden=7)
    block = shaken(Block(config).double(), seed)
    twin = nn.TransformerEncoderLayer(
        width, heads, 7, dropout=0, activation=gelu, batch_first=True, norm_first=True
    ).double()
    a, joined = block.attention, {}
    for kind in ("weight", "bias"):
        joined[kind] = torch.cat([getattr(x, kind).data for x in (a.query, a.key, a.value)])
    twin.self_attn.in_proj_weight.data, twin.self_attn.in_proj_bias.data = joined["weight"], joined["bias"]
    for mine, other in ((a.output, twin.self_attn.out_proj), (block.feed.up, twin.linear1),
                        (block.feed.down, twin.linear2), (block.attention_norm, twin.norm1),
                        (block.feed_norm, twin.norm2)):  # fmt: skip
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, time, width, generator=generator(seed), dtype=torch.float64)
    mask = causal_mask(time)
    assert torch.allclose(block(x, mask), twin(x, src_mask=~mask), atol=1e-9)
    assert torch.allclose(block(x), twin(x), atol=1e-9)


def test_dropout_is_off_in_evaluation_and_random_in_training():
    config = GPTConfig(9, 6, 8, 2, 2, dropout=0.5)
    model, ids = GPT(config, generator()), sample_ids(GPTConfig(9, 6, 8, 2, 2), 1)
    plain = GPT(replace(config, dropout=0.0), generator())
    assert torch.equal(model.eval()(ids), plain(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    x = torch.randn(1, 6, 8)
    block = Block(config)
    assert not torch.equal(block(x), block(x)) and torch.equal(block.eval()(x), block(x))


# --- causality, stream, initialisation ----------------------------------------------------------


@few
@given(configs(), seeds, st.data())
def test_a_later_token_changes_no_earlier_logit(config, seed, data):
    model, ids = shaken(GPT(config, generator(seed)), seed), sample_ids(config, seed)
    j = data.draw(st.integers(0, config.context - 1))
    changed = ids.clone()
    changed[:, j] = (changed[:, j] + 1) % config.vocabulary
    with torch.no_grad():
        before, after = model(ids), model(changed)
        assert torch.equal(before[:, :j], after[:, :j])
        prefix = model(ids[:, : j + 1])
    assert torch.allclose(prefix, before[:, : j + 1], atol=1e-4)


@few
@given(configs(), seeds)
def test_stream_starts_with_the_embedding_and_ends_in_the_logits(config, seed):
    model, ids = GPT(config, generator(seed)), sample_ids(config, seed)
    stream = list(model.stream(ids))
    assert len(stream) == config.layers + 1
    assert torch.equal(stream[0], model.tokens(ids) + model.positions.weight[: ids.shape[1]])
    assert torch.equal(model.head(model.norm(stream[-1])), model(ids))
    assert model(ids).shape == (*ids.shape, config.vocabulary)


@few
@given(configs(), seeds)
def test_initial_weights_follow_the_generator(config, seed):
    first, second = GPT(config, generator(seed)), GPT(config, generator(seed))
    for (name, p), q in zip(first.named_parameters(), second.parameters()):
        assert torch.equal(p, q) and p.requires_grad
        if name.endswith("bias"):
            assert not p.any()
        elif "norm" in name:
            assert (p == 1).all()
    second.initialise(generator(seed + 1))
    assert not torch.equal(first.tokens.weight, second.tokens.weight)
    assert (first.head.weight is first.tokens.weight) == config.tied


def test_initial_weights_have_gpt2s_sizes():
    torch.manual_seed(0)
    model = GPT(GPTConfig(500, 100, 96, 8, 4))
    block = model.blocks[3]
    for weight, std in (
        (model.tokens.weight, 0.02), (model.positions.weight, 0.02), (block.feed.up.weight, 0.02),
        (block.attention.query.weight, 0.02), (block.feed.down.weight, 0.02 / 4),
        (block.attention.output.weight, 0.02 / 4),
    ):  # fmt: skip
        assert math.isclose(weight.std().item(), std, rel_tol=0.05)
    ids = sample_ids(model.config, 0)
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1, 1).flatten())
    assert math.isclose(loss.item(), math.log(500), rel_tol=0.05)


def test_another_block_can_be_put_in():
    class Nothing(nn.Module):
        def __init__(self, config):
            super().__init__()

        def forward(self, x, mask=None):
            return x

    model = GPT(GPTConfig(9, 6, 8, 3, 2), generator(), block=Nothing)
    ids = sample_ids(model.config, 0)
    first, *_, last = model.stream(ids)
    assert torch.equal(first, last) and len(model.blocks) == 3


def test_a_tied_model_learns_a_constant_sequence():
    torch.manual_seed(0)
    model = GPT(GPTConfig(7, 8, 16, 1, 2))
    ids = torch.tensor([[1, 2, 3, 1, 2, 3, 1, 2]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 and model.head.weight is model.tokens.weight


# --- counts -------------------------------------------------------------------------------------


@few
@given(configs())
def test_parameters_are_counted(config):
    assert count_parameters(config) == sum(p.numel() for p in GPT(config).parameters())
    more = replace(config, layers=config.layers + 1)
    assert count_parameters(more) > count_parameters(config)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((1024, 768, 12, 12), 124_439_808), ((1024, 1024, 24, 16), 354_823_168), ((1024, 1600, 48, 25), 1_557_611_200)],
)
def test_parameters_of_the_published_sizes(sizes, count):
    context, width, layers, heads = sizes
    assert count_parameters(GPTConfig(50257, context, width, layers, heads)) == count


@few
@given(configs(), st.integers(1, 3), st.data())
def test_flops_are_torchs_count_forward_and_backward(config, batch, data):
    time = data.draw(st.integers(1, config.context))
    model, ids = GPT(config, generator()), sample_ids(config, 0, batch, time)
    with FlopCounterMode(display=False) as counter:
        logits = model(ids)
        assert counter.get_total_flops() == forward_flops(config, batch, time)
        logits.sum().backward()
    assert counter.get_total_flops() == 3 * forward_flops(config, batch, time)


@pytest.mark.parametrize(("batch", "time"), [(0, 1), (1, 0), (1, 7)])
def test_flops_refuse_what_cannot_run(batch, time):
    config = GPTConfig(5, 6, 4, 1, 2)
    with pytest.raises(ValueError, match="need batch"):
        forward_flops(config, batch, time)
    assert forward_flops(config, 2, 6) == 2 * forward_flops(config, 1, 6)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "3 heads do not divide a width of 8"), ({"vocabulary": 0}, "whole number"),
        ({"context": 0}, "whole number"), ({"layers": -1}, "whole number"), ({"width": 8.0}, "whole number"),
        ({"hidden": 0}, "whole number"), ({"heads": 0}, "whole number"), ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"), ({"std": 0.0}, "std"), ({"eps": -1.0}, "eps"), ({"std": math.nan}, "std"),
    ],
)  # fmt: skip
def test_config_refuses_sizes_that_cannot_be_built(change, words):
    with pytest.raises(ValueError, match=words):
        replace(GPTConfig(5, 6, 8, 1, 2), **change)


def test_config_is_frozen_and_tells_its_hidden_units():
    config = GPTConfig(5, 6, 8, 1, 2)
    assert config.inner == 32 and replace(config, hidden=5).inner == 5 and replace(config, width=4).inner == 16
    with pytest.raises(FrozenInstanceError):
        config.width = 9


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(1, 7, dtype=torch.long), "7 positions, but the context is 6"),
        (torch.tensor([[0, 5]]), "ids from 0 to 5, but the vocabulary is 0 to 4"),
        (torch.tensor([[-1, 2]]), "ids from -1 to 2"),
        (torch.zeros(3, dtype=torch.long), r"must be \(batch, time\)"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"must be \(batch, time\)"),
        (torch.zeros(0, 3, dtype=torch.long), "not empty"),
        (torch.zeros(2, 0, dtype=torch.long), "not empty"),
        (torch.zeros(1, 3), "int32 or int64, not torch.float32"),
        (torch.zeros(1, 3, dtype=torch.bool), "int32 or int64"),
        ([[1, 2]], "not list"),
    ],
)
def test_model_refuses_ids_it_does_not_know(ids, words):
    model = GPT(GPTConfig(5, 6, 8, 1, 2))
    with pytest.raises(ValueError, match=words):
        model(ids)
    with pytest.raises(ValueError, match=words):
        next(model.stream(ids))


def test_int32_ids_and_the_meta_device_work():
    config = GPTConfig(5, 6, 8, 2, 2)
    model, ids = GPT(config, generator()), sample_ids(config, 0)
    assert torch.equal(model(ids), model(ids.int()))
    with torch.device("meta"):  # refuses to mix devices, as CUDA does
        assert GPT(config)(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 5)
