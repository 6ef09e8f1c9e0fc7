"""A loop over steps compiled to native code ahead of time, and kept between processes."""

import hashlib
import logging
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pyrovae.errors import InputError, one_line
from pyrovae.files import cache_folder, make_private_folder
from pyrovae.training.engines._base import State, Tensors

_KEPT_BYTES = 512 * 2**20
"""Size of the folder of compiled loops, past which those used longest ago are deleted."""


class CannotCompileError(InputError, RuntimeError):
    """No native code can be made here; says why."""


def missing_compiler() -> str | None:
    """Why there is no C++ compiler to use, or None where there is one."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler):
        return None
    return f"there is no C++ compiler {compiler}; install one, or use engine='eager'"


class NativeLoop:
    """``for i in range(count): state, losses[i] = graph(state, x[i], noise[:, i], rows[i], fixed)`` in native code.

    The tensors given at first are examples of the shapes that the code is made for.
    """

    def __init__(
        self, graph: GraphModule, state: State, x: Tensor, noise: Tensors, rows: Tensor, fixed: Tensors
    ) -> None:
        self._arguments = (torch.tensor(len(rows)), state, x, noise, rows, fixed)
        self._loop = _Loop(graph)
        self._run: Callable[..., State] | None = None

    @cached_property
    def path(self) -> Path:
        """Where the native code is kept."""
        return cache_folder() / f"{_key(self._loop.graph, self._arguments)}.pt2"

    def load(self) -> None:
        """Load the native code, made first where it is not there yet.

        Raises:
            CannotCompileError: there is no compiler, or it failed, or other users may write to the cache folder.
        """
        if self._run is not None:
            return
        try:
            make_private_folder(self.path.parent)
        except (InputError, OSError) as error:
            raise CannotCompileError(f"no native code can be kept: {error}") from None
        if self.path.exists():
            try:
                self._run = _load(self.path)
            except Exception:  # damaged, and made anew
                self.path.unlink(missing_ok=True)
        if self._run is None:
            _compile(self._loop, self._arguments, self.path)
            self._run = _load(self.path)
        with suppress(OSError):  # of others, perhaps
            self.path.touch()  # used just now

    def __call__(
        self, count: int, state: State, x: Tensor, noise: Tensors, rows: Tensor, fixed: Tensors
    ) -> tuple[State, Tensor]:
        """The state after ``count`` steps, and the losses (steps, R), of which the first ``count`` are set."""
        self.load()
        assert self._run is not None
        *after, losses = self._run(torch.tensor(count), state, x, noise, rows, fixed)
        return tuple(after), losses


class _Loop(nn.Module):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, count: Tensor, state: State, x: Tensor, noise: Tensors, rows: Tensor, fixed: Tensors) -> State:
        from torch._higher_order_ops.while_loop import while_loop

        def more(i: Tensor, losses: Tensor, *state: Tensor) -> Tensor:
            return i < count

        def step(i: Tensor, losses: Tensor, *state: Tensor) -> State:
            at = i.view(1)
            after, loss = self.graph(
                state,
                x.index_select(0, at).squeeze(0),
                [each.index_select(1, at).squeeze(1) for each in noise],
                rows.index_select(0, at).squeeze(0),
                fixed,
            )
            return i + 1, losses.index_put((i,), loss), *after

        start = torch.zeros((), dtype=torch.int64, device=rows.device)
        losses = torch.zeros(len(rows), len(state[0]), dtype=rows.dtype, device=rows.device)
        _, losses, *after = while_loop(more, step, (start, losses, *state))
        return *after, losses


def _key(graph: GraphModule, arguments: object) -> str:
    """Name of the native code: everything that it depends on."""
    tensors = [t for t in torch.utils._pytree.tree_leaves(arguments) if isinstance(t, Tensor)]
    parts: list[object] = [
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
        torch.get_num_threads(),
        os.environ.get("CXX", "g++"),
        Path(__file__).read_text(),
        graph.code,
        [(tuple(t.shape), t.stride(), t.dtype, t.device.type) for t in tensors],
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _processor() -> str:
    """What native code for this machine may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _load(path: Path) -> Callable[..., State]:
    import torch._inductor

    return torch._inductor.aoti_load_package(str(path))


def _compile(loop: nn.Module, arguments: tuple[object, ...], path: Path) -> None:
    if missing := missing_compiler():
        raise CannotCompileError(missing)
    import torch._inductor
    from filelock import FileLock

    try:
        with FileLock(path.with_suffix(".lock")), _quietly():
            if path.exists():  # another process has made it meanwhile
                return
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
                made = str(Path(folder) / path.name)
                program = torch.export.export(loop, arguments, strict=False)
                torch._inductor.aoti_compile_and_package(program, package_path=made)
                os.replace(made, path)
    except Exception as error:
        raise CannotCompileError(f"compiling failed ({type(error).__name__}: {one_line(error, 200)})") from error
    _delete_oldest(path.parent)


def _delete_oldest(folder: Path) -> None:
    """Keep the folder of compiled loops below its size."""
    kept = 0
    for path in sorted(folder.glob("*.pt2"), key=lambda p: -p.stat().st_mtime):
        kept += path.stat().st_size
        if kept > _KEPT_BYTES:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the compiler's warnings and log lines, which speak of PyTorch's own code."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch._dynamo", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
