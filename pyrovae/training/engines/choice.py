"""Which engine makes the steps."""

import time
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.programs import Pair, module_buffers, unregistered
from pyrovae.training._losses import NonFiniteStepError
from pyrovae.training.engines._ahead_of_time import CannotCompileError, missing_compiler
from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._tracing import left_as_they_are
from pyrovae.training.engines.compiled import CompiledEngine
from pyrovae.training.engines.eager import EagerEngine
from pyrovae.training.settings import TrainingSettings

_COMPILE_SECONDS = 15.0
_LOAD_SECONDS = 2.0
_SHARE_SAVED = 0.8
_FEW_STEPS = 200
"""What compiling costs and saves of a step's time on next to no data, measured in benchmarks/training_step."""


class Engine(Protocol):
    """What makes the steps of a training run."""

    steps: int
    errors: dict[int, NonFiniteStepError]

    @property
    def name(self) -> str:
        """How it makes them: ``"eager"``, ``"compiled"``, or ``"graph"``."""
        ...

    @property
    def parameters(self) -> list[list[Tensor]]:
        """Each replica's leaf tensors that are trained."""
        ...

    def run(
        self, x: Tensor, batches: list[Tensor], rates: NDArray[np.float64], betas: NDArray[np.float64] | None
    ) -> Generator[NDArray[np.float64], None, None]:
        """Make one step for each batch of indices (R, size); yield losses (steps, R) in nats per datum."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, copied."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of either engine."""
        ...


def choose_engine(
    wanted: str,
    pairs: Sequence[Pair],
    elbo: ELBO,
    parameters: Sequence[list[Tensor]],
    settings: TrainingSettings,
    x: Tensor,
    total_steps: int,
) -> tuple[Engine | None, str]:
    """The engine for these pairs of programs, and why it, in a few words; None where it must be one pair at a time.

    One that is gone on with may also be ``"graph"``, which is not compiled.

    Raises:
        CannotTraceError: the compiled engine is wanted, and the programs are not one fixed graph.
        CannotCompileError: it is wanted, and there is no compiler.
    """
    replicas = len(pairs)
    eager = EagerEngine(*pairs[0], elbo, parameters[0], settings) if replicas == 1 else None
    if wanted == "eager":
        return eager, "as asked for"
    try:
        if wanted in ("compiled", "graph"):
            engine = CompiledEngine(pairs, elbo, parameters, settings, x)
            if wanted == "compiled":
                engine.compile()
            return engine, "as asked for"
        if x.is_cuda and replicas == 1:
            return eager, "native code is made for the CPU alone"
        if total_steps * replicas < _FEW_STEPS:
            return eager, f"{total_steps} steps do not pay for compiling"
        overhead = _overhead(pairs[0], elbo, parameters[0], x[: settings.batch_size])
        saved = _SHARE_SAVED * overhead * total_steps * replicas
        estimate = f"{1e3 * overhead:.1f} ms of Python a step over {total_steps} steps"
        if saved < _LOAD_SECONDS:
            return eager, f"{estimate} do not pay for compiling"
        engine = CompiledEngine(pairs, elbo, parameters, settings, x)
        why_not = missing_compiler() if not engine.cached else None
        cost = _LOAD_SECONDS if engine.cached else _COMPILE_SECONDS
        if why_not is None and saved < cost:
            why_not = f"{estimate} do not pay for compiling"
        if why_not is None:
            try:
                engine.compile()
            except CannotCompileError as error:
                why_not = str(error)
            else:
                return engine, f"it saves about {saved:.0f} s of {estimate}, for about {cost:.0f} s of compiling"
        if replicas > 1:
            return engine, f"{why_not}; the replicas' one graph is run step by step"
        return eager, why_not
    except CannotTraceError as error:
        if wanted == "compiled" and replicas == 1:
            raise CannotTraceError(
                f"the compiled engine cannot take these programs: {error}; use engine='eager'"
            ) from error
        return eager, str(error)


def _overhead(pair: Pair, elbo: ELBO, parameters: list[Tensor], batch: Tensor) -> float:
    """Seconds of a step on next to no data, where the programs take so few."""
    devices = [batch.device] if batch.is_cuda else []

    def seconds(x: Tensor) -> float:
        start = time.perf_counter()
        loss = elbo.differentiable_loss(*pair, x)
        torch.autograd.grad(loss, parameters, allow_unused=True)
        return time.perf_counter() - start

    with left_as_they_are(module_buffers(*pair)), torch.random.fork_rng(devices=devices), unregistered():
        try:
            return min(seconds(batch[:2]) for _ in range(4))
        except (RuntimeError, ValueError, IndexError):
            return min(seconds(batch) for _ in range(4))
