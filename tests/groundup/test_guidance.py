"""groundup.guidance against diffusers' DDIMScheduler, the DDPM step and exact solutions, on random inputs."""

import warnings

import numpy as np
import pytest
import torch
from draws import few, generator, randn, seeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMScheduler

from groundup.diffusion import Diffusion, LinearDenoiser, cosine_betas, linear_betas
from groundup.guidance import ddim_sample, ddim_step, ddim_timesteps, drop_labels, guided


def library(betas, clip=None, spacing="leading"):
    limits = {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}
    return DDIMScheduler(len(betas), trained_betas=betas.float().numpy(), timestep_spacing=spacing, **limits)


# labels


@few
@given(seeds, st.integers(0, 200), st.floats(0, 1))
def test_dropped_labels_are_null_and_the_rest_untouched(seed, count, p):
    labels = torch.randint(0, 7, (count,), generator=generator(seed))
    before = labels.clone()
    found = drop_labels(labels, p, 7, generator(seed))
    assert torch.equal(labels, before) and found.dtype == torch.int64
    assert bool(((found == labels) | (found == 7)).all())
    assert torch.equal(found, drop_labels(labels, p, 7, generator(seed)))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_share_of_dropped_labels(p):
    found = drop_labels(torch.zeros(20_000, dtype=torch.int64), p, 10, generator())
    share = float((found == 10).double().mean())
    assert abs(share - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)


@pytest.mark.parametrize(
    "labels, p",
    [
        (torch.zeros(3), 0.1),
        (torch.zeros(2, 2, dtype=torch.int64), 0.1),
        (torch.zeros(3, dtype=torch.int32), 0.1),
        (torch.zeros(3, dtype=torch.int64), -0.1),
        (torch.zeros(3, dtype=torch.int64), 1.1),
        (torch.zeros(3, dtype=torch.int64), float("nan")),
    ],
)
def test_drop_labels_refuses(labels, p):
    with pytest.raises(ValueError, match="expected"):
        drop_labels(labels, p, 10, generator())


# guidance


def labelled(x, t, label):
    """A model whose prediction for an image depends on that image, its time and its label only."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    return torch.sin(x * (1 + label.reshape(shape))) + 0.1 * t.reshape(shape)


@few
@given(seeds, st.integers(1, 6), st.floats(-3, 10))
def test_guided_is_the_line_through_both_predictions(seed, count, scale):
    x, t = randn(count, 1, 3, 3, seed=seed), torch.randint(0, 50, (count,), generator=generator(seed))
    label = torch.randint(0, 4, (count,), generator=generator(seed + 1))
    of_label, of_none = labelled(x, t, label), labelled(x, t, torch.full_like(label, 4))
    expected = (1 - scale) * of_none + scale * of_label
    assert torch.allclose(guided(labelled, label, scale, 4)(x, t), expected, atol=1e-4)


def test_guided_calls_the_model_once():
    seen = []

    def counting(x, t, label):
        seen.append(label.tolist())
        return x

    x, t, label = randn(2, 3), torch.tensor([1, 2]), torch.tensor([0, 3])
    for scale in (0, 1, 2.5):
        guided(counting, label, scale, 9)(x, t)
    assert seen == [[9, 9], [0, 3], [0, 3, 9, 9]]


def test_guidance_of_gaussians_is_exact():
    """Two linear denoisers as the two models: w = 1 draws the conditional's mean and spread."""
    process = Diffusion(cosine_betas(200))
    narrow, wide = 0.3 * randn(500, 2) + 1, randn(500, 2, seed=1)
    models = [LinearDenoiser(data, process) for data in (narrow, wide)]

    def model(x, t, label):
        return torch.where((label == 0)[:, None], models[0].noise(x, t), models[1].noise(x, t))

    label = torch.zeros(3000, dtype=torch.int64)
    for scale, data in ((1, narrow), (0, wide)):
        noise = guided(model, label, scale, 1)
        drawn = ddim_sample(noise, process, (3000, 2), 200, generator(), clip=None)
        assert (drawn.mean(0) - data.mean(0)).abs().max() < 0.1
        assert (torch.cov(drawn.T) - torch.cov(data.T)).abs().max() < 0.12
    drawn = ddim_sample(guided(model, label, 3, 1), process, (3000, 2), 200, generator(), clip=None)
    assert drawn.std(0).max() < narrow.std(0).min()  # extrapolation narrows


