"""Base of the estimators: Pyro's arguments and β, immutability, and the traces of model and guide at a draw."""

import functools
import math
import operator
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Self, TypedDict, Unpack

import pyro.poutine as poutine
from pyro.infer import Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, zeros

from pyrovae.elbo._computation import Computation, Note, Reason
from pyrovae.elbo._one_by_one import check_as_one_by_one
from pyrovae.errors import InputError, check_integer, check_positive
from pyrovae.programs import (
    FAILURES,
    DrawsAsRows,
    PairedSite,
    Program,
    Site,
    TracedPair,
    data_unchanged,
    naming_the_value,
    raw_traces,
    reason_of,
    running_on,
    takes_any_axes,
    without_deterministic,
)

Arguments = tuple[object, ...]
Keywords = dict[str, object]


class NoClosedFormError(InputError, NotImplementedError):
    """A latent site has no closed form of a quantity that the estimator needs."""


class PyroKeywords(TypedDict, total=False):
    """Further arguments of Pyro's ``ELBO``, with the same meaning."""

    strict_enumeration_warning: bool
    ignore_jit_warnings: bool
    jit_options: dict[str, object] | None
    retain_graph: bool | None
    tail_adaptive_beta: float
    max_iarange_nesting: int | None


class _ScaleMessenger(Messenger):
    """Multiply the log-density scale of every *latent* site by β (which may be 0), not that of observations.

    A ``pyro.factor`` in a guide belongs to log q and is scaled too.
    """

    def __init__(self, beta: float | Tensor, is_guide: bool) -> None:
        super().__init__()
        self.beta = beta
        self.is_guide = is_guide

    def _pyro_sample(self, msg: Site) -> None:
        if self.is_guide or not msg["is_observed"]:
            msg["scale"] = self.beta * msg["scale"]


class _ImmutableMeta(ABCMeta):
    """Metaclass of objects whose attributes can be set only in the constructor."""

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        made: Any = object.__new__(cls)  # type: ignore[arg-type]
        made.__dict__["_in_construction"] = True
        made.__init__(*args, **kwargs)
        del made.__dict__["_in_construction"]
        return made


