# Generated from chapters/foundations/optimization.md; edit the chapter.
"""Optimization. You build the optimizers that train the models of this book. For 50 steps each
stays within $10^{-10}$ of `torch.optim`, and formulas that you derive say beforehand how fast
they converge, at which learning rate they blow up, and how stale a gradient may be before a
cluster of workers diverges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heapreplace

import numpy as np

from groundup.linear_algebra import norm

__all__ = [
    "Arrays",
    "gradient_descent",
    "Optimizer",
    "SGD",
    "RMSProp",
    "Adam",
    "AdamW",
    "warmup_linear",
    "warmup_cosine",
    "clip_by_global_norm",
    "newton",
    "async_sgd",
    "delay_limit",
]

Arrays = Mapping[str, np.ndarray] | Sequence[np.ndarray]


def gradient_descent(
    grad: Callable[[np.ndarray], np.ndarray], x0: np.ndarray, lr: float, steps: int
) -> np.ndarray:
    """Path of x ← x − lr·grad(x) from `x0`, of any shape: (steps + 1, *shape).

    A run that diverges is returned as it is, infinities included. Raises ValueError if
    `x0` is not finite, `lr` or `steps` is negative, or `grad` changes the shape.
    """
    x = _start(x0, lr, steps)
    path = [x]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            x = x - lr * _same_shape(grad(x), x)
            path.append(x)
    return np.array(path)


def _start(x0: np.ndarray, lr: float, steps: int) -> np.ndarray:
    x = np.array(x0, dtype=float)
    if not np.isfinite(x).all():
        raise ValueError("x0 holds NaN or infinity")
    _require("lr", lr, 0 <= lr < np.inf, "finite and at least 0")
    _require("steps", steps, steps >= 0, "at least 0")
    return x


def _same_shape(gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
    if np.shape(gradient) != x.shape:
        raise ValueError(f"grad returned shape {np.shape(gradient)} at x of {x.shape}")
    return np.asarray(gradient)


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, got {value}")


class Optimizer:
    """What all optimizers share: parameters, learning rate, step count, saved state.

    Parameters
    ----------
    params : dict or list of float arrays, not empty; `step` changes them in place
    lr : learning rate, at least 0; assign `optimizer.lr` to follow a schedule

    Raises ValueError for other parameters, settings, gradients or states.
    """

    def __init__(self, params: Arrays, lr: float, slots: tuple[str, ...] = ()):
        self.params = _named(params)
        for key, p in self.params.items():
            if not isinstance(p, np.ndarray) or p.dtype.kind != "f":
                raise ValueError(f"parameter {key!r} must be an array of floats")
        ids = {id(p) for p in self.params.values()}
        if not ids or len(ids) != len(self.params):
            raise ValueError("params must be different arrays, and at least one")
        _require("lr", lr, 0 <= lr < np.inf, "finite and at least 0")
        self.lr, self.t = float(lr), 0
        self.slots = {
            slot: {key: np.zeros_like(p) for key, p in self.params.items()} for slot in slots
        }

    def step(self, grads: Arrays) -> None:
        """Change every parameter, given its gradient under the same key, same shape."""
        grads, self.lr = _named(grads), float(self.lr)
        _require("lr", self.lr, 0 <= self.lr < np.inf, "finite and at least 0")
        if grads.keys() != self.params.keys():
            raise ValueError(f"gradients {[*grads]} for parameters {[*self.params]}")
        for key, p in self.params.items():
            if grads[key] is None or np.shape(grads[key]) != p.shape:
                raise ValueError(f"gradient of {key!r} must have shape {p.shape}")
            grads[key] = np.asarray(grads[key], dtype=p.dtype)
            if not np.isfinite(grads[key]).all():
                raise ValueError(f"gradient of {key!r} holds NaN or infinity")
        self.t += 1
        for key, p in self.params.items():
            self._update(p, grads[key], *(slot[key] for slot in self.slots.values()))

    def _update(self, p: np.ndarray, g: np.ndarray, *slots: np.ndarray) -> None:
        raise NotImplementedError("use SGD, RMSProp, Adam or AdamW")

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy of what `step` needs besides the parameters: lr, t and slot.key."""
        state = {"lr": np.array(self.lr), "t": np.array(self.t)}
        for slot, arrays in self.slots.items():
            state |= {f"{slot}.{key}": array.copy() for key, array in arrays.items()}
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue where `state_dict` was called, bit by bit."""

        def kinds(arrays):
            return {k: (np.shape(a), np.asarray(a).dtype) for k, a in arrays.items()}

        if wrong := dict(kinds(state).items() ^ kinds(self.state_dict()).items()):
            raise ValueError(f"state of another optimizer: {sorted(wrong)} do not fit")
        self.lr, self.t = float(state["lr"]), int(state["t"])
        for slot, arrays in self.slots.items():
            for key, array in arrays.items():
                array[...] = state[f"{slot}.{key}"]


def _named(arrays: Arrays) -> dict[str, np.ndarray]:
    if isinstance(arrays, Mapping):
        return dict(arrays)
    return {str(i): array for i, array in enumerate(arrays)}


class SGD(Optimizer):
    """Gradient descent; momentum (Polyak 1964), Nesterov's (Sutskever et al. 2013).

    `momentum` μ in [0, 1); `nesterov` needs μ > 0; `weight_decay` λ ≥ 0 adds λ·p to the
    gradient of p. State: nothing, or one array per parameter with momentum.
    """

    def __init__(self, params, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(params, lr, ("velocity",) if momentum else ())
        _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        _require("weight_decay", weight_decay, 0 <= weight_decay < np.inf, "at least 0")
        _require("momentum", momentum, momentum or not nesterov, "above 0 for nesterov")
        self.momentum, self.nesterov = momentum, nesterov
        self.weight_decay = weight_decay

    def _update(self, p: np.ndarray, g: np.ndarray, v: np.ndarray | None = None) -> None:
        g = g + self.weight_decay * p
        if v is not None:
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= self.lr * g


class RMSProp(Optimizer):
    """Steps of lr·g/√(mean of g²), entry by entry (Tieleman & Hinton 2012).

    `alpha` in [0, 1): memory of the mean of squares; `eps` ≥ 0 is added to the root.
    State: one array per parameter.
    """

    def __init__(self, params, lr=0.01, alpha=0.99, eps=1e-8):
        super().__init__(params, lr, ("square",))
        _require("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")
        _require("eps", eps, 0 <= eps < np.inf, "finite and at least 0")
        self.alpha, self.eps = alpha, eps

    def _update(self, p: np.ndarray, g: np.ndarray, s: np.ndarray) -> None:
        s *= self.alpha
        s += (1 - self.alpha) * g * g
        p -= self.lr * g / (np.sqrt(s) + self.eps)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); `weight_decay` λ adds λ·p to the gradient.

    `betas` in [0, 1): memories of the mean and of the mean of squares; `eps` ≥ 0.
    State: two arrays per parameter.
    """

    decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, ("mean", "square"))
        for beta in betas:
            _require("each of betas", beta, 0 <= beta < 1, "in [0, 1)")
        _require("eps", eps, 0 <= eps < np.inf, "finite and at least 0")
        _require("weight_decay", weight_decay, 0 <= weight_decay < np.inf, "at least 0")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _update(self, p: np.ndarray, g: np.ndarray, m: np.ndarray, s: np.ndarray) -> None:
        if self.decoupled:
            p *= 1 - self.lr * self.weight_decay
        else:
            g = g + self.weight_decay * p
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        s *= beta2
        s += (1 - beta2) * g * g
        m_hat, s_hat = m / (1 - beta1**self.t), s / (1 - beta2**self.t)
        p -= self.lr * m_hat / (np.sqrt(s_hat) + self.eps)