@pytest.mark.parametrize(
    "label, scale",
    [
        (torch.zeros(2), 1.0),
        (torch.zeros(2, 1, dtype=torch.int64), 1.0),
        (torch.zeros(2, dtype=torch.int64), float("inf")),
        (torch.zeros(2, dtype=torch.int64), float("nan")),
    ],
)
def test_guided_refuses(label, scale):
    with pytest.raises(ValueError, match="expected"):
        guided(labelled, label, scale, 10)


def test_guided_refuses_other_batches():
    noise = guided(labelled, torch.zeros(2, dtype=torch.int64), 2.0, 10)
    for x, t in ((randn(3, 1), torch.zeros(3).long()), (randn(2, 1), torch.zeros(3).long())):
        with pytest.raises(ValueError, match="2 images"):
            noise(x, t)


# DDIM


@few
@given(st.integers(1, 1000), st.data())
def test_timesteps_equal_diffusers(total, data):
    steps = data.draw(st.integers(1, total))
    theirs = library(linear_betas(total), spacing="leading")
    theirs.set_timesteps(steps)
    assert ddim_timesteps(total, steps, "leading") == theirs.timesteps.tolist()
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    steps = data.draw(st.sampled_from(divisors))
    theirs = library(linear_betas(total), spacing="trailing")
    theirs.set_timesteps(steps)
    assert ddim_timesteps(total, steps) == theirs.timesteps.tolist()


@few
@given(st.integers(1, 500), st.data())
def test_timesteps_fall_within_the_chain(total, data):
    steps = data.draw(st.integers(1, total))
    for spacing in ("trailing", "leading"):
        levels = ddim_timesteps(total, steps, spacing)
        assert len(levels) == steps and levels == sorted(set(levels), reverse=True)
        assert 0 <= levels[-1] and levels[0] < total
    assert ddim_timesteps(total, steps)[0] == total - 1
    assert ddim_timesteps(total, steps, "leading")[-1] == 0


@pytest.mark.parametrize("bad", [(10, 0), (10, 11), (0, 0), (10, 5, "linspace")])
def test_timesteps_refuse(bad):
    with pytest.raises(ValueError, match="steps"):
        ddim_timesteps(*bad)


