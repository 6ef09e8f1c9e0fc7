"""Log p(x) of programs written by hand by draws from their prior, which misses no mode."""

import math
from contextlib import suppress

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.evaluation._from_prior import LOOK, MOST_DIM, WANTED, Summaries, promising
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation._weights import repeated, takes_rows
from pyrovae.evaluation.importance import log_mean_weight
from pyrovae.programs import FAILURES, Role, TracedPair, log_prob_of, trace_pair

_FEW = 256
"""Data that have as good a check as a generative model's. Each of more data costs as much as it needs to be one."""
_WANTED_OF_MANY = 128


def from_prior_of_program(problem: Problem) -> Summaries:
    """Summaries of p(x|z) at draws from the model, of each datum its own; NaN where a few draws show no use.

    The model draws its latents itself; so it must take draws as rows, and there are at most eight latent numbers.
    """
    num = len(problem.x)
    found = tuple(torch.full((num,), math.nan, dtype=torch.float64) for _ in range(5))
    with suppress(*FAILURES):  # a prior without draws, or a likelihood that fails far from the posterior
        if _has_few_latents(problem):
            _look(problem, found)
    return found


def _has_few_latents(problem: Problem) -> bool:
    guide, x = problem.looked_at(64)
    if isinstance(poutine.unwrap(guide), Messenger):
        return False
    pair = trace_pair(problem.model, guide, x)
    if pair.of_role(Role.FACTOR):  # a factor of the guide belongs to what is estimated
        return False
    size = sum(site.site["value"].numel() for site in pair.of_role(Role.LATENT))
    return 0 < size <= MOST_DIM * len(x) and takes_rows(problem.model, guide, x, pair.data_plate(len(x)))


def _look(problem: Problem, found: Summaries) -> None:
    """Put the summaries of the data of which draws from the prior are some use into their places."""
    num = len(problem.x)
    looked = torch.cat([_summaries(problem, rows, LOOK)[2] for rows in _parts(problem, torch.arange(num), LOOK)])
    for num_draws, chosen in promising(looked, WANTED if num <= _FEW else _WANTED_OF_MANY):
        for rows in _parts(problem, chosen, num_draws):
            for every, some in zip(found, _summaries(problem, rows, num_draws), strict=True):
                every[rows] = some


def _parts(problem: Problem, rows: Tensor, num_draws: int) -> tuple[Tensor, ...]:
    """As many data as go through the model at once with all of their draws, one at least."""
    parts: tuple[Tensor, ...] = rows.split(max(1, problem.rows_at_once // num_draws))
    return parts


def _summaries(problem: Problem, rows: Tensor, num_draws: int) -> Summaries:
    """Summaries of log p(x|z) of some data at draws from the prior."""
    x, weights = problem.x[rows.to(problem.x.device)], []
    for start in range(0, num_draws, at_once := max(1, problem.rows_at_once // len(rows))):
        repeats = min(at_once, num_draws - start)
        pair = TracedPair.of(poutine.trace(problem.model).get_trace(repeated(x, repeats)), Trace())
        plate = pair.data_plate(repeats * len(x))
        terms = (pair.per_datum(site, log_prob_of(site.site), plate) for site in pair.of_role(Role.OBSERVED))
        weights.append(sum(terms, torch.zeros(repeats * len(x), dtype=torch.float64)).reshape(repeats, len(x)))
    return log_mean_weight(torch.cat(weights).nan_to_num(nan=-math.inf))