class BetaELBO(Trace_ELBO, metaclass=_ImmutableMeta):
    """Trace_ELBO with β, the weight of the latent sites' terms.

    β belongs to the estimator. For some pairs Pyro ignores or miscounts a ``poutine.scale`` in the programs, and it
    refuses 0. An estimator is immutable; :meth:`with_beta` returns a new one.

    Args:
        num_particles: number of draws from the guide.
        max_plate_nesting: depth of the programs' own plates. It matters if the particles are drawn in one pass. By
            default it is found at each call.
        beta: weight of the KL part, ≥ 0; 1 gives the evidence lower bound.
        vectorize_particles: whether to draw them in one pass.
        **of_pyro: further arguments of Pyro's estimators, such as ``retain_graph``.

    Raises:
        AttributeError: an attribute is assigned after construction.
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        *,
        beta: float = 1.0,
        vectorize_particles: bool = False,
        **of_pyro: Unpack[PyroKeywords],
    ) -> None:
        check_positive("beta", beta, or_zero=True)
        check_integer("num_particles", num_particles)
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
            **of_pyro,
        )
        self.beta: float | Tensor = float(beta)
        self._notes: list[Note] | None = None  # a list in copies that record, see recording()

    def __setattr__(self, name: str, value: object) -> None:
        if "_in_construction" not in self.__dict__:
            raise AttributeError(
                f"cannot set {name} of {type(self).__name__}: an estimator is immutable; make a new one (for another "
                "beta: elbo.with_beta(b))"
            )
        super().__setattr__(name, value)

    def with_beta(self, beta: float | Tensor) -> Self:
        """The same estimator with another β, a finite number ≥ 0.

        A scalar tensor is allowed, for derivatives and traces; its value is not checked.
        """
        if not isinstance(beta, Tensor):
            check_positive("beta", beta, or_zero=True)
            beta = float(beta)
        elif beta.dim():
            raise InputError(f"beta must be a scalar, not a tensor of shape {tuple(beta.shape)}")
        return self._with(beta=beta)

    def recording(self) -> tuple[Self, list[Note]]:
        """A copy that records each site's part of the bound, and the list of its records."""
        notes: list[Note] = []
        return self._with(_notes=notes), notes

    def _with(self, **attributes: object) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **attributes)
        return other

    def _term(self, site: PairedSite, computation: Computation, value: Tensor, reason: Reason | None = None) -> Tensor:
        """Return a site's part of the bound; a recording estimator records it."""
        if self._notes is not None:
            self._notes.append(Note(site.name, computation, value.detach(), site.model, site.guide, reason))
        return value

    def _weigh(self, program: Program, is_guide: bool) -> Program:
        is_unweighted = isinstance(self.beta, float) and self.beta == 1
        return program if is_unweighted else _ScaleMessenger(self.beta, is_guide)(program)

    def _get_traces(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> Iterator[TracedPair]:
        """The traces of model and guide at each draw, or at all draws in one pass."""
        with naming_the_value(model, guide, args):
            if not self.vectorize_particles or self.num_particles == 1:
                for _ in range(self.num_particles):
                    yield self._get_trace(model, guide, args, kwargs)
            elif math.isinf(self.max_plate_nesting):
                yield self._at_the_nesting_found(model, guide, args, kwargs)
            else:
                yield self._get_vectorized_trace(model, guide, args, kwargs)

    def _get_vectorized_trace(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> TracedPair:
        num = len(args[0]) if args and isinstance(args[0], Tensor) and args[0].dim() else 0
        looks = is_validation_enabled() and not (takes_any_axes(model) and takes_any_axes(guide))
        with DrawsAsRows(self.num_particles, num) if looks else nullcontext():
            pair: TracedPair = super()._get_vectorized_trace(model, guide, args, kwargs)
            if looks:
                in_one_pass = self._vectorized_num_particles(model), self._vectorized_num_particles(guide)
                check_as_one_by_one(pair, (model, guide), in_one_pass, args, kwargs)
        return pair

    def _at_the_nesting_found(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> TracedPair:
        """All draws in one pass, in a plate outside of the programs' own; one draw first finds the nesting.

        Not for a guide that is a messenger around the model: its parameters take the shapes of its first run.
        """
        failure = None
        if not isinstance(poutine.unwrap(guide), Messenger):
            try:
                pair: TracedPair = self._with(max_plate_nesting=2)._get_vectorized_trace(model, guide, args, kwargs)
                if pair.depth <= 1:
                    return pair
            except FAILURES as error:
                failure = error
        with poutine.block():
            depth = self._get_trace(model, guide, args, kwargs).depth
        if failure is not None and depth <= 1:
            if isinstance(failure, InputError):
                raise failure
            raise InputError(
                f"the programs cannot take an axis of {self.num_particles} draws in front of the data's: "
                f"{reason_of(failure)}; give modules rows, pyrovae.nn.on_rows(module, z), or draw one by one with "
                "vectorize_particles=False"
            ) from failure
        deeper: TracedPair = self._with(max_plate_nesting=depth + 1)._get_vectorized_trace(model, guide, args, kwargs)
        return deeper

    def _traces(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> tuple[Trace, Trace]:
        """The model's and the guide's trace at one draw."""
        pair = self._weigh(model, is_guide=False), self._weigh(guide, is_guide=True)
        return raw_traces(*pair, *args, keywords=kwargs)

    def _get_trace(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> TracedPair:
        """The pair at one draw, checked."""
        with running_on(None), data_unchanged(args):  # Pyro adds the shapes of what ran before to an error
            traces = self._traces(model, guide, args, kwargs)
        pair = TracedPair.of(*traces)
        if is_validation_enabled():
            check_model_guide_match(*map(without_deterministic, traces), self.max_plate_nesting)
        pair.check()
        self._score(pair)
        if is_validation_enabled():
            for trace in pair:
                for site in trace.nodes.values():
                    if "log_prob" in site:
                        check_site_shape(site, math.inf)
        return pair

    @abstractmethod
    def _score(self, pair: TracedPair) -> None:
        """Refuse programs that the estimator cannot evaluate; compute the log-densities that it needs."""


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of tensors, in order; 0 if there are none."""
    terms = list(terms)
    return functools.reduce(operator.add, terms) if terms else zeros(())
