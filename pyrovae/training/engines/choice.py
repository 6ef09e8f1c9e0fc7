"""The choice of an engine."""

from collections.abc import Sequence

from pyro.infer import ELBO
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.programs import Pair
from pyrovae.training import processes
from pyrovae.training.engines._base import StepEngine
from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._xla import CannotCompileError, missing_xla
from pyrovae.training.engines.compiled import CompiledEngine
from pyrovae.training.engines.eager import EagerEngine
from pyrovae.training.settings import Engine, TrainingSettings

LEAST_STEPS = 2_000
"""Steps, over all replicas, from which ``"auto"`` compiles.

Compiling takes 2 to 4 s of CPU time on a quiet machine. When this number was chosen it took 3 to 7 s, and saved 2 to
7 ms a step: it paid from 900 to 1,400 steps on, for a small network, an image network, 50 samples of z and a flow.
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
    """The engine for these programs, and the reason in a few words; None if each pair must run alone.

    ``"auto"`` compiles a run of at least ``least_steps`` steps, counted over all replicas, on the CPU, if JAX is
    installed and the programs are one fixed graph of operations that XLA has. Otherwise it is eager, and replicas run
    as one graph, step by step. The choice does not depend on the machine's load. The processes of ``torchrun`` share
    the batches of the eager engine.

    Raises:
        InputError: processes share the training, and there are replicas or another engine is requested.
        CannotTraceError: the compiled engine or the graph is requested, and the programs are not one fixed graph.
        CannotCompileError: the compiled engine is requested, and JAX cannot be used here or the data are on a GPU.
    """
    wanted, replicas, steps = settings.engine, len(pairs), total_steps * len(pairs)
    if (num := processes.size()) > 1:
        if replicas > 1:
            raise InputError(f"{num} processes cannot share replicas; leave out num_replicas, or torchrun")
        if settings.precision != "full":
            raise InputError(f"{num} processes share the training in full precision; leave out precision, or torchrun")
        if wanted not in (Engine.AUTO, Engine.EAGER):
            raise InputError(f"{num} processes share the eager engine, not the {wanted} one; use engine='eager'")
        return EagerEngine(pairs[0], elbo, parameters[0], settings), f"{num} processes share each batch"
    eager = EagerEngine(pairs[0], elbo, parameters[0], settings) if replicas == 1 else None
    if wanted == Engine.EAGER:
        return eager, "as asked for"
    if settings.precision != "full":
        if wanted != Engine.AUTO:
            raise CannotCompileError(f"precision={settings.precision!r} needs engine='eager', not the {wanted} one")
        return eager, f"precision={settings.precision!r} runs on it alone"
    why_not = "the compiled engine runs only on the CPU" if x.is_cuda else missing_xla()
    if wanted == Engine.COMPILED and why_not is not None:
        raise CannotCompileError(f"{why_not}; use engine='eager'")
    if steps < least_steps:
        why_not = f"{steps:,} steps are too few to compile; it pays from {least_steps:,} on"
    if wanted == Engine.AUTO and why_not is not None and (replicas == 1 or steps < _LEAST_TRACED_STEPS):
        return eager, why_not
    try:
        engine = CompiledEngine(pairs, elbo, parameters, settings, x)
        if wanted == Engine.COMPILED or why_not is None:
            try:
                engine.compile()
            except CannotTraceError as error:
                if wanted == Engine.COMPILED:
                    raise
                why_not = str(error)
            else:
                return engine, "as asked for" if wanted == Engine.COMPILED else f"compiling pays for {steps:,} steps"
        if wanted == Engine.AUTO and replicas == 1:
            return eager, str(why_not)
        engine.trace()
    except CannotTraceError as error:
        if wanted != Engine.AUTO and replicas == 1:
            raise CannotTraceError(
                f"the {wanted} engine cannot take these programs: {error}; use engine='eager'"
            ) from error
        return eager, str(error)
    return (
        engine,
        "as asked for" if wanted == Engine.GRAPH else f"{why_not}; the replicas' one graph is run step by step",
    )
