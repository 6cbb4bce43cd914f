# Generated from chapters/networks/training.md; edit the chapter.
"""Training. You build what keeps a training run alive: starts and layers that carry a signal
through twenty layers, a checklist that finds the bugs which raise no error, and checkpoints
that survive a kill at any byte. The layers equal `torch.nn` forward and backward to $10^{-10}$,
and a run that is killed and resumed equals one that never stopped, to the bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = [
    "init_",
    "Dims",
    "normalise",
    "normalise_backward",
    "BatchNorm",
    "LayerNorm",
    "RMSNorm",
    "Dropout",
    "Batches",
    "MAGIC",
    "VERSION",
    "CheckpointError",
    "encode_state",
    "decode_state",
    "previous_generation",
    "save_checkpoint",
    "load_checkpoint",
]


def init_(
    layer: nn.Module,
    gain: float = 2**0.5,
    fan: str = "in",
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Draw the weights of `layer` from N(0, gain²/fan), set its bias to 0, return it.

    layer : with a weight (outputs, inputs, ...): nn.Linear, or a convolution
    gain : √2 before a ReLU (He et al. 2015, eq. 10), 1 for a linear layer
    fan : "in" keeps the size of activations, "out" that of gradients, "mean" is
        Glorot & Bengio (2010). Axes after the second count towards both.
    generator : draws on its own device, so a CPU generator gives one start everywhere

    Raises ValueError for a layer without such a weight, another fan, or gain ≤ 0.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or not weight.numel():
        raise ValueError(f"init_ needs a weight of two axes or more, which {layer} has not")
    inputs, outputs = weight[0].numel(), weight[:, 0].numel()
    fans = {"in": inputs, "out": outputs, "mean": (inputs + outputs) / 2}
    if fan not in fans:
        raise ValueError(f"fan must be one of {[*fans]}, got {fan!r}")
    if not 0 < gain < math.inf:
        raise ValueError(f"gain must be finite and above 0, got {gain}")
    where = weight.device if generator is None else generator.device
    with torch.no_grad():
        drawn = torch.empty(weight.shape, dtype=weight.dtype, device=where)
        weight.copy_(drawn.normal_(0, gain / math.sqrt(fans[fan]), generator=generator))
        if getattr(layer, "bias", None) is not None:
            layer.bias.zero_()
    return layer


Dims = int | tuple[int, ...]


def normalise(
    x: torch.Tensor, dims: Dims, eps: float, centre: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x̂ of the shape of x, and the mean and mean square that it was normalised by.

    Entries along `dims` share one of each (those axes keep length 1). With `centre`
    the square is the biased variance; without, the mean is a single 0. Computed in
    float32 at least; x̂ comes back in the dtype of x.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.mean(dims, keepdim=True) if centre else wide.new_zeros(1)
    square = (wide - mean).square().mean(dims, keepdim=True)
    return ((wide - mean) * (square + eps).rsqrt()).to(x.dtype), mean, square


def normalise_backward(
    g: torch.Tensor,
    x_hat: torch.Tensor,
    square: torch.Tensor,
    dims: Dims,
    eps: float,
    centre: bool = True,
) -> torch.Tensor:
    """Gradient of x, given `g`, that of x̂, and what `normalise` returned."""
    along = x_hat * (g * x_hat).mean(dims, keepdim=True)
    mean = g.mean(dims, keepdim=True) if centre else 0.0
    return (g - mean - along) * (square + eps).rsqrt()


def _sizes(features: int, eps: float) -> None:
    if features < 1 or not 0 <= eps < math.inf:
        raise ValueError(f"features must be at least 1 and eps ≥ 0, got {features} and {eps}")


class BatchNorm(nn.Module):
    """Normalise each feature over the batch: (N, C), or (N, C, H, W) over N, H and W.

    In training mode by the batch's own mean and variance, which also move the running
    ones by `momentum`; in evaluation mode by the running ones. Source: Ioffe & Szegedy
    (2015), algorithms 1 and 2; names and state as in torch.nn.BatchNorm1d and 2d.

    Raises ValueError for another shape, and in training mode for a single value per feature.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        _sizes(features, eps)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))  # γ
        self.bias = nn.Parameter(torch.zeros(features))  # β
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = len(self.weight)
        if x.ndim not in (2, 4) or x.shape[1] != features:
            raise ValueError(f"(N, {features}[, H, W]) expected, got {tuple(x.shape)}")
        dims = (0,) if x.ndim == 2 else (0, 2, 3)
        shape = (features,) if x.ndim == 2 else (features, 1, 1)
        if not self.training:
            mean, var = self.running_mean.view(shape), self.running_var.view(shape)
            x_hat = (x - mean) * (var + self.eps).rsqrt()
        else:
            count = x.numel() // features
            if count < 2:
                raise ValueError("training BatchNorm needs more than one value per feature")
            x_hat, mean, var = normalise(x, dims, self.eps)
            with torch.no_grad():  # the running variance is the unbiased one
                for running, new in (
                    (self.running_mean, mean),
                    (self.running_var, var * (count / (count - 1))),
                ):
                    running.lerp_(new.reshape(-1).to(running.dtype), self.momentum)
                self.num_batches_tracked += 1
        return x_hat * self.weight.view(shape) + self.bias.view(shape)


