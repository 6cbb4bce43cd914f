# Generated from chapters/foundations/linear-algebra.md; edit the chapter.
"""Linear algebra. You will build the matrix product, least squares, the singular value
decomposition and principal component analysis from additions and multiplications, and hold them
to within $10^{-10}$ of `numpy.linalg` and scikit-learn on 1,797 scanned digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "dot",
    "norm",
    "cosine",
    "matmul_blocked",
    "qr",
    "project",
    "least_squares",
    "power_iteration",
    "svd",
    "PrincipalComponents",
    "pca",
]


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of the products of the entries of two vectors.

    Parameters
    ----------
    a, b : (n,) arrays of numbers

    Raises
    ------
    ValueError
        If they are not vectors of one length.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"dot needs two vectors of one length, got shapes {a.shape} and {b.shape}")
    return float((a * b).sum())


def norm(a: np.ndarray) -> float:
    """Euclidean length of a vector (n,), without overflow or underflow of the squares.

    Raises
    ------
    ValueError
        If `a` is not a vector.
    """
    a = np.asarray(a, dtype=float)
    largest = np.abs(a).max(initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return float(largest)
    return float(largest * np.sqrt(dot(a / largest, a / largest)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two vectors (n,), in [-1, 1].

    Raises
    ------
    ValueError
        If the shapes differ, or a vector is zero and so has no direction.
    """
    if norm(a) == 0 or norm(b) == 0:
        raise ValueError("a zero vector has no direction, so the cosine is undefined")
    a, b = np.asarray(a) / np.abs(a).max(), np.asarray(b) / np.abs(b).max()
    return float(np.clip(dot(a, b) / (norm(a) * norm(b)), -1, 1))


def _as_matrix(A: np.ndarray, name: str) -> np.ndarray:
    """`A` as float64; ValueError unless it is two-dimensional and finite."""
    A = np.asarray(A, dtype=float)
    if A.ndim != 2:
        raise ValueError(f"{name} must be a matrix (two dimensions), got shape {A.shape}")
    if not np.isfinite(A).all():
        raise ValueError(f"{name} holds infinities or NaN")
    return A


