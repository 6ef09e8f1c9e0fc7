"""A loop over steps that JAX compiles with XLA, in memory, for one thread or the caller's number of threads."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pyrovae.errors import InputError
from pyrovae.training.engines._base import State, Tensors

if TYPE_CHECKING:
    from jax import Array


ArrayFunction: TypeAlias = "Callable[..., list[Array]]"


class CannotCompileError(InputError, RuntimeError):
    """XLA cannot be used here; says why."""


_forked: list[bool] = []
"""Whether JAX was imported before this process was forked: it would wait for threads that do not exist here."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append("jax" in sys.modules))


def missing_xla() -> str | None:
    """Why XLA cannot be used here, or None where it can."""
    if any(_forked):
        return "this process was forked from one that uses JAX, and only one of them can use it"
    if find_spec("jax") is None:
        return "jax is not installed (pip install 'pyrovae[xla]')"
    return None


@contextmanager
def _as_the_caller(threads: int) -> Iterator[None]:
    """JAX with 64-bit numbers, on the CPU and, where this is its first use, on so many threads; globals as before."""
    wanted = {"PJRT_NPROC": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= {name: value for name, value in wanted.items() if before[name] is None}
    try:
        import jax

        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


class XlaLoop:
    """``for i in range(count): state, losses[i] = step(state, x[index[i]], noise[:, i], rows[i], fixed)``, compiled.

    A state is flat at both ends, and a tensor for each parameter in between.

    Args:
        slopes: of one replica, of arrays: its parameters, buffers, a batch, its noise, what its row holds and the
            tensors that stay; gives the loss, a slope for each parameter, and the buffers.
        adam: of a parameter, its two moments, its slope and what the row holds; gives the first three anew.
        shapes: of each parameter.
    """

    def __init__(self, slopes: ArrayFunction, adam: ArrayFunction, shapes: list[torch.Size]) -> None:
        import jax

        self._slopes, self._adam, self._shapes = slopes, adam, shapes
        self._threads = torch.get_num_threads()
        options = {"xla_cpu_multi_thread_eigen": self._threads > 1}
        self._run = jax.jit(self._loop, compiler_options=options)

    def __call__(
        self, count: int, state: State, x: Tensor, index: Tensor, noise: Tensors, rows: Tensor, fixed: Tensors
    ) -> tuple[State, Tensor]:
        """The state after ``count`` steps, and the losses (steps, R), of which the first ``count`` are set."""
        import jax

        with _as_the_caller(self._threads):
            arguments = jax.tree.map(_to_jax, (state, x, index, noise, rows, fixed))
            after, losses = jax.block_until_ready(self._run(count, *arguments))
            return tuple(map(from_dlpack, after)), from_dlpack(losses)

    def _loop(
        self,
        count: "Array",
        state: "list[Array]",
        x: "Array",
        index: "Array",
        noise: "list[Array]",
        rows: "Array",
        fixed: "list[Array]",
    ) -> "tuple[tuple[Array, ...], Array]":
        import jax
        import jax.numpy as jnp

        replicas, k = index.shape[1], len(self._shapes)

        def one(state: "list[Array]", x: "Array", noise: "list[Array]", row: "Array") -> "tuple[list[Array], Array]":
            parameters, first, second, buffers = state[:k], state[k : 2 * k], state[2 * k : 3 * k], state[3 * k :]
            loss, *after = self._slopes(*parameters, *buffers, x, *noise, row, *fixed)
            moved = [self._adam(*each, row) for each in zip(parameters, first, second, after[:k], strict=True)]
            return [array for column in zip(*moved, strict=True) for array in column] + after[k:], loss

        def body(i: "Array", carried: "tuple[list[Array], Array]") -> "tuple[list[Array], Array]":
            state, losses = carried
            batch, draws = x[index[i]], [each[:, i] for each in noise]
            if replicas > 1:
                state, loss = jax.vmap(one, (0, 0, 0, None))(state, batch, draws, rows[i])
            else:
                state, loss = one(state, batch[0], [each[0] for each in draws], rows[i])
            return state, losses.at[i].set(loss)

        sizes = [shape.numel() for shape in self._shapes]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        leading = (replicas,) if replicas > 1 else ()
        parts = [
            part.reshape(*leading, *shape)
            for flat in state[:3]
            for part, shape in zip(jnp.split(flat, ends, axis=1), self._shapes, strict=True)
        ]
        losses = jnp.zeros((len(rows), replicas), rows.dtype)
        after, losses = jax.lax.fori_loop(0, count, body, ([*parts, *state[3:]], losses))
        flat = [
            jnp.concatenate([p.reshape(replicas, -1) for p in after[i * k : (i + 1) * k]], axis=1) for i in range(3)
        ]
        return (*flat, *after[3 * k :]), losses


def _to_jax(tensor: Tensor) -> "Array":
    import jax

    return jax.dlpack.from_dlpack(tensor.detach().contiguous())
