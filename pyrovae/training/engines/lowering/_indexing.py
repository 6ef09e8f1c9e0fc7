"""Elements at given positions, read and written."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array


def _index(indices: Sequence[Array | None]) -> tuple[Array | slice, ...]:
    return tuple(slice(None) if i is None else i for i in indices)


def _index_put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    if (mask := indices[0]) is not None and mask.dtype == bool:  # the one index that the tracer lets through
        mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        return jnp.where(mask, x + values if accumulate else values, x)
    at = x.at[_index(indices)]
    return at.add(values) if accumulate else at.set(values)


def _along(dim: int, index: Array) -> tuple[Array, ...]:
    """Positions in every dimension, the given ones along one."""
    grid = list(jnp.meshgrid(*map(jnp.arange, index.shape), indexing="ij", sparse=True))
    grid[dim] = index
    return tuple(grid)


def _gather(x: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    return x[_along(dim, index)] if x.ndim else x


def _scatter(update: str) -> Callable[..., object]:
    def run(x: Array, dim: int, index: Array, source: Array) -> Array:
        if jnp.ndim(source):
            source = source[tuple(map(slice, index.shape))]
        return getattr(x.at[_along(dim, index)], update)(source)

    return run


INDEXING: dict[str, Callable[..., object]] = {
    "embedding": lambda weight, index, *_: weight[index],
    "gather": _gather,
    "index": lambda x, indices: x[_index(indices)],
    "index_put": _index_put,
    "index_select": lambda x, dim, index: jnp.take(x, index, axis=dim),
    "scatter": _scatter("set"),
    "scatter_add": _scatter("add"),
}