class LayerNorm(nn.Module):
    """Normalise each row over its last axis: (..., features), the same in both modes.

    Source: Ba, Kiros & Hinton (2016), §3; state as in torch.nn.LayerNorm. Raises
    ValueError for another last axis.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        _sizes(features, eps)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _last_axis(x, self.weight)
        return normalise(x, -1, self.eps)[0] * self.weight + self.bias


class RMSNorm(nn.Module):
    """Divide each row by its root mean square: (..., features). No mean, no bias.

    Source: Zhang & Sennrich (2019), eq. 4; state as in torch.nn.RMSNorm. Raises
    ValueError for another last axis.
    """

    def __init__(self, features: int, eps: float = 1e-6):
        super().__init__()
        _sizes(features, eps)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _last_axis(x, self.weight)
        return normalise(x, -1, self.eps, centre=False)[0] * self.weight


def _last_axis(x: torch.Tensor, weight: torch.Tensor) -> None:
    if x.ndim < 1 or x.shape[-1] != len(weight):
        raise ValueError(f"(..., {len(weight)}) expected, got {tuple(x.shape)}")


class Dropout(nn.Module):
    """In training mode: zero each entry with probability `p`, divide the rest by 1 − p.

    `generator` makes the masks, on its own device; without one, torch's global generator.
    Its state decides the next mask, so it belongs into a checkpoint; `state_dict` does
    not hold it. Source: Srivastava et al. (2014), §10. Raises ValueError unless 0 ≤ p < 1.
    """

    def __init__(self, p: float, generator: torch.Generator | None = None):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p}")
        self.p, self.generator = p, generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        where = x.device if self.generator is None else self.generator.device
        keep = torch.rand(x.shape, generator=self.generator, device=where) >= self.p
        return x * keep.to(x.device) / (1 - self.p)


class Batches:
    """Endless mini-batches of row numbers, every row of 0 … n − 1 exactly once per epoch.

    Each is an int64 tensor (size,), the last of an epoch shorter if `size` does not
    divide `n`. Epoch e is a permutation drawn from (seed, e), so the whole state is the
    seed, the epoch and the position in it.

    Attributes: n, size, seed, epoch, position (rows of this epoch already given out).
    Raises ValueError for sizes below 1, or a state that is not of `n` rows in `size`.
    """

    def __init__(self, n: int, size: int, seed: int = 0):
        if n < 1 or size < 1 or seed < 0:
            raise ValueError(f"n and size must be at least 1, seed at least 0: {n}, {size}, {seed}")
        self.n, self.size, self.seed, self.epoch, self.position = n, size, seed, 0, 0
        self._order = None  # ((seed, epoch), permutation): a cache, not state

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        key = self.seed, self.epoch
        if self._order is None or self._order[0] != key:
            self._order = key, torch.from_numpy(np.random.default_rng(key).permutation(self.n))
        rows = self._order[1][self.position : self.position + self.size].clone()
        self.position += len(rows)
        if self.position == self.n:
            self.epoch, self.position = self.epoch + 1, 0
        return rows

    def state_dict(self) -> dict[str, int]:
        """Seed, epoch and position; n and size are there to be compared."""
        return {key: getattr(self, key) for key in ("n", "size", "seed", "epoch", "position")}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was called, in mid-epoch too."""
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"not the state of Batches: {sorted(state)}")
        if (state["n"], state["size"]) != (self.n, self.size):
            raise ValueError(
                f"state of {state['n']} rows in batches of {state['size']}, "
                f"but these are {self.n} in {self.size}"
            )
        seed, epoch, position = state["seed"], state["epoch"], state["position"]
        if min(seed, epoch, position) < 0 or position >= self.n or position % self.size:
            raise ValueError(f"no such place: epoch {epoch}, position {position}, seed {seed}")
        self.seed, self.epoch, self.position = seed, epoch, position


