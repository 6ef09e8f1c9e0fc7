"""Sample sites of a program and of a pair: distribution, scale, mask, and part of a KL."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.transforms import BatchNorm
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Transform, kl_divergence

from pyrovae.errors import InputError

Program = Callable[..., Any]
"""A Pyro model or guide: a function or a module."""
Pair = tuple[Program, Program]
"""A model and its guide."""
Site = dict[str, Any]
"""A node of one of Pyro's traces."""


class Role(StrEnum):
    """The role of a sample site of a pair."""

    OBSERVED = "observed"
    """A term of log p(x|z): the model observes it. A ``pyro.factor`` of the model is one."""
    LATENT = "latent"
    """Drawn by the guide, and scored by both."""
    AUXILIARY = "auxiliary"
    """Drawn by the guide alone."""
    FACTOR = "factor"
    """A ``pyro.factor`` of the guide, which belongs to log q."""
    MISSING = "missing"
    """A latent of the model that the guide lacks."""


@dataclass(frozen=True)
class PairedSite:
    """A sample site, as the model and as the guide have it.

    Attributes:
        name: its name.
        role: its role.
        model: the site in the model's trace; None for a site of the guide alone.
        guide: the site in the guide's trace; None for one of the model alone.
        drawn_later: latents that the model draws before this one and the guide after it. With any, KL(q ‖ p) of the
            site's two distributions is not a part of the pair's KL.
    """

    name: str
    role: Role
    model: Site | None
    guide: Site | None
    drawn_later: tuple[str, ...] = ()

    @property
    def site(self) -> Site:
        """The guide's site, or the model's where the guide has none."""
        found = self.model if self.guide is None else self.guide
        assert found is not None
        return found

    def both(self) -> tuple[Site, Site]:
        """The model's and the guide's site of a latent."""
        assert self.model is not None
        assert self.guide is not None
        return self.model, self.guide

    def differing(self, *, by_value: bool | None = None) -> str | None:
        """``"scale"`` or ``"mask"`` if it differs between model and guide; None if both are equal.

        Raises:
            InputError: the two scales are tensors of other values, which are compared where Pyro validates.
        """
        model, guide = self.both()
        if not same_scale(guide["scale"], model["scale"], by_value=by_value):
            if isinstance(guide["scale"], Tensor) and isinstance(model["scale"], Tensor):
                raise InputError(
                    f"site {self.name!r} has another scale in the guide than in the model; set one on both sides"
                )
            return "scale"
        return None if same_masks(masks_of(guide), masks_of(model)) else "mask"

    def log_q(self, score: Tensor | None = None) -> Tensor:
        """Log q at the guide's draw, or another score of it, with the guide's scale and mask, shape of the plates."""
        assert self.guide is not None
        return log_prob_of(self.guide, score)

    def log_ratio(self) -> Tensor:
        """Log q − log p of a latent at its draw, each with its own scale and mask, shape of the plates."""
        model, guide = self.both()
        return log_prob_of(guide) - log_prob_of(model)

    def kl(self, *, by_value: bool | None = None) -> Tensor | None:
        """The site's part of the KL in closed form, shape of the plates; None if there is none."""
        if self.drawn_later or self.differing(by_value=by_value) is not None:
            return None
        model, guide = self.both()
        return closed_form_kl(guide, model)


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The latent sample sites of a trace by name, without those that choose a subsample."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not is_subsample(site)
    }


def is_subsample(site: Site) -> bool:
    """Whether the site is a plate's choice of its rows."""
    return type(site["fn"]).__name__ == "_Subsample"


def is_deterministic(site: Site) -> bool:
    """Whether ``pyro.deterministic`` made the site, which then has no density."""
    return bool((site.get("infer") or {}).get("_deterministic"))


def is_delta(distribution: object) -> bool:
    """Whether the distribution is a point: a ``Delta``, as in a guide by ``pyro.infer.autoguide``."""
    while isinstance(distribution, Independent | MaskedDistribution):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def describe(distribution: object) -> str:
    """Name of a distribution: its class; for an Independent that of the distribution inside."""
    base = getattr(distribution, "base_dist", None)
    name = getattr(distribution, "name", type(distribution).__name__)
    if isinstance(distribution, Independent):
        return describe(base)
    return name if base is None else f"{name}({describe(base)})"


def modules_inside(distribution: object) -> Iterator[nn.Module]:
    """The modules of a distribution's transforms."""
    inside, met = [distribution], set[int]()
    while inside:
        part = inside.pop()
        if id(part) in met:  # a transform and its inverse may hold each other
            continue
        met.add(id(part))
        if isinstance(part, nn.Module):
            yield from part.modules()
        for name in ("transforms", "parts"):
            inside += getattr(part, name, ())
        found = (getattr(part, name, None) for name in ("base_dist", "base_transform", "_inv"))
        inside += [one for one in found if isinstance(one, Distribution | Transform)]  # else a weak reference, or None


