"""What a Pyro program is to the library: its sites, its parameters and modes, and every check of a program.

A program is a function or a module with Pyro's ``sample`` statements; a model and its guide form a pair. Whatever
trains, scores or evaluates a pair asks this module what its sites are and whether they are right.

Pyro's parameter store returns the *first* tensor that it saw under a name: a second VAE with the same parameter names
would train nothing, without a word. So every module program carries a name of its own.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import Independent

from pyrovae.errors import InputError, InputTypeError, out_of_memory
from pyrovae.nn import ConfigurableModule

if TYPE_CHECKING:
    import numpy as np

Program = Callable[..., Any]
"""A Pyro model or guide: a function or a module."""
Pair = tuple[Program, Program]
"""A model and its guide."""
Site = dict[str, Any]
"""A node of one of Pyro's traces."""

_MODULE_DIVIDER = "$$$"  # Pyro's mark of parameters that belong to a module
_counter = itertools.count()
_active: ContextVar[bool] = ContextVar("registration_active", default=True)


def trace_pair(model: Program, guide: Program, *args: object) -> tuple[Trace, Trace]:
    """The traces of a model and of its guide; the model runs at the guide's draws.

    Sites that choose a subsample are left out.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)


def paired_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Site, Site | None]]:
    """Each sample site of the model in order: its name, the site, and the guide's site.

    The guide's is None for an observed site, and for a latent site that the guide lacks.
    """
    for name, site in model_trace.nodes.items():
        if site["type"] == "sample":
            yield name, site, None if site["is_observed"] else guide_trace.nodes.get(name)


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The latent sample sites of a trace by name, without those that choose a subsample."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and type(site["fn"]).__name__ != "_Subsample"
    }


def is_deterministic(site: Site) -> bool:
    """Whether ``pyro.deterministic`` made the site, which then has no density."""
    return bool((site.get("infer") or {}).get("_deterministic"))


def without_deterministic(trace: Trace) -> Trace:
    """The trace without the sites that ``pyro.deterministic`` made."""
    trace = trace.copy()
    for name, site in list(trace.nodes.items()):
        if site["type"] == "sample" and is_deterministic(site):
            trace.remove_node(name)
    return trace


def same_scale(left: object, right: object) -> bool:
    """Whether two scales or masks (numbers, tensors or None) are equal."""
    if left is right:
        return True
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        # a comparison of values waits for the device: only where Pyro validates
        return not is_validation_enabled() or torch.equal(left, right)
    return not isinstance(left, Tensor) and not isinstance(right, Tensor) and left == right


def describe(distribution: object) -> str:
    """Name of a distribution: its class; for an Independent that of the distribution inside."""
    base = getattr(distribution, "base_dist", None)
    name = getattr(distribution, "name", type(distribution).__name__)
    if isinstance(distribution, Independent):
        return describe(base)
    return name if base is None else f"{name}({describe(base)})"


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


def check_not_tied(model: Program, guide: Program) -> None:
    """Raise an InputError where Pyro would tie a ``PyroParam`` of the model to one of the guide."""
    if isinstance(model, PyroModule) and isinstance(guide, PyroModule) and model._pyro_name == guide._pyro_name:
        shared = _pyro_param_names(model) & _pyro_param_names(guide)
        if shared:
            raise InputError(
                f"model and guide both have a PyroParam {min(shared)!r}, which Pyro takes for one and the same; "
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
def mode(*programs: Program, training: bool) -> Iterator[None]:
    """Put module programs into training or evaluation mode, and back afterwards."""
    modules = list(modules_of(programs))
    before = [m.training for m in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, was_training in zip(modules, before, strict=True):
            module.training = was_training


@contextmanager
def undisturbed(x: Tensor, *programs: Program) -> Iterator[None]:
    """Run programs in evaluation mode; the caller's random state and Pyro's parameter store stay as they are.

    Args:
        x: data on the programs' device.
        *programs: the programs that will run.
    """
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        unregistered(),
        mode(*programs, training=False),
    ):
        yield


@contextmanager
def evaluating(model: Program, guide: Program, x: Tensor, seed: int) -> Iterator[None]:
    """Run programs as :func:`undisturbed` does, from a seed and without Pyro's validation."""
    with undisturbed(x, model, guide), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        yield


def cannot_run(x: Tensor, error: Exception) -> InputError:
    """The error to raise where programs fail on data."""
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


