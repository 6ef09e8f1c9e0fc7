"""Sums, extremes and orders along dimensions."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax


def _axes(dims: Sequence[int] | int | None) -> tuple[int, ...] | int | None:
    return (tuple(dims) or None) if isinstance(dims, Sequence) else dims


def _reduction(reduce: Callable[..., Array]) -> Callable[..., object]:
    return lambda x, dims=None, keepdim=False: reduce(x, axis=_axes(dims), keepdims=keepdim)


def _var(x: Array, dims: Sequence[int] | None = None, correction: int | None = 1, keepdim: bool = False) -> Array:
    return jnp.var(x, axis=_axes(dims), ddof=1 if correction is None else correction, keepdims=keepdim)


def _extreme(best: Callable[..., Array], where: Callable[..., Array]) -> Callable[..., object]:
    def run(x: Array, dim: int | None = None, keepdim: bool = False) -> Array | tuple[Array, Array]:
        if dim is None:
            return best(x)
        return best(x, axis=dim, keepdims=keepdim), where(x, axis=dim, keepdims=keepdim)

    return run


def _sort(x: Array, dim: int = -1, descending: bool = False, stable: bool = True) -> tuple[Array, Array]:
    order = jnp.argsort(x, axis=dim, descending=descending)
    return jnp.take_along_axis(x, order, axis=dim), order


def _topk(x: Array, k: int, dim: int = -1, largest: bool = True, ordered: bool = True) -> tuple[Array, ...]:
    return tuple(lax.slice_in_dim(each, 0, k, axis=dim % x.ndim) for each in _sort(x, dim, largest))


REDUCTIONS: dict[str, Callable[..., object]] = {
    **{
        name: _reduction(getattr(jnp, name))
        for name in ["amax", "amin", "any", "argmax", "argmin", "mean", "prod", "sum"]
    },
    "_log_softmax": lambda x, dim, half_to_float: jax.nn.log_softmax(x, axis=dim),
    "_softmax": lambda x, dim, half_to_float: jax.nn.softmax(x, axis=dim),
    "cumprod": jnp.cumprod,
    "cumsum": jnp.cumsum,
    "logcumsumexp": lambda x, dim: lax.cumlogsumexp(x, axis=dim % x.ndim),
    "logsumexp": _reduction(jax.nn.logsumexp),
    "max": _extreme(jnp.max, jnp.argmax),
    "min": _extreme(jnp.min, jnp.argmin),
    "sort": _sort,
    "topk": _topk,
    "var": _var,
}
