"""Operations that move elements, and those that make tensors."""

import operator
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax


def _squeeze(x: Array, dims: Sequence[int]) -> Array:
    return jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1)) if x.ndim else x


def _expand(x: Array, sizes: Sequence[int]) -> Array:
    own = (1,) * (len(sizes) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [n if size == -1 else size for size, n in zip(sizes, own, strict=True)])


def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    return lax.slice_in_dim(x, *slice(start, end, step).indices(x.shape[dim]), axis=dim)


def _slice_scatter(
    x: Array, source: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    first, stop, step = slice(start, end, step).indices(x.shape[dim])
    if step == 1:
        return lax.dynamic_update_slice_in_dim(x, source.astype(x.dtype), first, axis=dim)
    return x.at[(slice(None),) * (dim % x.ndim) + (slice(first, stop, step),)].set(source)


def _split(x: Array, sizes: Sequence[int], dim: int = 0) -> list[Array]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [lax.slice_in_dim(x, end - size, end, axis=dim) for size, end in zip(sizes, ends, strict=True)]


def _diagonal_scatter(x: Array, source: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    moved = jnp.moveaxis(x, (dim1, dim2), (-2, -1))
    k = jnp.arange(source.shape[-1])
    moved = moved.at[..., k + max(0, -offset), k + max(0, offset)].set(source)
    return jnp.moveaxis(moved, (-2, -1), (dim1, dim2))


def _strided(size: Sequence[int], stride: Sequence[int], offset: int | None) -> Array:
    """Positions in memory of the elements of a view."""
    steps = [step * jnp.arange(n) for n, step in zip(size, stride, strict=True)]
    at = sum(jnp.meshgrid(*steps, indexing="ij", sparse=True), start=jnp.asarray(offset or 0))
    return jnp.broadcast_to(at, size)


def _as_strided(
    x: Array, size: Sequence[int], stride: Sequence[int], offset: int | None = None, *, order: Sequence[int]
) -> Array:
    return x.transpose(order).reshape(-1)[_strided(size, stride, offset)]


def _as_strided_scatter(
    x: Array,
    source: Array,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
    *,
    order: Sequence[int],
) -> Array:
    laid = x.transpose(order)
    laid = laid.reshape(-1).at[_strided(size, stride, offset)].set(source).reshape(laid.shape)
    return laid.transpose([order.index(dim) for dim in range(x.ndim)])


def _pad(x: Array, pad: Sequence[int], value: float = 0.0) -> Array:
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(low, high, 0) for low, high in widths])


SHAPES: dict[str, Callable[..., object]] = {
    **dict.fromkeys(("_to_copy", "alias", "clone", "lift_fresh_copy"), lambda x: x),
    "as_strided": _as_strided,
    "as_strided_scatter": _as_strided_scatter,
    "cat": lambda parts, dim=0: jnp.concatenate([p for p in parts if p.shape != (0,)], axis=dim),
    "constant_pad_nd": _pad,
    "copy": lambda x, source: jnp.broadcast_to(source, x.shape),
    "diagonal": jnp.diagonal,
    "diagonal_scatter": _diagonal_scatter,
    "expand": _expand,
    "flip": jnp.flip,
    "getitem": operator.getitem,
    "permute": jnp.transpose,
    "repeat": lambda x, times: jnp.tile(x, times),
    "select": lambda x, dim, i: lax.index_in_dim(x, i, axis=dim, keepdims=False),
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "split_with_sizes": _split,
    "squeeze": _squeeze,
    "unsqueeze": jnp.expand_dims,
    "view": jnp.reshape,
    "arange": jnp.arange,
    "empty": jnp.zeros,
    "empty_permuted": lambda size, order: jnp.zeros(size),
    "empty_strided": lambda size, stride: jnp.zeros(size),
    "full": jnp.full,
    "full_like": jnp.full_like,
    "new_empty_strided": lambda x, size, stride: jnp.zeros(size),
    "scalar_tensor": jnp.asarray,
}
