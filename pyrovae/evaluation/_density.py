"""Densities of a model and a guide as functions of the latents, for grids and chains."""

from collections.abc import Callable
from dataclasses import dataclass

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputError
from pyrovae.evaluation._weights import check_density, check_rows_apart, log_joint_of, repeated, takes_rows
from pyrovae.evaluation.per_datum import NUM_DRAWS, AnyGuide, rows_of
from pyrovae.programs import (
    PairedSite,
    Program,
    describe,
    is_delta,
    log_prob_of,
    masks_of,
    pair_at,
    running_on,
    trace_pair,
    without_mask,
)
from pyrovae.vae import GenerativeModel


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
            transform = biject_to(fn.support)
            if transform.domain.event_dim != transform.codomain.event_dim:
                raise InputError(
                    f"site {site.name!r} ({describe(fn)}) has no unconstrained coordinates of its own shape; use "
                    "method='importance'"
                )
        self._check_supports(model, guide, x)
        check_rows_apart(model, guide, x, self.plate)
        self.widths = [self._flat(site, self._to_real(site.site)).shape[1] for site in self.free]
        self.as_rows = takes_rows(model, guide, x, self.plate)
        self._last: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def _check_supports(self, model: Program, guide: Program, x: Tensor) -> None:
        """Raise an InputError where the support of a draw depends on another draw."""
        again = {site.name: site for site in trace_pair(model, guide, x).drawn}
        for site in self.free:
            first, second = (biject_to(one.site["fn"].support) for one in (site, again[site.name]))
            real = self._to_real(site.site)
            if not torch.allclose(first(real), second(real), equal_nan=True):
                raise InputError(
                    f"the support of site {site.name!r} ({describe(site.site['fn'])}) depends on another draw, so its "
                    "coordinates do too; use method='importance', or draw a share of the support"
                )

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
        values: dict[str, Tensor] = {}
        stretch: Tensor | float = 0.0
        for site, part in zip(self.free, z.split(self.widths, -1), strict=True):
            real = self._unflat(site, part)
            transform = biject_to(site.site["fn"].support)
            values[site.name] = transform(real)
            slope = transform.log_abs_det_jacobian(real, values[site.name])
            stretch = stretch + self._flat(site, slope, event=False).sum(1).double().cpu()
        pair = pair_at(self.model, self.guide, values, x)
        joint = of_guide = torch.zeros(len(x), dtype=torch.float64)
        free = {site.name for site in self.free}
        for site in pair.sites:
            if site.model is not None:
                joint = joint + pair.per_datum(site, log_joint_of(site), self.plate)
            if site.guide is not None:
                term = pair.per_datum(site, site.log_q(), self.plate)
                if site.name in free:
                    of_guide = of_guide + term
                    if masks_of(site.guide):  # what is masked has q's density in both, so that it integrates to one
                        bare = {**site.guide, "fn": without_mask(site.guide["fn"])[0], "mask": None}
                        stretch = stretch + pair.per_datum(site, log_prob_of(bare), self.plate) - term
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
