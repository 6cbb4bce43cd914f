# Generated from chapters/diffusion/diffusion.md; edit the chapter.
"""Diffusion. You build a model that draws handwritten digits out of noise. It trains within this
page, on one thread, in at most 60 s. Every step it takes equals diffusers' `DDPMScheduler` to
$10^{-6}$, and the digit reader of convolution recognises at least nine in ten of what it draws.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "centre_digits",
    "paste_digits",
    "linear_betas",
    "cosine_betas",
    "Diffusion",
    "LinearDenoiser",
    "sample",
    "time_embedding",
    "TimedBlock",
    "DenseBlock",
    "UNet",
    "NoisePredictor",
    "ExponentialMovingAverage",
]


def centre_digits(images) -> torch.Tensor:
    """Crop digits to their box and centre them: (n, 28, 28) in 0…1 to (n, 1, 20, 20) in −1…1.

    Paper (0) becomes −1, ink (1) becomes 1; an empty page stays empty. Raises ValueError for
    another shape, values outside 0…1, or a digit larger than 20 × 20.
    """
    images = torch.as_tensor(images)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not images.is_floating_point():
        raise ValueError(f"floats (n, 28, 28) expected, got {tuple(images.shape)}, {images.dtype}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("pixels between 0 and 1 expected")
    out = images.new_full((len(images), 1, 20, 20), -1.0)
    for image, tile in zip(images, out):
        rows, columns = image.amax(1).nonzero().flatten(), image.amax(0).nonzero().flatten()
        if not len(rows):
            continue
        box = image[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        height, width = box.shape
        if max(height, width) > 20:
            raise ValueError(f"a digit of {height} × {width} does not fit into 20 × 20")
        top, left = (20 - height) // 2, (20 - width) // 2
        tile[0, top : top + height, left : left + width] = 2 * box - 1
    return out


def paste_digits(x: torch.Tensor) -> torch.Tensor:
    """Back onto the page: (n, 1, 20, 20) in −1…1, clipped, to (n, 1, 28, 28) in 0…1.

    Raises ValueError for another shape.
    """
    if x.ndim != 4 or x.shape[1:] != (1, 20, 20):
        raise ValueError(f"images (n, 1, 20, 20) expected, got {tuple(x.shape)}")
    return F.pad((x.clamp(-1, 1) + 1) / 2, (4,) * 4)


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> torch.Tensor:
    """β on a straight line (Ho et al. 2020, §4): (steps,) float64.

    Raises ValueError unless steps ≥ 1 and 0 < first ≤ last < 1.
    """
    if steps < 1 or not 0 < first <= last < 1:
        raise ValueError(f"steps ≥ 1 and 0 < first ≤ last < 1 expected: {steps}, {first}, {last}")
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_betas(steps: int = 1000, shift: float = 0.0, most: float = 0.999) -> torch.Tensor:
    """β of the cosine schedule (Nichol & Dhariwal 2021, eq. 17): (steps,) float64.

    shift : subtracted from log SNR at every step (Hoogeboom et al. 2023)
    most : no β exceeds it; without a shift the last would be 1

    Raises ValueError unless steps ≥ 1, shift is finite and 0 < most < 1.
    """
    if steps < 1 or not math.isfinite(shift) or not 0 < most < 1:
        given = f"{steps}, {shift}, {most}"
        raise ValueError(f"steps ≥ 1, finite shift and 0 < most < 1 expected: {given}")
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square()
    kept = kept / kept[0]
    kept = kept / (kept + (1 - kept) * math.exp(shift))  # log SNR − shift
    return (1 - kept[1:] / kept[:-1]).clamp(max=most)


class Diffusion:
    """The noising process of a schedule, and one step of its reverse (Ho et al. 2020).

    betas : (steps,) floats strictly between 0 and 1. Its dtype is that of the tables.
    alphas_cumprod : (steps,), ᾱ: the share of the signal's variance left after each step

    Raises ValueError for other betas.
    """

    def __init__(self, betas: torch.Tensor):
        betas = torch.as_tensor(betas)
        if betas.ndim != 1 or not len(betas) or not betas.is_floating_point():
            raise ValueError(f"betas: floats (steps,) expected, got {tuple(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("every beta must lie strictly between 0 and 1")
        self.betas, self.steps = betas, len(betas)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def scales(self, t: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """√ᾱ and √(1 − ᾱ) at `t` (batch,), shaped to multiply x (batch, …), in its dtype."""
        if t.shape != x.shape[:1] or t.is_floating_point():
            raise ValueError(f"t: integers ({len(x)},) expected, got {tuple(t.shape)}, {t.dtype}")
        if t.numel() and not 0 <= int(t.min()) <= int(t.max()) < self.steps:
            raise ValueError(f"t between 0 and {self.steps - 1} expected")
        kept = self.alphas_cumprod.to(t.device)[t].reshape(-1, *[1] * (x.ndim - 1))
        return kept.sqrt().to(x.dtype), (1 - kept).sqrt().to(x.dtype)

    def add_noise(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t of x0 (batch, …) at steps t (batch,), with noise of the shape of x0."""
        if noise.shape != x0.shape:
            raise ValueError(f"noise {tuple(x0.shape)} expected, got {tuple(noise.shape)}")
        signal, spread = self.scales(t, x0)
        return signal * x0 + spread * noise

    def snr(self) -> torch.Tensor:
        """Signal-to-noise ratio ᾱ / (1 − ᾱ) at every step, (steps,)."""
        return self.alphas_cumprod / (1 - self.alphas_cumprod)

    def step(
        self,
        eps: torch.Tensor,
        t: int,
        x: torch.Tensor,
        noise: torch.Tensor | None,
        variance: str = "fixed_small",
        clip: float | None = None,
    ) -> torch.Tensor:
        """From x at step t to step t − 1 (below 0: the image), given the predicted noise eps.

        noise : standard normal like x; None gives the mean. Not used at t = 0.
        variance : "fixed_small" (β̃) or "fixed_large" (β)
        clip : the estimate of the image is clipped to −clip … clip

        Raises ValueError for shapes that differ, t outside the chain, or another variance.
        """
        if eps.shape != x.shape or (noise is not None and noise.shape != x.shape):
            raise ValueError(f"eps and noise of shape {tuple(x.shape)} expected")
        if not 0 <= t < self.steps or variance not in ("fixed_small", "fixed_large"):
            raise ValueError(f"no step {t} of {self.steps}, or no variance called {variance!r}")
        kept = self.alphas_cumprod[t]
        before = self.alphas_cumprod[t - 1] if t else torch.ones_like(kept)
        alpha = kept / before
        beta = 1 - alpha
        x0 = (x - (1 - kept) ** 0.5 * eps) / kept**0.5
        x0 = x0 if clip is None else x0.clamp(-clip, clip)
        of_x0, of_x = before**0.5 * beta / (1 - kept), alpha**0.5 * (1 - before) / (1 - kept)
        mean = of_x0 * x0 + of_x * x
        if t == 0 or noise is None:
            return mean
        small = (1 - before) / (1 - kept) * beta
        return mean + (small if variance == "fixed_small" else beta) ** 0.5 * noise


