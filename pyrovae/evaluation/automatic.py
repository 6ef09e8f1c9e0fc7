"""Log p(x) with as much work as a datum needs: weights of the guide, of a refined posterior, or annealing."""

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.blocks import is_mapped, take
from pyrovae.errors import InputError, check_integer
from pyrovae.evaluation._from_prior import AT_ONCE, Summaries, from_prior
from pyrovae.evaluation._gauss_newton import Mixture
from pyrovae.evaluation._method import Method, Problem
from pyrovae.evaluation._prior_of_programs import from_prior_of_program
from pyrovae.evaluation.annealing import Path, log_weights, rising_temperatures
from pyrovae.evaluation.estimate import LogMarginal, Step, UnreliableEstimateWarning
from pyrovae.evaluation.importance import Importance, in_chunks, log_mean_weight, over_log_weights
from pyrovae.evaluation.per_datum import rows_of
from pyrovae.evaluation.refine import NUM_DRAWS, NUM_STEPS, fit_each, target_for
from pyrovae.progress import progress_bar
from pyrovae.vae import GenerativeModel

_GOOD_K, _LARGEST_K = 0.5, 0.7
_GOOD_SHARE = 0.3
_LEAST_LOOKED = 200
_LARGEST_GAIN = 0.01
_LARGEST_MOVE = 0.5
_MORE = 4
_CHAINS = 16
_LEAPFROG = 5
_WIDER = 1.2
_ENOUGH, _LEAST_MISSED = 100, 0.05


