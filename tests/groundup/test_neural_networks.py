"""groundup.neural_networks against torch, finite differences and NumPy, on random shapes."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groundup.calculus import gradient_check, topological_order
from groundup.neural_networks import (
    TENSOR_RULES,
    ArrayMethods,
    Linear,
    Module,
    ReLU,
    Sequential,
    Tanh,
    Tensor,
    cross_entropy,
    matmul,
    max_over,
    mean_over,
    pick,
    record,
    reshape,
    sum_over,
    transpose,
    unbroadcast,
)
from groundup.optimization import SGD, AdamW, clip_by_global_norm

few = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
solid = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, min_side=0, max_side=4)
triples = hnp.mutually_broadcastable_shapes(num_shapes=3, min_dims=0, max_dims=3, min_side=0, max_side=3)
BINARY = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div}
UNARY = {"neg": torch.neg, "exp": torch.exp, "log": torch.log, "tanh": torch.tanh, "relu": torch.relu}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def normal(seed, *sizes, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


def agree(ours, theirs, arrays, rtol=1e-10, weigh=7):
    """Values and gradients of two functions of `arrays` are equal, with a random seed gradient."""
    a = [Tensor(x) for x in arrays]
    b = [torch.tensor(x, requires_grad=True) for x in arrays]
    got, expected = ours(*a), theirs(*b)
    assert got.shape == tuple(expected.shape)
    assert got.data.dtype == expected.detach().numpy().dtype
    assert np.allclose(got.data, expected.detach().numpy(), rtol=rtol, atol=rtol, equal_nan=True)
    (seed,) = normal(weigh, got.shape, dtype=got.data.dtype)
    seed = np.asarray(seed)
    got.backward(seed)
    expected.backward(torch.tensor(seed))
    for mine, other in zip(a, b):
        want = np.zeros_like(mine.data) if other.grad is None else other.grad.numpy()
        have = np.zeros_like(mine.data) if mine.grad is None else mine.grad
        assert have.shape == mine.shape and have.dtype == mine.data.dtype
        assert np.allclose(have, want, rtol=rtol, atol=rtol * max(1, np.abs(want).max(initial=0)), equal_nan=True)


# --- unbroadcast -----------------------------------------------------------------------------


@few
@given(pairs, seeds)
def test_unbroadcast_is_the_transpose_of_broadcast_to(case, seed):
    small, whole = case.input_shapes[0], case.result_shape
    x, g = normal(seed, small, whole)
    assert unbroadcast(g, small).shape == small
    left, right = np.sum(np.broadcast_to(x, whole) * g), np.sum(x * unbroadcast(g, small))
    assert np.isclose(left, right, rtol=1e-10, atol=1e-10)


@few
@given(shapes, seeds)
def test_unbroadcast_to_its_own_shape_changes_nothing(shape, seed):
    (g,) = normal(seed, shape)
    assert np.array_equal(unbroadcast(g, shape), g)
    assert np.isclose(unbroadcast(g, ()), np.sum(g), atol=1e-10)


@few
@given(triples, seeds)
def test_unbroadcast_in_two_steps_is_one_step(case, seed):
    a, b, _ = case.input_shapes
    middle = np.broadcast_shapes(a, b)
    (g,) = normal(seed, case.result_shape)
    assert np.allclose(unbroadcast(unbroadcast(g, middle), a), unbroadcast(g, a), atol=1e-10)


@pytest.mark.parametrize(("shape", "target"), [((3,), (2,)), ((3,), (3, 3)), ((2, 1), (2, 3)), ((4, 2), (4,))])
def test_unbroadcast_refuses_shapes_that_do_not_broadcast(shape, target):
    with pytest.raises(ValueError, match="does not broadcast"):
        unbroadcast(np.ones(shape), target)


# --- elementwise: TENSOR_RULES, Tensor.apply, ArrayMethods --------------------------------------


@few
@given(pairs, st.sampled_from(sorted(BINARY)), seeds, st.sampled_from([np.float32, np.float64]))
def test_binary_operations_with_broadcasting_are_torchs(case, op, seed, dtype):
    a, b = normal(seed, *case.input_shapes, dtype=dtype)
    b = np.asarray(b + np.copysign(dtype(0.5), b), dtype)
    agree(lambda x, y: Tensor.apply(op, x, y), BINARY[op], [a, b], 1e-4 if dtype == np.float32 else 1e-10)


@few
@given(shapes, st.sampled_from(sorted(UNARY)), seeds)
def test_unary_operations_are_torchs(shape, op, seed):
    (a,) = normal(seed, shape)
    agree(lambda x: Tensor.apply(op, x), UNARY[op], [np.asarray(abs(a) + 0.1 if op == "log" else a)])


@few
@given(shapes, st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3]), seeds)
def test_powers_are_torchs(shape, p, seed):
    (a,) = normal(seed, shape)
    agree(lambda x: x**p, lambda x: x**p, [np.asarray(np.abs(a) + 0.1)])


@few
@given(shapes, seeds, st.floats(-3, 3))
def test_operators_with_numbers_and_arrays_on_either_side(shape, seed, k):
    a, c = normal(seed, shape, shape)
    x = Tensor(a)
    for got, want in (
        (k + x, k + a), (x - k, a - k), (k - x, k - a), (x * k, a * k), (c + x, c + a), (c * x, c * a),
        (c - x, c - a), (np.float64(k) * x, k * a), (-x, -a),
    ):  # fmt: skip
        assert isinstance(got, Tensor) and isinstance(got, ArrayMethods)
        assert np.array_equal(got.data, want)
        assert [p for p, _ in got.parents] == [x]  # constants get no edge


@few
@given(shapes, seeds)
def test_float32_stays_float32(shape, seed):
    (a,) = normal(seed, shape, dtype=np.float32)
    x = Tensor(a)
    y = ((x * 2 + 1).tanh() / 3 - x.relu() ** 2).exp().mean()
    y.backward()
    assert y.data.dtype == x.grad.dtype == np.float32


def test_ieee_values_come_without_warnings_or_errors():
    x = Tensor(np.array([-1.0, 0.0, np.inf, np.nan, 1000.0]))
    assert np.isnan(x.log().data[0]) and x.log().data[1] == -np.inf
    assert (1 / x).data[1] == np.inf and (x / 0).data[0] == -np.inf
    assert x.exp().data[4] == np.inf and np.isnan(x.relu().data[3])
    (x.exp() / x).sum().backward()
    assert x.grad.shape == (5,)
    big = Tensor(np.full((2, 2), 1e300))
    (big @ big).sum().backward()
    assert np.isinf((big @ big).data).all() and np.isinf(big.grad).sum() == 0


def test_rules_cover_the_operations_of_calculus_and_relu_is_flat_at_0():
    assert {*BINARY, *UNARY, "**"} == set(TENSOR_RULES)
    x = Tensor(np.array([-1.0, 0.0, 2.0]))
    x.relu().sum().backward()
    assert x.grad.tolist() == [0, 0, 1]
    for rule, slope in (("exp", np.exp(2.0)), ("log", 0.5), ("tanh", 1 - np.tanh(2.0) ** 2)):
        assert np.isclose(TENSOR_RULES[rule](2.0)[1][0], slope)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        Tensor(np.ones(3)) + np.ones(2)
    with pytest.raises(ValueError, match="exponent"):
        Tensor(2.0) ** Tensor(2.0)


# --- Tensor, record, backward -----------------------------------------------------------------


@few
@given(shapes, seeds)
def test_a_tensor_shares_float_arrays_and_converts_integers(shape, seed):
    (a,) = normal(seed, shape)
    a = np.asarray(a)
    x = Tensor(a)
    assert x.data is a and x.grad is None and x.op == "" and x.parents == ()
    assert Tensor(np.zeros(shape, int)).data.dtype == np.float64
    assert x.shape == shape and str(shape) in repr(x)


@pytest.mark.parametrize("bad", ["text", 1j, None, [Tensor(1.0)], np.array(["a"])])
def test_a_tensor_refuses_what_is_not_a_real_number(bad):
    with pytest.raises(ValueError, match="real numbers"):
        Tensor(bad)


@few
@given(triples, seeds)
def test_gradients_of_composed_expressions_are_torchs(case, seed):
    def f(a, b, c):
        h = (a * b + c).tanh()
        return h * a + (h - c) ** 2 * b

    agree(f, f, normal(seed, *case.input_shapes))


@few
@given(shapes, seeds)
def test_backward_accumulates_is_linear_and_never_aliases(shape, seed):
    a, b, g = normal(seed, shape, shape, shape)
    x, y = Tensor(a), Tensor(b)
    z = x + y
    z.backward(g)
    once = x.grad.copy()
    assert np.array_equal(once, g) and x.grad is not y.grad and not np.shares_memory(x.grad, y.grad)
    z.backward(2 * g)
    assert np.allclose(x.grad, 3 * g, atol=1e-12)


def test_gradients_may_be_changed_in_place():
    x, y = Tensor(np.ones(3)), Tensor(np.ones(3))
    (x + y).sum().backward()
    norm = clip_by_global_norm([x.grad, y.grad], 1.0)
    assert np.isclose(norm, np.sqrt(6)) and np.allclose(x.grad, y.grad)
    assert np.isclose(np.sqrt((x.grad**2).sum() * 2), 1.0, atol=1e-5)


def test_backward_of_reused_and_deep_graphs():
    x = v = Tensor(np.ones(2))
    for _ in range(30):
        v = v + v
    v.sum().backward()
    assert np.all(x.grad == 2.0**30)
    x = v = Tensor(np.ones(1))
    for _ in range(5000):
        v = -v
    assert len(topological_order(v)) == 5001
    v.backward()
    assert x.grad == 1.0


def test_backward_says_what_is_wrong():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="needs one number or a seed"):
        x.tanh().backward()
    with pytest.raises(ValueError, match=r"gradient of shape \(3,\)"):
        x.tanh().backward(np.ones(3))
    unsummed = record(x.data + np.ones((4, 2, 3)), "add", (x, lambda g: g))
    with pytest.raises(ValueError, match=r"shape \(4, 2, 3\) for a Tensor\(shape=\(2, 3\)"):
        unsummed.backward(np.ones((4, 2, 3)))


@few
@given(solid, seeds)
def test_record_makes_an_operation_with_edges_to_tensors_only(shape, seed):
    a, c = normal(seed, shape, shape)
    x = Tensor(a)
    y = record(np.sin(a) * c, "sin", (x, lambda g: g * np.cos(a) * c), (c, None))
    assert y.op == "sin" and [p for p, _ in y.parents] == [x]
    y.sum().backward()
    assert gradient_check(lambda v: float((np.sin(v) * c).sum()), x.grad, a) < 1e-5
    assert record(a, "constant", (c, None)).parents == ()


# --- matmul -----------------------------------------------------------------------------------


@few
@given(pairs, st.tuples(*[st.integers(0, 4)] * 3), seeds)
def test_batched_matmul_is_torchs(case, sizes, seed):
    n, d, m = sizes
    lead_a, lead_b = case.input_shapes
    assume(len(lead_a) < 3 and len(lead_b) < 3)
    agree(matmul, torch.matmul, normal(seed, (*lead_a, n, d), (*lead_b, d, m)))


@few
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["va", "av", "vv", "bv", "vb"]), seeds)
def test_matmul_with_vectors_is_torchs(n, d, kind, seed):
    left = {"a": (n, d), "v": (d,), "b": (2, n, d)}[kind[0]]
    right = {"a": (d, n), "v": (d,), "b": (2, d, n)}[kind[1]]
    agree(lambda x, y: x @ y, torch.matmul, normal(seed, left, right))


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), seeds)
def test_matmul_with_a_constant_on_either_side(n, d, m, seed):
    A, B = normal(seed, (n, d), (d, m))
    assert np.array_equal((A @ Tensor(B)).data, A @ B)
    assert np.array_equal((Tensor(A) @ B).data, A @ B)
    assert len((A @ Tensor(B)).parents) == len((Tensor(A) @ B).parents) == 1
    assert matmul(A, B).parents == ()


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 3)), ((3,), (2,)), ((), (3,)), ((2, 3), ())])
def test_matmul_refuses_shapes_that_do_not_fit(a, b):
    with pytest.raises(ValueError, match="cannot multiply shapes"):
        matmul(Tensor(np.ones(a)), np.ones(b))


# --- reductions -------------------------------------------------------------------------------


def axes_of(data, ndim):
    some = st.lists(st.integers(-ndim, ndim - 1), unique_by=lambda a: a % ndim, max_size=ndim).map(tuple)
    return data.draw(st.one_of(st.none(), st.integers(-ndim, ndim - 1), some))


@few
@given(solid, st.data(), st.booleans(), seeds, st.sampled_from(["sum", "mean", "max"]))
def test_reductions_are_torchs(shape, data, keepdims, seed, name):
    axis = axes_of(data, len(shape))
    assume(axis != ())  # torch reads () as all axes, NumPy as none
    ours = {"sum": sum_over, "mean": mean_over, "max": max_over}[name]
    theirs = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[name]
    full = tuple(range(len(shape))) if axis is None else axis
    (a,) = normal(seed, shape)
    agree(lambda x: ours(x, axis, keepdims), lambda x: theirs(x, full, keepdims), [a])
    assert np.array_equal(getattr(Tensor(a), name)(axis, keepdims).data, ours(Tensor(a), axis, keepdims).data)


@few
@given(hnp.arrays(float, solid, elements=st.integers(0, 2).map(float)), st.data())
def test_ties_share_the_gradient_of_a_maximum(a, data):
    axis = data.draw(st.integers(0, a.ndim - 1))
    agree(lambda x: max_over(x, axis), lambda x: torch.amax(x, axis), [a])
    x = Tensor(a)
    max_over(x).backward()
    assert np.isclose(x.grad.sum(), 1) and (x.grad[a < a.max()] == 0).all()


@few
@given(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple))
def test_reductions_of_empty_arrays(shape):
    x = Tensor(np.zeros((0, *shape)))
    assert np.array_equal(sum_over(x, 0).data, np.zeros(shape))
    assert np.isnan(mean_over(x).data) and mean_over(x, 0).shape == shape
    with pytest.raises(ValueError, match="zero-size"):
        max_over(x)
    sum_over(x).backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("reduce", [sum_over, mean_over, max_over])
def test_reductions_refuse_an_axis_that_is_not_there(reduce):
    with pytest.raises(ValueError, match="out of bounds"):
        reduce(Tensor(np.ones((2, 3))), 2)
    with pytest.raises(ValueError, match="duplicate"):
        reduce(Tensor(np.ones((2, 3))), (0, 0))


# --- reshape, transpose, pick -----------------------------------------------------------------


@few
@given(shapes, seeds)
def test_reshape_is_torchs_and_its_own_way_back(shape, seed):
    (a,) = normal(seed, shape)
    a = np.asarray(a)
    agree(lambda x: reshape(x, a.size), lambda x: x.reshape(a.size), [a])
    assert np.array_equal(reshape(reshape(Tensor(a), (a.size,)), shape).data, a)
    assert reshape(Tensor(a), shape).shape == shape
    assert shape == () or reshape(Tensor(a), *shape).shape == shape
    with pytest.raises(ValueError, match="reshape"):
        reshape(Tensor(a), a.size + 1)


@few
@given(shapes, st.randoms(use_true_random=False), seeds)
def test_transpose_is_torchs(shape, random, seed):
    axes = list(range(len(shape)))
    random.shuffle(axes)
    signed = tuple(axis - len(shape) * random.randint(0, 1) for axis in axes)
    (a,) = normal(seed, shape)
    agree(lambda x: transpose(x, signed), lambda x: x.permute(axes), [a])
    assert np.array_equal(Tensor(a).transpose().data, np.transpose(a))
    assert np.array_equal(transpose(transpose(Tensor(a))).data, a)
    with pytest.raises(ValueError, match="axes don't match"):
        transpose(Tensor(a), (*axes, len(shape)))


@few
@given(solid, st.data(), seeds)
def test_pick_with_repeated_indices_is_torchs(shape, data, seed):
    index = data.draw(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, min_side=0, max_side=5),
                                 elements=st.integers(-shape[0], shape[0] - 1)))  # fmt: skip
    (a,) = normal(seed, shape)
    agree(lambda x: pick(x, index), lambda x: x[torch.tensor(index)], [a])
    assert np.array_equal(Tensor(a)[index].data, a[index])


@few
@given(solid, st.data(), seeds)
def test_pick_with_basic_indices_sends_ones_to_what_was_picked(shape, data, seed):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    (a,) = normal(seed, shape)
    x = Tensor(a)
    y = x[index]
    assert np.array_equal(y.data, a[index])
    y.sum().backward()
    picked = np.zeros(shape)
    picked[index] = 1
    assert np.array_equal(x.grad, picked)


def test_pick_by_mask_and_out_of_range():
    x = Tensor(np.arange(4.0))
    x[x.data > 1].sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1]
    with pytest.raises(IndexError):
        x[4]
    assert [float(row.data) for row in x] == [0, 1, 2, 3]


# --- cross_entropy ----------------------------------------------------------------------------


@few
@given(st.integers(1, 6), st.integers(1, 6), seeds, st.sampled_from([1.0, 30.0, 1e4]))
def test_cross_entropy_is_torchs(n, k, seed, scale):
    (Z,) = normal(seed, (n, k))
    labels = np.random.default_rng(seed).integers(0, k, n)
    agree(
        lambda z: cross_entropy(z, labels),
        lambda z: torch.nn.functional.cross_entropy(z, torch.tensor(labels)),
        [scale * Z],
    )


@few
@given(st.integers(1, 5), st.integers(2, 5), seeds)
def test_cross_entropy_gradient_rows_sum_to_zero_and_shifts_change_nothing(n, k, seed):
    (Z,) = normal(seed, (n, k))
    labels = np.zeros(n, int)
    z = Tensor(Z)
    loss = cross_entropy(z, labels)
    loss.backward()
    assert np.allclose(z.grad.sum(axis=1), 0, atol=1e-15) and (z.grad[:, 0] <= 0).all()
    assert np.isclose(float(cross_entropy(Tensor(Z + 100), labels).data), float(loss.data), atol=1e-10)
    assert gradient_check(lambda v: float(cross_entropy(Tensor(v), labels).data), z.grad, Z) < 1e-5


def test_cross_entropy_keeps_float32_takes_masks_and_refuses_the_rest():
    assert cross_entropy(Tensor(np.zeros((2, 3), np.float32)), [0, 1]).data.dtype == np.float32
    masked = Tensor(np.array([[0.0, -np.inf]]))
    loss = cross_entropy(masked, [0])
    loss.backward()
    assert loss.data == 0 and np.array_equal(masked.grad, [[0, 0]])
    for Z, labels, words in (
        (np.zeros((2, 3)), [0], "labels"), (np.zeros((2, 3)), [0, 3], "lie in"), (np.zeros((0, 3)), [], "n > 0"),
        (np.zeros((2, 3)), [0.0, 1.0], "integers"), (np.full((1, 2), np.nan), [0], "NaN"), (np.zeros(3), [0], "logits"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            cross_entropy(Tensor(Z), np.array(labels))


# --- layers -----------------------------------------------------------------------------------


class Residual(Module):
    def __init__(self, size, rng):
        self.note = "not a parameter"
        self.inner = Sequential(Linear(size, size, rng), Tanh())
        self.scale = Tensor(np.ones(size))
        self.last = None

    def forward(self, x):
        self.last = x + self.inner(x) * self.scale  # has parents: not a parameter
        return self.last


@few
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 5), seeds, st.booleans())
def test_networks_are_torchs_forward_and_backward(sizes, n, seed, tanh):
    rng = np.random.default_rng(seed)
    layers, twins = [], []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [Linear(inputs, outputs, rng), Tanh() if tanh else ReLU()]
        twin = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
        twin.weight.data, twin.bias.data = torch.tensor(layers[-2].W.data.T.copy()), torch.tensor(layers[-2].b.data)
        twins += [twin, torch.nn.Tanh() if tanh else torch.nn.ReLU()]
    ours, theirs = Sequential(*layers[:-1]), torch.nn.Sequential(*twins[:-1])
    X, labels = rng.standard_normal((n, sizes[0])), rng.integers(0, sizes[-1], n)
    loss, reference = (
        cross_entropy(ours(X), labels),
        torch.nn.functional.cross_entropy(theirs(torch.tensor(X)), torch.tensor(labels)),
    )
    loss.backward()
    reference.backward()
    assert np.isclose(float(loss.data), reference.item(), rtol=1e-12, atol=1e-12)
    for g, p in zip(ours.gradients().values(), theirs.parameters()):
        assert np.allclose(g.T, p.grad.numpy(), rtol=1e-9, atol=1e-12)


@few
@given(st.integers(1, 9), st.integers(1, 9), seeds, st.sampled_from([np.float32, np.float64]))
def test_linear_starts_in_range_and_takes_any_leading_axes(inputs, outputs, seed, dtype):
    layer = Linear(inputs, outputs, seed, dtype)
    assert {k: p.shape for k, p in layer.parameters().items()} == {"W": (inputs, outputs), "b": (outputs,)}
    assert all(a.dtype == dtype and np.abs(a).max() <= 1 / np.sqrt(inputs) + 1e-6 for a in layer.arrays().values())
    assert np.array_equal(layer.W.data, Linear(inputs, outputs, seed, dtype).W.data)
    for lead in ((), (0,), (3,), (2, 3)):
        assert layer(np.zeros((*lead, inputs), dtype)).shape == (*lead, outputs)
    with pytest.raises(ValueError, match="expected"):
        layer(np.zeros((2, inputs + 1)))
    with pytest.raises(ValueError, match="expected"):
        layer(1.0)


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-1, 2)])
def test_linear_refuses_sizes_below_one(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        Linear(*sizes, 0)


@few
@given(shapes, seeds)
def test_activations_are_numpys_and_have_no_parameters(shape, seed):
    (a,) = normal(seed, shape)
    for layer, f in ((ReLU(), lambda v: np.maximum(v, 0)), (Tanh(), np.tanh)):
        assert np.array_equal(layer(a).data, f(a)) and np.array_equal(layer(Tensor(a)).data, f(a))
        assert layer.parameters() == {} and layer(a).shape == shape
    assert np.array_equal(ReLU()(a).data - ReLU()(-Tensor(a)).data, a)


def test_modules_find_parameters_by_name_and_ignore_the_rest():
    rng = np.random.default_rng(0)
    model = Sequential(Linear(3, 4, rng), Residual(4, rng), ReLU())
    names = ["0.W", "0.b", "1.inner.0.W", "1.inner.0.b", "1.scale"]
    assert list(model.parameters()) == names
    model(np.ones((2, 3))).sum().backward()
    assert list(model.parameters()) == list(model.gradients()) == names
    assert all(model.arrays()[k] is p.data for k, p in model.parameters().items())
    model.zero_grad()
    with pytest.raises(ValueError, match="'0.W' has no gradient"):
        model.gradients()


def test_a_shared_parameter_is_listed_once_and_gets_both_gradients():
    layer = Linear(3, 3, 0)
    twice = Sequential(layer, layer)
    assert list(twice.parameters()) == ["0.W", "0.b"]
    a = np.ones((1, 3))
    twice(a).sum().backward()
    f = lambda W: float(((a @ W + layer.b.data) @ W + layer.b.data).sum())  # noqa: E731
    assert gradient_check(f, layer.W.grad, layer.W.data) < 1e-6
    SGD(twice.arrays(), lr=0.1).step(twice.gradients())


def test_an_empty_sequence_is_the_identity_and_a_module_needs_a_forward():
    x = Tensor(np.ones(2))
    assert Sequential()(x) is x and Sequential().parameters() == {}
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        Module()(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizers_change_the_model_in_place_and_the_loss_falls(dtype):
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 5)).astype(dtype), rng.integers(0, 3, 60)
    model = Sequential(Linear(5, 32, rng, dtype), Tanh(), Linear(32, 3, rng, dtype))
    optimizer, losses = AdamW(model.arrays(), lr=0.01), []
    for _ in range(200):
        loss = cross_entropy(model(X), y)
        model.zero_grad()
        loss.backward()
        optimizer.step(model.gradients())
        losses.append(float(loss.data))
    assert losses[-1] < losses[0] / 4 and model(X).data.dtype == dtype
