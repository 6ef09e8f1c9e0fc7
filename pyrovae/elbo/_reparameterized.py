"""Estimators whose gradient is the derivative of their loss through the draws."""

from abc import abstractmethod
from typing import ClassVar

from pyro.util import warn_if_nan
from torch import Tensor

from pyrovae.elbo._computation import Computation, Reason
from pyrovae.elbo.base import BetaELBO, NoClosedFormError, total
from pyrovae.programs import PairedSite, Program, Role, Site, TracedPair, describe


class ReparameterizedELBO(BetaELBO):
    """Base of estimators that differentiate through draws and compute only the log-densities that they need.

    The gradient is the automatic derivative of the loss.
    """

    @abstractmethod
    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plate, in nats."""

    def loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> float:
        """−bound, summed over the plate, in nats; not differentiable."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs).item()
        warn_if_nan(loss, "loss")
        return loss

    def loss_and_grads(self, model: Program, guide: Program, *args: object, **kwargs: object) -> float:
        """−bound, with gradients added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        warn_if_nan(loss, "loss")
        return loss.item()

    def _is_scored(self, site: Site) -> bool:
        """Whether the model's log-density at a site is needed."""
        return True

    def _score(self, pair: TracedPair) -> None:
        alternative = f"{type(self).__name__} cannot be used; use MonteCarloELBO"
        for site in pair.sites:
            if site.role is Role.AUXILIARY and not site.site["infer"].get("is_auxiliary"):
                raise NoClosedFormError(
                    f"site {site.name!r} is in the guide alone and not marked with infer={{'is_auxiliary': True}}: "
                    f"{alternative}"
                )
            if site.role is Role.FACTOR and not site.site["fn"].has_rsample:
                raise NoClosedFormError(
                    f"the guide's factor {site.name!r} is not marked as a function of differentiable draws, "
                    f"has_rsample=True: {alternative}"
                )
            if site.guide is not None and not site.guide["fn"].has_rsample:
                raise NoClosedFormError(
                    f"the guide's {describe(site.guide['fn'])} at site {site.name!r} is not reparameterised: "
                    f"{alternative}"
                )
        pair.model.compute_log_prob(lambda _, site: self._is_scored(site))


class SampleMeanELBO(ReparameterizedELBO):
    """Base of estimators that average over draws; a subclass gives a latent site's part at one draw."""

    _computation: ClassVar[Computation]
    """How a latent site's part is computed."""

    @abstractmethod
    def _latent_part(self, site: PairedSite) -> Tensor:
        """A latent site's part of the bound at one draw, summed over the plate, in nats."""

    def _departure(self, site: PairedSite) -> Reason | None:
        """Why a latent site's part must be sampled instead; None if it need not."""
        return None

    def _auxiliary_part(self, site: PairedSite) -> Tensor:
        """The part of a site that only the guide draws, −log q, summed over the plate, in nats."""
        return -site.log_q().sum()

    def _bound(self, pair: TracedPair) -> Tensor:
        """The bound at one draw, summed over the plate, in nats."""
        terms = []
        for site in pair.sites:
            if site.role is Role.OBSERVED:
                terms.append(self._term(site, Computation.SAMPLED, site.site["log_prob_sum"]))
            elif site.role is Role.LATENT:
                reason = self._departure(site)
                if reason is None:
                    terms.append(self._term(site, self._computation, self._latent_part(site)))
                else:
                    terms.append(self._term(site, Computation.SAMPLED, -site.log_ratio().sum(), reason))
            elif site.role is Role.AUXILIARY:
                terms.append(self._term(site, Computation.SAMPLED, self._auxiliary_part(site)))
            else:
                terms.append(self._term(site, Computation.SAMPLED, -site.log_q().sum()))
        return total(terms)

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plate, in nats."""
        bounds = [self._bound(pair) for pair in self._get_traces(model, guide, args, kwargs)]
        return -total(bounds) / self.num_particles
