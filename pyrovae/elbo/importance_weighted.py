"""The importance-weighted bound: log-mean-exp of K weights for each datum."""

import math

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo.base import NoClosedFormError, ReparameterizedELBO, total
from pyrovae.errors import InputError
from pyrovae.programs import Program, Site, describe, latent_sites, paired_sites, same_scale


class ImportanceWeightedELBO(ReparameterizedELBO):
    """−Σ_b log (1/K) Σ_k w_bk, the importance-weighted bound of each datum (Burda et al. 2016).

    log w = log p(x|z) + β (log p(z) − log q(z|x)) at K = ``num_particles`` draws of z. With β = 1 the bound
    rises with K from the ELBO to log p(x); the signal-to-noise ratio of the *guide's* gradient falls with K
    (Rainforth et al. 2018). A datum is an element of the plates that contain every site of the model. A latent
    outside them has no weight for each datum and is refused: a log-mean-exp over the batch would be another
    bound.

    Args:
        num_particles: number K of draws.
        beta: weight β of log p(z) − log q(z|x), ≥ 0.
        vectorize_particles: whether to draw them in one pass.
        max_plate_nesting: depth of the programs' own plates.
    """

    def __init__(
        self, num_particles: int = 5, *, beta: float = 1.0, vectorize_particles: bool = True, max_plate_nesting: int = 1
    ) -> None:
        super().__init__(
            beta=beta,
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )

    _computation = Computation.WEIGHTS

    def _weigh(self, program: Program) -> Program:
        return program  # β is inside the weights

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plates, in nats."""
        traces = list(self._get_traces(model, guide, args, kwargs))
        terms = [self._log_weight_terms(*pair) for pair in traces]
        log_weight = self._stack(terms)
        weights = log_weight.detach().softmax(0)
        scale = _shared_scale(*traces[0])
        shares = [weights] if self._in_one_pass else weights.unbind()
        for pair, by_site, share in zip(traces, terms, shares, strict=True):
            self._set_weights(pair[1], share)
            if self._notes is not None:
                for name, site, guide_site in paired_sites(*pair):
                    part = self.num_particles * (scale * share * by_site[name]).sum()
                    self._term(name, self._computation, part, site, guide_site)
        return -(scale * (log_weight.logsumexp(0) - math.log(self.num_particles))).sum()

    def log_weights(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """Log w of each draw and datum in nats, shape (K, *plates)."""
        return self._stack([self._log_weight_terms(*pair) for pair in self._get_traces(model, guide, args, kwargs)])

    def _stack(self, terms: list[dict[str, Tensor]]) -> Tensor:
        log_weights = [total(by_site.values()) for by_site in terms]
        if not self._in_one_pass:
            return torch.stack(log_weights)
        if log_weights[0].dim() != self.max_plate_nesting:
            raise InputError(
                f"the programs' plates nest deeper than max_plate_nesting={self.max_plate_nesting - 1}; give the depth"
            )
        return log_weights[0]

    @property
    def _in_one_pass(self) -> bool:
        """Whether the particles are the outermost plate of a single trace."""
        return self.vectorize_particles and self.num_particles > 1

    def _set_weights(self, guide_trace: Trace, weights: Tensor) -> None:
        """Called before the backward pass with the normalised weights of a trace's draws, shape ([K,] *plates)."""

    def _log_q(self, site: Site) -> Tensor:
        return site["fn"].log_prob(site["value"])

    def _log_weight_terms(self, model_trace: Trace, guide_trace: Trace) -> dict[str, Tensor]:
        """The terms of log w by site, each of shape ([K,] *plates), other plates summed out."""
        shared = self._shared_plates(model_trace, guide_trace)
        terms = {}
        for name, site, guide_site in paired_sites(model_trace, guide_trace):
            term = scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])
            if guide_site is not None:
                if not same_scale(guide_site["mask"], site["mask"]):
                    raise InputError(
                        f"site {name!r} has another mask in the guide than in the model, so log p − log q is not that "
                        "of one set of data; set the mask on both sides"
                    )
                term = self.beta * (term - scale_and_mask(self._log_q(guide_site), 1.0, guide_site["mask"]))
            inner = [dim for dim in range(-term.dim(), 0) if dim not in shared]
            terms[name] = term.sum(inner, keepdim=True) if inner else term
        return terms

    def _shared_plates(self, model_trace: Trace, guide_trace: Trace) -> set[int]:
        """Dimensions of the plates that contain every site, the particles' among them."""
        sites = {name: site for name, site in model_trace.nodes.items() if site["type"] == "sample"}
        plates = {name: {f for f in site["cond_indep_stack"] if f.vectorized} for name, site in sites.items()}
        shared = set.intersection(*plates.values())
        if not any(frame.name != "num_particles_vectorized" for frame in shared):
            outside = min(plates, key=lambda name: (len(plates[name]), sites[name]["is_observed"]))
            kind = "observed" if sites[outside]["is_observed"] else "latent"
            raise NoClosedFormError(
                f"{kind} site {outside!r} ({describe(sites[outside]['fn'])}) is outside the data plate, so there is no "
                "importance weight for each datum, and a log-mean-exp over the batch would be another bound; put it "
                "inside a vectorised `with pyro.plate` over the data, or use MonteCarloELBO"
            )
        dims = {frame.dim: frame.size for frame in shared}
        for name, site in latent_sites(guide_trace).items():
            its_dims = {frame.dim: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
            if not dims.items() <= its_dims.items():
                raise InputError(f"site {name!r} is in the data plate of the model but not in that of the guide")
        return set(dims)


def _shared_scale(model_trace: Trace, guide_trace: Trace) -> float | Tensor:
    """The scale that all sites share: of a subsampled plate, for instance."""
    sites = [
        (name, site) for t in (model_trace, guide_trace) for name, site in t.nodes.items() if site["type"] == "sample"
    ]
    first_name, first = sites[0]
    for name, site in sites[1:]:
        if not same_scale(site["scale"], first["scale"]):
            raise InputError(
                f"site {name!r} has another scale than site {first_name!r}, and an importance weight has no part to "
                "scale; set one scale for all sites, or use the estimator's beta"
            )
    return first["scale"]
