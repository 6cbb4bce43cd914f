"""groundup.optimization against torch.optim, closed forms and direct recursions."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from groundup.optimization import (
    SGD,
    Adam,
    AdamW,
    Optimizer,
    RMSProp,
    async_sgd,
    clip_by_global_norm,
    delay_limit,
    gradient_descent,
    newton,
    warmup_cosine,
    warmup_linear,
)

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
moderate = st.floats(-100, 100)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
lists_of_shapes = st.lists(shapes, min_size=1, max_size=4)
kinds = st.sampled_from([SGD, RMSProp, Adam, AdamW])
dtypes = st.sampled_from([np.float32, np.float64])

hyper = {
    SGD: st.fixed_dictionaries(
        {"lr": st.floats(0, 0.1), "momentum": st.sampled_from([0.0, 0.5, 0.99]), "weight_decay": st.floats(0, 0.5)}
    ),
    RMSProp: st.fixed_dictionaries({"lr": st.floats(0, 0.1), "alpha": st.floats(0, 0.999), "eps": st.floats(1e-8, 1)}),
    Adam: st.fixed_dictionaries(
        {
            "lr": st.floats(0, 0.1),
            "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
            "eps": st.floats(1e-8, 1),
            "weight_decay": st.floats(0, 0.5),
        }
    ),
}
hyper[AdamW] = hyper[Adam]
any_optimizer = kinds.flatmap(lambda kind: st.tuples(st.just(kind), hyper[kind]))


def arrays(rng, shapes, dtype=np.float64):
    return [np.array(rng.standard_normal(shape), dtype=dtype) for shape in shapes]


def bowl(a):
    return lambda x: a * x


# --- the optimizers --------------------------------------------------------------------------


def against_torch(kind, reference, settings, shapes, seed, steps=12):
    rng = np.random.default_rng(seed)
    params = arrays(rng, shapes)
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    mine, theirs = kind(params, **settings), reference(leaves, **settings)
    for _ in range(steps):
        # gradients of very different sizes, some exactly zero
        grads = [g * 10.0 ** rng.integers(-4, 4) * (rng.random(g.shape) < 0.9) for g in arrays(rng, shapes)]
        for leaf, g in zip(leaves, grads):
            leaf.grad = torch.tensor(np.asarray(g))
        mine.step(grads)
        theirs.step()
        for p, leaf in zip(params, leaves):
            assert np.allclose(p, leaf.detach().numpy(), rtol=1e-10, atol=1e-10)


@few
@given(hyper[SGD], lists_of_shapes, seeds, st.booleans())
def test_sgd_is_torchs(settings, shapes, seed, nesterov):
    settings = settings | {"nesterov": nesterov and settings["momentum"] > 0}
    against_torch(SGD, torch.optim.SGD, settings, shapes, seed)


@few
@given(hyper[RMSProp], lists_of_shapes, seeds)
def test_rmsprop_is_torchs(settings, shapes, seed):
    against_torch(RMSProp, torch.optim.RMSprop, settings, shapes, seed)


@few
@given(hyper[Adam], lists_of_shapes, seeds)
def test_adam_is_torchs(settings, shapes, seed):
    against_torch(Adam, torch.optim.Adam, settings, shapes, seed)


@few
@given(hyper[AdamW], lists_of_shapes, seeds)
def test_adamw_is_torchs(settings, shapes, seed):
    against_torch(AdamW, torch.optim.AdamW, settings, shapes, seed)


@few
@given(any_optimizer, lists_of_shapes, seeds, dtypes)
def test_step_is_in_place_and_keeps_shape_and_dtype(chosen, shapes, seed, dtype):
    kind, settings = chosen
    rng = np.random.default_rng(seed)
    params, grads = arrays(rng, shapes, dtype), arrays(rng, shapes)
    before = copy.deepcopy(grads)
    optimizer = kind(params, **settings)
    aliases = list(params)
    optimizer.step(grads)
    for p, alias, shape in zip(params, aliases, shapes):
        assert p is alias and p.shape == shape and p.dtype == dtype and np.isfinite(p).all()
    assert all(np.array_equal(a, b) for a, b in zip(grads, before))  # gradients are only read


@few
@given(any_optimizer, lists_of_shapes, seeds)
def test_dict_and_list_agree_whatever_the_order(chosen, shapes, seed):
    kind, settings = chosen
    rng = np.random.default_rng(seed)
    listed, grads = arrays(rng, shapes), arrays(rng, shapes)
    named = {f"layer.{i}": p.copy() for i, p in enumerate(listed)}
    a, b = kind(listed, **settings), kind(named, **settings)
    for _ in range(3):
        a.step(grads)
        b.step({f"layer.{i}": grads[i] for i in reversed(range(len(grads)))})
    assert all(np.array_equal(p, named[f"layer.{i}"]) for i, p in enumerate(listed))


@few
@given(any_optimizer, lists_of_shapes, seeds)
def test_no_learning_rate_no_change(chosen, shapes, seed):
    kind, settings = chosen
    rng = np.random.default_rng(seed)
    params = arrays(rng, shapes)
    before = copy.deepcopy(params)
    optimizer = kind(params, **settings)
    optimizer.lr = 0.0
    optimizer.step(arrays(rng, shapes))
    assert all(np.array_equal(p, old) for p, old in zip(params, before))


@few
@given(any_optimizer, lists_of_shapes, seeds, st.integers(0, 5), dtypes)
def test_resume_is_bit_equal(chosen, shapes, seed, pause, dtype):
    kind, settings = chosen
    rng = np.random.default_rng(seed)
    params = arrays(rng, shapes, dtype)
    stream = [arrays(rng, shapes, dtype) for _ in range(8)]
    straight, broken = copy.deepcopy(params), copy.deepcopy(params)
    one = kind(straight, **settings)
    for g in stream:
        one.step(g)
    first = kind(broken, **settings)
    for g in stream[:pause]:
        first.step(g)
    saved = first.state_dict()
    kept = copy.deepcopy(saved)
    first.step(stream[0])  # must not reach into what was saved
    assert all(np.array_equal(saved[name], kept[name]) for name in saved)
    resumed_params = copy.deepcopy(params)
    second = kind(resumed_params, **settings | {"lr": 0.0})  # lr comes from the state
    replay = kind(resumed_params, **settings)
    for g in stream[:pause]:
        replay.step(g)
    second.load_state_dict(saved)
    for g in stream[pause:]:
        second.step(g)
    assert all(np.array_equal(a, b) for a, b in zip(straight, resumed_params))
    assert second.t == 8 and second.lr == settings["lr"]


def test_state_is_what_the_chapter_says():
    p = [np.zeros((3, 5), np.float32), np.array(0.0)]
    sizes = {
        kind: sum(a.nbytes for a in make(p).state_dict().values() if a.shape == (3, 5))
        for kind, make in {
            "sgd": lambda p: SGD(p, 0.1),
            "momentum": lambda p: SGD(p, 0.1, 0.9),
            "rmsprop": RMSProp,
            "adam": Adam,
            "adamw": AdamW,
        }.items()
    }
    assert sizes == {"sgd": 0, "momentum": 60, "rmsprop": 60, "adam": 120, "adamw": 120}
    state = Adam({"w.x": np.zeros(2)}, 0.25).state_dict()
    assert set(state) == {"lr", "t", "mean.w.x", "square.w.x"} and state["lr"] == 0.25
    assert all(isinstance(a, np.ndarray) for a in state.values())


@few
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 0.1))
def test_adam_ignores_the_scale_and_starts_with_the_sign(seed, scale, lr):
    rng = np.random.default_rng(seed)
    g = rng.choice([-1, 1], 6) * rng.uniform(0.1, 10, (5, 6))
    a, b = np.zeros(6), np.zeros(6)
    one, other = Adam([a], lr, eps=0.0), Adam([b], lr, eps=0.0)
    for t in range(5):
        one.step([g[t]])
        other.step([scale * g[t]])
        if t == 0:
            assert np.allclose(a, -lr * np.sign(g[0]), rtol=1e-12)
    assert np.allclose(a, b, rtol=1e-9)


@few
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_adamw_decays_whatever_the_gradient(seed, lr, decay):
    rng = np.random.default_rng(seed)
    p = rng.standard_normal(4)
    plain, decayed = p.copy(), p.copy()
    g = rng.standard_normal(4) * 10.0 ** rng.integers(-6, 6, 4)
    Adam([plain], lr).step([g])
    AdamW([decayed], lr, weight_decay=decay).step([g])
    assert np.allclose(decayed - plain, -lr * decay * p, rtol=1e-9, atol=1e-12)
    quiet = p.copy()
    AdamW([quiet], lr, weight_decay=decay).step([np.zeros(4)])
    assert np.allclose(quiet, (1 - lr * decay) * p, rtol=1e-14)


@few
@given(seeds, st.floats(0, 0.99), st.floats(0.01, 0.1))
def test_sgd_is_linear_and_momentum_sums(seed, mu, lr):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((6, 3))
    p = np.zeros(3)
    optimizer = SGD([p], lr, mu)
    for row in g:
        optimizer.step([row])
    # gradient i has been applied with weight 1 + μ + … + μ^(5 − i)
    weights = np.array([sum(mu**k for k in range(6 - i)) for i in range(6)])
    assert np.allclose(p, -lr * weights @ g, rtol=1e-10, atol=1e-12)


@few
@given(seeds, st.floats(0.5, 0.99))
def test_rmsprop_follows_its_definition(seed, alpha):
    rng = np.random.default_rng(seed)
    g, p, s, expected = rng.standard_normal((4, 3)), np.ones(3), np.zeros(3), np.ones(3)
    optimizer = RMSProp([p], 0.01, alpha)
    for row in g:
        optimizer.step([row])
        s = alpha * s + (1 - alpha) * row**2
        expected = expected - 0.01 * row / (np.sqrt(s) + 1e-8)
    assert np.allclose(p, expected, rtol=1e-12)
    zero = np.ones(2)
    RMSProp([zero]).step([np.zeros(2)])
    assert np.array_equal(zero, np.ones(2))


@pytest.mark.parametrize("kind", [SGD, RMSProp, Adam, AdamW])
@pytest.mark.parametrize(
    "bad, match",
    [
        ([np.array([1.0, np.nan]), np.ones(())], "'0' holds NaN"),
        ([np.ones(2), np.array(-np.inf)], "'1' holds NaN or infinity"),
        ([np.ones(3), np.ones(())], r"'0' must have shape \(2,\)"),
        ([np.ones(2), None], r"'1' must have shape \(\)"),
        ([np.ones(2)], "for parameters"),
        ({"w": np.ones(2), "b": np.ones(())}, "for parameters"),
    ],
)
def test_bad_gradients_change_nothing(kind, bad, match):
    p = [np.ones(2), np.array(2.0)]
    optimizer = kind(p, lr=0.1)
    with pytest.raises(ValueError, match=match):
        optimizer.step(bad)
    assert p[0].tolist() == [1, 1] and p[1] == 2 and optimizer.t == 0
    assert all(not a.any() for name, a in optimizer.state_dict().items() if name != "lr")


@pytest.mark.parametrize("lr", [np.nan, np.inf, -0.1])
def test_bad_learning_rates(lr):
    with pytest.raises(ValueError, match="lr must be finite and at least 0"):
        SGD([np.ones(2)], lr)
    optimizer = Adam([np.ones(2)])
    optimizer.lr = lr
    with pytest.raises(ValueError, match="lr must be finite"):
        optimizer.step([np.ones(2)])


same = np.ones(2)


@pytest.mark.parametrize(
    "params, match",
    [
        ([], "at least one"),
        ({}, "at least one"),
        ([same, same], "different arrays"),
        ([np.arange(3)], "array of floats"),
        ({"w": [1.0, 2.0]}, "'w' must be an array of floats"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        Optimizer(params, 0.1)
    with pytest.raises(ValueError, match=match):
        AdamW(params)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda p: SGD(p, 0.1, momentum=1.0), "momentum"),
        (lambda p: SGD(p, 0.1, momentum=-0.1), "momentum"),
        (lambda p: SGD(p, 0.1, nesterov=True), "above 0 for nesterov"),
        (lambda p: SGD(p, 0.1, weight_decay=-1), "weight_decay"),
        (lambda p: RMSProp(p, alpha=1.0), "alpha"),
        (lambda p: RMSProp(p, eps=-1e-8), "eps"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), "betas"),
        (lambda p: Adam(p, eps=np.nan), "eps"),
        (lambda p: AdamW(p, weight_decay=-0.1), "weight_decay"),
    ],
)
def test_bad_settings(make, match):
    with pytest.raises(ValueError, match=match):
        make([np.ones(2)])


def test_states_that_do_not_fit():
    optimizer = Adam([np.ones(2)])
    good = optimizer.state_dict()
    missing = {name: array for name, array in good.items() if name != "mean.0"}
    for bad in (
        {},
        missing,
        good | {"extra": np.ones(1)},
        good | {"mean.0": np.ones(3)},
        good | {"mean.0": np.ones(2, np.float32)},
        SGD([np.ones(2)], 0.1, 0.9).state_dict(),
    ):
        with pytest.raises(ValueError, match="state of another optimizer"):
            optimizer.load_state_dict(bad)
    optimizer.load_state_dict(good)


def test_the_base_class_alone_cannot_step():
    with pytest.raises(NotImplementedError, match="use SGD"):
        Optimizer([np.ones(1)], 0.1).step([np.ones(1)])


# --- clipping --------------------------------------------------------------------------------


@few
@given(lists_of_shapes, seeds, st.floats(1e-3, 1e3), st.integers(-5, 5))
def test_clip_is_torchs(shapes, seed, max_norm, exponent):
    rng = np.random.default_rng(seed)
    grads = [g * 10.0**exponent for g in arrays(rng, shapes)]
    grads = [np.array(g) for g in grads]
    leaves = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    for leaf, g in zip(leaves, grads):
        leaf.grad = torch.tensor(g)
    total = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
    assert np.isclose(clip_by_global_norm(grads, max_norm), float(total), rtol=1e-12)
    for g, leaf in zip(grads, leaves):
        assert np.allclose(g, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


@few
@given(lists_of_shapes, seeds, st.floats(1e-3, 1e3), dtypes)
def test_clip_bounds_keeps_direction_and_is_idempotent(shapes, seed, max_norm, dtype):
    grads = arrays(np.random.default_rng(seed), shapes, dtype)
    before = np.concatenate([np.ravel(g).astype(float) for g in grads])
    total = clip_by_global_norm({f"g{i}": g for i, g in enumerate(grads)}, max_norm)
    after = np.concatenate([np.ravel(g).astype(float) for g in grads])
    assert isinstance(total, float) and np.isclose(total, np.linalg.norm(before), rtol=1e-6)
    assert np.linalg.norm(after) <= max_norm * (1 + 1e-6)
    assert all(g.dtype == dtype for g in grads)
    if total + 1e-6 <= max_norm:
        assert np.array_equal(before, after)
    elif total > 0:
        assert np.allclose(after * total, before * np.linalg.norm(after), rtol=1e-4, atol=1e-5 * total)
    again = [g.copy() for g in grads]
    clip_by_global_norm(again, max_norm)
    assert all(np.allclose(a, b, rtol=1e-3) for a, b in zip(again, grads))


def test_clip_extremes():
    assert clip_by_global_norm([], 1.0) == 0.0
    zero = [np.zeros(3), np.zeros((0, 2))]
    assert clip_by_global_norm(zero, 1.0) == 0.0 and not zero[0].any()
    huge = [np.array([3e200, 4e200])]  # the square overflows, the norm does not
    assert np.isclose(clip_by_global_norm(huge, 1.0), 5e200) and np.allclose(huge[0], [0.6, 0.8])
    small = [np.full(4, 1e25, np.float32)]
    assert np.isclose(clip_by_global_norm(small, 2.0), 2e25) and np.allclose(small[0], 1.0)


@pytest.mark.parametrize("max_norm", [0, -1.0, np.nan, np.inf])
def test_clip_refuses_bounds(max_norm):
    with pytest.raises(ValueError, match="max_norm must be finite and above 0"):
        clip_by_global_norm([np.ones(2)], max_norm)


@pytest.mark.parametrize(
    "grads, match",
    [
        ([np.array([1.0, np.nan])], "NaN or infinity"),
        ([np.ones(1), np.array([np.inf])], "NaN or infinity"),
        ([np.arange(3)], "arrays of floats"),
        ([[1.0, 2.0]], "arrays of floats"),
    ],
)
def test_clip_refuses_gradients(grads, match):
    before = copy.deepcopy(grads)
    with pytest.raises(ValueError, match=match):
        clip_by_global_norm(grads, 0.1)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(grads, before))


# --- schedules -------------------------------------------------------------------------------

plans = st.tuples(st.floats(1e-6, 10), st.integers(1, 300), st.floats(0, 0.99), st.floats(0, 1)).map(
    lambda t: {"peak": t[0], "total": t[1], "warmup": int(t[1] * t[2]), "floor": t[0] * t[3]}
)
either = st.sampled_from([warmup_linear, warmup_cosine])


@few
@given(either, plans)
def test_schedule_ends_and_order(schedule, plan):
    assume(plan["warmup"] < plan["total"])
    lr = np.array([schedule(step, **plan) for step in range(plan["total"] + 3)])
    peak, warmup, total, floor = plan["peak"], plan["warmup"], plan["total"], plan["floor"]
    assert np.isclose(lr[0], peak / (warmup + 1)) and np.isclose(lr[warmup], peak)
    assert np.allclose(lr[total:], floor, atol=1e-12 * peak)
    assert (lr <= peak * (1 + 1e-12)).all() and (lr[warmup:] >= floor * (1 - 1e-12)).all()
    assert np.all(np.diff(lr[: warmup + 1]) > 0) and np.all(np.diff(lr[warmup:]) <= 1e-12 * peak)
    assert isinstance(schedule(0, **plan), float)


def torch_rates(make, steps, lr=0.3):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@few
@given(st.integers(1, 120), st.floats(0, 0.3))
def test_schedules_are_torchs(total, floor):
    by = torch.optim.lr_scheduler
    cosine = torch_rates(lambda o: by.CosineAnnealingLR(o, total, eta_min=floor), total + 1)
    assert np.allclose(cosine, [warmup_cosine(t, 0.3, total, floor=floor) for t in range(total + 1)], atol=1e-12)
    line = torch_rates(lambda o: by.LinearLR(o, 1.0, floor / 0.3, total), total + 1)
    assert np.allclose(line, [warmup_linear(t, 0.3, total, floor=floor) for t in range(total + 1)], atol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # SequentialLR warns about itself
@pytest.mark.parametrize("warmup, total", [(1, 2), (5, 40), (17, 18), (30, 200)])
def test_warmup_then_cosine_is_torchs(warmup, total):
    by = torch.optim.lr_scheduler

    def make(o):
        rise = by.LinearLR(o, 1 / (warmup + 1), total_iters=warmup)
        return by.SequentialLR(o, [rise, by.CosineAnnealingLR(o, total - warmup)], [warmup])

    expected = torch_rates(make, total + 1)
    assert np.allclose(expected, [warmup_cosine(t, 0.3, total, warmup) for t in range(total + 1)], atol=1e-12)


@few
@given(plans, st.floats(0.1, 10))
def test_schedules_scale_and_meet_half_way(plan, factor):
    assume(plan["warmup"] < plan["total"])
    scaled = plan | {"peak": factor * plan["peak"], "floor": factor * plan["floor"]}
    for schedule in (warmup_linear, warmup_cosine):
        for step in range(0, plan["total"], 7):
            assert np.isclose(schedule(step, **scaled), factor * schedule(step, **plan), rtol=1e-9)
    if (plan["total"] - plan["warmup"]) % 2 == 0:
        middle = (plan["total"] + plan["warmup"]) // 2
        average = (plan["peak"] + plan["floor"]) / 2
        assert np.isclose(warmup_linear(middle, **plan), average)
        assert np.isclose(warmup_cosine(middle, **plan), average)


@pytest.mark.parametrize("schedule", [warmup_linear, warmup_cosine])
@pytest.mark.parametrize(
    "arguments, match",
    [
        ((-1, 1.0, 10), "step must be at least 0"),
        ((0, 1.0, 10, 10), r"warmup must be in \[0, total = 10\)"),
        ((0, 1.0, 10, -1), "warmup must be in"),
        ((0, 1.0, 0), "warmup must be in"),
        ((0, 1.0, 10, 2, 1.5), "floor must be in"),
        ((0, np.nan, 10), "floor must be in"),
    ],
)
def test_schedules_refuse(schedule, arguments, match):
    with pytest.raises(ValueError, match=match):
        schedule(*arguments)


# --- gradient_descent ------------------------------------------------------------------------


@few
@given(hnp.arrays(np.float64, shapes, elements=moderate), st.floats(0, 3), st.integers(0, 20))
def test_descent_on_a_bowl_is_a_power(x0, lr, steps):
    path = gradient_descent(bowl(1.0), x0, lr, steps)
    assert path.shape == (steps + 1, *x0.shape) and np.array_equal(path[0], x0)
    powers = (1 - lr) ** np.arange(steps + 1)
    assert np.allclose(path, powers.reshape(-1, *[1] * x0.ndim) * x0, rtol=1e-9, atol=1e-9)


@few
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.floats(0.05, 1.95), seeds)
def test_descent_converges_below_the_threshold_only(curvatures, share, seed):
    assume(abs(share - 1) > 0.02)
    a = np.array(curvatures)
    x0 = np.random.default_rng(seed).uniform(0.5, 1, len(a))
    path = gradient_descent(bowl(a), x0, share * 2 / a.max(), 4000)
    stiff = np.abs(path[:, a.argmax()])
    assert (stiff[-1] < 1e-9) if share < 1 else not np.isfinite(stiff[-1]) or stiff[-1] > 1e9
    if share < 1:
        f = 0.5 * (a * path**2).sum(axis=1)
        assert np.all(np.diff(f) <= 1e-12)


@few
@given(seeds, st.floats(0.01, 0.5))
def test_descent_does_not_see_a_rotation_and_agrees_with_sgd(seed, lr):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a, x0 = rng.uniform(0.1, 2, 4), rng.standard_normal(4)
    straight = gradient_descent(bowl(a), x0, lr, 30)
    turned = gradient_descent(lambda x: Q @ (a * (Q.T @ x)), Q @ x0, lr, 30)
    assert np.allclose(turned @ Q, straight, atol=1e-9)
    p = x0.copy()
    optimizer = SGD([p], lr)
    for _ in range(30):
        optimizer.step([a * p])
    assert np.allclose(p, straight[-1], rtol=1e-12)


def test_descent_returns_a_divergence_and_leaves_its_start():
    x0 = np.array([1.0, -1.0])
    path = gradient_descent(bowl(1.0), x0, 1e3, 400)
    assert not np.isfinite(path[-1]).any() and x0.tolist() == [1.0, -1.0]
    assert gradient_descent(bowl(1.0), np.zeros((0, 3)), 0.1, 2).shape == (3, 0, 3)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ((bowl(1.0), [np.nan], 0.1, 3), "x0 holds NaN"),
        ((bowl(1.0), [1.0], -0.1, 3), "lr must be"),
        ((bowl(1.0), [1.0], np.inf, 3), "lr must be"),
        ((bowl(1.0), [1.0], 0.1, -1), "steps must be at least 0"),
        ((lambda x: x[:, None], [1.0, 2.0], 0.1, 3), r"grad returned shape \(2, 1\)"),
        ((lambda x: x.sum(), [1.0, 2.0], 0.1, 3), r"grad returned shape \(\)"),
    ],
)
def test_descent_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        gradient_descent(*arguments)


# --- newton ----------------------------------------------------------------------------------


@few
@given(st.integers(1, 6), seeds, st.floats(0, 6))
def test_newton_solves_a_quadratic_in_one_step(n, seed, decades):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = (Q * np.logspace(0, decades, n)) @ Q.T
    target, x0 = rng.standard_normal(n), rng.standard_normal(n)
    path = newton(lambda x: H @ (x - target), lambda x: H, x0, 1)
    assert path.shape == (2, n) and np.allclose(path[1], target, rtol=1e-6, atol=1e-8)


@few
@given(st.integers(1, 4), seeds)
def test_newton_does_not_see_a_change_of_variables(n, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) + 3 * np.eye(n)
    assume(np.linalg.cond(A) < 100)
    x0 = rng.uniform(-1, 1, n)

    def grad(x):  # of Σ cosh x: convex, its Hessian never singular
        return np.sinh(x)

    def hessian(x):
        return np.diag(np.cosh(x))

    straight = newton(grad, hessian, x0, 6)
    mixed = newton(lambda y: A.T @ grad(A @ y), lambda y: A.T @ hessian(A @ y) @ A, np.linalg.solve(A, x0), 6)
    assert np.allclose(mixed @ A.T, straight, atol=1e-8)
    assert np.abs(straight[-1]).max() < 1e-10


@few
@given(st.floats(0.1, 100), moderate, seeds)
def test_newton_damping_turns_to_gradient_descent(curvature, x0, seed):
    damping = 1e9
    path = newton(bowl(curvature), lambda x: curvature * np.eye(1), [x0], 1, damping=damping)
    assert np.isclose(path[1, 0], x0 - curvature * x0 / (curvature + damping), rtol=1e-12)
    slow = gradient_descent(bowl(curvature), [x0], 1 / damping, 1)
    assert np.allclose(path, slow, rtol=1e-6)


def test_newton_squares_the_error_and_takes_no_steps():
    path = newton(lambda x: np.exp(x) - 2, lambda x: np.diag(np.exp(x)), [1.5], 6)[:, 0]
    error = np.abs(path - np.log(2))
    assert np.all(error[1:4] <= error[:3] ** 2) and error[-1] < 1e-14
    assert newton(bowl(1.0), lambda x: np.eye(2), [1.0, 2.0], 0).shape == (1, 2)
    assert newton(bowl(1.0), lambda x: np.eye(0), [], 3).shape == (4, 0)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ((bowl(1.0), lambda x: np.zeros((1, 1)), [1.0], 2), "singular matrix"),
        ((bowl(1.0), lambda x: np.eye(3), [1.0], 2), r"hessian returned shape \(3, 3\)"),
        ((lambda x: np.ones(2), lambda x: np.eye(1), [1.0], 2), "grad returned shape"),
        ((bowl(1.0), lambda x: np.eye(1), [[1.0]], 2), "number of axes"),
        ((bowl(1.0), lambda x: np.eye(1), [np.inf], 2), "x0 holds NaN or infinity"),
        ((bowl(1.0), lambda x: np.eye(1), [1.0], -2), "steps must be"),
        ((bowl(1.0), lambda x: np.eye(1), [1.0], 2, -1.0), "damping must be"),
    ],
)
def test_newton_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        newton(*arguments)


# --- stale gradients -------------------------------------------------------------------------


@few
@given(hnp.arrays(np.float64, shapes, elements=moderate), st.floats(0, 0.5), st.integers(0, 30))
def test_one_worker_is_gradient_descent(x0, lr, steps):
    path, staleness = async_sgd(bowl(1.3), x0, lr, 1, steps)
    assert np.array_equal(path, gradient_descent(bowl(1.3), x0, lr, steps))
    assert staleness.shape == (steps,) and not staleness.any()


@few
@given(st.integers(1, 12), st.floats(0.01, 0.5))
def test_equal_workers_are_a_delayed_recursion(workers, lr):
    path, staleness = async_sgd(bowl(1.0), 1.0, lr, workers, 60)
    assert np.array_equal(staleness, np.minimum(np.arange(60), workers - 1))
    e = [1.0]
    for t in range(60):
        e.append(e[-1] - lr * e[max(t - (workers - 1), 0)])
    assert np.allclose(path, e, rtol=1e-9, atol=1e-12)


@few
@given(st.integers(1, 8), seeds, st.integers(0, 80))
def test_async_counts_every_update_once(workers, seed, steps):
    def duration(rng):
        return rng.exponential()

    calls = []

    def grad(x):
        calls.append(1)
        return np.ones(2)

    path, staleness = async_sgd(grad, np.zeros(2), 0.5, workers, steps, duration, seed)
    assert len(calls) == steps and np.allclose(path[-1], -0.5 * steps)  # no update is lost
    assert path.shape == (steps + 1, 2) and staleness.dtype.kind == "i"
    assert np.all(staleness >= 0) and np.all(staleness <= np.arange(steps))
    again = async_sgd(grad, np.zeros(2), 0.5, workers, steps, duration, seed)
    assert np.array_equal(staleness, again[1])
    if steps > 1:
        # the reads in flight never exceed the workers, so the staleness adds up to at most that
        assert staleness.sum() <= (workers - 1) * steps


def test_async_mean_staleness_and_stragglers():
    _, stale = async_sgd(bowl(0.0), 1.0, 0.1, 6, 6000, lambda rng: rng.gamma(3.0), 1)
    assert abs(stale[100:].mean() - 5) < 0.1
    turn = iter([1.0, 10.0] + [1.0] * 100)
    _, stale = async_sgd(bowl(0.0), 1.0, 0.1, 2, 30, lambda rng: next(turn))
    assert stale.max() >= 9  # the slow worker's one update


@few
@given(st.integers(0, 60))
def test_delay_limit_is_where_a_root_crosses(delay):
    limit = delay_limit(delay)
    assert isinstance(limit, float) and 0 < limit <= 2

    def largest(gain):
        polynomial = np.zeros(delay + 2)
        polynomial[:2] = 1, -1
        polynomial[-1] += gain
        return np.abs(np.roots(polynomial)).max()

    assert largest(0.99 * limit) < 1 < largest(1.01 * limit)
    assert np.isclose(largest(limit), 1, atol=1e-6)


def test_delay_limit_values_and_order():
    limits = [delay_limit(d) for d in range(300)]
    assert np.allclose(limits[:2], [2, 1]) and np.all(np.diff(limits) < 0)
    assert np.isclose(limits[2], (np.sqrt(5) - 1) / 2)  # the golden ratio's inverse
    assert np.isclose(limits[-1] * (2 * 299 + 1), np.pi, rtol=1e-5)


@few
@given(st.integers(1, 20))
def test_async_diverges_where_the_limit_says(workers):
    limit = delay_limit(workers - 1)
    below = np.abs(async_sgd(bowl(1.0), 1.0, 0.95 * limit, workers, 300 * workers)[0])
    above = np.abs(async_sgd(bowl(1.0), 1.0, 1.05 * limit, workers, 300 * workers)[0])
    window = 4 * workers
    assert below[-window:].max() < below[:window].max()
    assert above[-window:].max() > above[:window].max()


@pytest.mark.parametrize("delay", [-1, np.nan, np.inf])
def test_delay_limit_refuses(delay):
    with pytest.raises(ValueError, match="delay must be finite and at least 0"):
        delay_limit(delay)


@pytest.mark.parametrize(
    "keywords, match",
    [
        ({"workers": 0}, "workers must be at least 1"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"lr": np.nan}, "lr must be"),
        ({"x0": [np.nan]}, "x0 holds NaN"),
        ({"grad": lambda x: np.ones(3)}, "grad returned shape"),
        ({"duration": lambda rng: -1.0}, "duration must be"),
        ({"duration": lambda rng: np.nan}, "duration must be"),
    ],
)
def test_async_refuses(keywords, match):
    good = {"grad": bowl(1.0), "x0": [1.0], "lr": 0.1, "workers": 2, "steps": 5}
    with pytest.raises(ValueError, match=match):
        async_sgd(**good | keywords)
