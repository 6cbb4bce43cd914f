# Generated from chapters/networks/neural-networks.md; edit the chapter.
"""Neural networks. You build the part of PyTorch that trains networks: an array that records what
it was computed from, layers made of such arrays, and the loop that trains them. A twin in torch
takes the same 50 steps to within $10^{-10}$, and the result reads at least 93 % of handwritten
digits it has never seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from groundup.calculus import RULES, Arithmetic, topological_order
from groundup.classification import softmax_cross_entropy, softmax_cross_entropy_gradient

__all__ = [
    "unbroadcast",
    "TENSOR_RULES",
    "record",
    "ArrayMethods",
    "Tensor",
    "matmul",
    "Axis",
    "sum_over",
    "mean_over",
    "max_over",
    "reshape",
    "transpose",
    "pick",
    "cross_entropy",
    "Module",
    "Linear",
    "ReLU",
    "Tanh",
    "Sequential",
]


def unbroadcast(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum `g` to `shape`: the way back of np.broadcast_to(array of `shape`, g.shape).

    Raises ValueError if `shape` does not broadcast to the shape of `g`.
    """
    g, added = np.asarray(g), np.ndim(g) - len(shape)
    if added < 0 or any(n not in (1, m) for n, m in zip(shape, g.shape[added:])):
        raise ValueError(f"shape {shape} does not broadcast to {g.shape}")
    stretched = (added + i for i, n in enumerate(shape) if n != g.shape[added + i])
    axes = (*range(added), *stretched)
    return g.sum(axis=axes, keepdims=True).reshape(shape) if axes else g


TENSOR_RULES = {
    **RULES,  # op -> (value, slopes); + - * / ** neg also work on arrays
    "exp": lambda a: (e := np.exp(a), (e,)),
    "log": lambda a: (np.log(a), (1 / a,)),
    "tanh": lambda a: (t := np.tanh(a), (1 - t * t,)),
    "relu": lambda a: (np.maximum(a, 0), (a > 0,)),
}


def _floats(data) -> np.ndarray:
    """`data` as a float array: floats unchanged and not copied, integers as float64."""
    data = np.asarray(data)
    if data.dtype.kind not in "fiub":
        raise ValueError(f"a tensor holds real numbers, not {data.dtype}")
    return data if data.dtype.kind == "f" else data.astype(float)


def record(data: np.ndarray, op: str, *edges: tuple) -> Tensor:
    """Tensor of a result; `edges` are pairs (operand, pull), see Tensor.

    Operands that are not tensors are constants and get no edge.
    """
    return Tensor(data, op, tuple(edge for edge in edges if isinstance(edge[0], Tensor)))


