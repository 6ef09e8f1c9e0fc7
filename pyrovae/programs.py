"""What a Pyro program is to the library: its parameters and their store, its modes, and every check of it.

Pyro's parameter store hands back the *first* tensor it saw under a name: a second VAE with the same
parameter names would train nothing, without a word. So every program carries a name of its own.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError, out_of_memory
from pyrovae.nn import ConfigurableModule

Program = Callable[..., Any]
"""A Pyro model or guide: a function or a module."""
Pair = tuple[Program, Program]
"""A model and its guide."""

_MODULE_DIVIDER = "$$$"  # Pyro's mark of parameters that belong to a module
_counter = itertools.count()
_active: ContextVar[bool] = ContextVar("registration_active", default=True)


class ProgramModule(ConfigurableModule):
    """Base of the modules whose ``forward`` is a Pyro program."""

    def __init__(self) -> None:
        super().__init__()
        self._program_name = self._unique_name()

    def _unique_name(self) -> str:
        return f"{type(self).__name__}-{next(_counter)}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._program_name = self._unique_name()  # a copy is an instance of its own

    def register_parameters(self) -> None:
        """Make the parameters known to Pyro's inference algorithms, as ``pyro.module`` does.

        A parameter's identity is part of its name: one that takes another's place is not mistaken for it.
        """
        if _active.get():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    pyro.param(f"{self._program_name}$$${name}-{id(parameter)}", parameter)


@contextmanager
def unregistered() -> Iterator[None]:
    """Run programs whose parameters the caller already holds, without announcing them to Pyro."""
    token = _active.set(False)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def mode(*programs: Program, training: bool) -> Iterator[None]:
    """Put module programs into training or evaluation mode, and back afterwards."""
    modules = [m for program in programs if isinstance(program, nn.Module) for m in program.modules()]
    before = [m.training for m in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, was_training in zip(modules, before, strict=True):
            module.training = was_training


@contextmanager
def evaluating(model: Program, guide: Program, x: Tensor, seed: int) -> Iterator[None]:
    """Run programs in evaluation mode, under a seed that leaves the caller's random state as it was, unvalidated."""
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        pyro.validation_enabled(False),
        unregistered(),
        mode(model, guide, training=False),
    ):
        torch.manual_seed(seed)
        yield


def cannot_run(x: Tensor, error: Exception) -> InputError:
    """What to raise where programs fail on data, in one line."""
    reason = " ".join(str(error).split("Trace Shapes")[0].split())[:300]
    if "collide at dim" in reason:
        reason += " (or the programs' plates nest deeper than max_plate_nesting)"
    return InputError(f"the model and the guide cannot run on data of shape {tuple(x.shape)}: {reason}")


@contextmanager
def running_on(x: Tensor) -> Iterator[None]:
    """Turn what programs raise on data into an InputError of one line; an estimator's own refusal stays as it is."""
    try:
        yield
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise cannot_run(x, error) from error


def takes_missing(model: Program) -> bool:
    """Whether a NaN is to the model a value that was not observed."""
    return bool(getattr(model, "missing", False))