def check_guide(guide_trace: Trace) -> None:
    """Raise an InputError where the guide conditions on data, as a model in its place does."""
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample" and site["is_observed"]:
            if isinstance(site["fn"], Unit) or is_deterministic(site):
                continue  # pyro.factor and pyro.deterministic
            raise InputError(f"the guide observes site {name!r}: are the model and the guide swapped?")


def check_same_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise an InputError where a latent site is in the model or in the guide alone."""
    if set(model_trace.stochastic_nodes) != set(guide_trace.stochastic_nodes):
        raise InputError(
            f"the model's latent sites {sorted(model_trace.stochastic_nodes)} are not the guide's "
            f"{sorted(guide_trace.stochastic_nodes)}"
        )


def check_data(x: object, model: Program, guide: Program) -> None:
    """Raise unless x is a tensor (num, …) of at least one datum, and the model can score all of it."""
    if not isinstance(x, Tensor):
        raise InputTypeError(f"x must be a tensor of the programs' dtype and device, not {type(x).__name__}")
    _check_not_empty("x", x)
    check_values("x", x, model, guide)
    check_support("x", x, model)


def as_data(
    name: str, data: "Tensor | np.ndarray", model: Program, guide: Program, device: str | torch.device | None
) -> Tensor:
    """The data as one tensor of the parameters' dtype and device, its values checked."""
    x = torch.as_tensor(data)
    _check_not_empty(name, x)
    if x.is_complex():
        raise InputError(f"{name} is complex; give real numbers")
    parameters = (p for module in modules_of((model, guide)) for p in module.parameters(recurse=False))
    like = next((p for p in parameters if p.is_floating_point()), None)
    x = x.to(
        device=device if device is not None or like is None else like.device,
        dtype=like.dtype if like is not None else None if x.is_floating_point() else torch.get_default_dtype(),
    ).contiguous()
    check_values(name, x, model, guide)
    return x


def check_values(name: str, x: Tensor, model: Program, guide: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which is not finite.

    NaN is allowed where the model takes missing values and the guide draws finite z for them.
    """
    takes_missing = bool(getattr(model, "missing", False))
    valid = x.isfinite() | x.isnan() if takes_missing else x.isfinite()
    if not valid.all():
        row, column = (~valid.reshape(len(x), -1)).nonzero()[0].tolist()
        advice = "remove them" if takes_missing else "remove or impute them"
        if hasattr(model, "missing") and not takes_missing:
            advice += ", or make the model with missing=True, to which NaN is a value not observed"
        raise InputError(
            f"{name} holds {int((~valid).sum())} NaN or infinite values, the first at row {row}, column {column} "
            f"(counted from 0); {advice}"
        )
    incomplete = x.isnan().reshape(len(x), -1).any(1)
    if incomplete.any():
        _check_guide_takes_missing(name, x, guide, int(incomplete.nonzero()[0]))


def check_support(name: str, x: Tensor, model: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which p(x|z) cannot score, where the model knows."""
    if hasattr(model, "check_support"):
        model.check_support(name, x)


def check_programs(
    model: Program, guide: Program, x: Tensor, x_validation: Tensor | None, batch_size: int, elbo: ELBO
) -> list[Tensor]:
    """Run the programs with Pyro's validation before anything is trained; return the parameters to train."""

    def run(batch: Tensor) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            elbo.differentiable_loss(model, guide, batch)

    check_not_tied(model, guide)
    with pyro.validation_enabled(True), mode(model, guide, training=False):
        with running_on(x[:batch_size]), poutine.trace(param_only=True) as announced:
            run(x[:batch_size])
        parameters = trainable_parameters(model, guide, announced.trace)
        if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
            for data in (x, x_validation) if x_validation is not None else (x,):
                for batch in data.split(4096):  # every datum must lie in the likelihood's support
                    with running_on(batch):
                        run(batch)
    return parameters


def _check_not_empty(name: str, x: Tensor) -> None:
    if x.dim() < 1 or len(x) == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")


def _check_guide_takes_missing(name: str, x: Tensor, guide: Program, row: int) -> None:
    # a guide with parameters for each datum is asked with those of this datum
    guide = guide.select(slice(row, row + 1)) if hasattr(guide, "select") else guide
    with torch.no_grad(), undisturbed(x, guide), pyro.validation_enabled(False):
        trace = poutine.trace(guide).get_trace(x[row : row + 1])
    if not all(site["value"].isfinite().all() for site in trace.nodes.values() if site["type"] == "sample"):
        raise InputError(
            f"{name} has missing values at row {row} (counted from 0), for which the guide draws no finite z; put "
            "pv.nn.ImputeMissing around its encoder"
        )
