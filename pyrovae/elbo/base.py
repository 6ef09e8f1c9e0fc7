"""What the estimators share: β, the nesting of plates set rather than guessed, and traces without log q."""

import copy
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.infer import Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor
from torch.distributions import Independent

from pyrovae.errors import InputError

Program = Callable[..., Any]


def check_beta(beta: object) -> None:
    """Raise an InputError unless β is a finite number ≥ 0."""
    if not isinstance(beta, int | float) or isinstance(beta, bool) or not 0 <= beta < math.inf:
        raise InputError(f"beta must be a finite number ≥ 0, not {beta!r}")


class LatentScaleMessenger(Messenger):
    """Multiply the log-density scale of every *latent* site by β, 0 included; leave observations alone."""

    def __init__(self, beta: float | Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = self.beta * msg["scale"]


@dataclass(frozen=True)
class Note:
    """What an estimator's own code added to the bound for a sample site, and how it came by it."""

    site: str
    how: str
    nats: Tensor
    model_site: dict[str, Any]
    guide_site: dict[str, Any] | None


class _ImmutableMeta(ABCMeta):
    """Metaclass of objects whose attributes are set by their constructors alone."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = cls.__new__(cls)
        made.__dict__["_in_construction"] = True
        made.__init__(*args, **kwargs)
        del made.__dict__["_in_construction"]
        return made


class BetaELBO(Trace_ELBO, metaclass=_ImmutableMeta):
    """Trace_ELBO with β, the weight of the latent sites' terms.

    β belongs to the estimator: written into the programs with ``poutine.scale`` it is ignored or
    wrong for some pairs, and 0 is refused. An estimator does not change once it is made;
    :meth:`with_beta` gives another one.

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
        check_beta(beta)
        if not isinstance(num_particles, int) or num_particles < 1:
            raise InputError(f"num_particles must be a positive integer, not {num_particles!r}")
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
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
            check_beta(beta)
            beta = float(beta)
        elif beta.dim():
            raise InputError(f"beta must be a scalar, not a tensor of shape {tuple(beta.shape)}")
        return self._with(beta=beta)

    def recording(self) -> tuple[Self, list[Note]]:
        """The same estimator, which notes each site's term, and the list of its notes."""
        notes: list[Note] = []
        return self._with(_notes=notes), notes

    def _with(self, **attributes: object) -> Self:
        other = copy.copy(self)
        other.__dict__.update(attributes)
        return other

    def _term(
        self,
        name: str,
        how: str,
        value: Tensor,
        model_site: dict[str, Any],
        guide_site: dict[str, Any] | None = None,
    ) -> Tensor:
        """A site's contribution to the bound, noted where an audit listens."""
        if self._notes is not None:
            self._notes.append(Note(name, how, value.detach(), model_site, guide_site))
        return value

    def _weigh(self, program: Program) -> Program:
        plain = isinstance(self.beta, float) and self.beta == 1
        return program if plain else LatentScaleMessenger(self.beta)(program)

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        return super()._get_trace(self._weigh(model), self._weigh(guide), args, kwargs)


class NoClosedFormError(InputError, NotImplementedError):
    """A quantity that the estimator needs of a latent site has no closed form."""


class ReparameterizedELBO(BetaELBO):
    """Base of estimators that differentiate through draws and score only what they need.

    The gradient of their loss by automatic differentiation is the estimator's.
    """

    @abstractmethod
    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """−bound, summed over the plate, in nats."""

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """−bound, summed over the plate, in nats; not differentiable."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """−bound, with gradients added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _scored(self, name: str, site: dict[str, Any]) -> bool:
        """Whether the model's log-density at a site is needed."""
        return True

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        guide_trace = self._trace_guide(guide, args, kwargs)
        model_trace = poutine.trace(poutine.replay(self._weigh(model), trace=guide_trace)).get_trace(*args, **kwargs)
        guide_trace, model_trace = _without_deterministic(guide_trace), _without_deterministic(model_trace)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
        self._check_latents(model_trace, guide_trace)
        model_trace.compute_log_prob(self._scored)
        if is_validation_enabled():
            for name, site in model_trace.nodes.items():
                if site["type"] == "sample" and self._scored(name, site):
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace

    def _trace_guide(self, guide: Program, args: tuple, kwargs: dict) -> Trace:
        """The guide's draws, as the model is to see them."""
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
        for name in model_trace.stochastic_nodes:
            if name not in guide_trace:
                raise NoClosedFormError(f"latent site {name!r} of the model is missing in the guide")


class SampleMeanELBO(ReparameterizedELBO):
    """Base of estimators that are a mean over draws; a subclass gives the bound at one draw."""

    @abstractmethod
    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """The bound at one draw, summed over the plate, in nats."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """−bound, summed over the plate, in nats."""
        total: Any = 0.0
        for traces in self._get_traces(model, guide, args, kwargs):
            total = total - self._bound(*traces)
        return total / self.num_particles


def _without_deterministic(trace: Trace) -> Trace:
    """The trace without the sites that ``pyro.deterministic`` made, which have no density."""
    trace = trace.copy()
    for name, site in list(trace.nodes.items()):
        if site["type"] == "sample" and site["infer"] and site["infer"].get("_deterministic"):
            trace.remove_node(name)
    return trace


def check_guide(guide_trace: Trace) -> None:
    """Raise where the guide conditions on data, as a model put in its place does."""
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample" and site["is_observed"]:
            if isinstance(site["fn"], Unit) or (site["infer"] or {}).get("_deterministic"):
                continue  # pyro.factor and pyro.deterministic
            raise InputError(f"the guide observes site {name!r}: are the model and the guide swapped?")


def latent_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The latent sample sites of a trace by name, choices of subsamples left out."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and type(site["fn"]).__name__ != "_Subsample"
    }


def same_scale(left: Any, right: Any) -> bool:
    """Whether two scales or masks, numbers, tensors or None, are equal."""
    if left is right:
        return True
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        # a comparison of values waits for the device: only where Pyro validates
        return not is_validation_enabled() or torch.equal(left, right)
    return not isinstance(left, Tensor) and not isinstance(right, Tensor) and left == right


def describe(distribution: Any) -> str:
    """A distribution's name: its class, an Independent by what it wraps."""
    base = getattr(distribution, "base_dist", None)
    name = getattr(distribution, "name", type(distribution).__name__)
    if isinstance(distribution, Independent):
        return describe(base)
    return name if base is None else f"{name}({describe(base)})"
