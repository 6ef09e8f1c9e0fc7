"""First-order linear recurrences, of numbers and of vectors, in logarithmically many vectorised steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _scan(coefficient: Tensor, innovation: Tensor, reverse: bool) -> Tensor:
    """The recurrence by doubling: after the pass with offset k, y holds the terms of the last 2k innovations."""
    d = innovation.shape[-1]
    y = innovation.expand(torch.broadcast_shapes(innovation.shape, (*coefficient.shape[:-1], d))).clone()
    c, k = coefficient, 1
    while k < d:
        source, target = (y[..., k:], y[..., :-k]) if reverse else (y[..., :-k], y[..., k:])
        target += c * source
        # c[..., i] is the factor over k steps from step i (in reverse: to step i)
        c = c * c if c.shape[-1] == 1 else c[..., k:] * c[..., :-k]
        k *= 2
    return y


class _LinearRecurrence(torch.autograd.Function):
    """Forwards y_j = c_{j−1} y_{j−1} + x_j, in reverse y_j = c_j y_{j+1} + x_j: each other's derivative."""

    @staticmethod
    def forward(coefficient: Tensor, innovation: Tensor, reverse: bool) -> Tensor:
        return _scan(coefficient, innovation, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        coefficient, innovation, ctx.reverse = inputs
        ctx.innovation_shape = innovation.shape
        ctx.save_for_backward(coefficient, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        coefficient, y = ctx.saved_tensors
        h = _solve(coefficient, grad, not ctx.reverse)
        grad_coefficient = None
        if ctx.needs_input_grad[0]:
            products = h[..., :-1] * y[..., 1:] if ctx.reverse else h[..., 1:] * y[..., :-1]
            grad_coefficient = products.sum_to_size(coefficient.shape)
        return grad_coefficient, h.sum_to_size(ctx.innovation_shape), None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], coefficient: Tensor, innovation: Tensor, reverse: bool
    ) -> tuple[Tensor, int]:
        pairs = zip((coefficient, innovation), in_dims[:2], strict=True)
        c, x = (tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0) for tensor, dim in pairs)
        width = max(c.dim(), x.dim())
        c, x = (t.reshape(t.shape[:1] + (1,) * (width - t.dim()) + t.shape[1:]) for t in (c, x))
        return _solve(c, x, reverse), 0


_solve: Callable[[Tensor, Tensor, bool], Tensor] = _LinearRecurrence.apply


def linear_recurrence(coefficient: Tensor, innovation: Tensor, *, reverse: bool = False) -> Tensor:
    """Solve y_0 = x_0, y_j = c_{j−1} y_{j−1} + x_j along the last axis in ⌈log₂ d⌉ vectorised steps.

    Memory is O(d), under differentiation too, and derivatives of every order exist: that of the
    recurrence is the same recurrence run backwards.

    Args:
        coefficient: c, shape (*batch, 1), one for all steps, or (*batch, d−1), broadcastable against x.
        innovation: x, shape (*batch, d).
        reverse: solve y_{d−1} = x_{d−1}, y_j = c_j y_{j+1} + x_j instead.
    """
    if innovation.shape[-1] == 1:
        return innovation
    return _solve(coefficient, innovation, reverse)


def block_recurrence(matrices: Tensor, innovation: Tensor) -> Tensor:
    """Solve y_0 = x_0, y_t = K_{t−1} y_{t−1} + x_t for vectors of k numbers, by cyclic reduction: O(T k³).

    Two steps are joined into one, the chain of half as many steps is solved, and the steps between are filled in: a
    vectorised pass for each of ⌈log₂ T⌉ halvings. Memory is O(T k²), under differentiation too.

    Args:
        matrices: K, shape (*batch, T−1, k, k).
        innovation: x, shape (*batch, T, k), batch axes that broadcast against those of K.
    """
    num_steps = innovation.shape[-2]
    if num_steps == 1:
        return innovation
    first, x = innovation[..., :1, :], innovation[..., 1:, :]
    pairs = (num_steps - 1) // 2
    odd, even = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)  # the first and the second of each pair of steps
    joined = matrices[..., even, :, :] @ matrices[..., odd, :, :]
    inputs = times(matrices[..., even, :, :], x[..., odd, :]) + x[..., even, :]
    coarse = block_recurrence(joined, torch.cat([first.expand(*inputs.shape[:-2], 1, -1), inputs], dim=-2))
    before = coarse if num_steps % 2 == 0 else coarse[..., :-1, :]
    between = times(matrices[..., ::2, :, :], before) + x[..., ::2, :]
    if num_steps % 2 == 0:
        return torch.stack([coarse, between], dim=-2).flatten(-3, -2)
    filled = torch.stack([before, between], dim=-2).flatten(-3, -2)
    return torch.cat([filled, coarse[..., -1:, :]], dim=-2)


def times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each matrix (*batch, k, k) times its vector (*batch, k)."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)