class AdamW(Adam):
    """Adam with decoupled decay: p shrinks by 1 − lr·weight_decay, whatever g is.

    Source: Loshchilov & Hutter (2019), algorithm 2. State: two arrays per parameter.
    """

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, betas, eps, weight_decay)


def warmup_linear(step: int, peak: float, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Learning rate of `step` = 0, 1, …: a linear rise to `peak`, then a linear fall.

    It is peak/(warmup + 1) at step 0, `peak` at step `warmup`, `floor` from `total` on.
    Raises ValueError unless step ≥ 0, 0 ≤ warmup < total and 0 ≤ floor ≤ peak.
    """
    rising, left = _progress(step, peak, total, warmup, floor)
    return rising * peak if rising < 1 else floor + (peak - floor) * left


def warmup_cosine(step: int, peak: float, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """As `warmup_linear`, falling along half a cosine (Loshchilov & Hutter 2017)."""
    rising, left = _progress(step, peak, total, warmup, floor)
    fallen = floor + (peak - floor) * (1 - np.cos(np.pi * left)) / 2
    return rising * peak if rising < 1 else float(fallen)


def _progress(step: int, peak: float, total: int, warmup: int, floor: float) -> tuple[float, float]:
    """Share of the rise that is done, and share of the fall that is left."""
    _require("step", step, step >= 0, "at least 0")
    _require("warmup", warmup, 0 <= warmup < total, f"in [0, total = {total})")
    _require("floor", floor, 0 <= floor <= peak < np.inf, f"in [0, peak = {peak}]")
    rising = min((step + 1) / (warmup + 1), 1.0)
    return rising, 1 - min(max((step - warmup) / (total - warmup), 0.0), 1.0)


def clip_by_global_norm(grads: Arrays, max_norm: float) -> float:
    """Scale all `grads` in place by one factor; their joint norm is then ≤ `max_norm`.

    Returns the norm before, for the log. Raises ValueError if `max_norm` is not above 0
    or a gradient is not an array of finite floats. Source: Pascanu et al. (2013),
    algorithm 1; the 1e-6 is that of torch.nn.utils.clip_grad_norm_.
    """
    _require("max_norm", max_norm, 0 < max_norm < np.inf, "finite and above 0")
    arrays = list(_named(grads).values())
    for g in arrays:
        if not isinstance(g, np.ndarray) or g.dtype.kind != "f":
            raise ValueError("gradients must be arrays of floats: they change in place")
    total = norm(np.array([norm(g.ravel()) for g in arrays]))
    if not np.isfinite(total):
        raise ValueError("the gradients hold NaN or infinity, or their norm overflows")
    if (scale := float(max_norm) / (total + 1e-6)) < 1:
        for g in arrays:
            g *= scale
    return total


def newton(
    grad: Callable[[np.ndarray], np.ndarray],
    hessian: Callable[[np.ndarray], np.ndarray],
    x0: np.ndarray,
    steps: int,
    damping: float = 0.0,
) -> np.ndarray:
    """Path (steps + 1, n) of x ← x − (H + damping·I)⁻¹ grad(x) from `x0`, (n,).

    `hessian` maps (n,) to the symmetric (n, n). Finds points of zero gradient, not only
    minima. Raises ValueError if the matrix is singular or a shape is wrong.
    Source: Nocedal & Wright (2006), §3.3.
    """
    x = _start(x0, 1.0, steps)
    _require("x0's number of axes", x.ndim, x.ndim == 1, "1")
    _require("damping", damping, 0 <= damping < np.inf, "finite and at least 0")
    path = [x]
    for _ in range(steps):
        H = np.asarray(hessian(x), dtype=float)
        if H.shape != (len(x), len(x)):
            raise ValueError(f"hessian returned shape {H.shape} at x of {x.shape}")
        H, g = H + damping * np.eye(len(x)), _same_shape(grad(x), x)
        try:
            x = x - np.linalg.solve(H, g)
        except np.linalg.LinAlgError:
            raise ValueError(f"singular matrix at {x}; try damping > 0") from None
        path.append(x)
    return np.array(path)


def async_sgd(
    grad: Callable[[np.ndarray], np.ndarray],
    x0: np.ndarray,
    lr: float,
    workers: int,
    steps: int,
    duration: Callable[[np.random.Generator], float] | None = None,
    rng: np.random.Generator | int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate workers that read x, compute grad(x) for a while, and then apply it.

    Parameters
    ----------
    grad : gradient at what the worker read, of any shape
    workers : at least 1
    steps : updates in all
    duration : seconds that one gradient takes, drawn from `rng`; always 1 if None

    Returns
    -------
    path : (steps + 1, *shape), the shared parameters; divergence is not an error
    staleness : (steps,), updates by others between the read and the write

    Raises ValueError for bad settings, as `gradient_descent`, or a negative duration.
    """
    x, rng = _start(x0, lr, steps), np.random.default_rng(rng)
    _require("workers", workers, workers >= 1, "at least 1")

    def seconds() -> float:
        took = float(duration(rng)) if duration else 1.0
        _require("duration", took, 0 <= took < np.inf, "finite and at least 0")
        return took

    read = [(x, 0)] * workers  # what each worker read, and after how many updates
    clock = [(seconds(), w) for w in range(workers)]  # (when done, who)
    heapify(clock)
    path, staleness = [x], []
    with np.errstate(over="ignore", invalid="ignore"):
        for updates in range(steps):
            now, w = clock[0]
            seen, version = read[w]
            x = x - lr * _same_shape(grad(seen), x)
            path.append(x)
            staleness.append(updates - version)
            read[w] = (x, updates + 1)
            heapreplace(clock, (now + seconds(), w))
    return np.array(path), np.array(staleness, dtype=int)


def delay_limit(delay: int) -> float:
    """Bound on lr·λ below which steps on gradients `delay` updates old converge.

    For a quadratic of largest curvature λ, constant delay: 2·sin(π/(4·delay + 2)).
    Raises ValueError if `delay` is negative. Source: Levin & May (1976).
    """
    _require("delay", delay, 0 <= delay < np.inf, "finite and at least 0")
    return float(2 * np.sin(np.pi / (4 * delay + 2)))
