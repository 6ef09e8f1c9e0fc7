"""Modules that are programs, and running programs: parameters, modes, and the caller's state.

Pyro's parameter store returns the *first* tensor that it saw under a name. A second VAE with the same parameter names
would not be trained, without a warning. So every module program has its own name.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.errors import InputError
from pyrovae.nn import ConfigurableModule
from pyrovae.programs._sites import Program, Site, modules_inside
from pyrovae.randomness import kept_random_state

_MODULE_DIVIDER = "$$$"  # Pyro's mark of parameters that belong to a module
_counter = itertools.count()
_active: ContextVar[bool] = ContextVar("registration_active", default=True)


class ProgramModule(ConfigurableModule):
    """Base of the modules whose ``forward`` is a Pyro program."""

    def __init__(self) -> None:
        super().__init__()
        self._program_name = self._unique_name()

    @property
    def network(self) -> nn.Module:
        """Its network, which may compute in lower precision than the distributions."""
        raise NotImplementedError

    def _unique_name(self) -> str:
        return f"{type(self).__name__}-{next(_counter)}"

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._program_name = self._unique_name()  # a copy is another instance

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
    """Run programs with their own store: it has the ``pyro.param``s of functions, not those of modules.

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


class OwnParameters(Messenger):
    """Give functions their own store of ``pyro.param``s, where these are initialised again."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ParamStoreDict()

    def _pyro_param(self, msg: Site) -> None:
        if _MODULE_DIVIDER in msg["name"]:
            raise InputError(
                f"pyro.module announces {msg['name'].partition(_MODULE_DIVIDER)[0]!r} in a function, which cannot be "
                "copied with it; make the program a module that holds it"
            )
        msg["fn"] = self.store.get_param


class FixedParameters(Messenger):
    """Run a function in evaluation mode and without training: with the current values of its ``pyro.param``s."""

    def __init__(self) -> None:
        super().__init__()
        self.values = {name: value.detach() for name, value in pyro.get_param_store().items()}
        self._modes: list[AbstractContextManager[object]] = []

    def __enter__(self) -> "FixedParameters":
        self._modes.append(mode(self._pyro_param, training=False, frozen=True))
        self._modes[-1].__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._modes.pop().__exit__(*error)

    def _pyro_param(self, msg: Site) -> None:
        msg["stop"] = True
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def check_not_tied(model: Program, guide: Program) -> None:
    """Raise an InputError if Pyro would share a ``PyroParam`` of the model with the guide."""
    if isinstance(model, PyroModule) and isinstance(guide, PyroModule) and model._pyro_name == guide._pyro_name:
        shared = _pyro_param_names(model) & _pyro_param_names(guide)
        if shared:
            raise InputError(
                f"model and guide both have a PyroParam {min(shared)!r}, which Pyro treats as one parameter;  "
                "give one of them a name with super().__init__(name=…)"
            )


def trainable_parameters(model: Program, guide: Program, announced: Trace) -> list[Tensor]:
    """Leaf tensors to train: those of module programs, and every parameter announced in a trace of both.

    Raises:
        InputError: there are none.
    """
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    candidates = [p for module in modules for p in module.parameters()] + announced_parameters(announced)
    parameters = list({id(p): p for p in candidates if p.requires_grad}.values())
    if not parameters:
        raise InputError("neither the model nor the guide has parameters to train")
    return parameters


def announced_parameters(trace: Trace) -> list[Tensor]:
    """Leaf tensors behind the ``pyro.param`` sites of a trace."""
    return [site["value"].unconstrained() for site in trace.nodes.values() if site["type"] == "param"]


def module_buffers(model: Program, guide: Program) -> list[Tensor]:
    """The buffers of module programs."""
    return [b for program in (model, guide) if isinstance(program, nn.Module) for b in program.buffers()]


def modules_of(programs: Iterable[Program]) -> Iterator[nn.Module]:
    """Every module of the programs that are modules."""
    return (module for program in programs if isinstance(program, nn.Module) for module in program.modules())


def _pyro_param_names(program: PyroModule) -> set[str]:
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in program.named_modules()
        if isinstance(module, PyroModule)
        for name in module._pyro_params
    }


@contextmanager
def mode(*programs: Program, training: bool, frozen: bool = False) -> Iterator[dict[nn.Module, bool]]:
    """Put the programs' modules into training or evaluation mode, and back afterwards.

    For evaluation, the modules that a function uses, those of its flows too, and those that no program holds, are put
    there when they are called. For training they stay as the caller left them.

    Args:
        *programs: the programs.
        training: whether to put them into training mode.
        frozen: whether their parameters require no gradient inside.

    Yields:
        The modules met so far, and whether each was in training mode.
    """
    before: dict[nn.Module, bool] = {}
    with_gradient: list[nn.Parameter] = []

    def put(modules: Iterable[nn.Module]) -> None:
        for module in modules:
            if module not in before:
                before[module] = module.training
                module.training = training
                with_gradient.extend(p for p in module.parameters(recurse=False) if frozen and p.requires_grad)
        for parameter in with_gradient if frozen else ():
            parameter.requires_grad_(False)

    here = threading.get_ident()

    def when_called(module: nn.Module, _: object) -> None:
        if module not in before and threading.get_ident() == here:
            put(module.modules())

    put(modules_of(programs))
    looks = not training and not all(isinstance(program, ProgramModule) for program in programs)
    hook = register_module_forward_pre_hook(when_called) if looks else None
    try:
        with _Flows(put) if looks else nullcontext():
            yield before
    finally:
        if hook is not None:
            hook.remove()
        for module, was_training in before.items():
            module.training = was_training
        for parameter in with_gradient:
            parameter.requires_grad_(True)


class _Flows(Messenger):
    """Give the modules inside of each distribution to a function before a draw, since a flow is not called as one."""

    def __init__(self, put: Callable[[Iterable[nn.Module]], None]) -> None:
        super().__init__()
        self.put = put

    def _pyro_sample(self, msg: Site) -> None:
        self.put(modules_inside(msg["fn"]))


@contextmanager
def with_gradients() -> Iterator[None]:
    """Differentiate in any mode of the caller; an InputError if torch does not allow that."""
    if torch.is_inference_mode_enabled():
        raise InputError(
            "torch.inference_mode() allows no gradients, which are needed here; use torch.no_grad() instead"
        )
    with torch.enable_grad():
        yield


@contextmanager
def kept_parameter_store(*, after_error: bool = False) -> Iterator[None]:
    """Leave Pyro's parameter store as it is: what programs initialise inside is forgotten, or only after an error."""
    store = pyro.get_param_store()
    before, forgets = set(store.keys()), True  # get_state() would take from parameters what SVI needs of them
    try:
        yield
        forgets = not after_error
    finally:
        for name in set(store.keys()) - before if forgets else ():
            del store[name]


@contextmanager
def undisturbed(x: Tensor, *programs: Program) -> Iterator[None]:
    """Run programs in evaluation mode; the caller's random state and Pyro's parameter store do not change.

    Args:
        x: data on the programs' device.
        *programs: the programs that will run.
    """
    with kept_random_state(x), unregistered(), kept_parameter_store(), mode(*programs, training=False):
        yield


@contextmanager
def evaluating(model: Program, guide: Program, x: Tensor, seed: int) -> Iterator[None]:
    """Run programs as :func:`undisturbed` does, from a seed and without Pyro's validation."""
    with undisturbed(x, model, guide), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        yield
