"""Which engine makes the steps."""

from collections.abc import Sequence

from pyro.infer import ELBO
from torch import Tensor

from pyrovae.programs import Pair
from pyrovae.training.engines._ahead_of_time import CannotCompileError, missing_compiler
from pyrovae.training.engines._base import StepEngine
from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines.compiled import CompiledEngine
from pyrovae.training.engines.eager import EagerEngine
from pyrovae.training.settings import Engine, TrainingSettings

LEAST_STEPS = 8_000
"""Steps, over all replicas, from which ``"auto"`` compiles.

Compiling takes about 15 to 20 s and saves about 2 ms a step of a small network, as measured in
``experiments/results/benchmarks-training-step.md``: so many steps pay for it.
"""

_LEAST_TRACED_STEPS = 200
"""Steps, over all replicas, from which replicas run as one graph: tracing takes a second at most."""


def choose_engine(
    pairs: Sequence[Pair],
    elbo: ELBO,
    parameters: Sequence[list[Tensor]],
    settings: TrainingSettings,
    x: Tensor,
    total_steps: int,
    least_steps: int = LEAST_STEPS,
) -> tuple[StepEngine | None, str]:
    """The engine for these pairs of programs, and the reason in a few words; None where each pair must run alone.

    ``"auto"`` compiles a run of at least ``least_steps`` steps, counted over all replicas, on the CPU, where there is
    a compiler and the programs are one fixed graph. It is eager otherwise, but replicas run as one graph, step by
    step. The choice depends on the run alone: not on the machine's load, nor on code compiled before.

    Raises:
        CannotTraceError: the compiled engine or the graph is wanted, and the programs are not one fixed graph.
        CannotCompileError: the compiled engine is wanted, and there is no compiler or the data are on a GPU.
    """
    wanted, replicas, steps = settings.engine, len(pairs), total_steps * len(pairs)
    eager = EagerEngine(pairs[0], elbo, parameters[0], settings) if replicas == 1 else None
    if wanted == Engine.EAGER:
        return eager, "as asked for"
    why_not = _why_not_compile(x, steps, least_steps)
    if wanted == Engine.COMPILED and x.is_cuda:
        raise CannotCompileError(f"{why_not}; use engine='auto'")
    if wanted == Engine.AUTO and why_not is not None and (replicas == 1 or steps < _LEAST_TRACED_STEPS):
        return eager, why_not
    try:
        engine = CompiledEngine(pairs, elbo, parameters, settings, x)
    except CannotTraceError as error:
        if wanted != Engine.AUTO and replicas == 1:
            raise CannotTraceError(
                f"the {wanted} engine cannot take these programs: {error}; use engine='eager'"
            ) from error
        return eager, str(error)
    if wanted == Engine.COMPILED:
        engine.compile()
    if wanted != Engine.AUTO:
        return engine, "as asked for"
    if why_not is None:
        try:
            engine.compile()
        except CannotCompileError as error:
            why_not = str(error)
        else:
            return engine, f"{steps:,} steps pay for compiling"
    return (engine, f"{why_not}; the replicas' one graph is run step by step") if replicas > 1 else (eager, why_not)


def _why_not_compile(x: Tensor, steps: int, least_steps: int) -> str | None:
    """Why ``"auto"`` does not compile a run of so many steps; None where it does."""
    if x.is_cuda:
        return "native code is made for the CPU alone"
    if steps < least_steps:
        return f"{steps:,} steps do not pay for compiling, which takes {least_steps:,}"
    return missing_compiler()