class ArrayMethods(Arithmetic):
    """@, indexing and methods named as NumPy's; each calls a function of this module."""

    __slots__ = ()

    def __matmul__(self, other):
        return matmul(self, other)

    def __rmatmul__(self, other):
        return matmul(other, self)

    def __getitem__(self, index):
        return pick(self, index)

    def sum(self, axis=None, keepdims=False):
        return sum_over(self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        return mean_over(self, axis, keepdims)

    def max(self, axis=None, keepdims=False):
        return max_over(self, axis, keepdims)

    def reshape(self, *shape):
        return reshape(self, *shape)

    def transpose(self, axes=None):
        return transpose(self, axes)


class Tensor(ArrayMethods):
    """A float array that remembers what it was computed from.

    Operations take tensors, arrays and numbers; the last two are constants. Values
    follow IEEE 754 without warnings: log(-1) is nan, 1/0 is inf.

    Attributes
    ----------
    data : the array; a float array passed in is shared, not copied
    grad : None, or an array like data; `backward` adds to it
    op : the operation that made it, "" for an input
    parents : pairs (tensor, pull); pull takes the gradient of this to that tensor's

    Raises ValueError for data that is not real numbers.
    """

    __slots__ = ("data", "grad", "op", "parents")
    __array_ufunc__ = None  # array + tensor is left to the tensor

    def __init__(self, data, op: str = "", parents: tuple[tuple[Tensor, Callable], ...] = ()):
        self.data, self.grad, self.op, self.parents = _floats(data), None, op, parents

    @classmethod
    def apply(cls, op: str, *operands) -> Tensor:
        """Compute `op` entry by entry, with broadcasting; a number takes the tensor's dtype."""
        dtype = next((x.data.dtype for x in operands if isinstance(x, cls)), float)
        numbers = [np.asarray(x, dtype) if isinstance(x, (int, float)) else x for x in operands]
        with np.errstate(all="ignore"):
            data, slopes = TENSOR_RULES[op](*(_data(x) for x in numbers))

        def edge(x, slope):
            return x, lambda g: unbroadcast(g * slope, x.shape)

        return record(data, op, *(edge(x, slope) for x, slope in zip(operands, slopes)))

    def backward(self, seed: np.ndarray | None = None) -> None:
        """Add the gradient of sum(seed * self) to `grad` of every tensor behind this one.

        `seed` has this shape; it may be left out for a single number. A second call adds a
        second time. Raises ValueError for a wrong shape, of the seed or from a pull.
        """
        if seed is None and self.data.size != 1:
            raise ValueError(f"backward needs one number or a seed; the shape is {self.shape}")
        inbox = {self: np.ones_like(self.data) if seed is None else _floats(seed)}
        with np.errstate(all="ignore"):
            for node in reversed(topological_order(self)):
                total = np.asarray(inbox.pop(node), node.data.dtype)
                if total.shape != node.shape:
                    raise ValueError(f"gradient of shape {total.shape} for a {node!r}")
                node.grad = total.copy() if node.grad is None else node.grad + total
                for parent, pull in node.parents:
                    part = pull(total)
                    inbox[parent] = inbox[parent] + part if parent in inbox else part

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, op={self.op!r})"


def _data(x) -> np.ndarray:
    return x.data if isinstance(x, Tensor) else _floats(x)


def matmul(a, b) -> Tensor:
    """a @ b for tensors or arrays: (..., n, d) and (..., d, m), or a vector on either side.

    Leading axes broadcast. Raises ValueError for shapes that do not fit.
    """
    A, B = _data(a), _data(b)
    if A.ndim == 0 or B.ndim == 0 or A.shape[-1] != B.shape[max(B.ndim - 2, 0)]:
        raise ValueError(f"cannot multiply shapes {A.shape} and {B.shape}")
    rows, columns = np.atleast_2d(A), B if B.ndim > 1 else B[:, None]
    with np.errstate(all="ignore"):
        product = rows @ columns  # (..., n, m)
    lost = (-2,) * (A.ndim == 1) + (-1,) * (B.ndim == 1)  # axes a vector does not have

    def pull_a(g):
        g = g.reshape(product.shape) @ columns.mT
        return unbroadcast(g, rows.shape).reshape(A.shape)

    def pull_b(g):
        g = rows.mT @ g.reshape(product.shape)
        return unbroadcast(g, columns.shape).reshape(B.shape)

    return record(product.squeeze(lost), "@", (a, pull_a), (b, pull_b))


Axis = int | tuple[int, ...] | None


