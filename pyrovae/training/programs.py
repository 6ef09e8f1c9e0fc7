"""A pair of Pyro programs as an optimiser sees it: tensors to train, in a parameter store of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.registration import mode

Program = Callable[..., Any]
Pair = tuple[Program, Program]
"""A model and its guide."""

_MODULE_DIVIDER = "$$$"  # Pyro's mark of parameters that belong to a module


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
        ValueError: there are none, or Pyro would tie a ``PyroParam`` of the model to one of the guide.
    """
    if isinstance(model, PyroModule) and isinstance(guide, PyroModule) and model._pyro_name == guide._pyro_name:
        shared = _pyro_param_names(model) & _pyro_param_names(guide)
        if shared:
            raise ValueError(
                f"model and guide both have a PyroParam {min(shared)!r}, which Pyro takes for one and the same; "
                "give one of them a name with super().__init__(name=…)"
            )
    with poutine.trace(param_only=True) as capture:
        probe()
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    candidates = [p for module in modules for p in module.parameters()] + announced_parameters(capture.trace)
    parameters = list({id(p): p for p in candidates if p.requires_grad}.values())
    if not parameters:
        raise ValueError("neither the model nor the guide has parameters to train")
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


class NonFiniteLossError(FloatingPointError):
    """The loss, or a parameter after an epoch, became NaN or infinite."""


class CannotVectorizeError(RuntimeError):
    """Several pairs of programs cannot run as one; says why."""


class NonFiniteStepError(FloatingPointError):
    """The loss of a step, counted from 1, is not finite; says which site is to blame."""

    def __init__(self, value: float, site: str, step: int) -> None:
        super().__init__(f"the loss is {value} at step {step}: not finite is {site}")
        self.value, self.site, self.step = value, site, step


@torch.no_grad()
def find_nonfinite(model: Program, guide: Program, x: Tensor, parameters: list[Tensor]) -> str:
    """Say what holds the first value that is not finite: a parameter, or a sample site's value or log-density."""
    if not all(parameter.isfinite().all() for parameter in parameters):
        return "a parameter already, after a gradient of the step before that was not"
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    for where, trace in (("guide", guide_trace), ("model", model_trace)):
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
                continue
            if not site["is_observed"] and not torch.isfinite(site["value"]).all():
                return f"the {where}'s sample at site {name!r} ({type(site['fn']).__name__})"
            if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                return f"the {where}'s log-density at site {name!r} ({type(site['fn']).__name__})"
    return "no single site's value or log-density (a divergence between sites, then)"


@torch.no_grad()
def evaluate_loss(
    model: Program, guide: Program, x: Tensor, elbo: ELBO, seed: int = 0, chunk_size: int = 4096
) -> float:
    """Mean −ELBO estimate over the data, nats per datum, with noise fixed by the seed."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), mode(model, guide, training=False):
        torch.manual_seed(seed)
        return sum(elbo.differentiable_loss(model, guide, chunk).item() for chunk in x.split(chunk_size)) / len(x)


def modules_of(pair: Pair) -> Iterator[nn.Module]:
    """Every module of programs that are such."""
    for program in pair:
        if isinstance(program, nn.Module):
            yield from program.modules()
