"""What the estimators share: β, immutability, the nesting of plates set rather than guessed, traces without log q."""

import copy
import functools
import operator
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import pyro.poutine as poutine
from pyro.infer import Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyrovae.elbo._computation import Computation, Note
from pyrovae.errors import InputError, check_integer, check_positive
from pyrovae.programs import Program, Site, check_guide, describe, latent_sites, paired_sites, without_deterministic

Arguments = tuple[object, ...]
Keywords = dict[str, object]


class NoClosedFormError(InputError, NotImplementedError):
    """A quantity that the estimator needs of a latent site has no closed form."""


class _LatentScaleMessenger(Messenger):
    """Multiply the log-density scale of every *latent* site by β, 0 included; leave observations alone."""

    def __init__(self, beta: float | Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"]:
            msg["scale"] = self.beta * msg["scale"]


class _ImmutableMeta(ABCMeta):
    """Metaclass of objects whose attributes only their constructors can set."""

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        made: Any = object.__new__(cls)  # type: ignore[arg-type]
        made.__dict__["_in_construction"] = True
        made.__init__(*args, **kwargs)
        del made.__dict__["_in_construction"]
        return made


class BetaELBO(Trace_ELBO, metaclass=_ImmutableMeta):
    """Trace_ELBO with β, the weight of the latent sites' terms.

    β belongs to the estimator: Pyro ignores or miscounts a ``poutine.scale`` in the programs for some pairs, and
    refuses 0. An estimator does not change after its construction; :meth:`with_beta` gives another one.

    Args:
        beta: weight of the KL part, ≥ 0; 1 gives the evidence lower bound.
        num_particles: number of draws from the guide.
        vectorize_particles: whether to draw them in one pass.
        max_plate_nesting: depth of the programs' own plates.

    Raises:
        AttributeError: an attribute is assigned after construction.
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
    ) -> None:
        check_positive("beta", beta, or_zero=True)
        check_integer("num_particles", num_particles)
        super().__init__(
            num_particles=num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting
        )
        self.beta: float | Tensor = float(beta)
        self._notes: list[Note] | None = None  # a list in the copies that record, see recording()

    def __setattr__(self, name: str, value: object) -> None:
        if "_in_construction" not in self.__dict__:
            raise AttributeError(
                f"cannot set {name} of {type(self).__name__}: an estimator does not change; make another one, "
                "for another beta with elbo.with_beta(b)"
            )
        super().__setattr__(name, value)

    def with_beta(self, beta: float | Tensor) -> Self:
        """The same estimator with another β, a finite number ≥ 0.

        A tensor () is allowed, for derivatives and traces; its value is not checked.
        """
        if not isinstance(beta, Tensor):
            check_positive("beta", beta, or_zero=True)
            beta = float(beta)
        elif beta.dim():
            raise InputError(f"beta must be a scalar, not a tensor of shape {tuple(beta.shape)}")
        return self._with(beta=beta)

    def recording(self) -> tuple[Self, list[Note]]:
        """The same estimator, but it notes each site's part of the bound, and the list of its notes."""
        notes: list[Note] = []
        return self._with(_notes=notes), notes

    def _with(self, **attributes: object) -> Self:
        other = copy.copy(self)
        other.__dict__.update(attributes)
        return other

    def _term(
        self,
        name: str,
        computation: Computation,
        value: Tensor,
        model_site: Site | None,
        guide_site: Site | None = None,
    ) -> Tensor:
        """A site's part of the bound; a recording estimator notes it."""
        if self._notes is not None:
            self._notes.append(Note(name, computation, value.detach(), model_site, guide_site))
        return value

    def _weigh(self, program: Program) -> Program:
        is_unweighted = isinstance(self.beta, float) and self.beta == 1
        return program if is_unweighted else _LatentScaleMessenger(self.beta)(program)

    def _get_trace(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> tuple[Trace, Trace]:
        return super()._get_trace(self._weigh(model), self._weigh(guide), args, kwargs)


class ReparameterizedELBO(BetaELBO):
    """Base of estimators that differentiate through draws and score only what they need.

    Automatic differentiation of their loss gives the estimator's gradient.
    """

    @abstractmethod
    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plate, in nats."""

    def loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> float:
        """−bound, summed over the plate, in nats; not differentiable."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: object, **kwargs: object) -> float:
        """−bound, with gradients added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _is_scored(self, site: Site) -> bool:
        """Whether the model's log-density at a site is needed."""
        return True

    def _get_trace(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> tuple[Trace, Trace]:
        guide_trace = self._trace_guide(guide, args, kwargs)
        model_trace = poutine.trace(poutine.replay(self._weigh(model), trace=guide_trace)).get_trace(*args, **kwargs)
        guide_trace, model_trace = without_deterministic(guide_trace), without_deterministic(model_trace)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
        self._check_latents(model_trace, guide_trace)
        model_trace.compute_log_prob(lambda _, site: self._is_scored(site))
        if is_validation_enabled():
            for site in model_trace.nodes.values():
                if site["type"] == "sample" and self._is_scored(site):
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace

    def _trace_guide(self, guide: Program, args: Arguments, kwargs: Keywords) -> Trace:
        """The guide's draws, as the model will see them."""
        return poutine.trace(self._weigh(guide)).get_trace(*args, **kwargs)

    def _check_latents(self, model_trace: Trace, guide_trace: Trace) -> None:
        check_guide(guide_trace)
        alternative = f"{type(self).__name__} cannot be used; use MonteCarloELBO"
        for name, site in latent_sites(guide_trace).items():
            if name not in model_trace:
                raise NoClosedFormError(f"site {name!r} is in the guide alone: {alternative}")
            if not site["fn"].has_rsample:
                raise NoClosedFormError(
                    f"the guide's {describe(site['fn'])} at site {name!r} is not reparameterised: {alternative}"
                )
        check_guide_has_latents(model_trace, guide_trace)


class SampleMeanELBO(ReparameterizedELBO):
    """Base of estimators that are a mean over draws; a subclass gives the part of a latent site at one draw."""

    _computation: ClassVar[Computation]
    """How the part is computed."""

    @abstractmethod
    def _latent_part(self, name: str, site: Site, guide_site: Site) -> Tensor:
        """A latent site's part of the bound at one draw, summed over the plate, in nats."""

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """The bound at one draw, summed over the plate, in nats."""
        terms = []
        for name, site, guide_site in paired_sites(model_trace, guide_trace):
            if guide_site is None:
                terms.append(self._term(name, Computation.SAMPLED, site["log_prob_sum"], site))
            else:
                part = self._latent_part(name, site, guide_site)
                terms.append(self._term(name, self._computation, part, site, guide_site))
        return total(terms)

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−bound, summed over the plate, in nats."""
        bounds = [self._bound(*traces) for traces in self._get_traces(model, guide, args, kwargs)]
        return -total(bounds) / self.num_particles


def check_guide_has_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise where the guide lacks a latent site of the model."""
    for name in model_trace.stochastic_nodes:
        if name not in guide_trace:
            raise NoClosedFormError(f"latent site {name!r} of the model is missing in the guide")


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of tensors, in order."""
    return functools.reduce(operator.add, terms)
