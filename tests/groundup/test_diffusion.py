"""groundup.diffusion against diffusers, autograd, finite differences and exact solutions, on random inputs."""

import warnings

import numpy as np
import pytest
import torch
from draws import few, generator, randn, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDPMScheduler
    from diffusers.models.embeddings import get_timestep_embedding
    from diffusers.training_utils import EMAModel

from groundup import datasets
from groundup.diffusion import (
    DenseBlock,
    Diffusion,
    ExponentialMovingAverage,
    LinearDenoiser,
    NoisePredictor,
    TimedBlock,
    UNet,
    centre_digits,
    cosine_betas,
    linear_betas,
    paste_digits,
    sample,
    time_embedding,
)


def library(betas, **options):
    return DDPMScheduler(len(betas), trained_betas=betas.float().numpy(), **options)


# schedules


@few
@given(st.integers(2, 1200))
def test_schedules_equal_diffusers(steps):
    for name, betas in (("linear", linear_betas(steps)), ("squaredcos_cap_v2", cosine_betas(steps))):
        theirs = DDPMScheduler(steps, beta_schedule=name).betas
        assert betas.dtype == torch.float64 and betas.shape == (steps,)
        assert torch.allclose(betas.float(), theirs, atol=1e-6)


@few
@given(st.integers(2, 300), st.floats(-3, 3))
def test_shift_moves_log_snr_by_a_constant(steps, shift):
    plain = Diffusion(cosine_betas(steps, most=1 - 1e-12)).snr()[:-1].log()
    moved = Diffusion(cosine_betas(steps, shift, most=1 - 1e-12)).snr()[:-1].log()
    assert torch.allclose(moved, plain - shift, atol=1e-6)


def test_linear_schedule_ends():
    betas = linear_betas(7, 0.1, 0.7)
    assert torch.allclose(betas, torch.linspace(0.1, 0.7, 7, dtype=torch.float64))
    assert cosine_betas(10, most=0.5).max() == 0.5


@pytest.mark.parametrize("bad", [(0,), (10, 0.0, 0.1), (10, 0.2, 0.1), (10, 0.1, 1.0)])
def test_linear_betas_refuse(bad):
    with pytest.raises(ValueError, match="first"):
        linear_betas(*bad)


@pytest.mark.parametrize("bad", [(0,), (10, float("inf")), (10, 0.0, 1.0), (10, 0.0, 0.0)])
def test_cosine_betas_refuse(bad):
    with pytest.raises(ValueError, match="steps"):
        cosine_betas(*bad)


# the process


@few
@given(seeds, st.integers(2, 60), st.floats(0.001, 0.3))
def test_add_noise_equals_diffusers(seed, steps, last):
    betas = linear_betas(steps, 0.0005, last).float()
    x0, noise = randn(2, 4, 2, 3, 3, seed=seed)
    t = torch.randint(0, steps, (4,), generator=generator(seed))
    expected = library(betas).add_noise(x0, noise, t)
    assert torch.allclose(Diffusion(betas).add_noise(x0, t, noise), expected, atol=1e-6)


@few
@given(
    seeds,
    st.integers(2, 80),
    st.floats(0.001, 0.5),
    st.sampled_from(["fixed_small", "fixed_large"]),
    st.sampled_from([None, 0.5, 1.0]),
    st.data(),
)
def test_step_equals_diffusers(seed, steps, last, variance, clip, data):
    betas = linear_betas(steps, 0.0005, last).float()
    theirs = library(betas, variance_type=variance, clip_sample=clip is not None, clip_sample_range=clip or 1.0)
    t = data.draw(st.integers(0, steps - 1))
    x, eps = randn(2, 3, 1, 4, 4, seed=seed)
    noise = torch.randn(x.shape, generator=generator(seed))
    expected = theirs.step(eps, t, x, generator=generator(seed)).prev_sample
    ours = Diffusion(betas).step(eps, t, x, noise, variance, clip)
    assert ((ours - expected).abs() <= 1e-6 * expected.abs().clamp(min=1)).all()


