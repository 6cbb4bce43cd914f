"""groundup.linear_algebra against numpy.linalg, scipy and scikit-learn on generated matrices."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import hilbert
from sklearn.decomposition import PCA

from groundup.linear_algebra import (
    PrincipalComponents,
    cosine,
    dot,
    least_squares,
    matmul_blocked,
    norm,
    pca,
    power_iteration,
    project,
    qr,
    svd,
)

EPS = np.finfo(float).eps
entries = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 3))


def vectors(low=0, elements=entries):
    return st.integers(low, 9).flatmap(lambda n: arrays(float, n, elements=elements))


def pairs(elements=entries):
    return st.integers(1, 9).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=elements)] * 2))


@st.composite
def matrices(draw, low=0, high=8, tall=False):
    """Integer, real, rank-deficient, badly scaled and empty matrices."""
    m, n = draw(st.integers(low, high)), draw(st.integers(low, high))
    if tall:
        m, n = max(m, n), min(m, n)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "integer", "low rank", "scaled", "repeated", "zero"]))
    A = rng.standard_normal((m, n))
    if kind == "integer":
        A = rng.integers(-2, 3, (m, n)).astype(float)
    elif kind == "low rank":
        r = draw(st.integers(0, 3))
        A = rng.standard_normal((m, r)) @ rng.standard_normal((r, n))
    elif kind == "scaled":
        A = A * 10.0 ** draw(st.sampled_from([-150, -9, 9, 150]))
    elif kind == "repeated" and n:
        A = A[:, rng.integers(0, n, n)]
    elif kind == "zero":
        A = np.zeros((m, n))
    return A


def size_of(A):
    return np.abs(A).max(initial=0.0)


def rank_is(r, A):
    """Whether r is A's numerical rank; both answers pass when a singular value is borderline."""
    s = np.linalg.svd(A, compute_uv=False)
    tolerance = max(A.shape) * EPS * size_of(s)
    return (s > 10 * tolerance).sum() <= r <= (s > tolerance / 10).sum()


@st.composite
def full_rank(draw, low=1, high=8):
    """Tall matrices with a condition number of our choice."""
    n = draw(st.integers(low, high))
    m = n + draw(st.integers(0, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    U, V = np.linalg.qr(rng.standard_normal((m, n)))[0], np.linalg.qr(rng.standard_normal((n, n)))[0]
    kappa = 10.0 ** draw(st.integers(0, 9))
    return (U * np.geomspace(1, 1 / kappa, n)) @ V.T, kappa, rng


# ---- dot ------------------------------------------------------------------------------------


@given(pairs())
def test_dot_agrees_with_numpy_and_is_symmetric(ab):
    a, b = ab
    assert math.isclose(dot(a, b), float(a @ b), rel_tol=1e-12, abs_tol=1e-9)
    assert dot(a, b) == dot(b, a)


@given(pairs(), st.floats(-50, 50))
def test_dot_is_linear(ab, c):
    a, b = ab
    assert math.isclose(dot(c * a + b, b), c * dot(a, b) + dot(b, b), rel_tol=1e-9, abs_tol=1e-6)


def test_dot_of_nothing_is_zero_and_integers_do_not_wrap():
    assert dot([], []) == 0.0
    assert dot(np.full(3, 200, dtype=np.uint8), np.full(3, 200, dtype=np.uint8)) == 120_000
    assert isinstance(dot([1], [2]), float)


@pytest.mark.parametrize("a, b", [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), (1.0, 2.0)])
def test_dot_refuses_other_shapes(a, b):
    with pytest.raises(ValueError, match="two vectors of one length"):
        dot(a, b)


# ---- norm -----------------------------------------------------------------------------------


@given(vectors())
def test_norm_agrees_with_numpy(a):
    assert math.isclose(norm(a), float(np.linalg.norm(a)), rel_tol=1e-14)


@given(vectors(elements=st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)))
def test_norm_neither_overflows_nor_vanishes(a):
    assume(math.isfinite(math.hypot(*a)))
    assert math.isclose(norm(a), math.hypot(*a), rel_tol=1e-13)


