"""A loop over steps that JAX compiles with XLA, in memory, for one thread or the caller's number of threads."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pyrovae.errors import InputError
from pyrovae.training.engines._base import State, Tensors, Values
from pyrovae.training.processes import environment

if TYPE_CHECKING:
    from jax import Array


ArrayFunction: TypeAlias = "Callable[..., list[Array]]"

_COPIED = 2**17
"""Bytes up to which an array is copied: JAX does that sooner than it takes the memory as it is."""

_TOGETHER = 5
"""Largest number of replicas that make a step together."""


class CannotCompileError(InputError, RuntimeError):
    """XLA cannot be used here; says why."""


_forked: list[bool] = []
"""Whether JAX was imported before this process was forked. It would wait for threads that a fork does not have."""

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
    """Use JAX on the CPU with 64-bit numbers; its first use sets the number of threads. Globals are restored."""
    wanted = {"PJRT_NPROC": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with environment({name: value for name, value in wanted.items() if name not in os.environ}):
        import jax

        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield


class XlaLoop:
    """Each replica's ``count`` steps, one after the other, compiled.

    Step i turns a state, ``x[index[i]]``, ``noise[i]``, ``rows[i]`` and ``fixed`` into a state and a loss.

    Args:
        slopes: takes a replica's parameters, buffers, batch, noise, row and fixed tensors; gives the loss, a slope for
            each parameter, and the buffers.
        adam: takes a parameter, its two moments, its slope and the row; gives the parameter and the moments.
    """

    def __init__(self, slopes: ArrayFunction, adam: ArrayFunction) -> None:
        import jax

        self._slopes, self._adam = slopes, adam
        self._threads = torch.get_num_threads()
        options = {
            "xla_cpu_multi_thread_eigen": self._threads > 1,
            "xla_cpu_copy_insertion_use_region_analysis": True,  # else a step copies the parameters that it changes
        }
        with _as_the_caller(self._threads):  # arrays of any origin, so that one program serves all calls
            place = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        self._run = jax.jit(self._loop, in_shardings=place, compiler_options=options)

    def __call__(
        self, count: int, state: State, x: Tensor, index: Tensor, noise: Tensors, rows: Tensor, fixed: Tensors
    ) -> tuple[State, Tensor]:
        """The state after ``count`` steps, and the losses (steps, R), of which the first ``count`` are set."""
        import jax

        with _as_the_caller(self._threads):
            given = jax.tree.map(_to_jax, (list(map(list, state)), x, index, noise, rows, fixed))
            (parameters, first, second, buffers), losses = jax.block_until_ready(self._run(count, *given))
            return (parameters, first, second, buffers), from_dlpack(losses)

    def _loop(
        self,
        count: "Array",
        state: "list[list[Array]]",
        x: "Array",
        index: "Array",
        noise: "list[Array]",
        rows: "Array",
        fixed: "list[Array]",
    ) -> "tuple[list[list[Array]], Array]":
        import jax
        import jax.numpy as jnp

        replicas, k = index.shape[1], len(state[0])

        def replica(arrays: "tuple[list[list[Array]], Array, list[Array]]") -> "tuple[list[list[Array]], Array]":
            state, index, noise = arrays

            def body(i: "Array", carried: "tuple[list[Array], Array]") -> "tuple[list[Array], Array]":
                state, losses = carried
                parameters, first, second, buffers = state[:k], state[k : 2 * k], state[2 * k : 3 * k], state[3 * k :]
                draws, row = [each[i] for each in noise], rows[i]
                loss, *after = self._slopes(*parameters, *buffers, x[index[i]], *draws, row, *fixed)
                moved = [self._adam(*each, row) for each in zip(parameters, first, second, after[:k], strict=True)]
                state = [array for column in zip(*moved, strict=True) for array in column] + after[k:]
                return state, losses.at[i].set(loss)

            flat = [array for each in state for array in each]
            after, losses = jax.lax.fori_loop(0, count, body, (flat, jnp.zeros(len(rows), rows.dtype)))
            return [after[:k], after[k : 2 * k], after[2 * k : 3 * k], after[3 * k :]], losses

        # a few replicas at a time, so that what their steps work on stays in the processor's cache
        together = max(size for size in range(1, _TOGETHER + 1) if replicas % size == 0)
        given = ([*state[:3], [buffer[None] for buffer in state[3]]], jnp.swapaxes(index, 0, 1), noise)
        (*after, buffers), losses = jax.lax.map(replica, given, batch_size=together if together > 1 else None)
        return [*after, [buffer[0] for buffer in buffers]], losses.T


def _to_jax(value: "Tensor | Array") -> "Array | NDArray[np.generic]":
    """An array that JAX can take."""
    import jax

    if not isinstance(value, Tensor):
        return value
    return (
        np.asarray(value.detach()) if value.nbytes <= _COPIED else jax.dlpack.from_dlpack(value.detach().contiguous())
    )


def as_tensors(values: Values) -> Tensors:
    """Tensors, and those of arrays that JAX made."""
    return [value if isinstance(value, Tensor) else _to_torch(value) for value in values]


def _to_torch(array: "Array") -> Tensor:
    return torch.from_numpy(np.array(array)) if array.nbytes <= _COPIED else from_dlpack(array)