def check_values(name: str, x: Tensor, model: Program, guide: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which is not finite.

    NaN is allowed where the model takes missing values, if the guide draws finite z for them.
    """
    valid = x.isfinite() | x.isnan() if takes_missing(model) else x.isfinite()
    if not valid.all():
        row, column = (~valid.reshape(len(x), -1)).nonzero()[0].tolist()
        advice = "remove them" if takes_missing(model) else "remove or impute them"
        if hasattr(model, "missing") and not takes_missing(model):
            advice += ", or make the model with missing=True, to which NaN is a value not observed"
        raise InputError(
            f"{name} holds {int((~valid).sum())} NaN or infinite values, the first at row {row}, column {column} "
            f"(counted from 0); {advice}"
        )
    incomplete = x.isnan().reshape(len(x), -1).any(1)
    if incomplete.any():
        _check_guide_takes_missing(name, x, guide, int(incomplete.nonzero()[0]))


def _check_guide_takes_missing(name: str, x: Tensor, guide: Program, row: int) -> None:
    devices = [x.device] if x.is_cuda else []
    # one with parameters for each datum takes those of this one
    guide = guide.select(slice(row, row + 1)) if hasattr(guide, "select") else guide
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        pyro.validation_enabled(False),
        unregistered(),
        mode(guide, training=False),
    ):
        trace = poutine.trace(guide).get_trace(x[row : row + 1])
    if not all(site["value"].isfinite().all() for site in trace.nodes.values() if site["type"] == "sample"):
        raise InputError(
            f"{name} has missing values at row {row} (counted from 0), for which the guide draws no finite z; put "
            "pv.nn.ImputeMissing around its encoder"
        )


def check_support(name: str, x: Tensor, model: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which p(x|z) cannot score, where the model knows."""
    if hasattr(model, "check_support"):
        model.check_support(name, x)


def check_data(x: Any, model: Program, guide: Program) -> None:
    """Raise unless x is a tensor (num, …) of at least one datum, all of it what the model can score."""
    if not isinstance(x, Tensor):
        raise InputTypeError(f"x must be a tensor of the programs' dtype and device, not {type(x).__name__}")
    if x.dim() < 1 or len(x) == 0:
        raise InputError(f"x is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    check_values("x", x, model, guide)
    check_support("x", x, model)


@contextmanager
def own_parameter_store() -> Iterator[None]:
    """Give Pyro programs a store that knows the ``pyro.param``s of functions but no other module's.

    On the way out, functions' parameters are written to the outer store.
    """
    store = pyro.get_param_store()
    outer = store.get_state()
    inner = {part: {k: v for k, v in outer[part].items() if _MODULE_DIVIDER not in k} for part in outer}
    store.clear()
    store.set_state(inner)
    try:
        yield
    finally:
        inner = store.get_state()
        for part in outer:
            # a module holds its parameters itself: its names go back only where the outer store has them too
            kept = {k: v for k, v in inner[part].items() if _MODULE_DIVIDER not in k or k in outer[part]}
            outer[part].update(kept)
        store.clear()
        store.set_state(outer)


def trainable_parameters(model: Program, guide: Program, probe: Callable[[], Any]) -> list[Tensor]:
    """Leaf tensors to train: those of module programs, and every parameter announced while ``probe`` runs.

    Raises:
        InputError: there are none, or Pyro would tie a ``PyroParam`` of the model to one of the guide.
    """
    if isinstance(model, PyroModule) and isinstance(guide, PyroModule) and model._pyro_name == guide._pyro_name:
        shared = _pyro_param_names(model) & _pyro_param_names(guide)
        if shared:
            raise InputError(
                f"model and guide both have a PyroParam {min(shared)!r}, which Pyro takes for one and the same; "
                "give one of them a name with super().__init__(name=…)"
            )
    with poutine.trace(param_only=True) as capture:
        probe()
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    candidates = [p for module in modules for p in module.parameters()] + announced_parameters(capture.trace)
    parameters = list({id(p): p for p in candidates if p.requires_grad}.values())
    if not parameters:
        raise InputError("neither the model nor the guide has parameters to train")
    return parameters


def announced_parameters(trace: poutine.Trace) -> list[Tensor]:
    """Leaf tensors behind the ``pyro.param`` sites of a trace."""
    return [site["value"].unconstrained() for site in trace.nodes.values() if site["type"] == "param"]


def _pyro_param_names(program: PyroModule) -> set[str]:
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in program.named_modules()
        if isinstance(module, PyroModule)
        for name in module._pyro_params
    }


def module_buffers(model: Program, guide: Program) -> list[Tensor]:
    """The buffers of module programs."""
    return [b for program in (model, guide) if isinstance(program, nn.Module) for b in program.buffers()]


def modules_of(pair: Pair) -> Iterator[nn.Module]:
    """Every module of programs that are such."""
    for program in pair:
        if isinstance(program, nn.Module):
            yield from program.modules()


def as_data(
    name: str, data: Tensor | np.ndarray, model: Program, guide: Program, device: str | torch.device | None
) -> Tensor:
    """The data as one tensor of the parameters' dtype and device, checked."""
    x = torch.as_tensor(data)
    if x.dim() < 1 or len(x) == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    if x.is_complex():
        raise InputError(f"{name} is complex; give real numbers")
    parameters = [p for program in (model, guide) if isinstance(program, nn.Module) for p in program.parameters()]
    like = next((p for p in parameters if p.is_floating_point()), None)
    x = x.to(
        device=device if device is not None or like is None else like.device,
        dtype=like.dtype if like is not None else None if x.is_floating_point() else torch.get_default_dtype(),
    )
    x = x.contiguous()
    check_values(name, x, model, guide)
    return x


def check_programs(
    model: Program, guide: Program, x: Tensor, x_validation: Tensor | None, batch_size: int, elbo: ELBO
) -> list[Tensor]:
    """Run the programs with Pyro's validation on, before anything is trained; return the parameters."""

    def run(batch: Tensor) -> Any:
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            return elbo.differentiable_loss(model, guide, batch)

    batch = x[:batch_size]
    try:
        with pyro.validation_enabled(True), mode(model, guide, training=False):
            parameters = trainable_parameters(model, guide, lambda: run(batch))
            if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
                for data in (x, x_validation) if x_validation is not None else (x,):
                    for batch in data.split(4096):  # every datum must lie in the likelihood's support
                        run(batch)
    except NotImplementedError:
        raise  # an estimator's own refusal
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise cannot_run(batch, error) from error
    return parameters
