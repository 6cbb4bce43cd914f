"""groundup.training against torch.nn, gradient checking, and runs that were never interrupted."""

import copy
import itertools
import json
import math
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groundup.optimization import warmup_cosine
from groundup.training import (
    MAGIC,
    VERSION,
    Batches,
    BatchNorm,
    CheckpointError,
    Dropout,
    LayerNorm,
    RMSNorm,
    decode_state,
    encode_state,
    init_,
    load_checkpoint,
    normalise,
    normalise_backward,
    previous_generation,
    save_checkpoint,
)

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(seed, *sizes, dtype=torch.float64):
    g = generator(seed)
    return [torch.randn(size, generator=g, dtype=dtype) for size in sizes]


# --- init_ -------------------------------------------------------------------------------------


@few
@given(st.integers(1, 30), st.integers(1, 30), seeds)
def test_init_is_torchs_kaiming_and_xavier(inputs, outputs, seed):
    for fan, theirs in (
        ("in", lambda w, g: nn.init.kaiming_normal_(w, mode="fan_in", generator=g)),
        ("out", lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", generator=g)),
        ("mean", lambda w, g: nn.init.xavier_normal_(w, gain=2**0.5, generator=g)),
    ):
        for layer in (nn.Linear(inputs, outputs), nn.Conv2d(inputs, outputs, 3)):
            assert init_(layer, fan=fan, generator=generator(seed)) is layer
            expected = theirs(torch.empty_like(layer.weight), generator(seed))
            assert torch.allclose(layer.weight, expected, rtol=1e-6)
            assert not layer.bias.any() and layer.weight.requires_grad


@pytest.mark.parametrize("gain", [0.5, 1.0, 2**0.5])
def test_init_has_the_variance_that_was_derived(gain):
    layer = init_(nn.Linear(400, 300, bias=False), gain, generator=generator())
    assert abs(layer.weight.mean().item()) < 4 * gain / 20 / math.sqrt(120_000)
    assert math.isclose(layer.weight.std().item(), gain / 20, rel_tol=0.01)
    x = torch.randn(2000, 400, generator=generator(1))
    assert math.isclose(layer(x).square().mean().item(), gain**2, rel_tol=0.05)


def test_init_without_a_generator_follows_the_global_seed():
    torch.manual_seed(5)
    first = init_(nn.Linear(4, 3)).weight.clone()
    torch.manual_seed(5)
    assert torch.equal(init_(nn.Linear(4, 3)).weight, first)
    assert init_(nn.Linear(4, 3, device="meta")).weight.is_meta
    assert init_(nn.Linear(4, 3, dtype=torch.float64), generator=generator()).weight.dtype == torch.float64


def test_init_says_what_is_wrong():
    for layer in (nn.ReLU(), nn.LayerNorm(3), LayerNorm(3), nn.Sequential()):
        with pytest.raises(ValueError, match="two axes"):
            init_(layer)
    with pytest.raises(ValueError, match="fan must be one of"):
        init_(nn.Linear(2, 2), fan="sideways")
    for gain in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="gain"):
            init_(nn.Linear(2, 2), gain)


# --- normalise ---------------------------------------------------------------------------------


def dims_of(data, ndim):
    return tuple(sorted(data.draw(st.sets(st.integers(0, ndim - 1), min_size=1))))


@few
@given(shapes, st.data(), seeds, st.booleans(), st.sampled_from([1e-5, 1e-2, 1.0]))
def test_normalise_backward_is_autograds(shape, data, seed, centre, eps):
    dims = dims_of(data, len(shape))
    x, g = normal(seed, shape, shape)
    x = (3 * x + 1).requires_grad_()
    x_hat, mean, square = normalise(x, dims, eps, centre)
    (expected,) = torch.autograd.grad(x_hat, x, g)
    found = normalise_backward(g, x_hat, square, dims, eps, centre)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8 / math.sqrt(eps))
    assert torch.autograd.gradcheck(lambda x: normalise(x, dims, eps, centre)[0], x)


