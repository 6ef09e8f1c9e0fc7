"""Linear algebra."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax


def _addmm(bias: Array, x: Array, y: Array, *, beta: float = 1, alpha: float = 1) -> Array:
    product = x @ y if alpha == 1 else alpha * (x @ y)
    return product + (bias if beta == 1 else beta * bias)


def _cholesky(x: Array, upper: bool = False, check_errors: bool = False) -> tuple[Array, Array]:
    """The factor, and a number that is not 0 where there is none."""
    factor = lax.linalg.cholesky(jnp.swapaxes(x, -1, -2) if upper else x, symmetrize_input=False)
    failed = jnp.isnan(factor).any(axis=(-2, -1))
    return jnp.swapaxes(factor, -1, -2) if upper else factor, failed.astype(jnp.int32)


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Array:
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(m, batch + m.shape[-2:]) for m in (a, b))
    return lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular)


def _cholesky_solve(b: Array, factor: Array, upper: bool = False) -> Array:
    factor = jnp.swapaxes(factor, -1, -2) if upper else factor
    half = _solve_triangular(factor, b, upper=False)
    return _solve_triangular(jnp.swapaxes(factor, -1, -2), half, upper=True)


def _inverse(x: Array, check_errors: bool = False) -> tuple[Array, Array]:
    inverse = jnp.linalg.inv(x)
    return inverse, (~jnp.isfinite(inverse)).any(axis=(-2, -1)).astype(jnp.int32)


ALGEBRA: dict[str, Callable[..., object]] = {
    "addmm": _addmm,
    "bmm": jnp.matmul,
    "cholesky_solve": _cholesky_solve,
    "linalg_cholesky_ex": _cholesky,
    "linalg_inv_ex": _inverse,
    "linalg_solve_triangular": _solve_triangular,
    "mm": jnp.matmul,
}
