"""Densities of a model and a guide as functions of the latents, for grids and chains."""

from collections.abc import Callable
from dataclasses import dataclass

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputError
from pyrovae.evaluation.per_datum import NUM_DRAWS, AnyGuide, rows_of
from pyrovae.programs import (
    PairedSite,
    Program,
    Role,
    Site,
    TracedPair,
    describe,
    is_delta,
    log_prob_of,
    masks_of,
    running_on,
    same_masks,
    trace_pair,
)
from pyrovae.randomness import random_state, set_random_state
from pyrovae.vae import GenerativeModel

_DRAWS_OF_PRIOR = 64


@dataclass(frozen=True)
class Density:
    """Log p(x, z) and log q(z|x) of some data as functions of z (draws, num, d), of shape (draws, num).

    For programs written by hand, z are the guide's unconstrained coordinates, one site after the other. Both densities
    include the derivative of the constraining map.

    Attributes:
        dim: dimension d.
        num: number of data.
        log_joint: log p(x, z).
        log_guide: log q(z|x).
        draw: from a number of draws to draws of q(z|x), (draws, num, d).
        moments: mean (num, d) and covariance (num, d, d) of q(z|x), where they are known.
    """

    dim: int
    num: int
    log_joint: Callable[[Tensor], Tensor]
    log_guide: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]
    moments: Callable[[], tuple[Tensor, Tensor]] | None = None


def density_of(model: Program, guide: Program, x: Tensor, rows: slice, max_rows: int) -> Density:
    """The densities of some of the data.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        x: data (num, …).
        rows: which of the data.
        max_rows: draws × data in one pass at most.

    Raises:
        InputError: a latent that is discrete, outside of the data's plate, or scaled.
    """
    guide, x = rows_of(guide, rows, x), x[rows]
    if not isinstance(model, GenerativeModel) or not isinstance(guide, AnyGuide):
        return _Programs(model, guide, x, max_rows).density()
    prior = model.prior_distribution()
    with running_on(x):
        q = guide.posterior(x)
    if q.event_shape != prior.event_shape:
        raise InputError(
            f"site 'z' has the event shape {tuple(prior.event_shape)} in the model and {tuple(q.event_shape)} in the "
            "guide; give both one latent dimension"
        )
    return Density(
        dim=model.latent_dim,
        num=len(x),
        log_joint=lambda z: prior.log_prob(z) + model.conditional(z).log_prob(x),
        log_guide=q.log_prob,
        draw=lambda num: q.sample(torch.Size([num])).to(x),
        moments=lambda: (mean_of(q, num_draws=NUM_DRAWS), covariance_of(q, num_draws=NUM_DRAWS)),
    )


def latents_of(model: Program, guide: Program, x: Tensor, trace: Trace) -> Tensor:
    """The latents of a trace of the model in the coordinates of its guide, shape (num, d)."""
    return _Programs(model, guide, x, len(x)).coordinates(trace)


def moments_of_guide(density: Density) -> tuple[Tensor, Tensor]:
    """Mean (num, d) and covariance (num, d, d) of q(z|x), from draws where they have no formula."""
    if density.moments is not None:
        return density.moments()
    draws = density.draw(NUM_DRAWS)
    spread = draws - draws.mean(0)
    return draws.mean(0), torch.einsum("snd,sne->nde", spread, spread) / (NUM_DRAWS - 1)


