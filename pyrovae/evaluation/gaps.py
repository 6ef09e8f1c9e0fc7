"""The three inference gaps: nats lost by the family, the encoder and new data (Cremer et al. 2018)."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from pyrovae.errors import InputError, InputTypeError, check_integer, named_parts
from pyrovae.evaluation._encoder_training import EncoderTraining, EncoderTrainingKeywords, FrozenModel, encoder_elbo
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.callables import Callables
from pyrovae.evaluation.estimate import Estimate, LogMarginal, UnreliableEstimateWarning
from pyrovae.evaluation.importance import elbo_estimate
from pyrovae.evaluation.marginal import log_marginal
from pyrovae.evaluation.per_datum import Family, PerDatumGuide, refit
from pyrovae.evaluation.refine import refine
from pyrovae.frames import Data
from pyrovae.keywords import accepts
from pyrovae.nn import class_of
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.programs import Program, check_data, evaluating
from pyrovae.progress import progress_bar
from pyrovae.randomness import seeded
from pyrovae.training import Trainer, TrainingSettings
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """Difference of the means of two samples, in nats per datum.

    Attributes:
        mean: mean of the first sample − mean of the second.
        stderr_data: its standard error due to the choice of the data.
        stderr_monte_carlo: its standard error due to the draws of z.
    """

    mean: float
    stderr_data: float
    stderr_monte_carlo: float


@dataclass(frozen=True)
class FamilyGaps:
    """The gaps of one family at a fixed decoder, in nats per datum. Errors can make a gap negative.

    Attributes:
        family: its name.
        best_elbo: max over the family of the ELBO, datum by datum.
        approximation: log p(x) − ``best_elbo``.
        steps: number of steps of the refit of q.
        refitted: the q of each datum with that ELBO.
        amortization: ``best_elbo`` − ELBO of the given guide; None for families other than that guide's.
        generalization: ELBO of that guide on the training data − on ``x``; None without training data. It includes the
            model's own loss on new data.
        amortization_train: ``amortization`` on as many training data as in ``x``: the encoder's loss where it was
            trained.
        amortization_new: ``amortization`` − ``amortization_train``: its additional loss on new data.
        amortization_refitted: ``amortization`` of an encoder trained again at the fixed decoder.
        generalization_refitted: ``generalization`` of that encoder.
    """

    family: str
    best_elbo: Estimate
    approximation: Estimate
    steps: int
    refitted: PerDatumGuide = field(repr=False, compare=False)
    amortization: Estimate | None = None
    generalization: Difference | None = None
    amortization_train: Estimate | None = None
    amortization_new: Difference | None = None
    amortization_refitted: Estimate | None = None
    generalization_refitted: Difference | None = None

    @property
    def gaps(self) -> dict[str, Estimate | Difference | None]:
        """The ELBO and each gap by name."""
        names = [found.name for found in fields(self) if found.name not in ("family", "steps", "refitted")]
        return {name: getattr(self, name) for name in names}

    @property
    def split(self) -> dict[str, Estimate | Difference]:
        """Log p(x) − ELBO of the given guide in three parts that add up to it, in nats per datum.

        Raises:
            InputError: the family is not the guide's, or there were no training data.
        """
        if self.amortization_train is None or self.amortization_new is None:
            raise InputError(f"the split is of the guide's own family, not of {self.family}, and needs train=")
        return {
            "family": self.approximation,
            "encoder on training data": self.amortization_train,
            "encoder on new data": self.amortization_new,
        }


@dataclass(frozen=True, repr=False)
class InferenceGaps:
    """Gaps of each family; index by the family's name.

    Attributes:
        log_p: log p(x), used for the approximation gaps.
        families: one entry per family.
    """

    log_p: LogMarginal
    families: tuple[FamilyGaps, ...]

    def __getitem__(self, family: str) -> FamilyGaps:
        """The entry of that name."""
        found = {entry.family: entry for entry in self.families}
        if family not in found:
            raise KeyError(f"no family {family!r}; there are {', '.join(found)}")
        return found[family]

    def to_frame(self) -> pd.DataFrame:
        """One row a family: each gap with its two standard errors, nats per datum."""
        import pandas as pd

        rows = []
        for entry in self.families:
            row: dict[str, object] = {"family": entry.family}
            for name, gap in entry.gaps.items():
                row[name] = math.nan if gap is None else gap.mean
                row[f"{name}_stderr_data"] = math.nan if gap is None else gap.stderr_data
                row[f"{name}_stderr_monte_carlo"] = math.nan if gap is None else gap.stderr_monte_carlo
            rows.append({**row, "steps": entry.steps})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        gaps = ", ".join(f"{entry.family} {entry.approximation.mean:.4g}" for entry in self.families)
        return f"InferenceGaps(approximation gap in nats: {gaps}; {self.log_p})"

    def __str__(self) -> str:
        import pandas as pd

        rows = {e.family: {n: _text(gap) for n, gap in e.gaps.items()} | {"steps": e.steps} for e in self.families}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("family")
        shown = table.loc[:, (table != "").any()]
        return f"{self.log_p}\nnats per datum ± one standard error (data and Monte Carlo)\n{shown.to_string()}"


@accepts(EncoderTraining)
def inference_gaps(
    model: Program,
    guide: Program,
    x: Data,
    families: Mapping[str, Family] | Sequence[Family] | None = None,
    *,
    train: Tensor | None = None,
    num_particles: int = 8,
    max_steps: int = 4000,
    num_samples: int = 1000,
    log_p: LogMarginal | None = None,
    progress: bool = False,
    **training: Unpack[EncoderTrainingKeywords],
) -> InferenceGaps:
    """Split log p(x) − ELBO(x) at a frozen decoder into the parts lost by the family and by the encoder.

    For each family, one q per datum is fitted with Adam and the sticking-the-landing estimator, starting near the
    refined posteriors (:func:`~pyrovae.refine`), until the ELBO no longer rises. Log p(x) is then estimated from the
    best of these q, unless it is given.

    Args:
        model: Pyro program of the joint density; its parameters do not change. For programs written by hand, the
            families are fitted in the guide's unconstrained coordinates, one site after the other.
        guide: its guide; its parameters do not change.
        x: data (num, n), held out from training.
        families: ``Posterior`` classes or other callables of (in_features, latent_dim), by name or alone; by default
            every Gaussian one.
        train: training data of the model and guide. They give the generalisation gap, and for each family an encoder
            trained at the frozen decoder, from a copy of the guide's. The row of the guide's own family, if it is among
            ``families``, then has its amortisation and generalisation gap and :attr:`FamilyGaps.split`: the losses of
            the family, of the encoder on training data and of the encoder on new data.
        num_particles: draws of z per datum and step of the fit.
        max_steps: most steps of the fit, before the steps whose parameters are averaged.
        num_samples: draws of z per datum for log p(x) and for each ELBO, at least 2.
        log_p: a better estimate of log p(x) of the same data, from :func:`~pyrovae.log_marginal`.
        progress: whether to show progress bars (on a terminal).
        **training: how to train the encoders, the fields of :class:`~pyrovae.TrainingSettings`, by default 20
            ``epochs`` with a ``batch_size`` of 64. ``seed`` is the seed of everything random here; the caller's random
            state does not change.

    Raises:
        InputError: data that the programs cannot take, or settings that cannot be run.
        InputTypeError: ``train`` with programs that are not ``GenerativeModel`` and ``AmortizedGuide``.
        NoClosedFormError: a family that is not reparameterised.
    """
    settings = EncoderTraining(**training)
    check_integer("num_particles", num_particles)
    check_integer("max_steps", max_steps)
    check_integer("num_samples", num_samples, least=2)
    x = check_data(x, model, guide)
    if log_p is not None and not isinstance(log_p, LogMarginal):
        raise InputTypeError(
            f"log_p must be what log_marginal gives, or LogMarginal.exact(values), not {type(log_p).__name__}"
        )
    if log_p is not None and len(log_p.per_datum) != len(x):
        raise InputError(f"log_p is of {len(log_p.per_datum)} data, x has {len(x)}")
    if train is not None:
        train = check_data(train, model, guide)
    if families is None:
        families = {name: family for name, family in POSTERIORS.items() if class_of(family).is_gaussian}
    named = named_parts("families", families)
    heads: dict[str, Posterior] = {}
    if isinstance(model, GenerativeModel) and isinstance(guide, AmortizedGuide):
        with torch.random.fork_rng(devices=[]):
            heads = {name: family(1, model.latent_dim) for name, family in named.items()}
        model = copy.deepcopy(model).double().eval().requires_grad_(False)
        guide = copy.deepcopy(guide).double().eval()
        x, train = x.double(), None if train is None else train.double()
    elif train is not None:
        raise InputTypeError("train= trains encoders, and needs a GenerativeModel and an AmortizedGuide")
    else:
        with torch.no_grad(), evaluating(model, guide, x, settings.seed):
            problem = Problem.of(model, guide, x)
            problem.check()
            problem.check_takes_some("inference_gaps")
        model, guide = Callables.of_pair(model, guide)
    assert hasattr(guide, "posterior")
    seeds = itertools.count(settings.seed + 1)  # every estimate has its own draws

    def elbo(q: Program, data: Tensor) -> Estimate:
        draws = max(2, num_samples * len(x) // max(len(x), len(data)))  # as many in all, for more training data
        return elbo_estimate(model, q, data, num_samples=draws, seed=next(seeds))

    @cache  # of a family under two names
    def fitted(data: Tensor, family: Family) -> tuple[PerDatumGuide, int]:
        start = (refined if data is x else refine(model, guide, data, seed=settings.seed)).posterior
        how = {"num_particles": num_particles, "max_steps": max_steps, "seed": settings.seed}
        return refit(model, guide, data, family, start=start, **how)

    amortized = elbo(guide, x)
    on_train = None if train is None else elbo(guide, train)
    refined = refine(model, guide, x, seed=settings.seed)
    refits: dict[str, tuple[PerDatumGuide, int, Estimate]] = {}
    for name, family in progress_bar(named.items(), unit="family", show=progress):
        q, steps = fitted(x, family)
        refits[name] = (q, steps, elbo(q, x))
    if log_p is None:
        tightest, *_ = max(refits.values(), key=lambda found: found[2].mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableEstimateWarning)
            log_p = log_marginal(model, tightest, x, num_samples=num_samples, seed=next(seeds))
        if log_p.mostly_unreliable:
            warnings.warn(
                f"log p(x) is unreliable for {100 * log_p.unreliable.double().mean():.0f} % of the data, so "
                "approximation gaps may be too small; give log_p=pyrovae.log_marginal(…) by 'quadrature' or 'annealed'",
                UnreliableEstimateWarning,
                stacklevel=3,  # the caller of inference_gaps, through its decorator
            )
    entries = []
    for name, (q, steps, best) in refits.items():
        entry = FamilyGaps(name, best, log_p - best, steps, q)
        if isinstance(guide, AmortizedGuide) and _same_family(heads[name], guide.posterior_head):
            generalization = None if on_train is None else _difference(on_train, amortized)
            entry = replace(entry, amortization=best - amortized, generalization=generalization)
            if train is not None:
                rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(settings.seed))[: len(x)]
                seen = train[rows.to(train.device)]
                own, _ = fitted(seen, named[name])
                how = {"num_samples": num_samples, "seed": settings.seed}
                lost = elbo_estimate(model, own, seen, **how) - elbo_estimate(model, guide, seen, **how)
                entry = replace(entry, amortization_train=lost, amortization_new=_difference(best - amortized, lost))
        if train is not None and isinstance(model, GenerativeModel) and isinstance(guide, AmortizedGuide):
            trained = _train_encoder(model, guide, named[name], train, settings, progress)
            on_x = elbo(trained, x)
            generalization = _difference(elbo(trained, train), on_x)
            entry = replace(entry, amortization_refitted=best - on_x, generalization_refitted=generalization)
        entries.append(entry)
    return InferenceGaps(log_p, tuple(entries))


def _train_encoder(
    model: GenerativeModel,
    guide: AmortizedGuide,
    family: Family,
    train: Tensor,
    settings: TrainingSettings,
    progress: bool,
) -> AmortizedGuide:
    """Train an encoder of that family at the frozen decoder, from a copy of the guide's encoder."""
    old = guide.posterior_head
    with seeded(settings.seed):
        head = family(old.in_features, model.latent_dim).to(next(old.parameters()))
    if _same_family(head, old):
        head.load_state_dict(old.state_dict())
    trained = AmortizedGuide(copy.deepcopy(guide.encoder), head)
    elbo = encoder_elbo(model, trained)
    Trainer([(FrozenModel(model), trained)], train, elbo, settings, progress=progress).run()
    return trained.eval()


def _same_family(head: Posterior, other: Posterior) -> bool:
    """Whether two heads are alike but for the width of their features."""
    first, second = ({**h.config(), "in_features": None} for h in (head, other))
    return type(head) is type(other) and first == second


def _text(gap: Estimate | Difference | None) -> str:
    return "" if gap is None else f"{gap.mean:.4f} ± {math.hypot(gap.stderr_data, gap.stderr_monte_carlo):.2g}"


def _difference(first: Estimate, second: Estimate) -> Difference:
    return Difference(
        first.mean - second.mean,
        math.hypot(first.stderr_data, second.stderr_data),
        math.hypot(first.stderr_monte_carlo, second.stderr_monte_carlo),
    )