@few
@given(shapes, st.data(), seeds)
def test_normalise_gives_mean_0_and_square_1_and_numpys_statistics(shape, data, seed):
    dims = dims_of(data, len(shape))
    (x,) = normal(seed, shape)
    x_hat, mean, square = normalise(x, dims, 0.25)
    a = x.numpy()
    assert np.allclose(mean.numpy(), a.mean(axis=dims, keepdims=True))
    assert np.allclose(square.numpy(), a.var(axis=dims, keepdims=True))
    assert np.allclose(x_hat.mean(dims).numpy(), 0, atol=1e-12)
    r_hat, zero, square = normalise(x, dims, 0.25, centre=False)
    assert not zero.any() and np.allclose(square.numpy(), (a**2).mean(axis=dims, keepdims=True))
    assert torch.allclose(r_hat, x / (square + 0.25).sqrt())


@few
@given(seeds, st.integers(3, 6), st.integers(3, 7))
def test_normalise_backward_is_a_symmetric_projection_without_eps(seed, n, c):
    x, g, h = normal(seed, (n, c), (n, c), (n, c))
    x_hat, _, square = normalise(x, -1, 0.0)

    def back(g):
        return normalise_backward(g, x_hat, square, -1, 0.0) * square.sqrt()

    once = back(g)
    assert torch.allclose(back(once), once, atol=1e-10)
    assert torch.allclose((once * h).sum(), (g * back(h)).sum(), atol=1e-10)
    assert torch.allclose(once.sum(-1), torch.zeros(n, dtype=torch.float64), atol=1e-10)
    assert torch.allclose((once * x_hat).sum(-1), torch.zeros(n, dtype=torch.float64), atol=1e-10)


def test_normalise_computes_halves_in_float32():
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows in float16
    x[0, 0] = -300
    x_hat, mean, square = normalise(x, -1, 1e-6, centre=False)
    assert x_hat.dtype == torch.float16 and square.dtype == torch.float32
    assert torch.equal(x_hat, torch.tensor([[-1, 1, 1, 1]], dtype=torch.float16))


# --- the layers ---------------------------------------------------------------------------------


def agree(ours, theirs, x, seed, tolerance=1e-9):
    """Output, gradients of input and parameters, and buffers are those of torch."""
    theirs.load_state_dict(ours.state_dict())
    ours.zero_grad()
    theirs.zero_grad()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = ours(a), theirs(b)
    (g,) = normal(seed, y.shape, dtype=y.dtype)
    y.backward(g)
    z.backward(g)
    assert y.dtype == z.dtype
    pairs = [(y, z), (a.grad, b.grad), *zip(ours.buffers(), theirs.buffers(), strict=True)]
    pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    for p, q in pairs:
        assert torch.allclose(p, q, rtol=tolerance, atol=tolerance * max(1, q.abs().max().item()))


def randomised(layer, seed, dtype=torch.float64):
    g = generator(seed)
    for p in layer.parameters():
        nn.init.normal_(p, generator=g)
    return layer.to(dtype)


@few
@given(st.integers(2, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), seeds, st.booleans())
def test_batch_norm_is_torchs(n, c, height, width, seed, image):
    shape = (n, c, height, width) if image else (n, c)
    momentum = 0.3 if seed % 2 else 0.1
    ours = randomised(BatchNorm(c, 1e-3, momentum), seed)
    theirs = (nn.BatchNorm2d if image else nn.BatchNorm1d)(c, 1e-3, momentum).double()
    for i, training in enumerate((True, True, False, True)):
        (x,) = normal(seed + i, shape)
        agree(ours.train(training), theirs.train(training), 2 * x + 1, seed)
    assert ours.num_batches_tracked.item() == 3


@few
@given(shapes, seeds)
def test_layer_norm_is_torchs(shape, seed):
    (x,) = normal(seed, shape)
    ours = randomised(LayerNorm(shape[-1], 1e-3), seed)
    for training in (True, False):
        agree(ours.train(training), nn.LayerNorm(shape[-1], 1e-3).double(), 2 * x + 1, seed)