MAGIC, VERSION = b"GROUNDUP", 1


class CheckpointError(ValueError):
    """A checkpoint is damaged, was written by something else, or cannot hold a value."""


def _pack(value, data: list[bytes]):
    """`value` as JSON; the bytes of its tensors are appended to `data`."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError("a checkpoint holds dense tensors that have data")
        flat = value.detach().cpu().contiguous().reshape(-1)
        data.append(flat.view(torch.uint8).numpy().tobytes())
        return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        if wrong := [k for k in value if not isinstance(k, (str, int)) or isinstance(k, bool)]:
            raise CheckpointError(f"keys must be str or int, got {wrong[0]!r}")
        return {"dict": [[key, _pack(each, data)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(each, data) for each in value]}
    raise CheckpointError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r:.60}")


def _unpack(packed, data: io.BytesIO):
    """The value that `_pack` was given, with tensors read from `data`."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        dtype, shape = getattr(torch, content[0]), content[1]
        raw = bytearray(data.read(math.prod(shape) * dtype.itemsize))
        flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return flat.reshape(shape)
    if kind == "dict":
        return {key: _unpack(each, data) for key, each in content}
    return {"list": list, "tuple": tuple}[kind](_unpack(each, data) for each in content)


def encode_state(state) -> bytes:
    """The file's bytes. Raises CheckpointError for a value that it cannot hold."""
    data: list[bytes] = []
    header = json.dumps({"version": VERSION, "state": _pack(state, data)}).encode()
    content = b"".join([MAGIC, len(header).to_bytes(8, "little"), header, *data])
    return content + hashlib.sha256(content).digest()


def decode_state(content: bytes):
    """The state in a file's bytes. Raises CheckpointError unless all of them are right."""
    if not content.startswith(MAGIC[: len(content)]):
        raise CheckpointError("was not written by save_checkpoint")
    body, checksum = content[:-32], content[-32:]
    if len(body) < len(MAGIC) + 8 or hashlib.sha256(body).digest() != checksum:
        raise CheckpointError("is damaged: the checksum does not match")
    start = len(MAGIC) + 8
    stop = start + int.from_bytes(body[len(MAGIC) : start], "little")
    header = json.loads(body[start:stop])
    if header["version"] != VERSION:
        raise CheckpointError(f"has version {header['version']}; this code reads {VERSION}")
    return _unpack(header["state"], io.BytesIO(body[stop:]))


def previous_generation(path: str | Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return Path(path).with_name(Path(path).name + ".previous")


def save_checkpoint(path: str | Path, state) -> None:
    """Replace the checkpoint at `path` by `state`, and keep the one it replaces.

    state : nested dicts (keys str or int), lists and tuples of dense tensors, numbers,
        strings, booleans and None. A tensor that occurs twice is stored twice.

    Killed at any point, it leaves a checkpoint that `load_checkpoint` can read: the one
    before, or this one. One writer at a time. Raises CheckpointError, before it touches
    a file, for a value that a checkpoint cannot hold; OSError where the disk refuses.
    """
    path, content = Path(path), encode_state(state)
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the data is on the disk before it has a name
    try:
        decode_state(path.read_bytes())
    except (FileNotFoundError, CheckpointError):
        pass  # nothing worth keeping: a damaged file must not replace a whole one
    else:
        os.replace(path, previous_generation(path))
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so are the names
    finally:
        os.close(folder)


def load_checkpoint(path: str | Path):
    """The newest whole state saved at `path`; its tensors are on the CPU.

    When the newest is missing or damaged it is the previous generation, with a warning.
    Raises FileNotFoundError if there is neither, CheckpointError if none is whole.
    """
    path, problems = Path(path), []
    for each in (path, previous_generation(path)):
        try:
            state = decode_state(each.read_bytes())
        except FileNotFoundError:
            problems.append(f"{each.name} is missing")
        except CheckpointError as error:
            problems.append(f"{each.name} {error}")
        else:
            if problems:
                warnings.warn(f"{problems[0]}; going on from {each.name}", stacklevel=2)
            return state
    if not path.exists() and not previous_generation(path).exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    raise CheckpointError(f"no whole checkpoint at {path}: {'; '.join(problems)}")
