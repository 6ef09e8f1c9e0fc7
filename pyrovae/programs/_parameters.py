"""The parameters of programs and Pyro's store of them.

Pyro's parameter store returns the *first* tensor that it saw under a name: a second VAE with the same parameter names
would train nothing, without a word. So every module program carries a name of its own.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pyro
import pyro.poutine as poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.nn import ConfigurableModule
from pyrovae.programs._sites import Pair, Program

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

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._program_name = self._unique_name()  # a copy is an instance of its own

    def register_parameters(self) -> None:
        """Announce the parameters to Pyro's inference algorithms, as ``pyro.module`` does.

        A parameter's identity is part of its name, so that Pyro does not mistake a new parameter for an old one.
        """
        if _active.get():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    pyro.param(f"{self._program_name}{_MODULE_DIVIDER}{name}-{id(parameter)}", parameter)


@contextmanager
def unregistered() -> Iterator[None]:
    """Run module programs without announcing their parameters to Pyro."""
    token = _active.set(False)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def own_parameter_store() -> Iterator[None]:
    """Run programs with a store of their own: the ``pyro.param``s of functions are in it, those of modules are not.

    At the end the functions' parameters are written to the outer store.
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
            # a module keeps its parameters itself: its names go back only where the outer store has them too
            kept = {k: v for k, v in inner[part].items() if _MODULE_DIVIDER not in k or k in outer[part]}
            outer[part].update(kept)
        store.clear()
        store.set_state(outer)


def trainable_parameters(model: Program, guide: Program, announced: poutine.Trace) -> list[Tensor]:
    """Leaf tensors to train: those of module programs, and every parameter announced in a trace of both.

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
    candidates = [*_parameters((model, guide)), *announced_parameters(announced)]
    parameters = list({id(p): p for p in candidates if p.requires_grad}.values())
    if not parameters:
        raise InputError("neither the model nor the guide has parameters to train")
    return parameters


def announced_parameters(trace: poutine.Trace) -> list[Tensor]:
    """Leaf tensors behind the ``pyro.param`` sites of a trace."""
    return [site["value"].unconstrained() for site in trace.nodes.values() if site["type"] == "param"]


def first_floating_parameter(pair: Pair) -> Tensor | None:
    """The first floating-point parameter of module programs, whose dtype and device the data must have."""
    return next((p for p in _parameters(pair) if p.is_floating_point()), None)


def module_buffers(model: Program, guide: Program) -> list[Tensor]:
    """The buffers of module programs."""
    return [b for program in (model, guide) if isinstance(program, nn.Module) for b in program.buffers()]


def modules_of(pair: Pair) -> Iterator[nn.Module]:
    """Every module of the programs that are modules."""
    for program in pair:
        if isinstance(program, nn.Module):
            yield from program.modules()


def _parameters(pair: Pair) -> Iterator[Tensor]:
    for program in pair:
        if isinstance(program, nn.Module):
            yield from program.parameters()


def _pyro_param_names(program: PyroModule) -> set[str]:
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in program.named_modules()
        if isinstance(module, PyroModule)
        for name in module._pyro_params
    }