def sum_over(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis`, or over all axes."""
    total = x.data.sum(axis=axis, keepdims=True)
    result = total if keepdims else total.squeeze(axis)
    return record(result, "sum", (x, lambda g: np.broadcast_to(g.reshape(total.shape), x.shape)))


def mean_over(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis`, or over all axes; nan if there is nothing to average."""
    total = sum_over(x, axis, keepdims)
    with np.errstate(all="ignore"):
        return total * float(np.divide(total.data.size, x.data.size))


def max_over(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Maximum over `axis`, or over all axes; entries that tie share the gradient equally."""
    best = x.data.max(axis=axis, keepdims=True)
    winners = x.data == best

    def pull(g):
        return g.reshape(best.shape) * winners / winners.sum(axis=axis, keepdims=True)

    return record(best if keepdims else best.squeeze(axis), "max", (x, pull))


def reshape(x: Tensor, *shape) -> Tensor:
    """The same entries in another shape; one length may be -1."""
    return record(x.data.reshape(*shape), "reshape", (x, lambda g: g.reshape(x.shape)))


def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """Axes in another order; reversed if `axes` is None."""
    order = tuple(range(len(x.shape)))[::-1] if axes is None else axes
    result = x.data.transpose(order)
    back = np.argsort([axis % len(x.shape) for axis in order])
    return record(result, "transpose", (x, lambda g: g.transpose(tuple(back))))


def pick(x: Tensor, index) -> Tensor:
    """x[index] for any NumPy index; an entry picked twice receives both gradients."""

    def pull(g):
        whole = np.zeros_like(x.data)
        np.add.at(whole, index, g)  # whole[index] += g would lose one of two equal indices
        return whole

    return record(x.data[index], "pick", (x, pull))


def cross_entropy(logits: Tensor, labels: np.ndarray) -> Tensor:
    """Mean of −log softmax(logits)[label] in nats; logits (n, k), integer labels (n,).

    Raises ValueError for other shapes or labels, and for NaN or +inf among the logits.
    """
    Z, labels = logits.data, np.array(labels)
    loss = np.asarray(softmax_cross_entropy(Z, labels), Z.dtype)

    def pull(g):
        return g * softmax_cross_entropy_gradient(Z, labels)

    return record(loss, "cross_entropy", (logits, pull))


class Module:
    """A `forward` and its parameters: every Tensor without parents, and those of every
    Module, among the attributes, named "attribute.attribute". Parameters inside lists or
    dicts are not found; one that two attributes share is listed once."""

    def __call__(self, x) -> Tensor:
        return self.forward(x)

    def forward(self, x) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, in the order in which the attributes were set."""
        found = {}
        for name, part in vars(self).items():
            inner = {}
            if isinstance(part, Module):
                inner = {f"{name}.{key}": p for key, p in part.parameters().items()}
            elif isinstance(part, Tensor) and not part.parents:
                inner = {name: part}
            known = set(found.values())  # tensors compare by identity
            found |= {key: p for key, p in inner.items() if p not in known}
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays themselves, not copies: what an optimizer changes in place."""
        return {key: p.data for key, p in self.parameters().items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients under the same names. ValueError if a parameter has received none."""
        for key, p in self.parameters().items():
            if p.grad is None:
                raise ValueError(f"{key!r} has no gradient: does the loss use it? backward()?")
        return {key: p.grad for key, p in self.parameters().items()}

    def zero_grad(self) -> None:
        """Forget the gradients, which would otherwise add up over steps."""
        for p in self.parameters().values():
            p.grad = None


class Linear(Module):
    """x @ W + b: (..., inputs) to (..., outputs). W (inputs, outputs), b (outputs,).

    Both start uniform in ±1/√inputs, the range of torch.nn.Linear; `rng` is a generator
    or a seed. Raises ValueError for sizes below 1, or an input of another size.
    """

    def __init__(self, inputs: int, outputs: int, rng, dtype=np.float64):
        if inputs < 1 or outputs < 1:
            raise ValueError(f"a layer needs sizes of at least 1, got {inputs} and {outputs}")
        rng, bound = np.random.default_rng(rng), 1 / np.sqrt(inputs)
        self.W = Tensor(rng.uniform(-bound, bound, (inputs, outputs)).astype(dtype))
        self.b = Tensor(rng.uniform(-bound, bound, outputs).astype(dtype))

    def forward(self, x) -> Tensor:
        if np.ndim(_data(x)) == 0 or _data(x).shape[-1] != self.W.shape[0]:
            raise ValueError(f"input (..., {self.W.shape[0]}) expected, got {_data(x).shape}")
        return matmul(x, self.W) + self.b


class ReLU(Module):
    """max(x, 0), entry by entry; the gradient at 0 is 0."""

    def forward(self, x) -> Tensor:
        return Tensor.apply("relu", x if isinstance(x, Tensor) else Tensor(x))


class Tanh(Module):
    """Hyperbolic tangent, entry by entry."""

    def forward(self, x) -> Tensor:
        return Tensor.apply("tanh", x if isinstance(x, Tensor) else Tensor(x))


class Sequential(Module):
    """Layers one after the other; their parameters are named "0.W", "0.b", "2.W", …"""

    def __init__(self, *layers: Module):
        self.layers = layers
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)

    def forward(self, x) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