@few
@given(seeds, st.integers(2, 40))
def test_step_with_the_true_noise_is_the_posterior_by_bayes(seed, steps):
    """Multiply the two Gaussians on a grid, and compare mean and variance."""
    process = Diffusion(cosine_betas(steps))
    t = int(torch.randint(1, steps, (1,), generator=generator(seed)))
    x0, eps = randn(2, 1, seed=seed, dtype=torch.float64)
    x = process.add_noise(x0, torch.tensor([t]), eps)
    beta, before = process.betas[t], process.alphas_cumprod[t - 1]
    grid = torch.linspace(-9, 9, 60_001, dtype=torch.float64)
    log = -((x - (1 - beta).sqrt() * grid) ** 2) / (2 * beta)
    log = log - (grid - before.sqrt() * x0) ** 2 / (2 * (1 - before))
    p = log.softmax(0)
    mean = process.step(eps, t, x, None)
    assert abs(float(mean) - float((p * grid).sum())) < 1e-4
    spread = process.step(eps, t, x, torch.ones(1, dtype=torch.float64)) - mean
    assert abs(float(spread**2) - float((p * (grid - mean) ** 2).sum())) < 1e-4


def test_the_last_step_gives_back_the_image():
    process = Diffusion(linear_betas(5))
    x0, noise = randn(2, 2, 1, 4, 4, dtype=torch.float64)
    x = process.add_noise(x0, torch.zeros(2, dtype=torch.int64), noise)
    for z in (None, randn(2, 1, 4, 4, seed=3, dtype=torch.float64)):
        assert torch.allclose(process.step(noise, 0, x, z), x0)


def test_scales_are_a_rotation_and_snr_their_ratio():
    process = Diffusion(cosine_betas(50))
    t = torch.arange(50)
    signal, spread = process.scales(t, torch.zeros(50, 1, 2, 2, dtype=torch.float64))
    assert signal.shape == (50, 1, 1, 1)
    assert torch.allclose(signal**2 + spread**2, torch.ones_like(signal))
    assert torch.allclose((signal / spread).flatten() ** 2, process.snr())
    assert (process.snr().diff() < 0).all()


@pytest.mark.parametrize("bad", [[], [0.0, 0.1], [0.1, 1.0], [-0.1], [float("nan")], [[0.1, 0.2]], [1, 2]])
def test_process_refuses(bad):
    with pytest.raises(ValueError, match="beta"):
        Diffusion(torch.tensor(bad))


def test_add_noise_and_step_refuse():
    process, x = Diffusion(linear_betas(4)), randn(2, 1, 4, 4)
    for t in (torch.tensor([0]), torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0.0, 1])):
        with pytest.raises(ValueError, match="t"):
            process.add_noise(x, t, x)
    with pytest.raises(ValueError, match="noise"):
        process.add_noise(x, torch.tensor([0, 1]), x[:1])
    for bad in (
        {"eps": x[:1]},
        {"noise": x[:, :, :2]},
        {"t": 4},
        {"t": -1},
        {"variance": "learned"},
    ):
        arguments = {"eps": x, "t": 2, "x": x, "noise": x} | bad
        with pytest.raises(ValueError, match="expected|step"):
            process.step(**arguments)


# the linear denoiser and the sampler