class LinearDenoiser(nn.Module):
    """The best linear estimate of x0 from x_t, from the mean and covariance of `data` (n, …).

    forward(x, t): x (batch, …) at steps t (batch,) to the estimate, in the shape of x. `noise`
    gives the matching prediction of ε. Nothing is trained; it moves with .to(device). Raises
    ValueError for fewer than two examples, or an x of another shape.
    """

    def __init__(self, data: torch.Tensor, process: Diffusion):
        super().__init__()
        if data.ndim < 2 or len(data) < 2 or not data.is_floating_point():
            raise ValueError(f"data: floats (n ≥ 2, …) expected, got {tuple(data.shape)}")
        self.process, self.shape = process, data.shape[1:]
        flat = data.flatten(1).double()
        mean = flat.mean(0)
        variances, basis = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        kept = process.alphas_cumprod.double()[:, None]
        self.variances = variances.clamp(min=1e-6)
        gain = kept.sqrt() * self.variances / (kept * self.variances + 1 - kept)
        for name, value in (("mean", mean), ("basis", basis), ("gain", gain)):
            self.register_buffer(name, value.to(data.dtype))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x (batch, {tuple(self.shape)}) expected, got {tuple(x.shape)}")
        signal, _ = self.process.scales(t, x.flatten(1))
        z = (x.flatten(1) - signal * self.mean) @ self.basis  # (batch, D)
        return (self.mean + (self.gain[t] * z) @ self.basis.T).view_as(x)

    def noise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The prediction of ε that goes with forward(x, t)."""
        signal, spread = self.process.scales(t, x)
        return (x - signal * self(x, t)) / spread


def sample(
    model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    process: Diffusion,
    shape: tuple[int, ...],
    generator: torch.Generator,
    variance: str = "fixed_small",
    clip: float | None = 1.0,
    temperature: float = 1.0,
    device: str | torch.device = "cpu",
    watch: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Draw images by walking the whole chain back from noise (Ho et al. 2020, algorithm 2).

    model : takes x (batch, …) and t (batch,) int64, predicts the noise in x
    shape : (batch, …) of the result
    generator : a CPU generator; the same seed starts from the same noise on every device
    watch : called with t, x and the predicted noise before each step

    Raises ValueError for an empty shape or a negative temperature, and as `Diffusion.step`.
    """
    if not shape or min(shape) < 1 or not temperature >= 0:
        raise ValueError(f"sizes ≥ 1 and temperature ≥ 0 expected: {shape}, {temperature}")
    x = torch.randn(shape, generator=generator).to(device)
    for t in reversed(range(process.steps)):
        with torch.no_grad():
            eps = model(x, torch.full((shape[0],), t, device=device))
        if watch is not None:
            watch(t, x, eps)
        noise = temperature * torch.randn(shape, generator=generator).to(device) if t else None
        x = process.step(eps, t, x, noise, variance, clip)
    return x


