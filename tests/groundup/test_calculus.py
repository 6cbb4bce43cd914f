"""Properties of groundup.calculus, against torch and closed forms, on inputs that no chapter shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groundup.calculus import (
    RULES,
    STEP,
    Arithmetic,
    Dual,
    Value,
    backward,
    derivative,
    evaluate,
    gradient,
    gradient_check,
    jacobian,
    topological_order,
    value_and_gradient,
)

small = st.floats(-3, 3)
positive = st.floats(0.1, 5)
any_finite = st.floats(allow_nan=False, allow_infinity=False)
not_finite = st.sampled_from([math.inf, -math.inf, math.nan])

TORCH = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div, "**": torch.pow}
TORCH |= {op: getattr(torch, op) for op in ("neg", "exp", "log", "tanh", "relu")}
BINARY = ("+", "-", "*", "/")
UNARY = ("neg", "exp", "log", "tanh", "relu")


def tensor(number):
    return torch.tensor(number, dtype=torch.float64, requires_grad=True)


@st.composite
def programs(draw, inputs=3, most=25):
    """Inputs and steps (op, operand indices, constants) that stay within |value|, |slope| < 50."""
    x = draw(st.lists(small, min_size=inputs, max_size=inputs))
    results, steps = list(x), []
    for _ in range(draw(st.integers(0, most))):
        op = draw(st.sampled_from(sorted(RULES)))
        count = 2 if op in BINARY else 1
        operands = draw(st.lists(st.integers(0, len(results) - 1), min_size=count, max_size=count))
        constants = [draw(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0]))] if op == "**" else []
        try:
            value, slopes = evaluate(op, *(results[i] for i in operands), *constants)
        except ValueError:
            continue
        if max(map(abs, (value, *slopes))) < 50:
            steps.append((op, operands, constants))
            results.append(value)
    return x, steps


def run(x, steps, apply):
    """The sum of the last five results."""
    results = list(x)
    for op, operands, constants in steps:
        results.append(apply(op, *(results[i] for i in operands), *constants))
    total = results[-1]
    for one in results[-5:-1]:
        total = apply("+", total, one)
    return total


def torch_gradient(x, steps):
    leaves = [tensor(number) for number in x]
    output = run(leaves, steps, lambda op, *operands: TORCH[op](*operands))
    found = torch.autograd.grad(output, leaves, allow_unused=True)
    return output.item(), np.array([0.0 if g is None else g.item() for g in found])


def close(found, expected, scale=None):
    scale = np.abs(expected).max(initial=1.0) if scale is None else scale
    return np.abs(np.asarray(found) - expected).max(initial=0.0) <= 1e-9 * scale


# ---- derivative ------------------------------------------------------------------------------


def test_step_is_the_cube_root_of_epsilon():
    assert math.isclose(STEP**3, np.finfo(float).eps, rel_tol=1e-12)
    assert 0 < STEP < 1e-4
    assert isinstance(STEP, float)


@given(st.floats(-1e6, 1e6), small, small, small)
def test_derivative_is_exact_for_parabolas_up_to_rounding(x, a, b, c):
    found = derivative(lambda t: a * t * t + b * t + c, x)
    size = max(abs(a * x * x), abs(b * x), abs(c), abs(a), abs(b))
    assert abs(found - (2 * a * x + b)) <= 1e-8 * size / max(1.0, abs(x)) + 1e-300


@given(small, small)
def test_derivative_is_linear(x, k):
    both = derivative(lambda t: math.sin(t) + k * math.exp(t), x)
    assert math.isclose(both, derivative(math.sin, x) + k * derivative(math.exp, x), abs_tol=1e-7)


@given(small)
def test_derivative_agrees_with_closed_forms(x):
    assert math.isclose(derivative(math.sin, x), math.cos(x), abs_tol=1e-8)
    assert math.isclose(derivative(math.exp, x), math.exp(x), rel_tol=1e-8)
    assert math.isclose(derivative(math.atan, x, 1e-5), 1 / (1 + x * x), abs_tol=1e-8)


@given(small, st.integers(0, 4), st.integers(1, 3))
def test_derivative_of_an_array_is_entry_by_entry(x, rows, columns):
    weights = np.arange(rows * columns, dtype=float).reshape(rows, columns)
    found = derivative(lambda t: np.sin(t) * weights, x)
    assert found.shape == (rows, columns)
    assert np.allclose(found, np.cos(x) * weights, atol=1e-7)


@given(st.floats(1e-200, 1e200))
def test_derivative_step_scales_with_x(x):
    assume(x >= 1)
    assert math.isclose(derivative(lambda t: t, x), 1.0, rel_tol=1e-12)
    assert math.isclose(derivative(lambda t: t, -x), 1.0, rel_tol=1e-12)


@given(not_finite)
def test_derivative_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="must be finite"):
        derivative(math.sin, bad)
    with pytest.raises(ValueError, match="must be finite"):
        derivative(math.sin, 1.0, bad)
    with pytest.raises(ValueError, match="f is not finite"):
        derivative(lambda t: bad, 1.0)


@pytest.mark.parametrize(("x", "h"), [(1.0, 0.0), (1.0, -1e-3), (1e20, 1e-3), (1.7e308, 1e308)])
def test_derivative_refuses_a_useless_step(x, h):
    with pytest.raises(ValueError, match="large enough to change x"):
        derivative(lambda t: t, x, h)


# ---- jacobian and gradient -------------------------------------------------------------------

matrices = hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=small)


@given(matrices, st.data())
def test_jacobian_of_a_linear_map_is_its_matrix(A, data):
    x = data.draw(hnp.arrays(float, A.shape[1], elements=small))
    found = jacobian(lambda v: A @ v, x)
    assert found.shape == A.shape
    assert found.dtype == np.float64
    assert np.allclose(found, A, atol=1e-8)


@given(hnp.arrays(float, 3, elements=small))
def test_jacobian_agrees_with_torch(x):
    found = jacobian(lambda v: np.array([v[0] * v[1], np.sin(v[2]) * v[0], v.sum(), 1.0]), x)

    def same(v):
        return torch.stack([v[0] * v[1], torch.sin(v[2]) * v[0], v.sum(), 0.0 * v[0] + 1.0])

    expected = torch.autograd.functional.jacobian(same, torch.tensor(x)).numpy()
    assert np.allclose(found, expected, atol=1e-7)


@given(matrices, st.data())
def test_jacobian_of_a_composition_is_the_product(A, data):
    x = data.draw(hnp.arrays(float, A.shape[1], elements=small))
    inner = np.tanh
    whole = jacobian(lambda v: A @ inner(v), x)
    assert np.allclose(whole, A @ jacobian(inner, x), atol=1e-7)


def test_jacobian_leaves_its_argument_alone_and_takes_integers():
    x = np.array([1, 2, 3])
    assert np.allclose(jacobian(lambda v: v**2, x), np.diag([2.0, 4.0, 6.0]))
    assert x.dtype == np.int64 and (x == [1, 2, 3]).all()
    assert jacobian(lambda v: np.zeros(0), np.ones(2)).shape == (0, 2)


@pytest.mark.parametrize("bad", [np.array(1.0), np.ones((2, 2)), np.array([]), []])
def test_jacobian_refuses_other_shapes(bad):
    with pytest.raises(ValueError, match="vector with at least one entry"):
        jacobian(lambda v: v, bad)


def test_jacobian_refuses_a_function_that_returns_no_vector():
    with pytest.raises(ValueError, match="use gradient"):
        jacobian(lambda v: v.sum(), np.ones(2))
    with pytest.raises(ValueError, match="x contains inf or nan"):
        jacobian(lambda v: v, np.array([1.0, math.nan]))


@given(hnp.arrays(float, hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=small))
def test_gradient_of_a_sum_of_sines_in_any_shape(x):
    found = gradient(lambda v: np.sin(v).sum(), x)
    assert found.shape == x.shape
    assert np.allclose(found, np.cos(x), atol=1e-7)


@given(hnp.arrays(float, 4, elements=small), small)
def test_gradient_is_linear_and_zero_for_constants(x, k):
    assert (gradient(lambda v: k, x) == 0).all()
    whole = gradient(lambda v: k * v.prod() + v[0], x)
    assert np.allclose(whole, k * gradient(np.prod, x) + np.eye(4)[0], atol=1e-7)


@given(hnp.arrays(float, (2, 3), elements=small))
def test_gradient_predicts_a_small_change(x):
    direction = np.arange(6.0).reshape(2, 3) / 6

    def f(v):
        return float(np.tanh(v).sum() ** 2)

    change = (f(x + 1e-5 * direction) - f(x - 1e-5 * direction)) / 2e-5
    assert math.isclose((gradient(f, x) * direction).sum(), change, abs_tol=1e-6)


def test_gradient_refuses_vectors_and_empty_arguments():
    with pytest.raises(ValueError, match="use jacobian"):
        gradient(lambda v: v, np.ones(2))
    with pytest.raises(ValueError, match="at least one entry"):
        gradient(np.sum, np.ones((0, 3)))


# ---- rules -----------------------------------------------------------------------------------


@given(st.sampled_from(BINARY), small, small)
def test_binary_rules_agree_with_torch(op, a, b):
    assume(op != "/" or abs(b) > 1e-3)
    value, slopes = evaluate(op, a, b)
    x, y = tensor(a), tensor(b)
    result = TORCH[op](x, y)
    expected = [g.item() for g in torch.autograd.grad(result, (x, y))]
    assert math.isclose(value, result.item(), rel_tol=1e-15)
    assert np.allclose(slopes, expected, rtol=1e-14, atol=0)


@given(st.sampled_from(UNARY), st.floats(-700, 700))
def test_unary_rules_agree_with_torch(op, a):
    assume(op != "log" or a > 1e-300)
    value, slopes = evaluate(op, a)
    x = tensor(a)
    result = TORCH[op](x)
    (expected,) = torch.autograd.grad(result, x)
    assert math.isclose(value, result.item(), rel_tol=1e-13, abs_tol=1e-300)
    assert math.isclose(slopes[0], expected.item(), rel_tol=1e-12, abs_tol=1e-15)


@given(st.floats(-4, 4), st.sampled_from([-3.0, -1.0, 0.0, 1.0, 2.0, 5.0]))
def test_power_rule_agrees_with_torch(a, p):
    assume(abs(a) > 1e-3 or p >= 0)
    value, slopes = evaluate("**", a, p)
    x = tensor(a)
    (expected,) = torch.autograd.grad(x**p, x)
    assert len(slopes) == 1  # the exponent is a constant
    assert math.isclose(value, a**p)
    assert math.isclose(slopes[0], expected.item(), rel_tol=1e-13, abs_tol=1e-300)


@given(st.sampled_from(sorted(RULES)), any_finite, any_finite)
def test_evaluate_is_finite_or_refuses(op, a, b):
    numbers = (a, b) if op in (*BINARY, "**") else (a,)
    try:
        value, slopes = evaluate(op, *numbers)
    except ValueError as error:
        assert op in str(error) and str(a) in str(error)
    else:
        assert math.isfinite(value) and all(map(math.isfinite, slopes))
        assert len(slopes) == (1 if op == "**" else len(numbers))


@pytest.mark.parametrize(
    ("op", "numbers"),
    [
        ("log", (0.0,)),
        ("log", (-1.0,)),
        ("exp", (1000.0,)),
        ("/", (1.0, 0.0)),
        ("**", (0.0, -1.0)),
        ("**", (0.0, 0.5)),
        ("**", (-8.0, 1 / 3)),
        ("*", (1e200, 1e200)),
        ("+", (1e308, 1e308)),
    ],
)
def test_evaluate_names_the_operation_it_refuses(op, numbers):
    with pytest.raises(ValueError, match="no finite value and slope") as caught:
        evaluate(op, *numbers)
    assert str(caught.value).startswith(f"{op} at {numbers[0]}")


def test_evaluate_takes_numpy_numbers_without_warnings(recwarn):
    assert evaluate("/", np.float64(1.0), np.float32(2.0)) == (0.5, (0.5, -0.25))
    for op, numbers in (("/", (1.0, 0.0)), ("**", (-8.0, 1 / 3)), ("log", (-1.0,)), ("*", (1e300, 1e300))):
        with pytest.raises(ValueError, match="no finite"):
            evaluate(op, *map(np.float64, numbers))
    assert not recwarn.list


def test_evaluate_does_not_hide_an_unknown_operation():
    with pytest.raises(KeyError):
        evaluate("sin", 1.0)


# ---- operators (Arithmetic), on Value and Dual alike ------------------------------------------

kinds = st.sampled_from([Value, Dual])


@given(kinds, small, positive)
def test_operators_compute_like_floats(kind, a, b):
    x, y = kind(a), kind(b)
    assert isinstance(x, Arithmetic)
    pairs = [
        (x + y, a + b), (x + b, a + b), (a + y, a + b),
        (x - y, a - b), (x - b, a - b), (a - y, a - b),
        (x * y, a * b), (x * b, a * b), (a * y, a * b),
        (x / y, a / b), (x / b, a / b), (a / y, a / b),
        (-x, -a), (y**-1.5, b**-1.5), (x**2, a**2),
        (x.exp(), math.exp(a)), (y.log(), math.log(b)), (x.tanh(), math.tanh(a)), (x.relu(), max(a, 0.0)),
    ]  # fmt: skip
    for found, expected in pairs:
        assert type(found) is kind
        assert found.data == expected


@given(kinds, small)
def test_operators_leave_their_operands_alone(kind, a):
    x = kind(a)
    before = repr(x)
    _ = (x * x + 1.0 - x).tanh(), -x, x.exp(), x**3
    assert repr(x) == before


@given(small, positive)
def test_numpy_numbers_on_the_left_work(a, b):
    found = np.float64(a) * Value(b)
    assert type(found) is Value and found.data == a * b
    total = np.array([a, b]) @ np.array([Value(2.0), Value(3.0)])
    assert math.isclose(total.data, 2 * a + 3 * b, abs_tol=1e-12)


@pytest.mark.parametrize("kind", [Value, Dual])
def test_operators_refuse_a_variable_exponent_and_bad_domains(kind):
    with pytest.raises(ValueError, match="exponent must be a plain number"):
        kind(2.0) ** kind(3.0)
    with pytest.raises(ValueError, match="log at -1.0"):
        kind(-1.0).log()
    with pytest.raises(ValueError, match="/ at 1.0, 0.0"):
        1.0 / kind(0.0)


# ---- Value -----------------------------------------------------------------------------------


@given(any_finite)
def test_a_fresh_value_is_an_input(number):
    x = Value(number)
    assert (x.data, x.grad, x.op, x.parents) == (number, 0.0, "", ())
    assert type(x.data) is float


@given(small, small)
def test_a_value_records_parents_with_slopes(a, b):
    x, y = Value(a), Value(b)
    product = x * y
    assert product.op == "*"
    assert [p for p, _ in product.parents] == [x, y]
    assert [slope for _, slope in product.parents] == [b, a]


@given(small)
def test_values_compare_by_identity(a):
    assert Value(a) != Value(a)
    assert len({Value(a), Value(a)}) == 2
    assert "Value(data=" in repr(Value(a))


@given(not_finite, st.sampled_from([Value, Dual]))
def test_values_refuse_what_is_not_finite(bad, kind):
    with pytest.raises(ValueError, match="must be finite"):
        kind(bad)
    with pytest.raises(ValueError, match="must be finite"):
        kind(1.0) + bad


# ---- topological_order and backward ------------------------------------------------------------


@given(programs())
def test_order_has_every_node_once_after_its_parents(program):
    x, steps = program
    root = run([Value(number) for number in x], steps, Value.apply)
    order = topological_order(root)
    place = {node: i for i, node in enumerate(order)}
    assert order[-1] is root
    assert len(place) == len(order)
    assert all(place[parent] < i for i, node in enumerate(order) for parent, _ in node.parents)


@given(st.integers(1, 60))
def test_order_is_linear_in_a_graph_with_exponentially_many_paths(layers):
    x = v = Value(1.0)
    for _ in range(layers):
        v = v + v
    assert len(topological_order(v)) == layers + 1
    backward(v)
    assert x.grad == 2.0**layers


def test_order_of_an_input_is_itself_and_depth_is_no_problem():
    x = Value(2.0)
    assert topological_order(x) == [x]
    v = x
    for _ in range(50_000):
        v = -v
    assert len(topological_order(v)) == 50_001
    backward(v)
    assert x.grad == 1.0


@given(programs())
def test_backward_agrees_with_torch(program):
    x, steps = program
    inputs = [Value(number) for number in x]
    output = run(inputs, steps, Value.apply)
    value, expected = torch_gradient(x, steps)
    backward(output)
    assert math.isclose(output.data, value, rel_tol=1e-12, abs_tol=1e-12)
    assert output.grad == 1.0 or output in inputs
    assert close([v.grad for v in inputs], expected)


@given(programs(), small)
def test_backward_is_linear_in_the_seed_and_adds_up(program, seed):
    x, steps = program

    def grads(*seeds):
        inputs = [Value(number) for number in x]
        output = run(inputs, steps, Value.apply)
        for one in seeds:
            backward(output, one)
        return np.array([v.grad for v in inputs])

    once = grads(1.0)
    scale = np.abs(once).max(initial=1.0) * max(1.0, abs(seed))
    assert np.isfinite(once).all()
    assert close(grads(seed), seed * once, scale)
    assert close(grads(1.0, seed), (1.0 + seed) * once, scale)


@given(small)
def test_backward_of_an_input_is_the_seed(a):
    x = Value(a)
    backward(x, 2.5)
    assert x.grad == 2.5
    backward(x)
    assert x.grad == 3.5


def test_backward_of_two_outputs_adds_their_gradients():
    x = Value(3.0)
    backward(x * x)
    backward(5.0 * x)
    assert x.grad == 11.0


# ---- value_and_gradient -----------------------------------------------------------------------


@given(programs())
def test_value_and_gradient_agrees_with_torch_and_is_repeatable(program):
    x, steps = program
    value, found = value_and_gradient(lambda v: run(v, steps, Value.apply), x)
    expected_value, expected = torch_gradient(x, steps)
    assert isinstance(value, float) and found.shape == (3,) and found.dtype == np.float64
    assert math.isclose(value, expected_value, rel_tol=1e-12, abs_tol=1e-12)
    assert close(found, expected)
    again = value_and_gradient(lambda v: run(v, steps, Value.apply), np.array(x))
    assert again[0] == value and (again[1] == found).all()


@given(hnp.arrays(float, st.integers(1, 6), elements=small))
def test_value_and_gradient_of_a_sum_of_squares(x):
    value, found = value_and_gradient(lambda v: sum(each * each for each in v), x)
    assert math.isclose(value, (x * x).sum(), rel_tol=1e-12, abs_tol=1e-12)
    assert np.allclose(found, 2 * x, rtol=1e-14)


@given(small)
def test_value_and_gradient_is_zero_for_an_unused_input(a):
    _, found = value_and_gradient(lambda v: v[0] * 2.0, [a, 5.0])
    assert found.tolist() == [2.0, 0.0]


def test_value_and_gradient_says_what_is_wrong():
    with pytest.raises(ValueError, match="must return a Value.*float"):
        value_and_gradient(lambda v: v[0].data, [1.0])
    with pytest.raises(ValueError, match="must be a vector"):
        value_and_gradient(lambda v: v[0], np.ones((2, 1)))
    with pytest.raises(ValueError, match="must be finite"):
        value_and_gradient(lambda v: v[0], [math.nan])


def test_hessian_by_differences_of_exact_gradients():
    def f(v):
        return (1.0 - v[0]) ** 2 + 100.0 * (v[1] - v[0] ** 2) ** 2

    x = np.array([-0.7, 1.9])
    found = jacobian(lambda p: value_and_gradient(f, p)[1], x)
    expected = np.array([[2 - 400 * (x[1] - 3 * x[0] ** 2), -400 * x[0]], [-400 * x[0], 200.0]])
    assert np.allclose(found, expected, rtol=1e-7)


# ---- Dual ------------------------------------------------------------------------------------


@given(programs(), st.integers(0, 2))
def test_forward_and_reverse_mode_agree(program, chosen):
    x, steps = program
    duals = [Dual(number, 1.0 if i == chosen else 0.0) for i, number in enumerate(x)]
    result = run(duals, steps, Dual.apply)
    value, expected = value_and_gradient(lambda v: run(v, steps, Value.apply), x)
    assert result.data == value
    assert close(result.slope, expected[chosen], np.abs(expected).max(initial=1.0))


@given(programs(), st.lists(small, min_size=3, max_size=3))
def test_a_dual_is_the_derivative_along_a_direction(program, direction):
    x, steps = program
    result = run([Dual(a, d) for a, d in zip(x, direction)], steps, Dual.apply)
    _, found = value_and_gradient(lambda v: run(v, steps, Value.apply), x)
    scale = 10 * np.abs(found).max(initial=1.0)
    assert close(result.slope, found @ direction, scale)


@given(any_finite)
def test_a_constant_dual_has_slope_zero(number):
    x = Dual(number)
    assert x.slope == 0 and x.data == number
    assert (x * 0.5).slope == 0
    assert "Dual(data=" in repr(x)


# ---- gradient_check ----------------------------------------------------------------------------


@given(hnp.arrays(float, hnp.array_shapes(max_dims=2, max_side=3), elements=small))
def test_gradient_check_accepts_a_right_gradient(x):
    assert gradient_check(lambda v: np.exp(v).sum(), np.exp(x), x) < 1e-6


@given(hnp.arrays(float, 3, elements=small), st.integers(0, 2), st.floats(0.01, 10))
def test_gradient_check_measures_a_wrong_entry(x, i, error):
    right = np.cos(x) + 2.0
    wrong = right + error * np.eye(3)[i]
    found = gradient_check(lambda v: (np.sin(v) + 2.0 * v).sum(), wrong, x)
    assert math.isclose(found, error / np.abs(wrong).max(), rel_tol=1e-3) or found > error / 4


@given(hnp.arrays(float, 2, elements=small), st.floats(1e-3, 1e3))
def test_gradient_check_does_not_depend_on_units(x, unit):
    wrong = np.cos(x) + 1.1
    one = gradient_check(lambda v: (np.sin(v) + v).sum(), wrong, x)
    other = gradient_check(lambda v: unit * (np.sin(v) + v).sum(), unit * wrong, x)
    assert math.isclose(one, other, rel_tol=1e-3)


@given(programs())
@settings(max_examples=50)
def test_gradient_check_accepts_the_engine(program):
    x, steps = program
    assume(all(op not in ("relu", "/", "log", "**") for op, _, _ in steps))  # kinks and poles
    _, found = value_and_gradient(lambda v: run(v, steps, Value.apply), x)
    assume(np.abs(found).max() > 1e-2)
    try:
        error = gradient_check(lambda p: run([Value(a) for a in p], steps, Value.apply).data, found, np.array(x))
    except ValueError:
        assume(False)
    assert error < 1e-3


def test_gradient_check_of_zero_is_zero_and_errors_are_clear():
    assert gradient_check(lambda v: 4.0, np.zeros(2), np.ones(2)) == 0.0
    assert gradient_check(lambda v: 4.0, np.ones(2), np.ones(2)) == 1.0
    with pytest.raises(ValueError, match="has shape"):
        gradient_check(lambda v: v.sum(), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="inf or nan"):
        gradient_check(lambda v: v.sum(), np.array([1.0, math.nan]), np.ones(2))
    with pytest.raises(ValueError, match="at least one entry"):
        gradient_check(lambda v: 0.0, np.ones(0), np.ones(0))
