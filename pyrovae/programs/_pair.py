"""The description of a pair of programs, made from the traces of its model and its guide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pyro.distributions import Unit
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.errors import InputError
from pyrovae.programs._site_checks import NO_SIZE, check_counted_once, check_in_support, check_width
from pyrovae.programs._sites import PairedSite, Role, Site, check_flow, describe, is_delta, latent_sites, pruned

DATA_PLATE = "data"
"""Name of the plate of the data, wherever it is."""

PARTICLES = "num_particles_vectorized"
"""Pyro's name of the plate of particles that are drawn in one pass."""

_PER_DATUM = "use a guide with a distribution for each datum, such as AutoNormal(model) or pv.AmortizedGuide"


@dataclass(frozen=True)
class TracedPair:
    """The description of a pair at one draw of its guide; unpacks into the model's and the guide's trace.

    Attributes:
        model: the model's trace, without the plates' choices of rows.
        guide: the guide's trace.
        sites: the sites, the model's in its order before those of the guide alone.
    """

    model: Trace
    guide: Trace
    sites: tuple[PairedSite, ...]

    @classmethod
    def of(cls, model_trace: Trace, guide_trace: Trace) -> TracedPair:
        """Describe a pair by its traces, the model's at the guide's draws."""
        model_trace, guide_trace = pruned(model_trace), pruned(guide_trace)
        latents = latent_sites(guide_trace)
        place = {name: k for k, name in enumerate(latents)}
        before: list[str] = []
        sites = []
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                sites.append(PairedSite(name, Role.OBSERVED, site, None))
            elif name in latents:
                later = tuple(other for other in before if place[other] > place[name])
                sites.append(PairedSite(name, Role.LATENT, site, latents[name], later))
                before.append(name)
            else:
                sites.append(PairedSite(name, Role.MISSING, site, None))
        paired = set(before)
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and name not in paired:
                role = Role.FACTOR if site["is_observed"] else Role.AUXILIARY
                sites.append(PairedSite(name, role, None, site))
        return cls(model_trace, guide_trace, tuple(sites))

    def __iter__(self) -> Iterator[Trace]:
        return iter((self.model, self.guide))

    def of_role(self, *roles: Role) -> list[PairedSite]:
        """The sites of some roles, in order."""
        return [site for site in self.sites if site.role in roles]

    @property
    def drawn(self) -> list[PairedSite]:
        """The sites that the guide draws."""
        return self.of_role(Role.LATENT, Role.AUXILIARY)

    @property
    def depth(self) -> int:
        """Nesting depth of the programs' plates, without a plate of particles."""
        return -min((frame.dim for frame in self.plates.values()), default=0)

    @property
    def plates(self) -> dict[str, CondIndepStackFrame]:
        """The plates by name, without those that are loops and without a plate of particles."""
        frames = (frame for site in self.sites for frame in site.site["cond_indep_stack"])
        return {frame.name: frame for frame in frames if frame.vectorized and frame.name != PARTICLES}

    @property
    def plate_of_data(self) -> CondIndepStackFrame | None:
        """The plate called ``"data"``, or the innermost."""
        plates = self.plates
        return plates.get(DATA_PLATE) or max(plates.values(), key=lambda frame: frame.dim, default=None)

    def check(self, enumerates: bool = False) -> None:
        """Raise an error unless the pair gives a bound.

        Args:
            enumerates: whether latents that the guide lacks are summed out where the model marks them for that.

        Raises:
            InputError: the guide observes data or lacks a latent of the model, or a log-density is wider than the
                plates around it.
        """
        for site in self.sites:
            if site.role is Role.FACTOR and not _is_factor(site.site):
                raise InputError(f"the guide observes site {site.name!r}; are the model and the guide swapped?")
            if site.role is Role.MISSING and not (enumerates and (site.site["infer"] or {}).get("enumerate")):
                self.check_same_latents()
                raise InputError(_missing(site.name, site.site))
            if site.guide is not None:
                check_flow(site.guide)
            for node in (site.model, site.guide):
                if node is not None:
                    check_width(site.name, node)

    def check_same_latents(self) -> None:
        """Raise an InputError if the guide draws a latent that the model lacks, or in a plate of another size."""
        for site in self.of_role(Role.LATENT):
            stacks = (node["cond_indep_stack"] for node in site.both())
            sizes, others = ({f.name: f.full_size or f.size for f in stack if f.vectorized} for stack in stacks)
            for name in sizes.keys() & others.keys():
                if sizes[name] != others[name] and NO_SIZE not in (sizes[name], others[name]):
                    raise InputError(
                        f"plate {name!r} of site {site.name!r} stands for {sizes[name]} data in the model and for "
                        f"{others[name]} in the guide; give both one size, and a batch's rows with subsample="
                    )
        for site in self.of_role(Role.AUXILIARY):
            if not (site.site["infer"] or {}).get("is_auxiliary"):
                model = sorted(s.name for s in self.of_role(Role.LATENT, Role.MISSING))
                raise InputError(
                    f"the model's latent sites {model} are not the guide's {sorted(s.name for s in self.drawn)}: give "
                    f"{site.name!r} one name on both sides, or mark it with infer={{'is_auxiliary': True}}"
                )

    def check_values(self) -> None:
        """Raise an InputError where the data, or a draw of the guide, lie outside of the support of the model's site.

        Some log-densities are finite there, such as an exponential's below 0. Nor may the data count several times.
        """
        for site in self.of_role(Role.OBSERVED, Role.LATENT):
            if site.model is not None:
                check_in_support(site.name, site.model)
                if site.role is Role.OBSERVED:
                    check_counted_once(site.name, site.model)

    def check_integrable(self) -> None:
        """Raise an InputError if the guide's terms are not log q(z|x) of the model's latents, which log p(x) needs.

        Draws of the guide alone are allowed only if they are the latents in other coordinates, as in Pyro's automatic
        guides: z is then a point with as many numbers. A point that does not depend on a draw has no density.
        """
        latents, auxiliary = self.of_role(Role.LATENT), self.of_role(Role.AUXILIARY)
        points = [site for site in latents if is_delta(site.site["fn"])]
        if auxiliary and len(points) < len(latents):
            raise InputError(
                f"site {auxiliary[0].name!r} is drawn by the guide alone, so log q(z|x), an integral over it, is not "
                "known and log p(x) has no importance weights; use an estimator of the ELBO, or a guide without it"
            )
        laplace = self.laplace_point
        if laplace is not None:
            raise InputError(f"the guide {laplace} is called: there is no density q(z|x); {_PER_DATUM}")
        if points and sum(map(_num_free, points)) != sum(map(_num_free, auxiliary)):
            raise InputError(
                f"the guide of site {points[0].name!r} is a point estimate, {describe(points[0].site['fn'])}: there is "
                "no density q(z|x), and its log-joint is not log p(x); give the guide a distribution with a density"
            )

    @property
    def laplace_point(self) -> str | None:
        """What the guide is, if it draws all latents at one point in other coordinates, and how it becomes more."""
        point = next((site for site in self.of_role(Role.AUXILIARY) if is_delta(site.site["fn"])), None)
        if point is None:
            return None
        until = "as Pyro's AutoLaplaceApproximation is until its laplace_approximation(x)"
        return f"is a point (site {point.name!r}), {until}"

    def data_plate(self, num: int) -> CondIndepStackFrame:
        """The plate of ``num`` data: the one called ``"data"``, or the innermost.

        Raises:
            InputError: there is none, it is of another size, or two plates could be it.
        """
        frame = self.plate_of_data
        if frame is None:
            raise InputError(
                f"the programs have no plate, so no site has a value per datum; put the sites of the {num} data "
                "into one `with pyro.plate('data', len(x))`"
            )
        same = [plate.name for plate in self.plates.values() if plate.size == num]
        if len(same) > 1 and frame.name != DATA_PLATE:
            raise InputError(
                f"the plates {', '.join(map(repr, same))} all have the data's size, {num}, so it is not clear "
                "which one holds the data; call that one 'data'"
            )
        if frame.size == NO_SIZE:
            raise InputError(f"plate {frame.name!r} has no size, so there is no value per datum; give it len(x)")
        if frame.size != num:
            raise InputError(
                f"plate {frame.name!r} has {frame.size} elements and the data are {num}, so there is no value per "
                "datum; call the data's plate 'data' and give it len(x), or all rows with subsample="
            )
        return frame

    @property
    def full_size(self) -> int | None:
        """The number of data that a loss represents if a subsampled plate scales it; otherwise None."""
        frame = self.plate_of_data
        if frame is None or frame.full_size is None or frame.full_size == frame.size:
            return None
        return int(frame.full_size)

    def per_datum(self, site: PairedSite, values: Tensor, plate: CondIndepStackFrame) -> Tensor:
        """A site's values summed over all plates but the data's, without that plate's factor N/B, in float64."""
        own = next((f for f in site.site["cond_indep_stack"] if f.vectorized and f.name == plate.name), None)
        if own is None and site.role is Role.AUXILIARY:
            point = self.laplace_point
            what = f"{point} is called" if point else f"draws the latents of all data at once, at site {site.name!r}"
            raise InputError(f"the guide {what}, so it has no value per datum; {_PER_DATUM}")
        if own is None:
            raise InputError(
                f"site {site.name!r} is outside the data's plate {plate.name!r}, so it has no value per datum; put it "
                "inside, or make a latent that all data share a pyro.param (estimators of the ELBO take it as it is)"
            )
        if own.full_size:
            values = values * (own.size / own.full_size)
        if values.dim() < -own.dim or values.shape[own.dim] == 1:
            values = values.expand(torch.broadcast_shapes(values.shape, (own.size, *[1] * (-own.dim - 1))))
        return values.double().cpu().movedim(own.dim, 0).reshape(own.size, -1).sum(1)


def _num_free(site: PairedSite) -> int:
    """Number of unconstrained numbers of a site's value."""
    node = site.site if site.model is None else site.model
    support, value = node["fn"].support, site.site["value"]
    return int((value if support.is_discrete else biject_to(support).inv(value)).numel())


def _is_factor(site: Site) -> bool:
    """Whether an observed site of a guide is a term of log q."""
    return isinstance(site["fn"], Unit) or bool((site["infer"] or {}).get("is_auxiliary"))


def _missing(name: str, site: Site) -> str:
    if name.endswith("_unobserved"):
        return (
            f"obs_mask makes a latent site {name!r} of what is not observed, which the guide lacks, so the loss is no "
            "bound; leave the values out with .mask(observed) on the distribution instead of obs_mask, or use a "
            "GenerativeModel with missing=True and NaN"
        )
    if not site["fn"].has_rsample:
        return (
            f"latent site {name!r} of the model, a discrete {describe(site['fn'])}, is missing in the guide, so the "
            "loss is not a bound; draw it in the guide too, or sum it out in the model"
        )
    return (
        f"latent site {name!r} of the model is missing in the guide, so the loss is not a bound; draw it there too "
        "(or leave values that are not observed out with .mask)"
    )