class _Programs:
    """A model and a guide at given values of the latents that the guide draws freely.

    Many draws are rows of one call, draws × data, if the programs then give the same numbers; otherwise draw by draw.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, max_rows: int) -> None:
        self.model, self.guide, self.x, self.max_rows = model, guide, x, max_rows
        if isinstance(poutine.unwrap(guide), Messenger):
            raise InputError(
                "a guide that is a messenger around the model has a density only at its own draws; use "
                "method='importance'"
            )
        with running_on(x):
            pair = trace_pair(model, guide, x, check=True)
        self.plate = pair.data_plate(len(x))
        self.free = [site for site in pair.drawn if not is_delta(site.site["fn"])]
        check_density(pair)
        if not self.free:
            raise InputError("the guide draws nothing, so there is no integral over z; use method='importance'")
        for site in self.free:
            fn = site.site["fn"]
            if not fn.has_rsample or fn.support.is_discrete:
                raise InputError(
                    f"site {site.name!r} is discrete or not reparameterised ({describe(fn)}), so log p(x) is no "
                    "integral over it; use method='importance', or sum it out in the model"
                )
            pair.per_datum(site, log_prob_of(site.site), self.plate)  # it is inside the data's plate
        check_rows_apart(model, guide, x, self.plate)
        self.widths = [self._flat(site, self._to_real(site.site)).shape[1] for site in self.free]
        self.as_rows = takes_rows(model, guide, x, self.plate)
        self._last: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def density(self) -> Density:
        return Density(
            dim=sum(self.widths),
            num=len(self.x),
            log_joint=lambda z: self._evaluate(z)[0],
            log_guide=lambda z: self._evaluate(z)[1],
            draw=self._draw,
        )

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(x, z) and log q(z|x), each of shape (draws, num)."""
        if self._last is not None and self._last[0] is z:
            return self._last[1]
        num = len(self.x)
        if self.as_rows:
            parts = z.split(max(1, self.max_rows // num))
            values = [self._at(repeated(self.x, len(part)), part.reshape(-1, z.shape[-1])) for part in parts]
        else:
            values = [self._at(self.x, draw) for draw in z]
        joint, of_guide = (torch.cat([v[k] for v in values]).reshape(len(z), num) for k in range(2))
        self._last = z, (joint, of_guide)
        return joint, of_guide

    def _at(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(x, z) and log q(z|x) of rows (num, d), each of shape (num,)."""
        given = Trace()
        stretch: Tensor | float = 0.0
        for site, part in zip(self.free, z.split(self.widths, -1), strict=True):
            real = self._unflat(site, part)
            transform = biject_to(site.site["fn"].support)
            value = transform(real)
            slope = transform.log_abs_det_jacobian(real, value)
            stretch = stretch + self._flat(site, slope, event=False).sum(1)
            given.add_node(site.name, type="sample", name=site.name, is_observed=False, value=value, infer={})
        guide_trace = poutine.trace(poutine.replay(self.guide, trace=given)).get_trace(x)
        model_trace = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(x)
        pair = TracedPair.of(model_trace, guide_trace)
        joint = of_guide = torch.zeros(len(x), dtype=torch.float64)
        free = {site.name for site in self.free}
        for site in pair.sites:
            if site.model is not None:
                joint = joint + pair.per_datum(site, log_prob_of(site.model), self.plate)
            if site.guide is not None:
                term = pair.per_datum(site, site.log_q(), self.plate)
                if site.name in free:
                    of_guide = of_guide + term
                else:  # a point, or a factor: the derivative of a map that the guide itself applies
                    joint = joint - term
        return (joint + stretch).to(z), (of_guide + stretch).to(z)

    def _draw(self, num: int) -> Tensor:
        if not self.as_rows:
            return self._draw_one_by_one(num)
        parts = []
        for start in range(0, num, at_once := max(1, self.max_rows // len(self.x))):
            repeats = min(at_once, num - start)
            rows = self.coordinates(poutine.trace(self.guide).get_trace(repeated(self.x, repeats)))
            parts.append(rows.reshape(repeats, len(self.x), -1))
        return torch.cat(parts)

    def _draw_one_by_one(self, num: int) -> Tensor:
        return torch.stack([self.coordinates(poutine.trace(self.guide).get_trace(self.x)) for _ in range(num)])

    def coordinates(self, trace: Trace) -> Tensor:
        """The free draws of a trace of either program as rows (num, d)."""
        if missing := [site.name for site in self.free if site.name not in trace]:
            raise InputError(f"the guide draws {missing[0]!r}, which is not a latent of the model itself")
        nodes = ({**site.site, "value": trace.nodes[site.name]["value"]} for site in self.free)
        return torch.cat([self._flat(s, self._to_real(node)) for s, node in zip(self.free, nodes, strict=True)], -1)

    @staticmethod
    def _to_real(node: dict[str, object]) -> Tensor:
        real: Tensor = biject_to(node["fn"].support).inv(node["value"])  # type: ignore[attr-defined]
        return real.detach()

    def _flat(self, site: PairedSite, values: Tensor, event: bool = True) -> Tensor:
        """Values of a site as rows (num, …), the data's axis first."""
        event_dim = site.site["fn"].event_dim if event else 0
        assert self.plate.dim is not None
        values = values.movedim(self.plate.dim - event_dim, 0)
        return values.reshape(len(values), -1)

    def _unflat(self, site: PairedSite, rows: Tensor) -> Tensor:
        real = self._to_real(site.site)
        assert self.plate.dim is not None
        axis = self.plate.dim - site.site["fn"].event_dim
        shape = real.movedim(axis, 0).shape[1:]
        return rows.reshape(len(rows), *shape).movedim(0, axis)


def repeated(x: Tensor, num: int) -> Tensor:
    """The data ``num`` times, one after the other: draws as rows."""
    return x.repeat(num, *[1] * (x.dim() - 1))


def log_weight_rows(model: Program, guide: Program, x: Tensor, num: int, plate: CondIndepStackFrame) -> Tensor:
    """Log p(x, z) − log q(z|x) of ``num`` draws for each datum in one call, shape (num, len(x)): draws are rows."""
    pair = trace_pair(model, guide, repeated(x, num))
    return _log_weight(pair, plate).reshape(num, len(x))


def _log_weight(pair: TracedPair, plate: CondIndepStackFrame) -> Tensor:
    total: Tensor | float = 0.0
    for site in pair.sites:
        if site.model is not None:
            total = total + pair.per_datum(site, log_prob_of(site.model), plate)
        if site.guide is not None:
            total = total - pair.per_datum(site, site.log_q(), plate)
    assert isinstance(total, Tensor)
    return total


@torch.no_grad()
def check_rows_apart(model: Program, guide: Program, x: Tensor, plate: CondIndepStackFrame) -> None:
    """Raise an InputError where a datum's terms change with the draws of other data: it then has no log p(x)."""
    first, second = (trace_pair(model, guide, x) for _ in range(2))
    weights = _log_weight(first, plate)
    for parity in range(min(2, len(x))):
        changed = torch.arange(len(x), device=x.device) % 2 == parity
        given = Trace()
        for site, other in zip(first.drawn, second.drawn, strict=True):
            value, axis = site.site["value"], plate.dim - site.site["fn"].event_dim
            if value.dim() >= -axis:
                value = torch.where(changed.reshape(-1, *[1] * (-axis - 1)), other.site["value"], value)
            given.add_node(site.name, type="sample", name=site.name, is_observed=False, value=value, infer={})
        guide_trace = poutine.trace(poutine.replay(guide, trace=given)).get_trace(x)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
        found, kept = _log_weight(TracedPair.of(model_trace, guide_trace), plate), ~changed.cpu()
        if not torch.allclose(found[kept], weights[kept], rtol=1e-4, atol=1e-4, equal_nan=True):
            raise InputError(
                "the terms of a datum change with the latents of other data (as with BatchNorm in training mode), so "
                "there is no log p(x) per datum; let each row depend on its own z, and put modules into eval()"
            )


@torch.no_grad()
def takes_rows(model: Program, guide: Program, x: Tensor, plate: CondIndepStackFrame, num: int = 3) -> bool:
    """Whether programs give the same densities for the draws of a datum as rows of one call as one by one."""
    try:
        pair = trace_pair(model, guide, repeated(x, num))
        together = _log_weight(pair, plate).reshape(num, len(x))
    except (RuntimeError, ValueError, IndexError):  # for instance tensors of the programs' own, one row a datum
        return False
    for k, weights in enumerate(together):
        given = Trace()
        for site in pair.drawn:
            value, axis = site.site["value"], plate.dim - site.site["fn"].event_dim
            rows = value.narrow(axis, k * len(x), len(x)) if value.dim() >= -axis else value
            given.add_node(site.name, type="sample", name=site.name, is_observed=False, value=rows, infer={})
        guide_trace = poutine.trace(poutine.replay(guide, trace=given)).get_trace(x)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
        alone = _log_weight(TracedPair.of(model_trace, guide_trace), plate)
        if not torch.allclose(alone, weights, rtol=1e-4, atol=1e-4, equal_nan=True):
            return False
    return True


def check_scales(pair: TracedPair) -> None:
    """Raise an InputError where a term of log p(x, z) or log q(z|x) is scaled otherwise than by a subsampled plate."""
    for name, node in _nodes(pair):
        scale = node["scale"]
        for frame in node["cond_indep_stack"]:
            if frame.vectorized and frame.full_size:
                scale = scale * frame.size / frame.full_size
        if isinstance(scale, Tensor) or abs(scale - 1) > 1e-9:
            raise InputError(
                f"site {name!r} is scaled, by poutine.scale for instance, and a density has no scale; remove it, or "
                "use the estimator's beta"
            )


def check_density(pair: TracedPair) -> None:
    """Raise an InputError where the terms of a pair's bound do not make up log p(x, z) and log q(z|x).

    Observations may be masked alone, which leaves those data out of p(x|z).
    """
    check_scales(pair)
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


def _nodes(pair: TracedPair) -> list[tuple[str, Site]]:
    return [(site.name, node) for site in pair.sites for node in (site.model, site.guide) if node is not None]