@few
@given(seeds, st.integers(0, 19))
def test_linear_denoiser_is_the_least_squares_solution(seed, t):
    """Regress x0 on x_t with the population's moments: solve the normal equations directly."""
    data = randn(50, 6, seed=seed, dtype=torch.float64) @ randn(6, 6, seed=seed + 1, dtype=torch.float64)
    process = Diffusion(cosine_betas(20))
    x, kept = randn(5, 6, seed=seed + 2, dtype=torch.float64), process.alphas_cumprod[t]
    mean, covariance = data.mean(0), torch.cov(data.T, correction=0)
    of_x = kept * covariance + (1 - kept) * torch.eye(6, dtype=torch.float64)
    expected = mean + (x - kept.sqrt() * mean) @ torch.linalg.solve(of_x, kept.sqrt() * covariance)
    linear = LinearDenoiser(data, process)
    steps = torch.full((5,), t)
    assert torch.allclose(linear(x, steps), expected, atol=1e-5)
    noise = (x - kept.sqrt() * linear(x, steps)) / (1 - kept).sqrt()
    assert torch.allclose(linear.noise(x, steps), noise, atol=1e-9)


def test_samples_of_the_linear_model_have_the_moments_of_the_data():
    data = randn(4000, 3, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.5, 0], [0, 0.6, 0.3], [0, 0, 0.2]], dtype=torch.float64
    )
    data = (data + torch.tensor([0.5, -1.0, 0.2])).float()
    process = Diffusion(cosine_betas(300))
    drawn = sample(LinearDenoiser(data, process).noise, process, (4000, 3), generator(1), clip=None)
    assert (drawn.mean(0) - data.mean(0)).abs().max() < 0.1
    assert (torch.cov(drawn.T) - torch.cov(data.T)).abs().max() < 0.1


def test_linear_denoiser_refuses():
    process = Diffusion(linear_betas(4))
    for bad in (torch.zeros(1, 3), torch.zeros(3), torch.zeros(3, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="data"):
            LinearDenoiser(bad, process)
    linear = LinearDenoiser(randn(5, 3), process)
    with pytest.raises(ValueError, match="expected"):
        linear(randn(2, 4), torch.tensor([0, 1]))


@few
@given(seeds, st.integers(2, 25), st.sampled_from(["fixed_small", "fixed_large"]))
def test_sampling_equals_the_loop_of_diffusers(seed, steps, variance):
    betas = linear_betas(steps, 0.01, 0.3).float()
    theirs = library(betas, variance_type=variance, clip_sample=True)

    def model(x, t):
        return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1) / steps)

    draws = generator(seed)
    x = torch.randn(2, 1, 3, 3, generator=draws)
    for t in reversed(range(steps)):
        x = theirs.step(model(x, torch.full((2,), t)), t, x, generator=draws).prev_sample
    seen = []
    found = sample(
        model,
        Diffusion(betas),
        (2, 1, 3, 3),
        generator(seed),
        variance,
        watch=lambda t, x, eps: seen.append((t, x.shape == eps.shape)),
    )
    assert torch.allclose(found, x, atol=1e-5)
    assert seen == [(t, True) for t in reversed(range(steps))]


def test_temperature_and_clip():
    process, point = Diffusion(cosine_betas(50)), torch.tensor(0.3)

    def knows(x, t):  # all data are one point
        signal, spread = process.scales(t, x)
        return (x - signal * point) / spread

    for temperature in (0.0, 1.0):
        drawn = sample(knows, process, (3, 2), generator(), temperature=temperature)
        assert torch.allclose(drawn, point.expand(3, 2), atol=1e-4)
    assert sample(knows, process, (3, 2), generator(), clip=0.1).max() <= 0.1 + 1e-5


@pytest.mark.parametrize("bad", [{"shape": ()}, {"shape": (0, 2)}, {"temperature": -0.1}])
def test_sample_refuses(bad):
    arguments = {"shape": (2, 2), "temperature": 1.0} | bad
    with pytest.raises(ValueError, match="expected"):
        sample(lambda x, t: x, Diffusion(linear_betas(3)), generator=generator(), **arguments)


# networks


@few
@given(seeds, st.integers(1, 40))
def test_time_embedding_equals_diffusers(seed, half):
    t = torch.randint(0, 1000, (7,), generator=generator(seed))
    expected = get_timestep_embedding(t, 2 * half, downscale_freq_shift=0)
    assert torch.allclose(time_embedding(t, 2 * half), expected, atol=1e-4)
    assert torch.allclose(time_embedding(t.float(), 2 * half), expected, atol=1e-4)