@dataclass(frozen=True)
class Automatic(Method):
    """Does as much work as each datum needs, in three steps.

    1. ``guide``: importance weights at draws from the guide. They are used if half as many earlier draws had a k̂ of at
       most ½ and an effective number of at least 30 %. The draws that decide this are not used for the estimate, which
       would be too low.
    2. ``refined``: otherwise, the same from the datum's refined posterior (:func:`~pyrovae.refine`), slightly widened;
       with four times the draws if k̂ is above ½ or twice the draws would add more than 0.01 nats.
    3. ``annealed``: if k̂ is still above 0.7, 16 chains from the refined posterior through ``num_temperatures``
       densities, and through twice as many. The second value is returned. It is unreliable if the two differ by more
       than 0.5 nats.

    With up to 8 latents, draws from the prior check these values, since the prior misses no mode. A few hundred show
    whether that can work, and how many have an effective number of 1,000; 16,384 are drawn at most. If they find more,
    by 0.05 nats and three standard errors, the datum is unreliable, or takes their value (``prior``) if their effective
    number is at least 100. Their value also replaces annealing, and a value with k̂ above ½ or a larger error. A datum
    whose draws from the prior have a k̂ of at most ½ and an effective number of ``num_samples`` needs no second step. A
    datum is unreliable, too, if the search for modes does not end, as on a ring. Of more than 256 data under a program
    written by hand, the draws are as many as an effective number of 128 needs.

    Programs that only run on all of the data, with a plate or a mask of that size, use the guide's weights. No decision
    depends on time: the same call gives the same bits.
    """

    name: ClassVar[str] = "auto"
    num_samples: int = 1000
    """Draws of z per datum in the first two steps."""
    num_temperatures: int = 50
    """Steps of annealing at first; twice as many follow."""

    def __post_init__(self) -> None:
        check_integer("num_samples", self.num_samples)
        check_integer("num_temperatures", self.num_temperatures)

    def estimate(self, problem: Problem) -> LogMarginal:
        """Estimate log p(x) of each datum."""
        if not problem.takes_some:
            return Importance(self.num_samples).estimate(problem)
        if is_mapped(problem.x):
            return self._by_blocks(problem)
        num = len(problem.x)
        num_looked = max(_LEAST_LOOKED, self.num_samples // 2)
        looked = over_log_weights(log_mean_weight, problem, num_looked, rough=True)
        nothing = [torch.full_like(values, math.nan) for values in looked]
        prior = (from_prior if isinstance(problem.model, GenerativeModel) else from_prior_of_program)(problem)
        found = _Found(nothing, [Step.GUIDE] * num, prior, torch.ones(num, dtype=torch.bool))
        good = (looked[4] <= _GOOD_K) & (looked[2] >= _GOOD_SHARE * num_looked)
        if good.any():
            (rows,) = good.nonzero(as_tuple=True)
            found.put(rows, over_log_weights(log_mean_weight, _part(problem, rows), self.num_samples), Step.GUIDE)
            good &= ~((found.k > _LARGEST_K) | found.missed)
        sure = found.known & (found.prior[4] <= _GOOD_K) & (found.prior[2] >= self.num_samples)
        found.put(rows := (~good & sure).nonzero()[:, 0], tuple(values[rows] for values in found.prior), Step.PRIOR)
        good |= sure
        if not good.all():
            (rows,) = (~good).nonzero(as_tuple=True)
            part = _part(problem, rows)
            try:
                target_for(part, slice(0, len(rows)))
            except InputError:  # a latent of the programs is discrete: there is no q to refine
                found.put(rows, over_log_weights(log_mean_weight, part, _MORE * self.num_samples), Step.GUIDE)
            else:
                self._refine(part, rows, found)
        doubtful = found.k > _LARGEST_K
        doubtful[list(found.moved)] = ~(torch.tensor(list(found.moved.values())).abs() <= _LARGEST_MOVE)
        missed = found.missed
        surer = (found.k > _GOOD_K) | (found.prior[1] < found.values[1])
        (rows,) = (found.known & (missed | surer)).nonzero(as_tuple=True)
        found.put(rows, tuple(values[rows] for values in found.prior), Step.PRIOR)
        doubtful = torch.where(found.known, False, doubtful | missed | ~found.has_all)
        value, stderr, effective, gain, k = found.values
        marginal = LogMarginal(
            value, stderr, self.num_samples, effective, gain, k, steps=tuple(found.steps), doubtful=doubtful
        )
        if marginal.mostly_unreliable:
            warnings.warn(
                f"log p(x) of {100 * doubtful.double().mean().item():.0f} % of the data is unreliable: annealing "
                "with twice the temperatures changed it by more than 0.5 nats, or modes were missed; give more "
                "num_temperatures",
                UnreliableEstimateWarning,
                stacklevel=4,  # the caller of log_marginal, through its decorator
            )
        return marginal

    def _by_blocks(self, problem: Problem) -> LogMarginal:
        """The estimates of data that lie in a file, some at a time, which are then in memory."""
        parts: list[LogMarginal] = []
        alone = replace(problem, progress=False)
        with progress_bar(total=len(problem.x), unit="datum", show=problem.progress) as bar:
            for rows in torch.arange(len(problem.x)).split(AT_ONCE):
                parts.append(self.estimate(_part(alone, rows)))
                bar.update(len(rows))
        names = [name for name, value in vars(parts[0]).items() if isinstance(value, Tensor)]
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **joined, steps=tuple(step for part in parts for step in part.steps))

    def _refine(self, part: Problem, rows: Tensor, found: "_Found") -> None:
        """The second step for the problem of these rows, and the third where the second does not do."""
        q, found.has_all[rows] = proposals(part)
        found.put(rows, _weighted(part, q, self.num_samples), Step.REFINED)
        _, stderr, _, gain, k = (values[rows] for values in found.values)
        few = ~((k <= _GOOD_K) & (torch.maximum(gain, 0.5 * stderr.square()) <= _LARGEST_GAIN))
        if few.any():
            (chosen,) = few.nonzero(as_tuple=True)
            weighted = _weighted(_part(part, chosen), q.of(chosen.to(q.log_weights.device)), _MORE * self.num_samples)
            found.put(rows[chosen], weighted, Step.REFINED)
        (chosen,) = ((found.k > _LARGEST_K) & ~found.known)[rows].nonzero(as_tuple=True)
        if len(chosen):
            values = self._annealed(_part(part, chosen), q.of(chosen.to(q.log_weights.device)).scaled(_WIDER))
            found.put(rows[chosen], values, Step.ANNEALED)
            found.moved.update(zip(rows[chosen].tolist(), values[3].tolist(), strict=True))

    def _annealed(self, problem: Problem, q: Mixture) -> Summaries:
        """Summaries of chains through twice the temperatures; the gain is what doubling them added."""

        def anneal(rows: slice) -> tuple[Tensor, ...]:
            target, start = target_for(problem, rows), q.of(rows)
            values = []
            for num in (self.num_temperatures, 2 * self.num_temperatures):
                path = Path(
                    log_start=start.log_prob,
                    log_joint=target.log_joint,
                    draw=lambda chains: start.sample(chains)[0],
                    factor=start.parts[0].scale_tril,
                    temperatures=rising_temperatures(num).to(start.log_weights),
                )
                log_w, _ = log_weights(path, _CHAINS, _LEAPFROG, None)
                values.append(log_mean_weight(log_w.double().cpu()))
            moved = values[1][0] - values[0][0]
            value, stderr, effective, _, k = values[1]
            return value, torch.hypot(stderr, moved), effective, moved, k

        return in_chunks(anneal, problem.x, max(1, problem.rows_at_once // _CHAINS), problem.progress)


@dataclass
class _Found:
    """What is known of each datum so far: summaries of its weights, its step, the prior's, what annealing moved.

    And whether its proposal has all modes.
    """

    values: list[Tensor]
    steps: list[Step]
    prior: Summaries
    has_all: Tensor
    moved: dict[int, float] = field(default_factory=dict)

    @property
    def k(self) -> Tensor:
        """k̂ of the last weights."""
        return self.values[4]

    @property
    def known(self) -> Tensor:
        """Whether draws from the prior, which miss no mode, are enough by themselves."""
        return (self.prior[4] <= _LARGEST_K) & (self.prior[2] >= _ENOUGH)

    @property
    def missed(self) -> Tensor:
        """Whether draws from the prior found what the values lack, by more than three standard errors."""
        error = torch.hypot(self.values[1].nan_to_num(), self.prior[1])
        return self.prior[0] - self.values[0] > _LEAST_MISSED + 3 * error

    def put(self, rows: Tensor, values: Summaries, step: Step) -> None:
        """Replace what is known of some data."""
        for every, new in zip(self.values, values, strict=True):
            every[rows] = new
        for row in rows.tolist():
            self.steps[row] = step


def proposals(problem: Problem) -> tuple[Mixture, Tensor]:
    """What to draw z from for each datum, the refined q and the modes that it does not reach, a little wider.

    And whether it has all modes, shape (num,), as far as the search for them says.
    """
    loc, scale_tril, log_weights, has_all, *_ = fit_each(problem, NUM_STEPS, NUM_DRAWS)
    return Mixture.of_tensors(loc, scale_tril, log_weights).scaled(proposal_scale(loc.shape[-1])), has_all


def proposal_scale(latent_dim: int) -> float:
    """By how much a proposal is wider than the refined q, 1 + 0.35/√d: a q that is too narrow has a bad k̂.

    The draws of a Gaussian lose a fifth of their effective number, whatever d is.
    """
    return 1 + 0.35 / math.sqrt(latent_dim)


def _part(problem: Problem, rows: Tensor) -> Problem:
    """The problem of some of the data."""
    guide = rows_of(problem.guide, rows, problem.x)
    return replace(problem, x=take(problem.x, rows.to(problem.x.device)), guide=guide)


def _weighted(problem: Problem, q: Mixture, num_draws: int) -> Summaries:
    """Summaries of the importance weights at draws from q, some data and some draws at a time."""
    data_at_once = max(1, min(len(problem.x), 1024, problem.rows_at_once))
    draws_at_once = max(1, min(num_draws, problem.rows_at_once // data_at_once))

    def weigh(rows: slice) -> Summaries:
        target, part = target_for(problem, rows), q.of(rows)
        weights = []
        for done in range(0, num_draws, draws_at_once):
            z, log_q = part.sample(min(draws_at_once, num_draws - done))
            weights.append((target.log_joint(z) - log_q).double().cpu())
        return log_mean_weight(torch.cat(weights))

    return in_chunks(weigh, problem.x, data_at_once, problem.progress)