def matmul_blocked(A: np.ndarray, B: np.ndarray, block: int = 128) -> np.ndarray:
    """Matrix product, one tile of `block` rows and columns at a time.

    Parameters
    ----------
    A : (m, p) array
    B : (p, n) array
    block : rows and columns of a tile; three float64 tiles take 24 * block**2 bytes

    Returns
    -------
    C : (m, n) array, float64

    Raises
    ------
    ValueError
        If the inner dimensions differ, or `block` is below 1.

    Source: Goto & van de Geijn (2008), section 3, with one level of blocking.
    """
    A, B = _as_matrix(A, "A"), _as_matrix(B, "B")
    if A.shape[1] != B.shape[0]:
        raise ValueError(f"inner dimensions differ: {A.shape} times {B.shape}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    C = np.zeros((A.shape[0], B.shape[1]))
    for i in range(0, A.shape[0], block):
        for j in range(0, B.shape[1], block):
            for q in range(0, A.shape[1], block):
                C[i : i + block, j : j + block] += (
                    A[i : i + block, q : q + block] @ B[q : q + block, j : j + block]
                )
    return C


def qr(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor A = Q R by Gram–Schmidt, each column made orthogonal twice.

    A column that depends on those before it (to rounding) adds no column to Q, so Q has
    as many columns as A has rank.

    Parameters
    ----------
    A : (m, n) array

    Returns
    -------
    Q : (m, r) array with orthonormal columns that span A's columns
    R : (r, n) array, upper triangular when r = n, else a staircase

    Raises
    ------
    ValueError
        If `A` is not a finite matrix.

    Source: Trefethen & Bau (1997), lecture 8; twice, after Giraud et al. (2005).
    """
    A = _as_matrix(A, "A")
    m, n = A.shape
    negligible = 10 * max(m, n) * np.finfo(float).eps
    Q, R, r = np.zeros((m, min(m, n))), np.zeros((min(m, n), n)), 0
    for j in range(n):
        q = A[:, j].copy()
        for _ in range(2):
            along = Q[:, :r].T @ q  # (r,)
            q -= Q[:, :r] @ along
            R[:r, j] += along
        if r < m and norm(q) > negligible * norm(A[:, j]):
            R[r, j] = norm(q)
            Q[:, r] = q / R[r, j]
            r += 1
    return Q[:, :r], R[:r]


def project(b: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Nearest point to b (m,) among the combinations of A's columns (m, n); shape (m,).

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    A, b = _as_matrix(A, "A"), np.asarray(b, dtype=float)
    if b.shape != A.shape[:1]:
        raise ValueError(f"b must have shape {A.shape[:1]} to match A {A.shape}, got {b.shape}")
    Q, _ = qr(A)
    return Q @ (Q.T @ b)


def least_squares(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x that makes the length of b - A x least, through QR.

    Parameters
    ----------
    A : (m, n) array with linearly independent columns
    b : (m,) array, or (m, p) for p problems with one A

    Returns
    -------
    x : (n,) or (n, p) array

    Raises
    ------
    ValueError
        If the row counts differ or the columns of `A` depend on each other.

    Source: Trefethen & Bau (1997), lecture 11, algorithm 11.2.
    """
    A, b = _as_matrix(A, "A"), np.asarray(b, dtype=float)
    if b.ndim not in (1, 2) or len(b) != len(A):
        raise ValueError(f"b must have {len(A)} rows to match A {A.shape}, got shape {b.shape}")
    Q, R = qr(A)
    n = A.shape[1]
    if len(R) < n:
        raise ValueError(f"only {len(R)} of A's {n} columns are independent: x is not unique")
    right, x = Q.T @ b, np.zeros((n, *b.shape[1:]))
    for i in reversed(range(n)):
        x[i] = (right[i] - R[i, i + 1 :] @ x[i + 1 :]) / R[i, i]
    return x


def power_iteration(
    A: np.ndarray, tol: float = 1e-12, max_steps: int = 10_000, seed: int = 0
) -> tuple[float, np.ndarray]:
    """Eigenvalue of largest magnitude of a symmetric matrix, with its eigenvector.

    Parameters
    ----------
    A : (n, n) symmetric array
    tol : stop when norm(A v - eigenvalue v) <= tol * norm(A v)
    max_steps : matrix-vector products before giving up
    seed : of the random start

    Returns
    -------
    eigenvalue : float
    v : (n,) array of length 1; its sign is arbitrary

    Raises
    ------
    ValueError
        If `A` is empty, not square or not symmetric.
    RuntimeError
        If `max_steps` are too few: two eigenvalues are too close in magnitude.

    Source: Trefethen & Bau (1997), lecture 27, algorithm 27.1.
    """
    A = _as_matrix(A, "A")
    if A.shape[0] != A.shape[1] or A.size == 0:
        raise ValueError(f"A must be square and not empty, got shape {A.shape}")
    if np.abs(A - A.T).max() > 1e-10 * np.abs(A).max():
        raise ValueError("A must be symmetric; for another matrix use A.T @ A, or svd")
    v = np.random.default_rng(seed).standard_normal(len(A))
    v /= norm(v)
    for _ in range(max_steps):
        w = A @ v
        eigenvalue, length = dot(v, w), norm(w)
        if norm(w - eigenvalue * v) <= tol * length:
            return eigenvalue, v
        v = w / length
    raise RuntimeError(
        f"no eigenvector after {max_steps} steps: are two eigenvalues equal in size?"
    )


def svd(A: np.ndarray, k: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compact singular value decomposition by power iteration with deflation.

    Each direction is found by squaring the Gram matrix until one eigenvector is left,
    at most 60 times, so the cost grows as k n**3, where n is the smaller side of `A`.

    Parameters
    ----------
    A : (m, n) array
    k : number of singular values wanted, all by default

    Returns
    -------
    U : (m, r) array with orthonormal columns
    s : (r,) array, the singular values, positive, largest first
    Vt : (r, n) array with orthonormal rows; signs are arbitrary

    r is k, or the numerical rank of `A` where that is less. The closer two singular
    values, the less their vectors are determined, here as in any float64 program.

    Raises
    ------
    ValueError
        If `A` is not a finite matrix or `k` is not between 0 and its smaller side.
    """
    A = _as_matrix(A, "A")
    k = min(A.shape) if k is None else k
    if not 0 <= k <= min(A.shape):
        raise ValueError(f"k must be between 0 and {min(A.shape)}, got {k}")
    if A.shape[0] < A.shape[1]:
        U, s, Vt = svd(A.T, k)
        return Vt.T, s, U.T
    scale = np.abs(A).max(initial=0.0) or 1.0  # so that squares do not overflow
    Q, R = qr(A / scale)
    U, s, V = np.zeros((len(R), 0)), np.zeros(0), np.zeros((A.shape[1], 0))
    while len(s) < min(k, len(R)):
        G = R.T @ R
        for _ in range(60):
            G /= np.trace(G)
            if (G * G).sum() > 1 - 1e-15:  # one eigenvalue is 1, the others are 0
                break
            G = G.T @ G
        v = G[:, np.argmax(np.diag(G))]
        v = v - V @ (V.T @ v)  # rounding leaves traces of earlier directions
        v /= norm(v)
        u = R @ v
        u -= U @ (U.T @ u)
        sigma = norm(u)
        if sigma <= max(A.shape) * np.finfo(float).eps * s.max(initial=0.0):
            break  # what is left is rounding: the rank is reached
        U, V = np.column_stack([U, u / sigma]), np.column_stack([V, v])
        s = np.append(s, sigma)
        R = R - np.outer(R @ v, v)
    return Q @ U, s * scale, V.T


@dataclass(frozen=True)
class PrincipalComponents:
    """Result of :func:`pca`: an orthonormal basis of the directions with most variance.

    Attributes
    ----------
    mean : (n,) array, of the data
    components : (k, n) array, one direction of length 1 per row
    variances : (k,) array, of the data along each direction, largest first
    ratios : (k,) array, the variances as shares of the total
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    ratios: np.ndarray

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Coordinates (m, k) of the rows of X (m, n); ValueError if n differs."""
        X = _as_matrix(X, "X")
        if X.shape[1] != len(self.mean):
            raise ValueError(f"X must have {len(self.mean)} columns, got shape {X.shape}")
        return (X - self.mean) @ self.components.T

    def inverse_transform(self, Z: np.ndarray) -> np.ndarray:
        """Rows (m, n) with the coordinates Z (m, k); ValueError if k differs."""
        Z = _as_matrix(Z, "Z")
        if Z.shape[1] != len(self.components):
            raise ValueError(f"Z must have {len(self.components)} columns, got shape {Z.shape}")
        return Z @ self.components + self.mean


def pca(X: np.ndarray, k: int | None = None) -> PrincipalComponents:
    """Principal components of the rows of X (m, n): the k directions of most variance.

    Fewer than k come back where the centred data has a lower rank.

    Raises
    ------
    ValueError
        If `X` has fewer than two rows or `k` is not between 0 and its smaller side.
    """
    X = _as_matrix(X, "X")
    if len(X) < 2:
        raise ValueError(f"variance needs at least two rows, got shape {X.shape}")
    mean = X.mean(axis=0)
    _, s, Vt = svd(X - mean, k)
    rounding = max(X.shape) * np.finfo(float).eps * np.abs(X).max(initial=0.0)
    s, Vt = s[s > rounding], Vt[s > rounding]  # centring leaves errors of this size
    variances = s**2 / (len(X) - 1)
    total = ((X - mean) ** 2).sum() / (len(X) - 1)
    return PrincipalComponents(mean, Vt, variances, variances / (total or 1.0))