@pytest.mark.parametrize("t, size", [(torch.zeros(2, 1), 8), (torch.zeros(2), 7), (torch.zeros(2), 0)])
def test_time_embedding_refuses(t, size):
    with pytest.raises(ValueError, match="even"):
        time_embedding(t, size)


def shaken(module, seed=0):
    """The module in float64, its zeros replaced: a network before training ignores its input."""
    module = module.double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(0.1 * randn(*p.shape, seed=seed + i, dtype=torch.float64))
    return module


@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from([(8,), (8, 16), (8, 8, 16)]),
    st.sampled_from([4, 6, 10]),
    st.integers(1, 2),
    st.sampled_from([None, 3]),
)
def test_unet_shapes_gradients_and_independence(channels, size, inputs, classes):
    torch.manual_seed(0)
    net = UNet(channels, size, inputs, classes, hidden=8, embed=8)
    x, t = randn(3, inputs, size, size, dtype=torch.float64), torch.tensor([1.0, 500.0, 990.0])
    label = None if classes is None else torch.tensor([0, 2, 3])
    assert torch.equal(net.double()(x, t, label), torch.zeros(3, 1, size, size, dtype=torch.float64))
    net = shaken(net)
    y = net(x, t, label)
    assert y.shape == (3, 1, size, size)
    one = net(x[1:2], t[1:2], None if label is None else label[1:2])
    assert torch.allclose(y[1:2], one, atol=1e-10)  # no image sees another
    assert not torch.allclose(y, net(x, t.flip(0), label))  # it hears the time
    if label is not None:
        assert not torch.allclose(y, net(x, t, label.flip(0)))


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    net = shaken(UNet((8, 8), 4, 1, 2, hidden=4, embed=4))
    t, label = torch.tensor([10.0, 700.0]), torch.tensor([0, 2])
    x = randn(2, 1, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, t, label), x, atol=1e-5)
    e = randn(2, 4, seed=4, dtype=torch.float64).requires_grad_()
    h = randn(2, 8, 3, 3, seed=5, dtype=torch.float64).requires_grad_()
    for block in (TimedBlock(8, 8, 4), TimedBlock(8, 16, 4), DenseBlock(8, 9, 4, 4)):
        assert torch.autograd.gradcheck(shaken(block), (h, e), atol=1e-5)


def test_blocks_start_as_their_shortcut():
    x, e = randn(2, 8, 4, 4), randn(2, 6)
    assert torch.equal(TimedBlock(8, 8, 6)(x, e), x)
    assert torch.equal(DenseBlock(8, 16, 5, 6)(x, e), x)
    wider = TimedBlock(8, 16, 6)
    assert torch.equal(wider(x, e), wider.shortcut(x))


@pytest.mark.parametrize(
    "bad",
    [
        {"channels": ()},
        {"channels": (0, 8)},
        {"channels": (36,)},
        {"size": 7},
        {"inputs": 0},
        {"classes": 0},
        {"hidden": 0},
    ],
)
def test_unet_refuses(bad):
    with pytest.raises(ValueError, match="expected|multiples"):
        UNet(**bad)


def test_unet_refuses_inputs():
    net, labelled = UNet((8,), 4), UNet((8,), 4, classes=3)
    x, t = randn(2, 1, 4, 4), torch.tensor([0, 1])
    for bad in ((x[:, :, :2], t), (x.expand(2, 2, 4, 4), t), (x, t[:1]), (x, t, torch.tensor([0, 1]))):
        with pytest.raises(ValueError, match="expected|labels"):
            net(*bad)
    for label in (None, torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1])):
        with pytest.raises(ValueError, match="label"):
            labelled(x, t, label)


