"""Weights of a pair of programs, datum by datum, and whether they make up log p(x)."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pyro.poutine as poutine
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import VonMises

from pyrovae.errors import InputError
from pyrovae.programs import (
    FAILURES,
    NUM_REPEATED,
    PairedSite,
    Program,
    Role,
    Site,
    TracedPair,
    are_close,
    describe,
    is_delta,
    log_prob_of,
    masks_of,
    pair_at,
    same_masks,
    trace_pair,
)
from pyrovae.randomness import random_state, set_random_state

_DRAWS_OF_PRIOR = 64


def repeated(x: Tensor, num: int) -> Tensor:
    """The data ``num`` times, one after the other: draws as rows."""
    return x.repeat(num, *[1] * (x.dim() - 1))


def log_weight_rows(model: Program, guide: Program, x: Tensor, num: int, plate: CondIndepStackFrame) -> Tensor:
    """Log p(x, z) − log q(z|x) of ``num`` draws for each datum in one call, shape (num, len(x)): draws are rows."""
    pair = trace_pair(model, guide, repeated(x, num))
    return _log_weight(pair, plate).reshape(num, len(x))


def _log_weight(pair: TracedPair, plate: CondIndepStackFrame, *, of_guide: bool = True) -> Tensor:
    total: Tensor | float = 0.0
    for site in pair.sites:
        if site.model is not None:
            total = total + pair.per_datum(site, log_joint_of(site), plate)
        if site.guide is not None and of_guide:
            total = total - pair.per_datum(site, site.log_q(), plate)
    assert isinstance(total, Tensor)
    return total


def log_joint_of(site: PairedSite) -> Tensor:
    """The log-density of a model's site; −∞ for a latent outside of its support, where some formulas are finite."""
    assert site.model is not None
    log_prob, fn = log_prob_of(site.model), site.model["fn"]
    if site.role is not Role.LATENT or is_delta(fn):
        return log_prob
    try:
        inside = fn.support.check(site.model["value"])
    except NotImplementedError:
        return log_prob
    return torch.where(inside, log_prob, -torch.inf)


