"""groundup.convolution against torch, autograd, finite differences and the definition, on random shapes."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from groundup import artifacts
from groundup.calculus import gradient_check
from groundup.convolution import (
    DigitClassifier,
    ReceptiveField,
    ResidualBlock,
    avg_pool2d,
    col2im,
    conv2d,
    conv2d_backward,
    digit_classifier,
    im2col,
    max_pool2d,
    receptive_field,
)

few = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def one_thread_and_no_warnings():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    torch.set_num_threads(threads)


def normal(seed, *shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


def pair(least, most):
    return st.one_of(st.integers(least, most), st.tuples(st.integers(least, most), st.integers(least, most)))


def both(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def geometries(draw):
    """(batch, channels, height, width), kernel, stride, padding that fit together."""
    shape = tuple(draw(st.integers(*r)) for r in ((0, 3), (1, 3), (1, 8), (1, 8)))
    kernel, stride, padding = draw(pair(1, 4)), draw(pair(1, 3)), draw(pair(0, 2))
    assume(all(k <= n + 2 * p for k, n, p in zip(both(kernel), shape[2:], both(padding))))
    return shape, kernel, stride, padding


# --- im2col and col2im -------------------------------------------------------------------------


@few
@given(geometries(), seeds, st.sampled_from([torch.float32, torch.float64]))
def test_im2col_is_torchs_unfold(case, seed, dtype):
    shape, kernel, stride, padding = case
    assume(shape[0] > 0)  # F.unfold refuses an empty batch
    (x,) = normal(seed, shape, dtype=dtype)
    assert torch.equal(im2col(x, kernel, stride, padding), F.unfold(x, kernel, 1, padding, stride))


@few
@given(geometries(), seeds)
def test_col2im_is_torchs_fold_and_the_transpose_of_im2col(case, seed):
    shape, kernel, stride, padding = case
    (x,) = normal(seed, shape)
    columns = im2col(x, kernel, stride, padding)
    (g,) = normal(seed + 1, columns.shape)
    back = col2im(g, shape[2:], kernel, stride, padding)
    assert back.shape == x.shape
    assert torch.allclose((columns * g).sum(), (x * back).sum(), atol=1e-10)
    if shape[0]:
        assert torch.allclose(back, F.fold(g, shape[2:], kernel, 1, padding, stride), atol=1e-12)


@few
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), seeds)
def test_im2col_of_one_place_kernels_only_reshapes(channels, height, width, seed):
    (x,) = normal(seed, (2, channels, height, width))
    columns = im2col(x, 1)
    assert torch.equal(columns, x.flatten(2))
    assert torch.equal(col2im(columns, (height, width), 1), x)
    assert torch.equal(im2col(x, (height, width)), x.reshape(2, -1, 1))


@few
@given(geometries(), seeds)
def test_gradients_pass_through_im2col_and_col2im(case, seed):
    shape, kernel, stride, padding = case
    (x,) = normal(seed, shape)
    x.requires_grad_()
    columns = im2col(x, kernel, stride, padding)
    (g,) = normal(seed + 1, columns.shape)
    g.requires_grad_()
    (of_x,) = torch.autograd.grad(columns, x, g.detach())
    assert torch.allclose(of_x, col2im(g.detach(), shape[2:], kernel, stride, padding), atol=1e-12)
    (of_g,) = torch.autograd.grad(col2im(g, shape[2:], kernel, stride, padding), g, x.detach())
    assert torch.allclose(of_g, columns.detach(), atol=1e-12)


# --- conv2d and its way back -------------------------------------------------------------------


@few
@given(geometries(), st.integers(1, 3), st.booleans(), seeds, st.sampled_from([torch.float32, torch.float64]))
def test_conv2d_is_torchs(case, outputs, biased, seed, dtype):
    shape, kernel, stride, padding = case
    x, weight, bias = normal(seed, shape, (outputs, shape[1], *both(kernel)), (outputs,), dtype=dtype)
    bias = bias if biased else None
    ours, theirs = conv2d(x, weight, bias, stride, padding), F.conv2d(x, weight, bias, stride, padding)
    assert ours.shape == theirs.shape and ours.dtype == dtype
    assert torch.allclose(ours, theirs, atol=1e-4 if dtype == torch.float32 else 1e-11)


@few
@given(geometries(), st.integers(1, 3), seeds)
def test_conv2d_backward_is_autograds_of_both_convolutions(case, outputs, seed):
    shape, kernel, stride, padding = case
    inputs = normal(seed, shape, (outputs, shape[1], *both(kernel)), (outputs,))
    for t in inputs:
        t.requires_grad_()
    theirs, ours = F.conv2d(*inputs, stride, padding), conv2d(*inputs, stride, padding)
    (g,) = normal(seed + 1, theirs.shape)
    by_hand = conv2d_backward(g, inputs[0].detach(), inputs[1].detach(), stride, padding)
    for y in (theirs, ours):
        for expected, found in zip(torch.autograd.grad(y, inputs, g), by_hand):
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, atol=1e-10)


@settings(deadline=None, max_examples=15)
@given(geometries(), st.integers(1, 2), seeds)
def test_conv2d_passes_the_gradient_check(case, outputs, seed):
    shape, kernel, stride, padding = case
    assume(shape[0] > 0)
    x, weight, bias = normal(seed, shape, (outputs, shape[1], *both(kernel)), (outputs,))
    (g,) = normal(seed + 1, conv2d(x, weight, bias, stride, padding).shape)
    gradients = conv2d_backward(g, x, weight, stride, padding)
    for i, gradient in enumerate(gradients):

        def f(value, i=i):
            arguments = [x, weight, bias]
            arguments[i] = torch.tensor(value)
            return float((g * conv2d(*arguments, stride, padding)).sum())

        assert gradient_check(f, gradient.numpy(), (x, weight, bias)[i].numpy()) < 1e-6


@few
@given(geometries(), st.integers(1, 3), seeds)
def test_the_gradient_of_the_input_is_a_transposed_convolution(case, outputs, seed):
    shape, kernel, stride, padding = case
    x, weight = normal(seed, shape, (outputs, shape[1], *both(kernel)))
    y = conv2d(x, weight, None, stride, padding)
    left_over = [(n + 2 * p - k) % s for n, p, k, s in zip(shape[2:], both(padding), both(kernel), both(stride))]
    assume(shape[0] > 0 and all(r < s for r, s in zip(left_over, both(stride))))
    (g,) = normal(seed + 1, y.shape)
    expected = F.conv_transpose2d(g, weight, None, stride, padding, tuple(left_over))
    assert torch.allclose(conv2d_backward(g, x, weight, stride, padding)[0], expected, atol=1e-10)


@few
@given(geometries(), st.integers(1, 3), seeds)
def test_conv2d_is_linear_in_the_image_and_in_the_kernel(case, outputs, seed):
    shape, kernel, stride, padding = case
    kernels = (outputs, shape[1], *both(kernel))
    x, z, v, w = normal(seed, shape, shape, kernels, kernels)
    both_images = conv2d(x + 2 * z, w, None, stride, padding)
    assert torch.allclose(
        both_images, conv2d(x, w, None, stride, padding) + 2 * conv2d(z, w, None, stride, padding), atol=1e-10
    )
    both_kernels = conv2d(x, v - w, None, stride, padding)
    assert torch.allclose(
        both_kernels, conv2d(x, v, None, stride, padding) - conv2d(x, w, None, stride, padding), atol=1e-10
    )


@few
@given(st.integers(1, 3), st.integers(5, 9), st.integers(-4, 4), st.integers(-4, 4), seeds)
def test_with_a_wrapping_border_moving_the_input_moves_the_output(stride, half, down, across, seed):
    side = 2 * half * stride
    x, weight = normal(seed, (1, 2, side, side), (3, 2, 3, 3))

    def f(x):
        return conv2d(F.pad(x, (1,) * 4, "circular"), weight, None, stride)

    moved = f(torch.roll(x, (down * stride, across * stride), (2, 3)))
    assert torch.allclose(moved, torch.roll(f(x), (down, across), (2, 3)), atol=1e-10)


X = torch.zeros(2, 3, 5, 5)
W = torch.zeros(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X[0], W), "expected floats"),
        ((X.long(), W), "expected floats"),
        ((np.zeros((2, 3, 5, 5)), W), "got ndarray"),
        ((X, W[:, :2]), r"weight \(outputs, 3, h, w\)"),
        ((X, W[0]), r"weight \(outputs, 3, h, w\)"),
        ((X, [[1.0]]), "got list"),
        ((X, W, torch.zeros(3)), r"bias \(4,\) expected"),
        ((X, W.double()), "weight and bias must be too"),
        ((X, W, torch.zeros(4).double()), "weight and bias must be too"),
        ((X, torch.zeros(4, 3, 6, 6)), "does not fit"),
        ((X, torch.zeros(4, 3, 0, 3)), "kernel is an integer of at least 1"),
        ((X, W, None, 0), "stride is an integer of at least 1"),
        ((X, W, None, 1.5), "stride is an integer of at least 1"),
        ((X, W, None, (1, 2, 3)), "stride is an integer of at least 1"),
        ((X, W, None, 1, -1), "padding is an integer of at least 0"),
    ],
)
def test_conv2d_says_what_is_wrong(arguments, words):
    with pytest.raises(ValueError, match=words):
        conv2d(*arguments)


def test_im2col_col2im_and_backward_say_what_is_wrong():
    with pytest.raises(ValueError, match="expected floats"):
        im2col(torch.zeros(3, 5, 5), 3)
    with pytest.raises(ValueError, match=r"kernel \(6, 6\) does not fit"):
        im2col(X, 6)
    with pytest.raises(ValueError, match=r"columns \(batch, channels·9, 9\)"):
        col2im(torch.zeros(2, 27, 8), (5, 5), 3)
    with pytest.raises(ValueError, match="columns"):
        col2im(torch.zeros(2, 26, 9), (5, 5), 3)
    with pytest.raises(ValueError, match="columns"):
        col2im(torch.zeros(27, 9), (5, 5), 3)
    with pytest.raises(ValueError, match=r"g \(2, 4, 3, 3\) expected"):
        conv2d_backward(torch.zeros(2, 4, 5, 5), X, W)
    with pytest.raises(ValueError, match="expected floats"):
        conv2d_backward(torch.zeros(2, 4, 3, 3), X[0], W)


# --- pooling -----------------------------------------------------------------------------------


@few
@given(geometries(), st.booleans(), seeds)
def test_pooling_and_its_gradients_are_torchs(case, default, seed):
    shape, kernel, stride, _ = case
    assume(shape[0] > 0 and all(k <= n for k, n in zip(both(kernel), shape[2:])))
    stride = None if default else stride
    for ours, theirs in ((max_pool2d, F.max_pool2d), (avg_pool2d, F.avg_pool2d)):
        (x,) = normal(seed, shape)
        x.requires_grad_()
        a, b = ours(x, kernel, stride), theirs(x, kernel, stride)
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-12)
        (g,) = normal(seed + 1, b.shape)
        assert torch.allclose(*(torch.autograd.grad(y, x, g)[0] for y in (a, b)), atol=1e-12)


def test_max_pool2d_sends_the_gradient_of_a_tie_to_one_entry():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    max_pool2d(x, 2).sum().backward()
    assert x.grad.sum() == 4 and set(x.grad.flatten().tolist()) == {0.0, 1.0}
    assert max_pool2d(-torch.ones(1, 1, 2, 2), 2).item() == -1


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
def test_pooling_says_what_is_wrong(pool):
    for x, kernel, stride, words in (
        (X[0], 2, None, "expected floats"), (X, 6, None, "does not fit"), (X, 0, None, "kernel"), (X, 2, 0, "stride"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            pool(x, kernel, stride)


# --- receptive fields --------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)), max_size=4), seeds)
def test_receptive_field_is_where_the_gradient_is(layers, seed):
    field = receptive_field(layers)
    x = torch.rand(1, 1, 1, 400, dtype=torch.float64, requires_grad=True)
    y = x
    for k, s, p in layers:
        (weight,) = normal(seed, (1, 1, 1, k))
        y = conv2d(y, weight.abs() + 0.1, None, (1, s), (0, p))
    i = y.shape[-1] // 2
    (gradient,) = torch.autograd.grad(y[0, 0, 0, i], x)
    seen = gradient.flatten().nonzero().flatten()
    start = field.start + i * field.jump
    inside = (max(start, 0), min(start + field.size, 400) - 1)
    strided = any(k < s for k, s, _ in layers)  # then some pixels inside are skipped
    assert inside[0] <= seen[0] and seen[-1] <= inside[1]
    assert strided or (int(seen[0]), int(seen[-1])) == inside


def test_receptive_field_of_known_stacks():
    assert receptive_field([]) == ReceptiveField(size=1, jump=1, start=0)
    assert receptive_field([(3, 1, 1)] * 5) == ReceptiveField(11, 1, -5)
    assert receptive_field([(2, 2)] * 3) == ReceptiveField(8, 8, 0)
    assert receptive_field(iter([(7, 2, 3), (3, 2, 1)])) == ReceptiveField(11, 4, -5)


@pytest.mark.parametrize("layer", [(3,), (3, 1, 1, 1), (0, 1), (3, 0), (3, 1, -1), (2.5, 1)])
def test_receptive_field_says_what_is_wrong(layer):
    with pytest.raises(ValueError):
        receptive_field([(3, 1), layer])


# --- ResidualBlock -----------------------------------------------------------------------------


@few
@given(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4)), st.integers(1, 3), st.booleans(), seeds)
def test_residual_block_is_its_formula_written_with_our_convolution(channels, outputs, stride, skip, seed):
    torch.manual_seed(seed)
    block = ResidualBlock(channels, outputs, stride, skip).double()
    (x,) = normal(seed, (2, channels, 6, 7))
    block(x)  # move the running averages
    block.eval()
    h = F.relu(block.norm1(conv2d(x, block.conv1.weight, None, stride, 1)))
    h = block.norm2(conv2d(h, block.conv2.weight, None, 1, 1))
    if skip:
        same = stride == 1 and outputs in (None, channels)
        assert isinstance(block.shortcut, nn.Identity) == same
        h = h + (x if same else block.shortcut[1](conv2d(x, block.shortcut[0].weight, None, stride)))
    y = block(x)
    assert y.shape == (2, channels if outputs is None else outputs, -(-6 // stride), -(-7 // stride))
    assert torch.allclose(y, F.relu(h), atol=1e-10)


@few
@given(st.integers(1, 4), seeds)
def test_a_residual_block_that_adds_nothing_passes_positive_inputs_on(channels, seed):
    torch.manual_seed(seed)
    block, plain = ResidualBlock(channels), ResidualBlock(channels, skip=False)
    for each in (block, plain):
        nn.init.zeros_(each.norm2.weight)
    (x,) = normal(seed, (2, channels, 5, 5), dtype=torch.float32)
    assert torch.equal(block(x.abs()), x.abs())
    assert torch.equal(plain(x), torch.zeros_like(x))


@pytest.mark.parametrize("sizes", [(0,), (2, 0), (2, 2, 0), (-1, 2)])
def test_residual_block_refuses_sizes_below_one(sizes):
    with pytest.raises(ValueError, match="sizes of at least 1"):
        ResidualBlock(*sizes)


# --- the classifier ----------------------------------------------------------------------------


@few
@given(st.integers(0, 4), seeds)
def test_digit_classifier_maps_images_to_features_and_logits(n, seed):
    torch.manual_seed(seed)
    model = DigitClassifier().eval()
    x = torch.rand(n, 1, 28, 28)
    assert model(x).shape == (n, 10) and model.features(x).shape == (n, 32)
    assert torch.equal(model(x), model.head(model.features(x)))
    if n:
        assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)  # in eval mode rows are independent


@pytest.mark.parametrize("x", [torch.zeros(1, 28, 28), torch.zeros(2, 3, 28, 28), torch.zeros(2, 1, 14, 14),
                               torch.zeros(2, 1, 28, 28, dtype=torch.uint8)])  # fmt: skip
def test_digit_classifier_says_what_is_wrong(x):
    with pytest.raises(ValueError, match="expected"):
        DigitClassifier()(x)
    with pytest.raises(ValueError, match="expected"):
        DigitClassifier().features(x)


def test_digit_classifier_learns():
    torch.manual_seed(0)
    model, y = DigitClassifier(), torch.arange(20) % 10
    x = torch.rand(20, 1, 28, 28)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(30):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_digit_classifier_is_loaded_ready_to_judge(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path))
    monkeypatch.delenv("GROUNDUP_VERIFY", raising=False)
    with pytest.raises(artifacts.ArtifactError, match="networks/convolution"):
        digit_classifier()
    torch.manual_seed(1)
    trained = DigitClassifier()
    trained(torch.rand(8, 1, 28, 28))
    artifacts.save("digit-classifier", trained.state_dict())
    judge = digit_classifier("cpu")
    assert not judge.training and judge.state_dict().keys() == trained.state_dict().keys()
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(judge(x), trained.eval()(x))
    assert torch.equal(digit_classifier(torch.device("cpu"))(x), judge(x))