@few
@given(shapes, seeds)
def test_rms_norm_is_torchs(shape, seed):
    (x,) = normal(seed, shape)
    agree(randomised(RMSNorm(shape[-1], 1e-3), seed), nn.RMSNorm(shape[-1], 1e-3).double(), 2 * x, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_and_rms_norm_in_narrow_types(dtype):
    (x,) = normal(0, (6, 16), dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    for ours, theirs in ((LayerNorm(16), nn.LayerNorm(16)), (RMSNorm(16), nn.RMSNorm(16, 1e-6))):
        agree(ours.to(dtype), theirs.to(dtype), x, 1, tolerance)


@few
@given(st.integers(2, 4), st.integers(1, 3), seeds)
def test_gradients_of_the_layers_by_gradient_checking(n, c, seed):
    (x,) = normal(seed, (n, c))
    for layer in (BatchNorm(c, 1e-2), LayerNorm(c, 1e-2), RMSNorm(c, 1e-2)):
        layer = randomised(layer, seed)
        names, values = zip(*layer.named_parameters())

        def f(x, *values, layer=layer, names=names):
            return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

        inputs = [t.detach().clone().requires_grad_() for t in (x, *values)]
        assert torch.autograd.gradcheck(f, inputs, nondet_tol=0)


def test_defaults_are_those_of_torch():
    assert BatchNorm(3).eps == nn.BatchNorm1d(3).eps and BatchNorm(3).momentum == nn.BatchNorm1d(3).momentum
    assert LayerNorm(3).eps == nn.LayerNorm(3).eps and RMSNorm(3).eps == 1e-6
    for ours, theirs in (
        (BatchNorm(3), nn.BatchNorm2d(3)),
        (LayerNorm(3), nn.LayerNorm(3)),
        (RMSNorm(3), nn.RMSNorm(3)),
    ):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours.load_state_dict(theirs.state_dict())
        assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


def test_rows_are_independent_except_in_batch_norm_while_training():
    (x,) = normal(0, (5, 4))
    for layer, mixes in (
        (BatchNorm(4), True),
        (BatchNorm(4).eval(), False),
        (LayerNorm(4), False),
        (RMSNorm(4), False),
    ):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad((layer.double()(x)[2] ** 3).sum(), x)
        others = torch.cat([g[:2], g[3:]])
        assert bool(others.any()) == mixes


@pytest.mark.parametrize("layer", [BatchNorm, LayerNorm, RMSNorm])
def test_layers_say_what_is_wrong(layer):
    for bad in (lambda: layer(0), lambda: layer(3, -1.0), lambda: layer(3, math.nan)):
        with pytest.raises(ValueError, match="features must be"):
            bad()
    for shape in ((5, 4), (4,), ()):
        with pytest.raises(ValueError, match="expected, got"):
            layer(3)(torch.ones(shape))


def test_batch_norm_says_what_is_wrong():
    for shape in ((3,), (2, 3, 4), (2, 4, 3, 3), (2, 3, 1, 1, 1)):
        with pytest.raises(ValueError, match="expected, got"):
            BatchNorm(3)(torch.ones(shape))
    for shape in ((1, 3), (1, 3, 1, 1), (0, 3)):
        with pytest.raises(ValueError, match="more than one value"):
            BatchNorm(3)(torch.ones(shape))
        BatchNorm(3).eval()(torch.ones(shape))
    with pytest.raises(ValueError, match="momentum"):
        BatchNorm(3, momentum=1.5)


# --- dropout -----------------------------------------------------------------------------------


@few
@given(shapes, st.floats(0.01, 0.99), seeds)
def test_dropout_zeroes_or_scales_and_so_does_its_gradient(shape, p, seed):
    (x,) = normal(seed, shape)
    x = (x.abs() + 1).requires_grad_()
    y = Dropout(p, generator(seed))(x)
    y.sum().backward()
    kept = y != 0
    assert torch.allclose(y, torch.where(kept, x / (1 - p), 0.0))
    assert torch.allclose(x.grad, kept.double() / (1 - p))
    assert torch.equal(Dropout(p, generator(seed))(x), y)  # the same generator, the same mask


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean_and_adds_the_variance_that_was_derived(p):
    y = Dropout(p, generator(1))(torch.full((400_000,), 3.0))
    error = 3 * math.sqrt(p / (1 - p) / 400_000)
    assert abs(y.mean().item() - 3) < 5 * error
    assert math.isclose(y.var().item(), 9 * p / (1 - p), rel_tol=0.02)
    assert abs((y == 0).float().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / 400_000)


def test_dropout_does_nothing_in_evaluation_or_for_p_0():
    x = torch.ones(100)
    g = generator(0)
    before = g.get_state()
    assert Dropout(0.5, g).eval()(x) is x and Dropout(0.0, g)(x) is x
    assert torch.equal(g.get_state(), before)
    layer = Dropout(0.5, g)
    layer(x)
    middle, second = g.get_state(), layer(x)
    g.set_state(middle)
    assert torch.equal(layer(x), second) and layer.state_dict() == {}


def test_dropout_with_the_global_generator_and_other_devices():
    torch.manual_seed(0)
    first = Dropout(0.5)(torch.ones(50))
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(torch.ones(50)), first)
    assert Dropout(0.5, generator())(torch.ones(3, device="meta")).is_meta
    assert Dropout(0.5, generator())(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    for p in (-0.1, 1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="p must be"):
            Dropout(p)


# --- batches -----------------------------------------------------------------------------------


@few
@given(st.integers(1, 40), st.integers(1, 50), seeds, st.integers(1, 3))
def test_every_row_comes_exactly_once_per_epoch(n, size, seed, epochs):
    batches, per_epoch = Batches(n, size, seed), -(-n // size)
    seen = []
    for _ in range(epochs):
        rows = torch.cat([next(batches) for _ in range(per_epoch)])
        assert rows.dtype == torch.int64 and sorted(rows.tolist()) == list(range(n))
        seen.append(rows.tolist())
    assert (batches.epoch, batches.position) == (epochs, 0)
    assert n < 10 or epochs == 1 or seen[0] != seen[1]
    again = Batches(n, size, seed)
    assert torch.cat([next(again) for _ in range(per_epoch)]).tolist() == seen[0]


@few
@given(st.integers(1, 40), st.integers(1, 15), seeds, st.integers(0, 30))
def test_the_order_resumes_anywhere_through_json(n, size, seed, steps):
    batches = Batches(n, size, seed)
    for _ in range(steps):
        next(batches).zero_()  # what the caller does to a batch changes nothing
    resumed = Batches(n, size, seed + 1)
    next(resumed)
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    for a, b in itertools.islice(zip(batches, resumed), 2 * (n // size) + 3):
        assert torch.equal(a, b)


def test_batches_do_not_touch_global_generators_and_seeds_differ():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    orders = {tuple(next(Batches(20, 20, seed)).tolist()) for seed in range(10)}
    assert len(orders) == 10
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_batches_say_what_is_wrong():
    for n, size, seed in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(ValueError, match="at least"):
            Batches(n, size, seed)
    state = Batches(10, 3).state_dict()
    for change, match in (
        ({"n": 11}, "state of 11 rows"),
        ({"size": 4}, "in batches of 4"),
        ({"position": 1}, "no such place"),
        ({"position": 12}, "no such place"),
        ({"epoch": -1}, "no such place"),
        ({"extra": 1}, "not the state"),
    ):
        with pytest.raises(ValueError, match=match):
            Batches(10, 3).load_state_dict(state | change)
    with pytest.raises(ValueError, match="not the state"):
        Batches(10, 3).load_state_dict({})


# --- the format --------------------------------------------------------------------------------


def same(a, b):
    """Equal to the bit, types included."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and a.contiguous().reshape(-1).view(torch.uint8).equal(b.contiguous().reshape(-1).view(torch.uint8))
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator(draw(seeds))).to(dtype)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | tensors()
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@few
@given(states)
def test_a_state_comes_back_to_the_bit(state):
    before = copy.deepcopy(state)
    content = encode_state(state)
    assert same(decode_state(content), state) and same(state, before)
    assert encode_state(decode_state(content)) == content


@few
@given(states, st.data())
def test_any_change_of_the_bytes_is_noticed(state, data):
    content = bytearray(encode_state(state))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointError):
        decode_state(bytes(content))
    with pytest.raises(CheckpointError, match="damaged"):
        decode_state(encode_state(state) + b"\0")


def test_tensors_that_are_views_on_other_devices_or_need_gradients():
    x = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    state = {"view": x.T[1:], "scalar": x.sum(), "parameter": nn.Parameter(torch.ones(2)), "empty": x[:0]}
    back = decode_state(encode_state(state))
    assert all(torch.equal(back[k], state[k]) and not back[k].requires_grad for k in state)
    back["view"].add_(1)  # its own, writable memory
    assert decode_state(encode_state({"size": x.shape}))["size"] == (3, 4)
    assert decode_state(encode_state({"lr": np.float64(0.1)}))["lr"] == 0.1


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.ones(2), "cannot hold a ndarray"),
        (object(), "cannot hold a object"),
        ({"f": print}, "cannot hold a builtin"),
        ({1.5: 0}, "keys must be"),
        ({True: 0}, "keys must be"),
        ({1, 2}, "cannot hold a set"),
        (torch.ones(2, device="meta"), "dense tensors"),
        (torch.eye(2).to_sparse(), "dense tensors"),
        (b"bytes", "cannot hold a bytes"),
    ],
)
def test_values_that_a_checkpoint_cannot_hold(value, match, tmp_path):
    path = tmp_path / "state"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(CheckpointError, match=match):
        encode_state(value)
    with pytest.raises(CheckpointError, match=match):
        save_checkpoint(path, [value])
    assert load_checkpoint(path) == {"step": 1} and [p.name for p in tmp_path.iterdir()] == ["state"]


# --- files -------------------------------------------------------------------------------------


def real_state(step):
    """A model, optimizer, data order and generator: all that a run has, in under 20 KB."""
    g = generator(step)
    model = nn.Sequential(init_(nn.Linear(4, 5), generator=g), BatchNorm(5), Dropout(0.5, g), nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(6, 4, generator=g)).square().sum().backward()
    optimizer.step()
    batches = Batches(10, 3, step)
    next(batches)
    parts = {"model": model, "optimizer": optimizer, "batches": batches}
    return {"step": step, "noise": g.get_state()} | {k: part.state_dict() for k, part in parts.items()}


def quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_checkpoint(path)


def test_torn_at_every_byte_it_is_the_old_one_or_the_new_one(tmp_path):
    path, new = tmp_path / "run", real_state(2)
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, new)
    content = path.read_bytes()
    assert len(content) < 20_000
    assert same(load_checkpoint(path), new)
    for length in reversed(range(len(content))):
        os.truncate(path, length)
        assert quietly(path) == {"step": 1}
    path.write_bytes(content)
    assert same(load_checkpoint(path), new)


def test_a_temporary_file_torn_at_any_byte_is_never_read(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, real_state(1))
    content = encode_state(real_state(2))
    for length in range(0, len(content) + 1, 97):
        (tmp_path / "run.new").write_bytes(content[:length])
        assert load_checkpoint(path)["step"] == 1
    save_checkpoint(path, real_state(3))
    assert load_checkpoint(path)["step"] == 3 and not (tmp_path / "run.new").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("generations", "damaged"), [(1, False), (2, False), (3, False), (2, True), (3, True)])
def test_killed_before_or_after_any_system_call(tmp_path, monkeypatch, generations, damaged):
    """Whatever was done so far, what is loaded is the state before or the new one."""
    for stop in itertools.count():
        path = tmp_path / f"run {stop}"
        for step in range(generations):
            save_checkpoint(path, {"step": step})
        before = generations - 1
        if damaged:
            path.write_bytes(path.read_bytes()[:-5])
            before -= 1
        calls = []

        def deadly(real, calls=calls, stop=stop):
            def call(*args):
                calls.append(real)
                if len(calls) > stop:
                    raise Killed
                return real(*args)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace"):
                patch.setattr(os, name, deadly(getattr(os, name)))
            try:
                save_checkpoint(path, {"step": 99})
                finished = True
            except Killed:
                finished = False
        assert quietly(path)["step"] in (before, 99)
        assert not finished or load_checkpoint(path)["step"] == 99
        save_checkpoint(path, {"step": 100})
        assert load_checkpoint(path)["step"] == 100
        if finished:
            break
    assert stop >= 3


def test_a_damaged_file_never_replaces_a_whole_one(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, {"step": 2})
    path.write_bytes(b"torn")
    save_checkpoint(path, {"step": 3})
    assert decode_state(previous_generation(path).read_bytes()) == {"step": 1}
    save_checkpoint(path, {"step": 4})
    assert decode_state(previous_generation(path).read_bytes()) == {"step": 3}
    assert previous_generation(str(path)).name == "run.previous"


def test_falling_back_warns_and_says_why(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, {"step": 2})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="run is damaged: .*; going on from run.previous"):
        assert load_checkpoint(path) == {"step": 1}
    path.unlink()
    with pytest.warns(UserWarning, match="run is missing"):
        assert load_checkpoint(path) == {"step": 1}


def test_loading_says_what_is_wrong(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(path)
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match="not written by save_checkpoint"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps({"step": 1}))
    with pytest.raises(CheckpointError, match="not written by"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="run is damaged"):
        load_checkpoint(path)
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, {"step": 2})
    for each in (path, previous_generation(path)):
        each.write_bytes(each.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="no whole checkpoint.*run is damaged.*run.previous is damaged"):
        load_checkpoint(path)


def test_a_later_version_is_refused(monkeypatch):
    monkeypatch.setattr("groundup.training.VERSION", VERSION + 1)
    content = encode_state({"step": 1})
    monkeypatch.undo()
    assert content.startswith(MAGIC)
    with pytest.raises(CheckpointError, match=f"version {VERSION + 1}"):
        decode_state(content)


def test_a_missing_folder_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "nowhere" / "run", {})


# --- the resume --------------------------------------------------------------------------------


class Job:
    """A small run with everything that can be forgotten."""

    def __init__(self, seed):
        self.noise = generator(seed)
        self.model = nn.Sequential(
            init_(nn.Linear(6, 8), generator=self.noise), BatchNorm(8), nn.ReLU(), Dropout(0.3, self.noise),
            LayerNorm(8), init_(nn.Linear(8, 3), generator=self.noise),
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.batches, self.t = Batches(20, 6, seed), 0
        self.x, self.y = torch.randn(20, 6, generator=generator(9)), torch.arange(20) % 3

    def step(self):
        rows = next(self.batches)
        self.optimizer.param_groups[0]["lr"] = warmup_cosine(self.t, 0.01, 40, 5)
        loss = nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.t += 1

    def state(self):
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "batches")}
        return parts | {"t": self.t, "noise": self.noise.get_state()}

    def load(self, state):
        for name in ("model", "optimizer", "batches"):
            getattr(self, name).load_state_dict(state[name])
        self.t = state["t"]
        self.noise.set_state(state["noise"])


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 25), st.integers(0, 25), seeds)
def test_a_run_resumed_anywhere_equals_one_that_never_stopped(first, second, seed):
    alone = Job(seed)
    for _ in range(first + second):
        alone.step()
    job = Job(seed)
    for _ in range(first):
        job.step()
    content = encode_state(job.state())
    resumed = Job(seed + 1)
    resumed.load(decode_state(content))
    for _ in range(second):
        resumed.step()
    assert same(resumed.state(), alone.state())
    assert encode_state(resumed.state()) == encode_state(alone.state())
