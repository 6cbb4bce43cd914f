# Generated from chapters/networks/convolution.md; edit the chapter.
"""Convolution. You build the layer that looks for the same small pattern everywhere, equal to
`F.conv2d` to rounding, and find out what depth does to a stack of such layers. A network made
of them reads at least 97 % of handwritten digits it has never seen, and you measure when its
certainty means something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from groundup import artifacts

__all__ = [
    "Pair",
    "im2col",
    "conv2d",
    "col2im",
    "conv2d_backward",
    "max_pool2d",
    "avg_pool2d",
    "ReceptiveField",
    "receptive_field",
    "ResidualBlock",
    "DigitClassifier",
    "digit_classifier",
]

Pair = int | tuple[int, int]


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= least for v in pair):
        raise ValueError(f"{name} is an integer of at least {least}, or two, not {value!r}")
    return pair


def _geometry(size, kernel: Pair, stride: Pair, padding: Pair) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and the size of the output, each (vertical, horizontal)."""
    kernel, stride = _pair("kernel", kernel, 1), _pair("stride", stride, 1)
    padding = _pair("padding", padding, 0)
    padded = [n + 2 * p for n, p in zip(size, padding)]
    if any(k > n for k, n in zip(kernel, padded)):
        raise ValueError(f"kernel {kernel} does not fit into an image of {padded} with padding")
    out = tuple((n - k) // s + 1 for n, k, s in zip(padded, kernel, stride))
    return kernel, stride, padding, out


def _images(x: torch.Tensor) -> torch.Tensor:
    if not torch.is_tensor(x) or x.ndim != 4 or not x.is_floating_point():
        got = f"{tuple(x.shape)} of {x.dtype}" if torch.is_tensor(x) else type(x).__name__
        raise ValueError(f"expected floats (batch, channels, height, width), got {got}")
    return x


def im2col(x: torch.Tensor, kernel: Pair, stride: Pair = 1, padding: Pair = 0) -> torch.Tensor:
    """Every window of `x` as a column, as F.unfold does (Chellapilla et al. 2006).

    Parameters
    ----------
    x : (batch, channels, height, width), floats
    kernel, stride, padding : one integer, or (vertical, horizontal)

    Returns
    -------
    (batch, channels·h·w, windows), windows row by row

    Raises ValueError for another shape or dtype, or a kernel larger than the padded image.
    """
    kernel, stride, padding, _ = _geometry(_images(x).shape[2:], kernel, stride, padding)
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    windows = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    windows = windows.permute(0, 1, 4, 5, 2, 3)  # (batch, channels, h, w, rows, columns)
    return windows.flatten(4).flatten(1, 3)


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
) -> torch.Tensor:
    """Convolution (cross-correlation) as one matrix product; autograd goes through it.

    Parameters
    ----------
    x : (batch, channels, height, width)
    weight : (outputs, channels, h, w)
    bias : (outputs,) or None

    Returns
    -------
    (batch, outputs, rows, columns) with rows = (height + 2·padding − h) // stride + 1

    Raises ValueError for shapes or dtypes that do not fit, or a kernel larger than the image.
    """
    if not torch.is_tensor(weight) or weight.ndim != 4 or weight.shape[1] != _images(x).shape[1]:
        shape = tuple(weight.shape) if torch.is_tensor(weight) else type(weight).__name__
        raise ValueError(f"weight (outputs, {_images(x).shape[1]}, h, w) expected, got {shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(weight.shape[:1])} expected, got {tuple(bias.shape)}")
    if any(t is not None and t.dtype != x.dtype for t in (weight, bias)):
        raise ValueError(f"x is {x.dtype}: weight and bias must be too")
    kernel, _, _, out = _geometry(x.shape[2:], tuple(weight.shape[2:]), stride, padding)
    y = weight.flatten(1) @ im2col(x, kernel, stride, padding)  # (batch, outputs, windows)
    y = y if bias is None else y + bias[:, None]
    return y.unflatten(2, out)


def col2im(
    columns: torch.Tensor, size: tuple[int, int], kernel: Pair, stride: Pair = 1, padding: Pair = 0
) -> torch.Tensor:
    """Add every column back where `im2col` took it from: its transpose, as F.fold.

    Parameters
    ----------
    columns : (batch, channels·h·w, windows)
    size : (height, width) of the image that im2col was given

    Returns
    -------
    (batch, channels, height, width)

    Raises ValueError for columns that do not fit the other arguments.
    """
    (h, w), (down, across), (py, px), (rows, cols) = _geometry(size, kernel, stride, padding)
    if columns.ndim != 3 or columns.shape[1] % (h * w) or columns.shape[2] != rows * cols:
        expected = f"(batch, channels·{h * w}, {rows * cols})"
        raise ValueError(f"columns {expected} expected, got {tuple(columns.shape)}")
    channels = columns.shape[1] // (h * w)
    parts = columns.reshape(len(columns), channels, h, w, rows, cols)
    image = columns.new_zeros(len(columns), channels, size[0] + 2 * py, size[1] + 2 * px)
    for u in range(h):
        for v in range(w):
            bottom, right = u + down * (rows - 1) + 1, v + across * (cols - 1) + 1
            image[:, :, u:bottom:down, v:right:across] += parts[:, :, u, v]
    return image[:, :, py : py + size[0], px : px + size[1]]