@given(pairs())
def test_norm_obeys_the_triangle_inequality(ab):
    a, b = ab
    assert norm(a + b) <= (norm(a) + norm(b)) * (1 + 1e-12)


def test_norm_at_the_edges():
    assert norm([]) == 0 and norm([0, 0]) == 0
    assert norm([1, -np.inf]) == np.inf and math.isnan(norm([1, np.nan]))
    with pytest.raises(ValueError, match="two vectors"):
        norm([[1.0, 2.0]])


# ---- cosine ---------------------------------------------------------------------------------


@given(pairs(), st.floats(1e-150, 1e150), st.floats(1e-150, 1e150))
def test_cosine_ignores_length_and_stays_in_range(ab, c, d):
    a, b = ab
    assume(norm(a) > 0 and norm(b) > 0)
    value = cosine(a, b)
    assert -1 <= value <= 1
    assert math.isclose(cosine(c * a, d * b), value, rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(cosine(a, -b), -value, rel_tol=1e-12, abs_tol=1e-15)


@given(vectors(low=1))
def test_cosine_with_itself_is_one(a):
    assume(norm(a) > 0)
    assert math.isclose(cosine(a, a), 1, rel_tol=1e-14)
    assert math.isclose(cosine(a, -a), -1, rel_tol=1e-14)


def test_cosine_of_right_angles_and_smallest_numbers():
    assert cosine([1, 0], [0, 2]) == 0
    assert math.isclose(cosine([5e-324, 5e-324], [1, 1]), 1)
    assert math.isclose(cosine([1, 1], [1, 0]), math.sqrt(0.5))


def test_cosine_refuses_zero_and_other_lengths():
    with pytest.raises(ValueError, match="no direction"):
        cosine([0, 0], [1, 2])
    with pytest.raises(ValueError, match="one length"):
        cosine([1, 2], [1, 2, 3])


# ---- matmul_blocked -------------------------------------------------------------------------


@given(st.tuples(*[st.integers(0, 9)] * 3), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_matmul_blocked_agrees_for_every_shape_and_block(shape, block, seed):
    m, p, n = shape
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((m, p)), rng.standard_normal((p, n))
    C = matmul_blocked(A, B, block)
    assert C.shape == (m, n) and C.dtype == float
    assert np.allclose(C, A @ B, rtol=0, atol=1e-13)


@given(matrices(low=1), st.integers(1, 4))
def test_matmul_blocked_identity_and_transpose(A, block):
    assert (matmul_blocked(A, np.eye(A.shape[1]), block) == A).all()
    assert np.allclose(matmul_blocked(A, A.T, block), matmul_blocked(A, A.T, block).T, rtol=1e-12, atol=0)
    assert (matmul_blocked(A, np.zeros((A.shape[1], 3)), block) == 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_matmul_blocked_is_exact_on_integers_and_leaves_its_inputs(seed, block):
    rng = np.random.default_rng(seed)
    A, B = rng.integers(-99, 99, (5, 7)), rng.integers(-99, 99, (7, 4))
    before = A.copy(), B.copy()
    assert (matmul_blocked(A, B, block) == A @ B).all()
    assert (A == before[0]).all() and (B == before[1]).all()


def test_matmul_blocked_refuses():
    A = np.ones((2, 3))
    with pytest.raises(ValueError, match="inner dimensions"):
        matmul_blocked(A, A)
    with pytest.raises(ValueError, match="block must be at least 1"):
        matmul_blocked(A, A.T, 0)
    with pytest.raises(ValueError, match="B must be a matrix"):
        matmul_blocked(A, np.ones(3))
    with pytest.raises(ValueError, match="A holds infinities or NaN"):
        matmul_blocked(A * np.nan, A.T)


# ---- qr -------------------------------------------------------------------------------------


@given(matrices())
def test_qr_rebuilds_the_matrix_with_orthonormal_columns(A):
    Q, R = qr(A)
    r = Q.shape[1]
    assert Q.shape == (A.shape[0], r) and R.shape == (r, A.shape[1]) and r <= min(A.shape)
    assert np.abs(Q.T @ Q - np.eye(r)).max(initial=0) < 1e-14
    assert size_of(Q @ R - A) <= 1e-12 * size_of(A)
    assert (np.tril(R, -1) == 0).all()


@given(matrices())
def test_qr_finds_the_rank(A):
    assert rank_is(qr(A)[0].shape[1], A)


@given(full_rank())
def test_qr_is_numpys_up_to_sign(case):
    A, kappa, _ = case
    Q, R = qr(A)
    reference = np.linalg.qr(A)[1]
    assert (np.diag(R) > 0).all()
    assert np.allclose(R, reference * np.sign(np.diag(reference))[:, None], rtol=0, atol=1e-13 * kappa)
    assert np.abs(Q.T @ Q - np.eye(A.shape[1])).max() < 1e-14


def test_qr_stays_orthogonal_on_the_hilbert_matrix():
    Q, R = qr(hilbert(10))  # condition number 1.6e13
    assert np.abs(Q.T @ Q - np.eye(10)).max() < 1e-14
    assert np.abs(Q @ R - hilbert(10)).max() < 1e-15


def test_qr_refuses():
    with pytest.raises(ValueError, match="two dimensions"):
        qr(np.ones(3))
    with pytest.raises(ValueError, match="infinities"):
        qr([[1, np.inf]])


# ---- project --------------------------------------------------------------------------------


@given(matrices(), st.integers(0, 2**32 - 1))
def test_projection_is_idempotent_shorter_and_leaves_an_orthogonal_error(A, seed):
    b = np.random.default_rng(seed).standard_normal(len(A))
    p = project(b, A)
    assert p.shape == b.shape
    assert np.allclose(project(p, A), p, rtol=0, atol=1e-12)
    assert norm(p) <= norm(b) * (1 + 1e-14)
    assert size_of(A.T @ (b - p)) <= 1e-12 * size_of(A) * max(1, len(A))


@given(full_rank())
def test_projection_of_a_combination_is_itself(case):
    A, _, rng = case
    b = A @ rng.standard_normal(A.shape[1])
    assert np.allclose(project(b, A), b, rtol=0, atol=1e-13)


@given(full_rank())
def test_no_combination_is_nearer_than_the_projection(case):
    A, _, rng = case
    b = rng.standard_normal(len(A))
    distance = norm(b - project(b, A))
    for _ in range(5):
        assert norm(b - A @ rng.standard_normal(A.shape[1])) >= distance * (1 - 1e-12)


def test_projection_at_the_edges():
    b = np.array([1.0, 2.0, 3.0])
    assert (project(b, np.zeros((3, 2))) == 0).all()
    assert (project(b, np.zeros((3, 0))) == 0).all()
    assert np.allclose(project(b, np.eye(3)), b)
    with pytest.raises(ValueError, match=r"b must have shape \(3,\)"):
        project(b[:2], np.eye(3))


# ---- least_squares --------------------------------------------------------------------------


@given(full_rank())
def test_least_squares_agrees_with_lstsq(case):
    A, kappa, rng = case
    b = rng.standard_normal(len(A))
    reference = np.linalg.lstsq(A, b, rcond=0)[0]
    error = norm(least_squares(A, b) - reference)
    residual = norm(b - A @ reference)
    assert error <= 100 * EPS * (kappa * norm(reference) + kappa**2 * residual)


@given(full_rank())
def test_least_squares_recovers_exact_coefficients_losing_kappa_not_its_square(case):
    A, kappa, rng = case
    x = rng.standard_normal(A.shape[1])
    assert norm(least_squares(A, A @ x) - x) <= 100 * EPS * kappa * norm(x)


@given(full_rank())
def test_least_squares_of_several_right_hand_sides(case):
    A, _, rng = case
    B = rng.standard_normal((len(A), 3))
    X = least_squares(A, B)
    assert X.shape == (A.shape[1], 3)
    for j in range(3):
        assert np.allclose(X[:, j], least_squares(A, B[:, j]), rtol=1e-5, atol=1e-9)


@given(full_rank())
def test_least_squares_fits_the_projection(case):
    A, kappa, rng = case
    b = rng.standard_normal(len(A))
    assert np.allclose(A @ least_squares(A, b), project(b, A), rtol=0, atol=1e-13 + 1e-14 * kappa)


def test_least_squares_at_the_edges():
    assert least_squares(np.zeros((3, 0)), np.ones(3)).shape == (0,)
    assert np.allclose(least_squares(np.array([[1e200], [1e200]]), np.array([1e200, 3e200])), [2])
    with pytest.raises(ValueError, match="only 1 of A's 2 columns are independent"):
        least_squares(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), np.ones(3))
    with pytest.raises(ValueError, match="only 2 of A's 3 columns"):
        least_squares(np.ones((2, 3)) + np.eye(2, 3), np.ones(2))
    with pytest.raises(ValueError, match="b must have 3 rows"):
        least_squares(np.eye(3), np.ones(2))


# ---- power_iteration ------------------------------------------------------------------------


@st.composite
def symmetric(draw):
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    top = draw(st.sampled_from([-1.0, 1.0])) * 10.0 ** draw(st.integers(-100, 100))
    values = np.r_[1.0, draw(arrays(float, n - 1, elements=st.floats(-0.9, 0.9)))]
    A = (V * values * top) @ V.T
    return (A + A.T) / 2, top, V[:, 0]


@given(symmetric())
def test_power_iteration_finds_the_planted_pair(case):
    A, top, planted = case
    value, v = power_iteration(A)
    assert math.isclose(value, top, rel_tol=1e-12)
    assert math.isclose(norm(v), 1, rel_tol=1e-14)
    assert math.isclose(abs(dot(v, planted)), 1, rel_tol=1e-12)


@given(symmetric(), st.integers(0, 99))
def test_power_iteration_solves_the_equation_from_any_start(case, seed):
    A, top, _ = case
    value, v = power_iteration(A, seed=seed)
    assert norm(A @ v - value * v) <= 1e-11 * abs(top)


@given(symmetric())
def test_power_iteration_bounds_every_eigenvalue(case):
    A, top, _ = case
    value, _ = power_iteration(A)
    assert np.abs(np.linalg.eigvalsh(A)).max() <= abs(value) * (1 + 1e-10)


def test_power_iteration_at_the_edges():
    assert power_iteration(np.zeros((3, 3)))[0] == 0
    assert power_iteration([[-5.0]])[0] == -5
    value, v = power_iteration(np.eye(4))  # any vector is an eigenvector
    assert math.isclose(value, 1) and math.isclose(norm(v), 1)
    with pytest.raises(RuntimeError, match="no eigenvector after 50 steps"):
        power_iteration(np.diag([1.0, -1.0]), max_steps=50)
    with pytest.raises(ValueError, match="must be symmetric"):
        power_iteration([[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="square and not empty"):
        power_iteration(np.ones((2, 3)))
    with pytest.raises(ValueError, match="square and not empty"):
        power_iteration(np.zeros((0, 0)))


# ---- svd ------------------------------------------------------------------------------------


@given(matrices())
def test_svd_values_and_rank_agree_with_numpy(A):
    U, s, Vt = svd(A)
    reference = np.linalg.svd(A, compute_uv=False)
    r = len(s)
    assert U.shape == (len(A), r) and Vt.shape == (r, A.shape[1])
    assert rank_is(r, A)
    assert np.abs(s - reference[:r]).max(initial=0) <= 1e-13 * size_of(reference)
    assert (s > 0).all() and (np.diff(s) <= 1e-13 * size_of(s)).all()


@given(matrices())
def test_svd_rebuilds_the_matrix_from_orthonormal_vectors(A):
    U, s, Vt = svd(A)
    assert size_of((U * s) @ Vt - A) <= 1e-13 * size_of(A)
    assert np.abs(U.T @ U - np.eye(len(s))).max(initial=0) < 1e-13
    assert np.abs(Vt @ Vt.T - np.eye(len(s))).max(initial=0) < 1e-13


@given(matrices(low=1), st.data())
def test_svd_truncated_is_the_best_of_its_rank(A, data):
    k = data.draw(st.integers(0, min(A.shape)))
    U, s, Vt = svd(A, k)
    assert len(s) == k or rank_is(len(s), A)
    scale = size_of(A) or 1.0
    tail = np.linalg.svd(A / scale, compute_uv=False)[k:]
    left_over = np.linalg.norm(((U * s) @ Vt - A) / scale)
    assert math.isclose(left_over, float(np.linalg.norm(tail)), rel_tol=1e-9, abs_tol=1e-12)


@given(matrices(low=1))
def test_svd_of_the_transpose_swaps_the_sides(A):
    U, s, Vt = svd(A)
    U2, s2, Vt2 = svd(A.T)
    assert np.allclose(s, s2, rtol=1e-10, atol=1e-14 * size_of(A))
    assert size_of((U2 * s2) @ Vt2 - A.T) <= 1e-13 * size_of(A)


@pytest.mark.parametrize(
    "values",
    [
        np.geomspace(1, 1e-12, 12),
        1 - 1e-9 * np.arange(12),
        np.repeat([3.0, 2.0, 1.0], 4),
        np.r_[1, np.full(11, 1e-7)],
        np.ones(12),
    ],
    ids=["graded", "clustered", "repeated", "one and a cluster", "equal"],
)
def test_svd_on_planted_values(values):
    rng = np.random.default_rng(4)
    U, V = np.linalg.qr(rng.standard_normal((20, 12)))[0], np.linalg.qr(rng.standard_normal((12, 12)))[0]
    A = (U * values) @ V.T
    ours = svd(A)
    assert np.abs(ours[1] - values).max() < 1e-14
    assert np.abs((ours[0] * ours[1]) @ ours[2] - A).max() < 1e-14
    assert np.abs(ours[2] @ ours[2].T - np.eye(12)).max() < 1e-14
    assert np.abs(ours[0].T @ ours[0] - np.eye(12)).max() < 1e-14


def test_svd_at_the_edges():
    for shape in [(0, 0), (0, 4), (4, 0), (3, 5)]:
        U, s, Vt = svd(np.zeros(shape))
        assert (U.shape, s.shape, Vt.shape) == ((shape[0], 0), (0,), (0, shape[1]))
    assert np.allclose(svd([[3, 4]])[1], [5])
    with pytest.raises(ValueError, match="between 0 and 2"):
        svd(np.eye(2), 3)
    with pytest.raises(ValueError, match="infinities or NaN"):
        svd([[np.nan]])
    with pytest.raises(ValueError, match="two dimensions"):
        svd(np.ones(3))


# ---- pca ------------------------------------------------------------------------------------


@st.composite
def tables(draw):
    m, n = draw(st.integers(2, 15)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = rng.uniform(0.5, 20, n)
    return rng.standard_normal((m, n)) * spread + rng.uniform(-100, 100, n)


@given(tables())
def test_pca_variances_agree_with_sklearn(X):
    model = pca(X)
    r = len(model.variances)
    reference = PCA(svd_solver="full").fit(X)
    assert r == min(len(X) - 1, X.shape[1])  # m centred rows span at most m - 1 directions
    assert np.allclose(model.variances, reference.explained_variance_[:r], rtol=1e-9)
    assert np.allclose(model.ratios, reference.explained_variance_ratio_[:r], rtol=1e-9)
    assert math.isclose(model.ratios.sum(), 1, rel_tol=1e-9)


@given(tables())
def test_pca_components_agree_with_sklearn_up_to_sign(X):
    model = pca(X)
    r = len(model.variances)
    gaps = np.abs(np.diff(np.sqrt(np.r_[model.variances, 0])))
    assume(r and gaps.min() > 1e-3 * math.sqrt(model.variances[0]))
    reference = PCA(svd_solver="full").fit(X)
    along = np.abs((model.components * reference.components_[:r]).sum(axis=1))
    assert np.allclose(along, 1, atol=1e-10)


@given(tables())
def test_pca_transform_and_back(X):
    model = pca(X)
    Z = model.transform(X)
    assert Z.shape == (len(X), len(model.components))
    assert np.allclose(model.inverse_transform(Z), X, atol=1e-10)
    assert np.allclose(np.cov(Z.T).reshape(Z.shape[1], -1), np.diag(model.variances), atol=1e-9)
    assert np.allclose(Z.mean(axis=0), 0, atol=1e-10)


@given(tables(), st.data())
def test_pca_with_k_keeps_the_leading_components_and_error_of_the_rest(X, data):
    k = data.draw(st.integers(0, min(X.shape)))
    model, everything = pca(X, k), pca(X)
    kept = len(model.variances)
    assert np.allclose(model.variances, everything.variances[:kept], rtol=1e-10)
    rebuilt = model.inverse_transform(model.transform(X))
    left_over = ((X - rebuilt) ** 2).sum() / (len(X) - 1)
    assert math.isclose(left_over, everything.variances[kept:].sum(), rel_tol=1e-8, abs_tol=1e-9)


@given(tables(), st.floats(-1e3, 1e3))
def test_pca_does_not_see_a_shift(X, shift):
    here, there = pca(X), pca(X + shift)
    assert np.allclose(there.variances, here.variances, rtol=1e-6, atol=1e-8)


def test_pca_at_the_edges():
    assert pca(np.full((6, 3), 0.1)).variances.shape == (0,)  # its mean is not exactly 0.1
    constant = pca(np.full((4, 3), 7.0))
    assert isinstance(constant, PrincipalComponents)
    assert constant.components.shape == (0, 3) and constant.ratios.shape == (0,)
    assert (constant.inverse_transform(constant.transform(np.ones((2, 3)))) == 7).all()
    with pytest.raises(ValueError, match="at least two rows"):
        pca(np.ones((1, 3)))
    with pytest.raises(ValueError, match="k must be between 0 and 3"):
        pca(np.ones((4, 3)), 4)
    with pytest.raises(ValueError, match="X must have 3 columns"):
        constant.transform(np.ones((2, 2)))
    with pytest.raises(ValueError, match="Z must have 0 columns"):
        constant.inverse_transform(np.ones((2, 1)))


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_principal_components_project_onto_their_basis(n, k, seed):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0].T[: min(k, n)]  # any orthonormal rows
    model = PrincipalComponents(rng.standard_normal(n), basis, np.ones(len(basis)), np.ones(len(basis)))
    X = rng.standard_normal((5, n))
    once = model.inverse_transform(model.transform(X))
    assert np.allclose(model.inverse_transform(model.transform(once)), once, atol=1e-12)  # a projection
    assert np.allclose((X - once) @ basis.T, 0, atol=1e-12)  # whose error is orthogonal to the basis
    assert np.allclose(model.transform(model.mean[None]), 0, atol=1e-12)


def test_principal_components_refuse_another_number_of_columns():
    model = PrincipalComponents(np.zeros(3), np.eye(3)[:2], np.ones(2), np.full(2, 0.5))
    with pytest.raises(ValueError, match="3 columns"):
        model.transform(np.ones((4, 2)))
    with pytest.raises(ValueError, match="2 columns"):
        model.inverse_transform(np.ones((4, 3)))
