"""The importance-weighted bound: log-mean-exp of K weights for each datum."""

import math
from typing import Unpack

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._reparameterized import ReparameterizedELBO
from pyrovae.elbo.base import NoClosedFormError, PyroKeywords, total
from pyrovae.errors import InputError
from pyrovae.programs import PARTICLES, PairedSite, Program, Role, TracedPair, describe, same_scale


class ImportanceWeightedELBO(ReparameterizedELBO):
    """−Σ_b log (1/K) Σ_k w_bk, the importance-weighted bound of each datum (Burda et al. 2016).

    log w = log p(x|z) + β (log p(z) − log q(z|x)) at K = ``num_particles`` draws of z. With β = 1 the bound
    rises with K from the ELBO to log p(x); the signal-to-noise ratio of the *guide's* gradient falls with K
    (Rainforth et al. 2018). A datum is an element of the plates that contain every site of the model. A latent outside
    them has no weight per datum and is refused: a log-mean-exp over the batch would be another bound.

    Args:
        num_particles: number K of draws.
        max_plate_nesting: depth of the programs' own plates; by default it is found at each call.
        beta: weight β of log p(z) − log q(z|x), ≥ 0.
        vectorize_particles: whether to draw them in one pass.
        **of_pyro: further arguments of Pyro's estimators, such as ``retain_graph``.
    """

    def __init__(
        self,
        num_particles: int = 5,
        max_plate_nesting: float = math.inf,
        *,
        beta: float = 1.0,
        vectorize_particles: bool = True,
        **of_pyro: Unpack[PyroKeywords],
    ) -> None:
        super().__init__(
            num_particles, max_plate_nesting, beta=beta, vectorize_particles=vectorize_particles, **of_pyro
        )

    _computation = Computation.WEIGHTS

    def _weigh(self, program: Program, is_guide: bool) -> Program:
        return program  # β is inside the weights

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plates, in nats."""
        pairs = list(self._get_traces(model, guide, args, kwargs))
        terms = [self._log_weight_terms(pair) for pair in pairs]
        log_weight = self._stack(pairs, terms)
        weights = log_weight.detach().softmax(0)
        scale = _shared_scale(pairs[0])
        shares = [weights] if self._in_one_pass else weights.unbind()
        for pair, by_site, share in zip(pairs, terms, shares, strict=True):
            self._set_weights(pair.guide, share)
            if self._notes is not None:
                for site, term in zip(pair.sites, by_site, strict=True):
                    part = self.num_particles * (scale * share * term).sum()
                    is_weight = site.role in (Role.OBSERVED, Role.LATENT)
                    self._term(site, self._computation if is_weight else Computation.SAMPLED, part)
        return -(scale * (log_weight.logsumexp(0) - math.log(self.num_particles))).sum()

    def log_weights(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """Log w of each draw and datum in nats, shape (K, *plates)."""
        pairs = list(self._get_traces(model, guide, args, kwargs))
        return self._stack(pairs, [self._log_weight_terms(pair) for pair in pairs])

    def _stack(self, pairs: list[TracedPair], terms: list[list[Tensor]]) -> Tensor:
        log_weights = [total(by_site) for by_site in terms]
        if not self._in_one_pass:
            return torch.stack(log_weights)
        frames = (frame for site in pairs[0].sites for frame in site.site["cond_indep_stack"])
        particles = next(frame for frame in frames if frame.name == PARTICLES)
        if log_weights[0].dim() != -particles.dim:
            raise InputError(
                f"the programs' plates nest deeper than max_plate_nesting={self.max_plate_nesting - 1}; give the depth"
            )
        return log_weights[0]

    @property
    def _in_one_pass(self) -> bool:
        """Whether the particles are the outermost plate of a single trace."""
        return self.vectorize_particles and self.num_particles > 1

    def _set_weights(self, guide_trace: Trace, weights: Tensor) -> None:
        """Hook before the backward pass, with the normalised weights of a trace's draws, shape ([K,] *plates)."""

    def _log_q(self, site: PairedSite) -> Tensor:
        """Log q at the draw, without scale and mask."""
        return _log_prob(site)

    def _log_weight_terms(self, pair: TracedPair) -> list[Tensor]:
        """The terms of log w by site, each of shape ([K,] *plates), other plates summed out."""
        pair.check_integrable()
        shared = self._shared_plates(pair)
        terms = []
        for site in pair.sites:
            if site.role is Role.LATENT and site.differing() == "mask":
                raise InputError(
                    f"site {site.name!r} has another mask in the guide than in the model, so log p and log q are of "
                    "different data; set the mask on both sides"
                )
            term: Tensor | float = 0.0
            if site.model is not None:
                term = scale_and_mask(site.model["unscaled_log_prob"], 1.0, site.model["mask"])
            if site.guide is not None:
                drawn = _log_prob(site) if site.role is Role.FACTOR else self._log_q(site)
                term = self.beta * (term - scale_and_mask(drawn, 1.0, site.guide["mask"]))
            assert isinstance(term, Tensor)
            inner = [dim for dim in range(-term.dim(), 0) if dim not in shared]
            terms.append(term.sum(inner, keepdim=True) if inner else term)
        return terms

    def _shared_plates(self, pair: TracedPair) -> set[int]:
        """Dimensions of the plates that contain every site, the particles' among them."""
        sites = {site.name: site for site in pair.sites if site.model is not None}
        plates = {n: {f for f in s.model["cond_indep_stack"] if f.vectorized} for n, s in sites.items() if s.model}
        shared = set.intersection(*plates.values()) if plates else set()
        if not any(frame.name != PARTICLES for frame in shared):
            outside = min(plates, key=lambda name: (len(plates[name]), sites[name].role is Role.OBSERVED))
            raise NoClosedFormError(
                f"{sites[outside].role} site {outside!r} ({describe(sites[outside].site['fn'])}) is outside the data "
                "plate, so it has no importance weight per datum, and a log-mean-exp over the batch would be another "
                "bound; put it inside a vectorised `with pyro.plate` over the data, or use MonteCarloELBO"
            )
        dims = {frame.dim: frame.size for frame in shared}
        for site in pair.sites:
            if site.guide is None:
                continue
            its_dims = {frame.dim: frame.size for frame in site.guide["cond_indep_stack"] if frame.vectorized}
            if not dims.items() <= its_dims.items():
                raise InputError(f"site {site.name!r} is in the data plate of the model but not in that of the guide")
        return set(dims)


def _log_prob(site: PairedSite) -> Tensor:
    score: Tensor = site.site["fn"].log_prob(site.site["value"])
    return score


def _shared_scale(pair: TracedPair) -> float | Tensor:
    """The scale that all sites share: of a subsampled plate, for instance."""
    nodes = [
        (f"site {site.name!r} of the {side}", node)
        for site in pair.sites
        for side, node in (("model", site.model), ("guide", site.guide))
        if node is not None
    ]
    first_name, first = nodes[0]
    for name, node in nodes[1:]:
        if not same_scale(node["scale"], first["scale"]):
            raise InputError(
                f"{name} has another scale than {first_name}, and one part of an importance weight cannot be scaled; "
                "set one scale for all sites, or use the estimator's beta"
            )
    scale: float | Tensor = first["scale"]
    return scale
