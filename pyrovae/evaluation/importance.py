"""Log p(x) and the ELBO by importance sampling: log-weights log p(x, z) − log q(z|x), in chunks."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.blocks import let_go
from pyrovae.elbo import ImportanceWeightedELBO
from pyrovae.errors import check_integer
from pyrovae.evaluation._density import Density, density_of
from pyrovae.evaluation._method import VALUES_AT_ONCE, Method, Problem
from pyrovae.evaluation._pareto import reliable_below, tail_of
from pyrovae.evaluation._weights import check_scales, log_weight_rows, takes_rows
from pyrovae.evaluation.estimate import Estimate, LogMarginal, UnreliableEstimateWarning, check_numbers, mean_and_stderr
from pyrovae.evaluation.per_datum import AnyGuide, rows_of
from pyrovae.frames import Data
from pyrovae.programs import Program, check_data, evaluating, running_on, trace_pair
from pyrovae.progress import progress_bar
from pyrovae.randomness import kept_random_state
from pyrovae.vae import GenerativeModel

_ROUGH = 0.01
"""Largest error in nats of log-weights that only say whether the guide is good."""


def over_log_weights(
    summarize: Callable[[Tensor], tuple[Tensor, ...]], problem: Problem, num_samples: int, *, rough: bool = False
) -> tuple[Tensor, ...]:
    """Summaries, each of shape (num,), of the log-weights log p(x, z) − log q(z|x) at draws from the guide.

    ``summarize`` receives the log-weights of some data at a time, shape (num_samples, …), in float64 on the CPU. If
    they may be ``rough``, p(x|z) of dense programs is computed in float32 where that changes none by more than 0.01.
    """
    x = problem.x
    data_at_once = problem.at_once(max(1, min(len(x), 1024, problem.rows_at_once, VALUES_AT_ONCE // num_samples)))
    draws_at_once = max(1, min(num_samples, problem.rows_at_once // data_at_once))

    def estimate(rows: slice) -> tuple[Tensor, ...]:
        draw = _log_weights_of(problem, rows, rough)
        passes = [min(draws_at_once, num_samples - done) for done in range(0, num_samples, draws_at_once)]
        return summarize(torch.cat([draw(num) for num in passes]))

    return in_chunks(estimate, x, data_at_once, problem.progress)


def _log_weights_of(problem: Problem, rows: slice, rough: bool) -> Callable[[int], Tensor]:
    """From a number of draws to their log weights for some data, see :func:`draw_log_weights`."""
    if not problem.is_dense:
        return lambda num: draw_log_weights(problem, rows_of(problem.guide, rows, problem.x), problem.x[rows], num)
    density = density_of(problem.model, problem.guide, problem.x, rows, problem.max_rows)
    log_joint = density.log_joint
    if rough and isinstance(problem.model, GenerativeModel):
        log_joint = _rough(problem.model, problem.x[rows], density)

    def draw(num: int) -> Tensor:
        z = density.draw(num)
        return (log_joint(z) - density.log_guide(z)).double().cpu()

    return draw


def _rough(model: GenerativeModel, x: Tensor, density: Density) -> Callable[[Tensor], Tensor]:
    """Log p(x, z) of a density with p(x|z) in float32, if a draw of each datum differs by no more than 0.01 nats."""
    prior, single, x = model.prior_distribution(), copy.deepcopy(model).float(), x.float()

    def log_joint(z: Tensor) -> Tensor:
        log_p: Tensor = prior.log_prob(z) + single.conditional(z.float()).log_prob(x)
        return log_p

    with kept_random_state(x):
        z = density.draw(1)
    return log_joint if (log_joint(z) - density.log_joint(z)).abs().max() <= _ROUGH else density.log_joint


def in_chunks(
    estimate: Callable[[slice], tuple[Tensor, ...]], x: Tensor, data_at_once: int, progress: bool
) -> tuple[Tensor, ...]:
    """Results for the data in chunks, joined: tensors of shape (num,)."""
    parts = []
    with progress_bar(total=len(x), unit="datum", show=progress) as bar:
        for start in range(0, len(x), data_at_once):
            rows = slice(start, min(start + data_at_once, len(x)))
            with running_on(x[rows]):
                parts.append(estimate(rows))
            let_go(x)
            bar.update(rows.stop - rows.start)
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def draw_log_weights(problem: Problem, guide: Program, x: Tensor, num: int) -> Tensor:
    """Log weights of ``num`` draws for each datum, shape (num, len(x)), in float64 on the CPU."""
    if isinstance(problem.model, GenerativeModel) and isinstance(guide, AnyGuide):
        return ImportanceWeightedELBO(num).log_weights(problem.model, guide, x).double().cpu()
    pair = trace_pair(problem.model, guide, x, check=True)
    check_scales(pair)
    plate = pair.data_plate(len(x))
    if takes_rows(problem.model, guide, x, plate):
        return log_weight_rows(problem.model, guide, x, num, plate)
    return torch.cat([log_weight_rows(problem.model, guide, x, 1, plate) for _ in range(num)])


def log_mean_weight(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log mean weight of each datum, its standard error, effective sample size, gain of doubling and k̂, each (num,).

    The standard error is √(relative variance/K), or that of the fitted tail of the weights if it is larger and k̂ is
    above ½. For a Gaussian sampled from a narrower one, ± 1.96 standard errors cover 80 to 95 % up to k̂ = 1; the
    variance alone covers 40 to 70 % from k̂ = 0.7 to 0.9.

    Args:
        log_w: log-weights, shape (K, num), in float64 on the CPU.
    """
    num = len(log_w)
    halves = [_log_sums(half) for half in log_w.tensor_split([(num + 1) // 2]) if len(half)]
    first, second = (torch.stack(each).logsumexp(0) for each in zip(*halves, strict=True))
    per_datum = first - math.log(num)
    effective = (2 * first - second).exp()
    if num == 1:
        unknown = torch.full_like(first, math.nan)
        return per_datum, unknown, effective, unknown, unknown
    relative_variance = (1 / effective - 1 / num).clamp_min(0) * num / (num - 1)
    by_half = halves[0][0] - math.log(num - num // 2) + halves[1][0] - math.log(num // 2)
    gain = per_datum - 0.5 * by_half
    tail = tail_of(log_w, first)
    return per_datum, torch.maximum(relative_variance.sqrt(), tail.error), effective, gain, tail.k


def _log_sums(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Log Σ w and log Σ w² of each column, by one exponential of each weight."""
    largest = log_w.amax(0)
    largest = torch.where(largest.isfinite(), largest, 0.0)
    w = (log_w - largest).exp()
    return w.sum(0).log() + largest, w.square().sum(0).log() + 2 * largest


@dataclass(frozen=True)
class Importance(Method):
    """The log-mean-exp of weights p(x, z)/q(z|x) at draws from the guide (Burda et al. 2016).

    It is a lower bound in expectation, and its error falls with ``num_samples``. If the guide is too narrow for this to
    work in practice, Pareto k̂ shows it, and there is a warning.
    """

    name: ClassVar[str] = "importance"
    num_samples: int = 1000
    """Draws of z per datum."""

    def __post_init__(self) -> None:
        check_integer("num_samples", self.num_samples)

    def estimate(self, problem: Problem) -> LogMarginal:
        """Estimate log p(x) of each datum."""
        per_datum, stderr, effective, gain, k = over_log_weights(log_mean_weight, problem, self.num_samples)
        found = LogMarginal(per_datum, stderr, self.num_samples, effective, gain, k)
        check_numbers(per_datum, problem.x)
        if found.mostly_unreliable:
            share = found.unreliable.double().mean().item()
            warnings.warn(
                f"the importance weights of {100 * share:.0f} % of the data have a Pareto k̂ above "
                f"{reliable_below(self.num_samples):.2f}: log p(x) may be far above this estimate; use more "
                "num_samples, a wider guide, or method='annealed'",
                UnreliableEstimateWarning,
                stacklevel=4,  # the caller of log_marginal, through its decorator
            )
        return found


@torch.no_grad()
def elbo_estimate(
    model: Program, guide: Program, x: Data, *, num_samples: int = 1000, seed: int = 0, max_plate_nesting: int = 1
) -> Estimate:
    """The ELBO of each datum as the mean of log p(x, z) − log q(z|x) over draws, in nats.

    Near the posterior these terms vary less than log p(x|z) with the KL in closed form; at the posterior they are
    constant. Small gaps need this. :func:`elbo_terms` gives the parts.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), of the programs' dtype and device.
        num_samples: draws of z per datum, at least 2.
        seed: seed of the draws; the caller's random state does not change.
        max_plate_nesting: of version 0.1; it has no effect, since plates are found.
    """
    check_integer("num_samples", num_samples, least=2)
    x = check_data(x, model, guide)
    with evaluating(model, guide, x, seed):
        problem = Problem.of(model, guide, x)
        problem.check_rows_apart()
        estimate = Estimate(*over_log_weights(mean_and_stderr, problem, num_samples))
    check_numbers(estimate.per_datum, x)
    return estimate