def check_flow(site: Site) -> None:
    """Raise an InputError where the density of a flow's draw is that of other parameters, as batch normalisation's."""
    if any(isinstance(module, BatchNorm) and module.training for module in modules_inside(site["fn"])):
        raise InputError(
            f"site {site['name']!r} is drawn by a flow with BatchNorm in training mode, which draws with its running "
            "statistics and scores with those of the batch; put the transform into eval(), or leave it out"
        )


def same_scale(left: object, right: object, *, by_value: bool | None = None) -> bool:
    """Whether two scales or masks (numbers, tensors or None) are equal.

    A comparison of tensors' values waits for the device: by default it is made where Pyro validates.
    """
    if left is right:
        return True
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        by_value = is_validation_enabled() if by_value is None else by_value
        return not by_value or torch.equal(left, right)
    return not isinstance(left, Tensor) and not isinstance(right, Tensor) and left == right


def log_prob_of(site: Site, score: Tensor | None = None) -> Tensor:
    """The log-density of a site at its value, or another score of it, with the site's scale and mask."""
    if score is None:
        try:
            score = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        except KeyError:  # a flow remembers its own draws alone
            raise InputError(
                f"site {site['name']!r}: the {describe(site['fn'])} has no density at a given value, since its flow "
                "has no inverse; use a flow with one, such as transforms.affine_autoregressive, or MonteCarloELBO and "
                "elbo_terms, which need its own draws alone"
            ) from None
    scaled: Tensor = scale_and_mask(score, site["scale"], site["mask"])
    return scaled


def without_mask(distribution: Distribution) -> tuple[Distribution, list[bool | Tensor]]:
    """The distribution inside of ``.mask``, and the masks around it that hide something."""
    masks = []
    while isinstance(distribution, MaskedDistribution):
        if distribution._mask is not True:
            masks.append(distribution._mask)
        distribution = distribution.base_dist
    return distribution, masks


def closed_form_kl(guide_site: Site, model_site: Site) -> Tensor | None:
    """KL(q ‖ p) of a site's two distributions with the guide's scale and mask, shape of the plates, or None.

    None where no KL is registered, or where the two are masked differently. A point has no KL: its part is log q − log
    p where it lies, which is exact.
    """
    q, of_guide = without_mask(guide_site["fn"])
    p, of_model = without_mask(model_site["fn"])
    if is_delta(q):
        return log_prob_of(guide_site) - log_prob_of(model_site)
    if len(of_guide) != len(of_model) or not same_masks(of_guide, of_model) or _masked_inside(q, p):
        return None
    try:
        kl = kl_divergence(q, p)
    except NotImplementedError:
        return None
    kl = kl.expand(q.batch_shape)
    for mask in of_guide:
        kl = scale_and_mask(kl, 1.0, torch.as_tensor(mask, device=kl.device))
    masked: Tensor = scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
    return masked


def masks_of(site: Site) -> list[bool | Tensor]:
    """The masks around a site that hide something, by ``poutine.mask`` and by ``.mask``."""
    outer = [] if site["mask"] is None or site["mask"] is True else [site["mask"]]
    return outer + without_mask(site["fn"])[1]


def same_masks(left: list[bool | Tensor], right: list[bool | Tensor]) -> bool:
    """Whether two sites are masked alike."""
    return len(left) == len(right) and all(same_scale(a, b, by_value=True) for a, b in zip(left, right, strict=True))


def pruned(trace: Trace) -> Trace:
    """The trace without the plates' choices of rows and without what ``pyro.deterministic`` made."""
    return _without(trace, lambda site: is_subsample(site) or is_deterministic(site))


def without_deterministic(trace: Trace) -> Trace:
    """The trace without the sites that ``pyro.deterministic`` made."""
    return _without(trace, is_deterministic)


def _without(trace: Trace, is_left_out: Callable[[Site], bool]) -> Trace:
    """The trace without some of its sample sites; itself where it has none of them."""
    names = [name for name, site in trace.nodes.items() if site["type"] == "sample" and is_left_out(site)]
    if names:
        trace = trace.copy()
        for name in names:
            trace.remove_node(name)
    return trace


def _masked_inside(*distributions: Distribution) -> bool:
    """Whether a mask lies below an Independent, where Pyro's KL takes the overlap of two masks."""
    for distribution in distributions:
        while isinstance(distribution, Independent):
            distribution = distribution.base_dist
            if isinstance(distribution, MaskedDistribution):
                return True
    return False