def conv2d_backward(
    g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair = 1, padding: Pair = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of sum(g · conv2d(x, weight, bias)) for x, weight and bias, in their shapes.

    g : (batch, outputs, rows, columns). Raises ValueError if it is not the output's shape.
    """
    kernel, _, _, out = _geometry(_images(x).shape[2:], tuple(weight.shape[2:]), stride, padding)
    if g.shape != (len(x), len(weight), *out):
        raise ValueError(f"g {(len(x), len(weight), *out)} expected, got {tuple(g.shape)}")
    G, columns = g.flatten(2), im2col(x, kernel, stride, padding)
    of_weight = (G @ columns.mT).sum(0).reshape(weight.shape)
    of_x = col2im(weight.flatten(1).T @ G, tuple(x.shape[2:]), kernel, stride, padding)
    return of_x, of_weight, G.sum((0, 2))


def _pool(x: torch.Tensor, kernel: Pair, stride: Pair | None, reduce) -> torch.Tensor:
    stride = kernel if stride is None else stride
    out = _geometry(_images(x).shape[2:], kernel, stride, 0)[3]
    columns = im2col(x.flatten(0, 1)[:, None], kernel, stride)  # a window holds one channel
    return reduce(columns).reshape(*x.shape[:2], *out)


def max_pool2d(x: torch.Tensor, kernel: Pair, stride: Pair | None = None) -> torch.Tensor:
    """Largest entry of each window: (batch, channels, height, width) to (…, rows, columns).

    The gradient goes to one largest entry. `stride` is the kernel's size unless given. Rows
    and columns that fill no window are dropped. Raises ValueError as im2col does.
    """
    return _pool(x, kernel, stride, lambda columns: columns.max(1).values)


def avg_pool2d(x: torch.Tensor, kernel: Pair, stride: Pair | None = None) -> torch.Tensor:
    """Mean of each window; otherwise as max_pool2d."""
    return _pool(x, kernel, stride, lambda columns: columns.mean(1))


class ReceptiveField(NamedTuple):
    """Output entry i sees input pixels start + i·jump … start + i·jump + size − 1, on one axis."""

    size: int
    jump: int
    start: int


def receptive_field(layers: Iterable[tuple[int, ...]]) -> ReceptiveField:
    """What one output entry of a stack sees along one axis (Araujo et al. 2019).

    layers : (kernel, stride) or (kernel, stride, padding) of each convolution or pooling, from
    the input on. Padding moves the start, which may be negative. Raises ValueError otherwise.
    """
    size, jump, start = 1, 1, 0
    for layer in layers:
        if len(layer) not in (2, 3):
            raise ValueError(f"a layer is (kernel, stride) or (kernel, stride, padding): {layer}")
        kernel, stride = (_pair("kernel or stride", v, 1)[0] for v in layer[:2])
        padding = _pair("padding", layer[2], 0)[0] if len(layer) == 3 else 0
        size, start, jump = size + (kernel - 1) * jump, start - padding * jump, jump * stride
    return ReceptiveField(size, jump, start)


class ResidualBlock(nn.Module):
    """ReLU(shortcut(x) + norm(conv(ReLU(norm(conv(x)))))) with 3×3 kernels (He et al. 2016).

    (batch, channels, height, width) to (batch, outputs, rows, columns), rows and columns divided
    by `stride`, rounded up. The shortcut is x itself, or a 1×1 convolution and a norm where the
    shape changes. `outputs` is `channels` unless given; without `skip` nothing is added, which
    makes a plain block. Raises ValueError for sizes below 1.
    """

    def __init__(
        self, channels: int, outputs: int | None = None, stride: int = 1, skip: bool = True
    ):
        super().__init__()
        outputs = channels if outputs is None else outputs
        if min(channels, outputs, stride) < 1:
            raise ValueError(f"sizes of at least 1 expected: {channels}, {outputs}, {stride}")
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = skip
        self.shortcut = nn.Identity()
        if skip and (outputs != channels or stride != 1):
            project = nn.Conv2d(channels, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + h) if self.skip else F.relu(h)


class DigitClassifier(nn.Module):
    """A small residual network for images of one digit.

    (batch, 1, 28, 28) floats, 0 (paper) to 1 (ink), to logits (batch, 10). `features` gives the
    (batch, 32) vector before the last layer. Raises ValueError for another shape or dtype.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(ResidualBlock(16), ResidualBlock(16, 32, stride=2))
        self.head = nn.Linear(32, 10)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        if _images(x).shape[1:] != (1, 28, 28):
            raise ValueError(f"images (batch, 1, 28, 28) expected, got {tuple(x.shape)}")
        return self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def digit_classifier(device: str | torch.device = "cpu") -> DigitClassifier:
    """The classifier that this chapter trains, ready to judge: in eval mode, on `device`."""
    model = DigitClassifier()
    model.load_state_dict(artifacts.load("digit-classifier"))
    return model.to(device).eval()
