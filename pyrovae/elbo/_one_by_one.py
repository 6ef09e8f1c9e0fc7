"""Whether draws in one pass have the terms that they have one by one."""

from collections.abc import Mapping
from contextlib import suppress
from weakref import WeakKeyDictionary, ref

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.programs import (
    FAILURES,
    PARTICLES,
    Pair,
    PairedSite,
    Program,
    TracedPair,
    log_prob_of,
    pair_at,
    undisturbed,
)

_checked: WeakKeyDictionary[Program, tuple[ref[Program], int]] = WeakKeyDictionary()
"""The guide and the number of draws that a model was checked with last."""


def check_as_one_by_one(
    pair: TracedPair, programs: Pair, in_one_pass: Pair, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
    """Raise an InputError where the programs' terms are others than for the same draws one by one.

    A program that counts its axes from the front takes the draws, or the data, for features. Programs are looked at
    once, in evaluation mode, at the first and the last draw. Terms that are random by themselves are not compared.

    Args:
        pair: the pair at all draws.
        programs: the model and the guide.
        in_one_pass: the same with the plate of draws around them.
        args: their arguments.
        kwargs: their keywords.
    """
    model, guide = programs
    frames = [f for site in pair.drawn for f in site.site["cond_indep_stack"] if f.name == PARTICLES]
    if not frames or isinstance(poutine.unwrap(guide), Messenger):
        return
    num, axis = frames[0].size, frames[0].dim
    if _was_checked(model, guide, num):
        return
    x = next((value for value in args if isinstance(value, Tensor)), torch.zeros(()))
    with torch.no_grad(), undisturbed(x, *programs), poutine.block(), pyro.validation_enabled(False):
        values = {site.name: site.site["value"] for site in pair.drawn}
        others = []
        with suppress(*FAILURES):  # programs for this number of draws alone, or a flow without an inverse
            together, again = (pair_at(in_one_pass[0], in_one_pass[1], values, *args, **kwargs) for _ in range(2))
            for draw in (0, num - 1):
                drawn = {site.name: _value_at(site, draw, axis) for site in pair.drawn}
                alone = pair_at(model, guide, drawn, *args, **kwargs)
                for site, same, single in zip(together.sites, again.sites, alone.sites, strict=True):
                    total = _total(site, draw, axis)
                    if _near(total, _total(same, draw, axis)) and not _near(total, _total(single)):
                        others.append(site.name)
    if others:
        raise InputError(
            f"site {others[0]!r} has other terms for {num} draws in one pass than one by one, as where axes are "
            "counted from the front; write softmax(-1) for softmax(1) and z[..., 0] for z[:, 0], or use "
            "vectorize_particles=False"
        )
    with suppress(TypeError):  # a program without weak references
        _checked[model] = ref(guide), num


def _was_checked(model: Program, guide: Program, num: int) -> bool:
    try:
        known, of_draws = _checked[model]
    except (KeyError, TypeError):
        return False
    return known() is guide and of_draws == num


def _value_at(site: PairedSite, draw: int, axis: int) -> Tensor:
    """What the guide drew at a site, as it is without the axis of draws."""
    node = site.site
    value, event_dim = node["value"], node["fn"].event_dim
    value = _at(value, draw, axis - event_dim)
    depth = max((-f.dim for f in node["cond_indep_stack"] if f.vectorized and f.name != PARTICLES), default=0)
    while value.dim() > depth + event_dim and value.shape[0] == 1:
        value = value[0]
    return value


def _total(site: PairedSite, draw: int = 0, axis: int | None = None) -> Tensor:
    """Log p − log q of a site at a draw, summed over the data."""
    terms = [sign * log_prob_of(node) for sign, node in ((1, site.model), (-1, site.guide)) if node is not None]
    return torch.stack([(term if axis is None else _at(term, draw, axis)).double().sum() for term in terms]).sum()


def _at(value: Tensor, draw: int, axis: int) -> Tensor:
    return value.select(axis, min(draw, value.shape[axis] - 1)) if value.dim() >= -axis else value


def _near(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True))