@torch.no_grad()
def takes_some(model: Program, guide: Program, x: Tensor, select: Callable[[Tensor], Program]) -> bool:
    """Whether each datum has the same terms among other rows, in another order, and some of them twice.

    A program that uses the plate's index, or a statistic of the data, takes only all of the data at once.

    Args:
        model: the model's program.
        guide: the guide's program.
        x: data (num, …).
        select: from indices of rows to the guide of these.

    Raises:
        InputError: the plate that is taken for the data's does not become longer with them, or its terms are those of
            other rows of x.
    """
    if len(x) == 1 or isinstance(poutine.unwrap(guide), Messenger):
        return True
    pair = trace_pair(model, guide, x, check=True)
    plate = pair.data_plate(len(x))
    generator = torch.Generator().manual_seed(0)
    more = torch.randperm(len(x), generator=generator).repeat(2)[: len(x) + len(x) // 2].to(x.device)
    part, same = select(more), None
    with suppress(*FAILURES):  # for instance a plate or a table of all the data's size
        longer = trace_pair(model, part, x[more])
        _log_weight(longer, plate)
        same = longer.plates.get(plate.name)
    if same is not None and same.size == len(x) and same.full_size in (None, len(x)):
        raise InputError(
            f"plate {plate.name!r} has {len(x)} elements for {len(more)} data as for {len(x)}, so it is not the "
            "data's; put the data's sites into one `with pyro.plate('data', len(x))`, not into a loop"
        )
    try:
        given = {site.name: _rows_of_value(site, plate, more) for site in pair.drawn}
        other = pair_at(model, part, given, x[more])
        found = _log_weight(other, other.data_plate(len(more)))
        same_terms = are_close(found, _log_weight(pair, plate)[more.cpu()])
    except FAILURES:
        same_terms = False
    if not same_terms:
        _check_order(model, pair, x, plate)
    return same_terms


def _rows_of_value(site: PairedSite, plate: CondIndepStackFrame, rows: Tensor) -> Tensor:
    """What the guide draws at a site, for these rows of the data."""
    value, axis = site.site["value"], plate.dim - site.site["fn"].event_dim
    found: Tensor = value.index_select(axis, rows) if value.dim() >= -axis and value.shape[axis] > 1 else value
    return found


def _check_order(model: Program, pair: TracedPair, x: Tensor, plate: CondIndepStackFrame) -> None:
    """Raise an InputError where changing rows of x changes the model's terms of other rows, but not their own."""
    terms = _log_weight(pair, plate, of_guide=False)

    def terms_of(data: Tensor) -> Tensor:
        trace = poutine.trace(poutine.replay(model, trace=pair.guide)).get_trace(data)
        return _log_weight(TracedPair.of(trace, pair.guide), plate, of_guide=False)

    if not are_close(terms_of(x), terms):
        return  # random numbers outside of sample sites
    for changed in _parts_of(x):
        others = _with_rows_of_others(x, changed)
        try:
            moved = terms_of(others)
        except FAILURES:
            continue
        is_new = ~torch.isclose(others, x, rtol=0, atol=0, equal_nan=True).reshape(len(x), -1).all(1).cpu()
        has_moved = ~torch.isclose(moved, terms, rtol=1e-4, atol=1e-4, equal_nan=True)
        if (has_moved & ~is_new).any() and (is_new & ~has_moved).any():
            row = int((is_new & ~has_moved).nonzero()[0])
            raise InputError(
                f"the model's terms of datum {row} do not change with row {row} of x, but others do: it takes the data "
                "in another order, so it is not clear which term is whose; observe x as it is, without subsample="
            )


def _parts_of(x: Tensor) -> Iterator[Tensor]:
    """Parts of the data, booleans (num,): of any two data, each is once in a part without the other."""
    index = torch.arange(len(x), device=x.device)
    for bit in range((len(x) - 1).bit_length()):
        part = (index >> bit) % 2 == 1
        yield part
        yield ~part


@torch.no_grad()
def check_rows_apart(
    model: Program,
    guide: Program,
    x: Tensor,
    plate: CondIndepStackFrame,
    *,
    takes_some: bool = True,
    of_guide: bool = True,
) -> None:
    """Raise an InputError where a datum's terms change with the draws of other data: it then has no value of its own.

    Args:
        model: the model's program.
        guide: the guide's program.
        x: data (num, …).
        plate: the plate of the data.
        takes_some: whether the programs give a datum the same terms without the other data, see :func:`takes_some`. If
            not, other rows of x must not change its terms either.
        of_guide: whether these include log q(z|x).
    """
    first, second = (trace_pair(model, guide, x) for _ in range(2))
    given = {site.name: site.site["value"] for site in first.drawn}
    scored = True

    def terms_at(values: dict[str, Tensor], data: Tensor, of_guide: bool) -> Tensor:
        return _log_weight(pair_at(model, guide, values, data), plate, of_guide=of_guide)

    try:
        weights = terms_at(given, x, True)
    except InputError:  # a flow without an inverse has no density at given draws, which log p(x) needs
        if not of_guide:
            raise
        scored, weights = False, terms_at(given, x, False)
    before = random_state()
    again = [terms_at(given, x, scored) for _ in range(NUM_REPEATED)]
    alone = terms_at(given, x, of_guide and scored)
    set_random_state(before)
    if not all(are_close(terms, weights) for terms in again):
        raise InputError(
            "the terms of a datum change at the same latents: the model or the guide draws random numbers outside of "
            "its sample sites, as F.dropout(h) does without training=self.training, so there is no log p(x) or ELBO "
            "per datum; leave them out, or draw them by pyro.sample"
        )
    for changed in _parts_of(x):
        values, kept = {}, ~changed.cpu()
        for site, other in zip(first.drawn, second.drawn, strict=True):
            value, axis = site.site["value"], plate.dim - site.site["fn"].event_dim
            if value.dim() >= -axis:
                value = torch.where(changed.reshape(-1, *[1] * (-axis - 1)), other.site["value"], value)
            values[site.name] = value
        if not are_close(terms_at(values, x, scored)[kept], weights[kept]):
            raise InputError(
                "the terms of a datum change with the latents of other data (as with BatchNorm in training mode), so "
                "there is no log p(x) or ELBO per datum; let each row depend on its own z, and put modules into "
                "eval()"
            )
        if takes_some:
            continue
        try:
            moved = terms_at(given, _with_rows_of_others(x, changed), of_guide and scored)
        except FAILURES:
            continue
        if not are_close(moved[kept], alone[kept]):
            raise InputError(
                "the terms of a datum change with other rows of x, as with x - x.mean(0) or with swapped plates, so it "
                "has no value of its own; compute statistics of the data once, outside of the programs, and give the "
                "data's rows the plate 'data'"
            )


def _with_rows_of_others(x: Tensor, changed: Tensor) -> Tensor:
    """The data, some of whose rows are those before them."""
    return torch.where(changed.reshape(-1, *[1] * (x.dim() - 1)), x.roll(1, 0), x)


@torch.no_grad()
def takes_rows(model: Program, guide: Program, x: Tensor, plate: CondIndepStackFrame, num: int = 3) -> bool:
    """Whether programs give the same densities for the draws of a datum as rows of one call as one by one."""
    try:
        pair = trace_pair(model, guide, repeated(x, num))
        together = _log_weight(pair, plate).reshape(num, len(x))
        for k, weights in enumerate(together):
            rows = torch.arange(k * len(x), (k + 1) * len(x), device=x.device)
            values = {site.name: _rows_of_value(site, plate, rows) for site in pair.drawn}
            alone = _log_weight(pair_at(model, guide, values, x), plate)
            if not are_close(alone, weights):
                return False
    except FAILURES:  # for instance tensors of the programs' own, one row a datum
        return False
    return True


def check_scales(pair: TracedPair, *, is_density: bool = False) -> None:
    """Raise an InputError where a term of log p(x, z) or log q(z|x) is scaled otherwise than by a subsampled plate.

    An ELBO may be scaled by any; a density by that of the data alone, which leaves each datum's terms as they are.
    """
    data = pair.plate_of_data
    for name, node in _nodes(pair):
        scale = node["scale"]
        for frame in node["cond_indep_stack"]:
            if frame.vectorized and frame.full_size and (data is None or frame.name == data.name or not is_density):
                scale = scale * frame.size / frame.full_size
        if isinstance(scale, Tensor) or abs(scale - 1) > 1e-9:
            raise InputError(
                f"site {name!r} is scaled, by poutine.scale or by a subsampled plate that is not the data's, and a "
                "density has no scale; remove it, or use the estimator's beta"
            )


def check_density(pair: TracedPair) -> None:
    """Raise an InputError where the terms of a pair's bound do not make up log p(x, z) and log q(z|x).

    Observations may be masked alone, which leaves those data out of p(x|z).
    """
    check_scales(pair, is_density=True)
    pair.check_integrable()
    for site in pair.of_role(Role.LATENT):
        _check_reach(site)
    (first_name, first), *others = sorted(_nodes(pair), key=lambda node: bool(node[1]["is_observed"]))
    for name, node in others:
        if not (same_masks(masks_of(node), masks_of(first)) or (node["is_observed"] and not masks_of(first))):
            masked, other = (name, first_name) if masks_of(node) else (first_name, name)
            raise InputError(
                f"site {masked!r} has another mask in the guide than in the model, or than site {other!r}, so its "
                "terms do not make up log p(x); mask all sites of a datum alike, on both sides"
            )


def _check_reach(site: PairedSite) -> None:
    """Raise an InputError where the guide cannot draw what the model's distribution draws in 1 % of cases."""
    p, q = (node["fn"] for node in site.both())
    if is_delta(q):
        return
    if isinstance(_base(p), VonMises) and not isinstance(_base(q), VonMises):
        raise InputError(
            f"site {site.name!r} is an angle, a VonMises in the model, and the guide's {describe(q)} counts each angle "
            "several times; give the guide a VonMises"
        )
    before = random_state()
    try:
        inside = q.support.check(p.sample((_DRAWS_OF_PRIOR,)))
    except (NotImplementedError, RuntimeError):  # a distribution without draws, or without a known support
        return
    finally:
        set_random_state(before)
    if inside.double().mean() < 0.99:
        raise InputError(
            f"the guide's {describe(q)} at site {site.name!r} cannot draw all values of the model's {describe(p)}, so "
            "log p(x) would miss a part of the integral; give both the same support"
        )


def _base(fn: object) -> object:
    """The distribution inside of an Independent or of a mask."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    return fn


def _nodes(pair: TracedPair) -> list[tuple[str, Site]]:
    return [(site.name, node) for site in pair.sites for node in (site.model, site.guide) if node is not None]
