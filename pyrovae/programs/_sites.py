"""The sites of a program, read from its trace, and those of a model beside its guide's."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Independent

Program = Callable[..., Any]
"""A Pyro model or guide: a function or a module."""
Pair = tuple[Program, Program]
"""A model and its guide."""
Site = dict[str, Any]
"""A node of one of Pyro's traces."""


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