def test_noise_predictor_starts_linear_and_adds():
    process = Diffusion(cosine_betas(10))
    linear = LinearDenoiser(randn(30, 1, 4, 4), process)
    torch.manual_seed(0)
    unet = UNet((8,), 4, inputs=2, hidden=8, embed=8)
    model, x, t = NoisePredictor(unet, linear), randn(3, 1, 4, 4, seed=2), torch.tensor([0, 4, 9])
    assert torch.allclose(model(x, t), linear.noise(x, t), atol=1e-6)
    with torch.no_grad():
        unet.leave.bias.fill_(1.0)
    signal, _ = process.scales(t, x)
    assert torch.allclose(model(x, t), linear.noise(x, t) + signal, atol=1e-5)
    assert set(dict(model.named_parameters())) == {f"unet.{k}" for k, _ in unet.named_parameters()}
    with pytest.raises(ValueError, match="inputs=2"):
        NoisePredictor(UNet((8,), 4), linear)
    labelled = NoisePredictor(UNet((8,), 4, inputs=2, classes=2), linear)
    assert labelled(x, t, torch.tensor([0, 1, 2])).shape == x.shape


@few
@given(seeds, st.floats(0.1, 0.99), st.integers(1, 30))
def test_moving_average_equals_diffusers(seed, decay, updates):
    """diffusers' own warm-up is (1 + n) / (10 + n) too, with n counted from its second update."""
    model = nn.Linear(3, 2)
    ours = ExponentialMovingAverage(model, decay)
    expected = model.weight.detach().clone()
    for n in range(updates):
        with torch.no_grad():
            model.weight.copy_(randn(2, 3, seed=seed + n))
        ours.update(model)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * model.weight.detach()
    assert torch.allclose(ours.model.weight, expected, atol=1e-5)
    assert not ours.model.training and not ours.model.weight.requires_grad
    theirs = EMAModel(model.parameters(), decay=decay, use_ema_warmup=False)
    assert theirs.get_decay(updates + 1) == min(decay, (1 + updates) / (10 + updates))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_moving_average_refuses(decay):
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay)


# digits


def test_digits_go_there_and_back():
    images = torch.tensor(datasets.mnist()[0][:50])
    tiles = centre_digits(images)
    assert tiles.shape == (50, 1, 20, 20) and tiles.min() == -1 and tiles.max() <= 1
    pages = paste_digits(tiles)
    assert torch.allclose(pages.sum((1, 2, 3)), images.sum((1, 2)), atol=1e-3)  # no ink is lost
    again = centre_digits(pages[:, 0])
    assert torch.allclose(again, tiles, atol=1e-6)
    empty = centre_digits(np.zeros((2, 28, 28)))
    assert (empty == -1).all() and (paste_digits(empty) == 0).all()
    assert centre_digits(np.zeros((0, 28, 28))).shape == (0, 1, 20, 20)


def test_a_moved_digit_is_centred_the_same():
    page = torch.zeros(1, 28, 28)
    page[0, 3:9, 10:14] = 0.5
    moved = page.roll((7, -4), (1, 2))
    assert torch.equal(centre_digits(page), centre_digits(moved))
    assert paste_digits(torch.full((1, 1, 20, 20), 5.0)).max() == 1


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 20, 20)), np.zeros((28, 28)), np.full((1, 28, 28), 255.0), np.ones((1, 28, 28))]
)
def test_centre_digits_refuses(bad):
    with pytest.raises(ValueError, match="expected|fit"):
        centre_digits(bad)


def test_integer_pixels_and_other_tiles_are_refused():
    with pytest.raises(ValueError, match="floats"):
        centre_digits(np.zeros((1, 28, 28), dtype=np.uint8))
    for shape in ((1, 20, 20), (1, 1, 28, 28), (1, 3, 20, 20)):
        with pytest.raises(ValueError, match="images"):
            paste_digits(torch.zeros(shape))