@settings(deadline=None, max_examples=60)
@given(
    seeds,
    st.integers(2, 120),
    st.floats(0.001, 0.3),
    st.floats(0, 1),
    st.sampled_from([None, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from(["leading", "trailing"]),
    st.data(),
)
def test_step_equals_diffusers(seed, total, last, eta, clip, rederive, spacing, data):
    steps = data.draw(st.integers(1, total))
    assume(spacing == "leading" or total % steps == 0)
    betas = linear_betas(total, 0.0005, last).float()
    theirs = library(betas, clip, spacing)
    theirs.set_timesteps(steps)
    levels = [*theirs.timesteps.tolist(), -1]
    at = data.draw(st.integers(0, steps - 1))
    eps, x, noise = randn(3, 2, 1, 3, 3, seed=seed)
    options = {"use_clipped_model_output": rederive and clip is not None, "variance_noise": noise}
    expected = theirs.step(eps, levels[at], x, eta=eta, **options).prev_sample
    found = ddim_step(Diffusion(betas), eps, *levels[at : at + 2], x, noise, eta, clip, rederive)
    assert found.dtype == torch.float32
    gap = (found - expected).abs() / expected.abs().clamp(min=1)
    assert float(gap.max()) < 1e-6


@few
@given(seeds, st.integers(2, 80), st.sampled_from([None, 1.0]), st.data())
def test_eta_1_is_ddpm(seed, total, clip, data):
    t = data.draw(st.integers(0, total - 1))
    process = Diffusion(cosine_betas(total))
    eps, x, noise = randn(3, 4, 5, seed=seed, dtype=torch.float64)
    found = ddim_step(process, eps, t, t - 1, x, noise, 1.0, clip, rederive=True)
    assert torch.allclose(found, process.step(eps, t, x, noise, clip=clip), atol=1e-6, rtol=1e-6)


@few
@given(seeds, st.integers(3, 100), st.floats(0, 1), st.data())
def test_step_keeps_the_marginal(seed, total, eta, data):
    """With the true image and noise, the step lands in q(x_s | x_0), whatever eta is."""
    t = data.draw(st.integers(1, total - 1))
    before = data.draw(st.integers(0, t - 1))
    process = Diffusion(cosine_betas(total, most=0.99))
    unit = torch.eye(2, dtype=torch.float64)  # the factors of eps and of the fresh noise
    zero = torch.zeros(2, dtype=torch.float64)
    x = process.add_noise(zero, torch.full((2,), t), unit[0])
    factors = ddim_step(process, unit[0], t, before, x, unit[1], eta)
    left = 1 - process.alphas_cumprod[before]
    assert torch.allclose(factors.square().sum(), left, atol=1e-9)
    one = torch.ones(1, dtype=torch.float64)
    mean = ddim_step(process, 0 * one, t, before, process.scales(torch.tensor([t]), one)[0], 0 * one, eta)
    assert torch.allclose(mean, process.alphas_cumprod[before].sqrt(), atol=1e-9)


@pytest.mark.parametrize(
    "bad",
    [
        {"eps": torch.zeros(2)},
        {"noise": torch.zeros(2)},
        {"t": 5},
        {"before": 3},
        {"before": -2},
        {"eta": -0.1},
        {"eta": 1.1},
        {"eta": float("nan")},
        {"noise": None},
    ],
)
def test_step_refuses(bad):
    x = torch.zeros(3)
    arguments = {"eps": x, "t": 3, "before": 1, "x": x, "noise": x, "eta": 0.5} | bad
    with pytest.raises(ValueError, match="expected|needs"):
        ddim_step(Diffusion(linear_betas(5)), **arguments)


@few
@given(seeds, st.integers(2, 40), st.floats(0, 1), st.sampled_from([None, 1.0]), st.data())
def test_sampling_equals_the_loop_of_diffusers(seed, total, eta, clip, data):
    steps = data.draw(st.integers(1, total))
    betas = linear_betas(total, 0.01, 0.3).float()
    theirs = library(betas, clip)
    theirs.set_timesteps(steps)

    def model(x, t):
        return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1) / total)

    draws = generator(seed)
    x = torch.randn(2, 1, 3, 3, generator=draws)
    for t in theirs.timesteps.tolist():
        eps = model(x, torch.full((2,), t))
        x = theirs.step(eps, t, x, eta, clip is not None, draws).prev_sample
    found = ddim_sample(model, Diffusion(betas), (2, 1, 3, 3), steps, generator(seed), eta, clip, spacing="leading")
    assert torch.allclose(found, x, atol=1e-4)


def test_sampling_from_a_given_start():
    process = Diffusion(cosine_betas(50))
    linear = LinearDenoiser(randn(40, 3), process)
    start = torch.randn(5, 3, generator=generator(4))
    drawn = ddim_sample(linear.noise, process, (5, 3), 10, generator(4))
    again = ddim_sample(linear.noise, process, (5, 3), 10, generator(9), start=start)
    assert torch.equal(drawn, again)
    noisy = [ddim_sample(linear.noise, process, (5, 3), 10, generator(s), 1.0, start=start) for s in (1, 2)]
    assert not torch.allclose(*noisy)


@pytest.mark.parametrize(
    "bad", [{"shape": ()}, {"shape": (0, 2)}, {"steps": 0}, {"steps": 9}, {"start": torch.zeros(3, 2)}, {"eta": 2.0}]
)
def test_sample_refuses(bad):
    arguments = {"shape": (2, 2), "steps": 2} | bad
    with pytest.raises(ValueError, match="expected"):
        ddim_sample(lambda x, t: x, Diffusion(linear_betas(3)), generator=generator(), **arguments)
