# Generated from chapters/foundations/calculus.md; edit the chapter.
"""Calculus. You build an engine that differentiates any program made of arithmetic, at the cost of
a few evaluations of that program however many inputs it has. On random expression graphs its
gradients agree with `torch.autograd` to a relative $10^{-9}$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "STEP",
    "derivative",
    "jacobian",
    "gradient",
    "RULES",
    "evaluate",
    "Arithmetic",
    "Value",
    "topological_order",
    "backward",
    "value_and_gradient",
    "Dual",
    "gradient_check",
]

STEP = 2.0 ** (-52 / 3)  # cube root of float64's machine epsilon, about 6e-6


def derivative(f: Callable, x: float, h: float | None = None) -> float | np.ndarray:
    """Derivative of `f` at `x` by the central difference (Nocedal & Wright 2006, §8.1).

    Parameters
    ----------
    f : function of one float; may return an array, differentiated entry by entry
    x : where, finite
    h : step, > 0; by default eps^(1/3) · max(1, |x|)

    Raises ValueError if x, h or f(x ± h) is not finite, or if x + h or x - h is not a
    different number from x.
    """
    x = float(x)
    h = STEP * max(1.0, abs(x)) if h is None else float(h)
    left, right = x - h, x + h
    if not -math.inf < left < x < right < math.inf:
        raise ValueError(
            f"x = {x} and h = {h}: both must be finite, and h > 0 large enough to change x"
        )
    below, above = np.asarray(f(left), dtype=float), np.asarray(f(right), dtype=float)
    if not (np.isfinite(below).all() and np.isfinite(above).all()):
        raise ValueError(
            f"f is not finite at {left} or {right}, the points used for its derivative at {x}"
        )
    return (above - below) / (right - left)  # right - left is what was stored; 2h may not be


def jacobian(
    f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: float | None = None
) -> np.ndarray:
    """Jacobian of `f` at `x` by central differences, 2n calls of `f`.

    Parameters
    ----------
    f : maps (n,) to (m,)
    x : (n,) with n ≥ 1
    h : step, as in `derivative`

    Returns (m, n). Raises ValueError for another shape of x or f(x), and where
    `derivative` does.
    """
    x = np.array(x, dtype=float)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"x must be a vector with at least one entry, not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("x contains inf or nan")

    def along(i: int, value: float) -> np.ndarray:
        moved = x.copy()
        moved[i] = value
        y = np.asarray(f(moved), dtype=float)
        if y.ndim != 1:
            raise ValueError(
                f"f must return a vector, not shape {y.shape}; for a number use gradient"
            )
        return y

    return np.stack([derivative(lambda v: along(i, v), x[i], h) for i in range(x.size)], axis=1)


def gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float | None = None) -> np.ndarray:
    """Gradient of `f` at `x` by central differences, two calls of `f` per entry of `x`.

    `f` maps an array of the shape of `x` (any shape, not empty) to one number. Returns
    an array of the shape of `x`. Raises ValueError if f(x) is not one number, and where
    `jacobian` does.
    """
    x = np.asarray(x, dtype=float)

    def flat(v: np.ndarray) -> np.ndarray:
        y = np.asarray(f(v.reshape(x.shape)), dtype=float)
        if y.ndim != 0:
            raise ValueError(
                f"f must return one number, not shape {y.shape}; for a vector use jacobian"
            )
        return y[None]

    return jacobian(flat, x.ravel(), h)[0].reshape(x.shape)


RULES = {
    "+": lambda a, b: (a + b, (1.0, 1.0)),
    "-": lambda a, b: (a - b, (1.0, -1.0)),
    "*": lambda a, b: (a * b, (b, a)),
    "/": lambda a, b: (a / b, (1.0 / b, -a / b / b)),
    "**": lambda a, p: (a**p, (p * a ** (p - 1) if p else 0.0,)),  # p is constant: no slope for it
    "neg": lambda a: (-a, (-1.0,)),
    "exp": lambda a: (math.exp(a), (math.exp(a),)),
    "log": lambda a: (math.log(a), (1.0 / a,)),
    "tanh": lambda a: (math.tanh(a), (1.0 - math.tanh(a) ** 2,)),
    "relu": lambda a: (max(a, 0.0), (1.0 if a > 0 else 0.0,)),
}


def evaluate(op: str, *numbers: float) -> tuple[float, tuple[float, ...]]:
    """Value of operation `op` at `numbers`, and its slope with respect to each of them.

    Raises ValueError if the value or a slope is not a finite real number: log(-1), 1/0,
    exp(1000), 0**0.5.
    """
    try:
        value, slopes = RULES[op](*map(float, numbers))
        finite = all(math.isfinite(number) for number in (value, *slopes))
    except (ArithmeticError, TypeError, ValueError):  # TypeError: (-8) ** (1/3) is complex
        finite = False
    if not finite:
        raise ValueError(f"{op} at {', '.join(map(str, numbers))} has no finite value and slope")
    return value, slopes


class Arithmetic:
    """Operators and functions that all go through `apply(op, *operands)` of a subclass.

    + - * / take another such number or a float on either side. The exponent of ** is a
    plain number; for a variable one write (p * x.log()).exp(), which needs x > 0.
    """

    __slots__ = ()

    def __add__(self, other):
        return self.apply("+", self, other)

    def __radd__(self, other):
        return self.apply("+", other, self)

    def __sub__(self, other):
        return self.apply("-", self, other)

    def __rsub__(self, other):
        return self.apply("-", other, self)

    def __mul__(self, other):
        return self.apply("*", self, other)

    def __rmul__(self, other):
        return self.apply("*", other, self)

    def __truediv__(self, other):
        return self.apply("/", self, other)

    def __rtruediv__(self, other):
        return self.apply("/", other, self)

    def __pow__(self, p):
        if isinstance(p, Arithmetic):
            raise ValueError("the exponent must be a plain number; write (p * x.log()).exp()")
        return self.apply("**", self, p)

    def __neg__(self):
        return self.apply("neg", self)

    def exp(self):
        return self.apply("exp", self)

    def log(self):
        return self.apply("log", self)

    def tanh(self):
        return self.apply("tanh", self)

    def relu(self):
        return self.apply("relu", self)


class Value(Arithmetic):
    """A number that remembers what it was computed from.

    Attributes
    ----------
    data : the number
    grad : derivative of a later result with respect to this; `backward` adds to it
    op : the operation that made it, "" for an input
    parents : tuple of (Value, slope), one pair per operand: the edges of the graph

    Raises ValueError where the result or a slope is not a finite real number.
    """

    __slots__ = ("data", "grad", "op", "parents")

    def __init__(self, data: float, op: str = "", parents: tuple[tuple[Value, float], ...] = ()):
        if not math.isfinite(data):
            raise ValueError(f"a Value must be finite, not {data}")
        self.data, self.grad, self.op, self.parents = float(data), 0.0, op, parents

    @classmethod
    def apply(cls, op: str, *operands: Value | float) -> Value:
        """Compute `op`; record an edge to each operand that has a slope."""
        operands = [x if isinstance(x, cls) else cls(x) for x in operands]
        data, slopes = evaluate(op, *(x.data for x in operands))
        return cls(data, op, tuple(zip(operands, slopes)))

    def __repr__(self) -> str:
        return f"Value(data={self.data:.6g}, grad={self.grad:.6g})"


def topological_order(root: Value) -> list[Value]:
    """All nodes that `root` was computed from, each after its parents; `root` is last.

    Depth-first, iterative: O(nodes + edges) time, and depth is bounded by memory only.
    """
    order, seen, stack = [], {root}, [(root, iter(root.parents))]
    while stack:
        node, parents = stack[-1]
        for parent, _ in parents:  # continues where the last visit of this node stopped
            if parent not in seen:
                seen.add(parent)
                stack.append((parent, iter(parent.parents)))
                break
        else:  # all parents are in `order`
            order.append(node)
            stack.pop()
    return order


def backward(root: Value, seed: float = 1.0) -> None:
    """Add the derivative of `seed * root` with respect to each node to its `grad`.

    One multiplication and one addition per edge. A second call adds a second time, as
    in torch: build a new graph, or set `grad` to 0, first. Source: Linnainmaa 1976;
    Griewank & Walther 2008, ch. 3.
    """
    inbox = {root: seed}
    for node in reversed(topological_order(root)):
        total = inbox.pop(node)  # complete: every consumer of `node` came before it
        node.grad += total
        for parent, slope in node.parents:
            inbox[parent] = inbox.get(parent, 0.0) + total * slope


def value_and_gradient(
    f: Callable[[list[Value]], Value], x: Sequence[float] | np.ndarray
) -> tuple[float, np.ndarray]:
    """f(x) and its exact gradient, by recording `f` once and walking backwards once.

    Parameters
    ----------
    f : maps a list of n Values to one Value
    x : (n,) numbers

    Returns f(x) and the gradient, (n,). Raises ValueError if x is not a vector of
    finite numbers or f does not return a Value.
    """
    if np.ndim(x) != 1:
        raise ValueError(f"x must be a vector, not of shape {np.shape(x)}")
    inputs = [Value(number) for number in x]
    output = f(inputs)
    if not isinstance(output, Value):
        raise ValueError(
            f"f must return a Value computed from its inputs, not {type(output).__name__}"
        )
    backward(output)
    return output.data, np.array([node.grad for node in inputs])


class Dual(Arithmetic):
    """A number with its derivative along one direction: forward mode.

    Attributes: data, the number; slope, its derivative, which is 1 for the chosen input
    and 0 for the others. Raises ValueError where the result or a slope of an operation
    is not finite. Source: Griewank & Walther 2008, ch. 3.
    """

    __slots__ = ("data", "slope")

    def __init__(self, data: float, slope: float = 0.0):
        if not math.isfinite(data):
            raise ValueError(f"a Dual must be finite, not {data}")
        self.data, self.slope = float(data), slope

    @classmethod
    def apply(cls, op: str, *operands: Dual | float) -> Dual:
        """Compute `op` and the derivative of its result, by the chain rule."""
        operands = [x if isinstance(x, cls) else cls(x) for x in operands]
        data, slopes = evaluate(op, *(x.data for x in operands))
        return cls(data, sum(slope * x.slope for x, slope in zip(operands, slopes)))

    def __repr__(self) -> str:
        return f"Dual(data={self.data:.6g}, slope={self.slope:.6g})"


def gradient_check(
    f: Callable[[np.ndarray], float], analytic: np.ndarray, x: np.ndarray, h: float | None = None
) -> float:
    """Disagreement of the gradient `analytic` of `f` at `x` with central differences.

    Returns max |analytic - numeric| / max(|analytic|, |numeric|), both maxima over all
    entries, and 0 if both are zero. An error in an entry that is tiny beside the
    largest one stays invisible.

    Parameters
    ----------
    f : maps an array of the shape of x to one number; use float64
    analytic, x : arrays of one shape
    h : step, as in `derivative`

    Raises ValueError if the shapes differ or `analytic` is not finite, and where
    `gradient` does.
    """
    analytic = np.asarray(analytic, dtype=float)
    if analytic.shape != np.shape(x):
        raise ValueError(f"the gradient has shape {analytic.shape}, x has {np.shape(x)}")
    if not np.isfinite(analytic).all():
        raise ValueError("the gradient to check contains inf or nan")
    numeric = gradient(f, x, h)
    scale = max(np.abs(analytic).max(), np.abs(numeric).max())
    return float(np.abs(analytic - numeric).max() / scale) if scale > 0 else 0.0
