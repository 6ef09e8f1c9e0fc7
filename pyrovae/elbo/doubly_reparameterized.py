"""The importance-weighted bound with a guide gradient whose signal-to-noise ratio grows with K."""

from collections.abc import Callable

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._path_derivative import PathDerivativeELBO
from pyrovae.elbo.base import NoClosedFormError
from pyrovae.elbo.importance_weighted import ImportanceWeightedELBO
from pyrovae.errors import InputError
from pyrovae.programs import PairedSite, Site, is_delta, latent_sites, same_scale


class DoublyReparameterizedELBO(PathDerivativeELBO, ImportanceWeightedELBO):
    """−Σ_b log (1/K) Σ_k w_bk with the doubly reparameterised gradient (Tucker et al. 2018).

    The value and the model's gradient are ``ImportanceWeightedELBO``'s. The guide's is unbiased too:
    Σ_k ((1 − β) w̃_k + β w̃_k²) ∂log w_k/∂z_k · ∂z_k/∂φ, with w̃ the normalised weights and φ fixed inside log q. Its
    signal-to-noise ratio grows with K. Data with masked latents have no log q in their weights; their factor is w̃_k.

    Raises:
        NoClosedFormError: a latent is a ``Delta``, which has no density.
        InputError: some of the latents are masked and others are not.
    """

    _computation = Computation.DOUBLY_REPARAMETERIZED_WEIGHTS

    def _as_seen_by_the_model(self, at: Callable[[Callable[[Site], Tensor]], Trace]) -> Trace:
        factors: dict[str, Tensor] = {}  # known only after the model is scored

        def draw(site: Site) -> Tensor:
            value = site["value"].view_as(site["value"])
            if value.requires_grad:
                value.register_hook(lambda gradient: gradient * factors[site["name"]])
            return value

        trace = at(draw)
        for site in latent_sites(trace).values():
            site["gradient_factors"] = factors
        return trace

    def _set_weights(self, guide_trace: Trace, weights: Tensor) -> None:
        # the backward pass brings w̃ ∂log w/∂z to a draw; the guide should see (1 − β) + β w̃ times that
        factor = 1 - self.beta + self.beta * weights
        latents = latent_sites(guide_trace)
        if not latents:
            return
        masks = [site["mask"] for site in latents.values()]
        if not all(same_scale(mask, masks[0]) for mask in masks[1:]):
            raise InputError(
                f"the latent sites {', '.join(latents)} have different masks, so the guide's gradient has no common "
                "factor; give them one mask, or use ImportanceWeightedELBO"
            )
        if masks[0] is not None:
            factor = torch.where(torch.as_tensor(masks[0], device=factor.device), factor, 1.0)
        for name, site in latents.items():
            if is_delta(site["fn"]):
                raise NoClosedFormError(f"site {name!r} is a Delta, which has no density; use MonteCarloELBO")
            site["gradient_factors"][name] = factor.reshape(factor.shape + (1,) * site["fn"].event_dim)

    def _log_q(self, site: PairedSite) -> Tensor:
        score: Tensor = site.site["log_q"]
        return score