def time_embedding(t: torch.Tensor, size: int) -> torch.Tensor:
    """Sines, then cosines of t (batch,) at `size` / 2 frequencies: (batch, size) float32.

    The frequencies fall geometrically from 1 towards 1/10,000 (Vaswani et al. 2017, §3.5). Raises
    ValueError for another shape of t, or a size that is not even and positive.
    """
    if t.ndim != 1 or size < 2 or size % 2:
        raise ValueError(f"t (batch,) and an even size expected: {tuple(t.shape)}, {size}")
    half = size // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, min(8, channels // 4)), channels)


class TimedBlock(nn.Module):
    """A residual block of two 3×3 convolutions, scaled and shifted by an embedding.

    (batch, inputs, h, w) and (batch, embed) to (batch, outputs, h, w). Starts as its shortcut.
    """

    def __init__(self, inputs: int, outputs: int, embed: int):
        super().__init__()
        self.norm1, self.norm2 = _group_norm(inputs), _group_norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embed, 2 * outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulate(e)[:, :, None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(F.silu(h))


class DenseBlock(nn.Module):
    """x plus a hidden layer that connects all channels and places; starts as x."""

    def __init__(self, channels: int, places: int, hidden: int, embed: int):
        super().__init__()
        self.norm = _group_norm(channels)
        self.enter, self.time = nn.Linear(channels * places, hidden), nn.Linear(embed, hidden)
        self.leave = nn.Linear(hidden, channels * places)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        h = F.silu(self.enter(self.norm(x).flatten(1)) + self.time(e))
        return x + self.leave(h).view_as(x)


class UNet(nn.Module):
    """A U-Net on 2×2 pixels as channels, told the time and, if wanted, a label.

    channels : width of each level; every further level halves the grid, rounding up
    size : height and width of the images, even
    inputs : channels of the input; the output has one
    classes : None, or how many labels; index `classes` then means "no label"

    forward(x, t, label=None): x (batch, inputs, size, size), t (batch,) between 0 and 1000,
    label (batch,) int64 to (batch, 1, size, size), zero before training. Raises ValueError for
    sizes, shapes or labels that do not fit.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 48),
        size: int = 20,
        inputs: int = 1,
        classes: int | None = None,
        hidden: int = 128,
        embed: int = 128,
    ):
        super().__init__()
        if not channels or min(*channels, inputs, hidden, embed) < 1 or size < 2 or size % 2:
            raise ValueError(f"positive widths and an even size expected: {channels}, {size}")
        if any(width % max(1, min(8, width // 4)) for width in channels):
            raise ValueError(f"widths must divide into groups, so multiples of 8: {channels}")
        if classes is not None and classes < 1:
            raise ValueError(f"at least one class expected, got {classes}")
        self.inputs, self.size, self.classes = inputs, size, classes
        self.time = nn.Sequential(nn.Linear(64, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.label = None if classes is None else nn.Embedding(classes + 1, embed)
        self.enter = nn.Conv2d(4 * inputs, channels[0], 3, padding=1)
        pairs = list(zip(channels, channels[1:]))
        self.down = nn.ModuleList(TimedBlock(c, c, embed) for c, _ in pairs)
        self.shrink = nn.ModuleList(nn.Conv2d(c, d, 3, 2, 1) for c, d in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(d, c, 1) for c, d in pairs)
        self.up = nn.ModuleList(TimedBlock(2 * c, c, embed) for c, _ in pairs)
        side = -(-size // 2 ** len(channels))
        self.middle = TimedBlock(channels[-1], channels[-1], embed)
        self.dense = DenseBlock(channels[-1], side * side, hidden, embed)
        self.norm, self.leave = _group_norm(channels[0]), nn.Conv2d(channels[0], 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (self.inputs, self.size, self.size):
            expected = f"(batch, {self.inputs}, {self.size}, {self.size})"
            raise ValueError(f"x {expected} expected, got {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t ({len(x)},) expected, got {tuple(t.shape)}")
        e = self.time(time_embedding(t, 64).to(x.dtype))
        if (self.label is None) != (label is None):
            raise ValueError("give labels to a U-Net with classes, and only to one")
        if label is not None:
            known = bool(((label >= 0) & (label <= self.classes)).all())
            if label.shape != t.shape or label.is_floating_point() or not known:
                raise ValueError(f"labels ({len(x)},) between 0 and {self.classes} expected")
            e = e + self.label(label)
        e, h, kept = F.silu(e), self.enter(F.pixel_unshuffle(x, 2)), []
        for block, shrink in zip(self.down, self.shrink):
            kept.append(block(h, e))
            h = shrink(kept[-1])
        h = self.dense(self.middle(h, e), e)
        for grow, block in zip(reversed(self.grow), reversed(self.up)):
            skip = kept.pop()
            h = F.interpolate(grow(h), size=skip.shape[-2:], mode="nearest")
            h = block(torch.cat([h, skip], 1), e)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), 2)


class NoisePredictor(nn.Module):
    """The noise that `linear` predicts, plus √ᾱ times what `unet` (inputs=2) has learned to add.

    forward(x, t, label=None): (batch, 1, size, size) at steps t (batch,) to the noise in x.
    Raises ValueError unless unet has two input channels.
    """

    def __init__(self, unet: UNet, linear: LinearDenoiser):
        super().__init__()
        if unet.inputs != 2:
            raise ValueError(f"x and the linear estimate need inputs=2, not {unet.inputs}")
        self.unet, self.linear, self.process = unet, linear, linear.process

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        signal, spread = self.process.scales(t, x)
        estimate = self.linear(x, t)
        more = self.unet(torch.cat([x, estimate], 1), t * (1000 / self.process.steps), label)
        return (x - signal * estimate) / spread + signal * more


class ExponentialMovingAverage:
    """Averaged weights: `model` is a copy whose parameters follow those given to `update`.

    decay : share of the old average kept per step; smaller in the first steps, where the
        average would otherwise remember the start: min(decay, (1 + n) / (10 + n))

    Raises ValueError unless 0 ≤ decay < 1.
    """

    def __init__(self, model: nn.Module, decay: float = 0.99):
        if not 0 <= decay < 1:
            raise ValueError(f"decay of at least 0 and below 1 expected, got {decay}")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    def update(self, model: nn.Module) -> None:
        """Move the average towards the parameters of `model`; buffers are left alone."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for average, p in zip(self.model.parameters(), model.parameters(), strict=True):
                average.lerp_(p, 1 - decay)
        self.updates += 1
