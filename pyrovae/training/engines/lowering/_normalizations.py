"""Normalisation layers.

Convolutions have no entry: on a CPU XLA's take 1.3 times as long as PyTorch's, and as columns and products 2 times.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array


def _affine(x: Array, weight: Array | None, bias: Array | None) -> Array:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(
    x: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    axes = tuple(range(-len(shape), 0))
    mean = x.mean(axes, keepdims=True)
    root = 1 / jnp.sqrt(x.var(axes, keepdims=True) + eps)
    return _affine((x - mean) * root, weight, bias), mean, root


def _group_norm(
    x: Array, weight: Array | None, bias: Array | None, num: int, channels: int, area: int, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    rows = x.reshape(num, groups, -1)
    mean, root = rows.mean(-1, keepdims=True), 1 / jnp.sqrt(rows.var(-1, keepdims=True) + eps)
    shape = (channels,) + (1,) * (x.ndim - 2)
    weight, bias = (None if each is None else each.reshape(shape) for each in (weight, bias))
    return _affine(((rows - mean) * root).reshape(x.shape), weight, bias), mean[..., 0], root[..., 0]


def _batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, ...]:
    """The normalised batch, its mean and 1 / standard deviation, and the running mean and variance after it."""
    axes, shape = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    of_batch, root = x.mean(axes), 1 / jnp.sqrt(x.var(axes) + eps)
    weight, bias = (None if each is None else each.reshape(shape) for each in (weight, bias))
    normal = _affine((x - of_batch.reshape(shape)) * root.reshape(shape), weight, bias)
    num = math.prod(x.shape) / x.shape[1]
    mean, var = (
        (1 - momentum) * old + momentum * new for old, new in ((mean, of_batch), (var, x.var(axes) * (num / (num - 1))))
    )
    return normal, of_batch, root, mean, var


NORMALIZATIONS: dict[str, Callable[..., object]] = {
    "_native_batch_norm_legit_functional": _batch_norm,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
}
