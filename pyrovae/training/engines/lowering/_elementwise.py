"""Operations on each element."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special


def _pow(x: Array, exponent: Array | float) -> Array:
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    return jnp.sqrt(x) if isinstance(exponent, float) and exponent == 0.5 else jnp.power(x, exponent)


def _div(x: Array, y: Array, rounding_mode: str | None = None) -> Array:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    return jnp.true_divide(x, y) if rounding_mode is None else jnp.trunc(jnp.true_divide(x, y))


def _gelu(x: Array, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _elu(x: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(input_scale * x))


def _lerp(start: Array, end: Array, weight: Array | float) -> Array:
    weight = jnp.asarray(weight, start.dtype)
    is_late = jnp.abs(weight) >= 0.5
    return jnp.where(is_late, weight - 1, weight) * (end - start) + jnp.where(is_late, end, start)


def _softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    return jnp.where(x * beta > threshold, x, jnp.true_divide(jnp.log1p(jnp.exp(x * beta)), beta))


_NUMPY = """
    abs acos acosh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil cos cosh exp
    exp2 expm1 floor fmod hypot isinf isnan log log10 log1p log2 logical_and logical_not logical_or logical_xor
    maximum minimum reciprocal remainder sign sin sinh sqrt tan tanh trunc
"""
"""Names that PyTorch has from NumPy, as JAX has."""

ELEMENTWISE: dict[str, Callable[..., object]] = {
    **{name: getattr(jnp, name) for name in _NUMPY.split()},
    **{name: getattr(special, name) for name in ["digamma", "erf", "erfc", "erfinv", "polygamma"]},
    "add": lambda x, y, alpha=1: x + (y if alpha == 1 else alpha * y),
    "addcmul": lambda x, y, z, value=1: x + value * y * z,
    "clamp": lambda x, least=None, most=None, **named: jnp.clip(x, named.get("min", least), named.get("max", most)),
    "div": _div,
    "elu": _elu,
    "eq": jnp.equal,
    "ge": jnp.greater_equal,
    "gelu": _gelu,
    "gt": jnp.greater,
    "hardtanh": lambda x, least=-1.0, most=1.0: jnp.clip(x, least, most),
    "le": jnp.less_equal,
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "lerp": _lerp,
    "lgamma": special.gammaln,
    "lt": jnp.less,
    "mul": jnp.multiply,
    "ne": jnp.not_equal,
    "neg": jnp.negative,
    "pow": _pow,
    "relu": lambda x: jnp.maximum(x, 0),
    "round": lambda x, decimals=0: jnp.round(x, decimals),
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
    "sigmoid": jax.nn.sigmoid,
    "sgn": jnp.sign,
    "softplus": _softplus,
    "sub": lambda x, y, alpha=1: x - (y if alpha == 1 else alpha * y),
    "where": jnp.where,
}
