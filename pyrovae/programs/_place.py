"""Whether what programs compute of a datum belongs to its place in a batch, as in a guide with a row for each datum."""

import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.programs._pair import TracedPair
from pyrovae.programs._running import FAILURES, NUM_REPEATED, are_close
from pyrovae.programs._sites import Program, log_prob_of
from pyrovae.programs._tracing import pair_at, trace_pair


def of_place(model: Program, guide: Program, x: Tensor, parameters: list[tuple[str, Tensor]]) -> str | None:
    """What belongs to the places of a batch instead of its data, in words; None if nothing does.

    Each datum is looked at in two places. A statistic of the batch is the same in both.

    Args:
        model: the model's program.
        guide: the guide's program.
        x: a batch (num, …).
        parameters: names and leaf tensors of what will be trained.
    """
    if len(x) < 2 or isinstance(poutine.unwrap(guide), Messenger):
        return None
    try:
        first, second = (_touched(model, guide, data, [p for _, p in parameters]) for data in (x, x.roll(1, 0)))
        with torch.no_grad():
            pair = trace_pair(model, guide, x)
            given = {site.name: site.site["value"] for site in pair.drawn}
            rolled = {name: _rolled(pair, name, value, len(x)) for name, value in given.items()}
            moved = _terms(pair_at(model, guide, rolled, x.roll(1, 0)), len(x)).roll(-1, 0)
            by_place = not are_close(_terms(pair, len(x)), moved)
            if by_place:  # unless random numbers outside of sample sites move the terms anyway, as in dropout
                runs = [_terms(pair_at(model, guide, given, x), len(x)) for _ in range(NUM_REPEATED)]
                by_place = all(are_close(_terms(pair, len(x)), terms) for terms in runs)
    except FAILURES:  # no value per datum, or rows that do not go elsewhere
        return None
    for (name, parameter), places, moved_too in zip(parameters, first, second, strict=True):
        is_apart = all(touched.any() for touched in places) and torch.stack(places).sum(0).max() == 1
        if is_apart and all(torch.equal(*both) for both in zip(places, moved_too, strict=True)):
            return f"parameter {name!r} of shape {tuple(parameter.shape)}"
    return "what the programs compute of a datum" if by_place else None


def check_in_order(what: str | None, batch_size: int, num: int, has_validation: bool) -> None:
    """Raise an InputError if what belongs to places would meet data in other places."""
    if what is not None and batch_size < num:
        raise InputError(
            f"{what} belongs to its place in a batch, but batches take the data in another order each epoch; compute "
            "it from x, add what belongs to a datum to its row of x, or train with "
            f"batch_size={num}, which keeps the data's order"
        )
    if what is not None and has_validation:
        raise InputError(
            f"{what} belongs to its place in the data, so validation data have none of their own; compute it from x, "
            "or leave validation out"
        )


def _terms(pair: TracedPair, num: int) -> Tensor:
    """Log p(x, z) + log q(z|x) of each place of the batch, without sites that all data share, shape (num,)."""
    plate = pair.data_plate(num)
    total = torch.zeros(num, dtype=torch.float64)
    for site in pair.sites:
        if any(frame.name == plate.name for frame in site.site["cond_indep_stack"]):
            for node in (site.model, site.guide):
                total = total + (0 if node is None else pair.per_datum(site, log_prob_of(node), plate))
    return total


def _rolled(pair: TracedPair, name: str, value: Tensor, num: int) -> Tensor:
    """A draw whose rows are one place farther, as far as it has rows."""
    plate, fn = pair.data_plate(num), (pair.guide.nodes[name])["fn"]
    axis = plate.dim - fn.event_dim
    is_inside = any(frame.name == plate.name for frame in pair.guide.nodes[name]["cond_indep_stack"])
    return value.roll(1, axis) if is_inside and value.dim() >= -axis else value


def _touched(model: Program, guide: Program, x: Tensor, parameters: list[Tensor]) -> list[list[Tensor]]:
    """Of each parameter the numbers that the terms of the first, the second and the last place depend on, booleans."""
    with torch.enable_grad():
        terms = _terms(trace_pair(model, guide, x), len(x))
        places = sorted({0, 1, len(x) - 1})
        gradients = [torch.autograd.grad(terms[k], parameters, retain_graph=True, allow_unused=True) for k in places]
    return [
        [torch.zeros_like(p, dtype=torch.bool) if g is None else g != 0 for g in of_parameter]
        for p, *of_parameter in zip(parameters, *gradients, strict=True)
    ]
